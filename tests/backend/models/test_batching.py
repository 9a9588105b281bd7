"""Generations that share passes: each as if it ran alone, whatever the others do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from neuroscope import events
from neuroscope.engines.decoding import Decoding
from neuroscope.engines.protocol import Array, Edit, EditScope, GenerationSettings, Phase, Step, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.engines.torch.packing import mixes_positions
from neuroscope.errors import CancelledError, HookError, NonFiniteActivationError, SiteError
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models import batching
from neuroscope.models.batching import GenerationBatch
from neuroscope.models.model import TransformerModel
from tests import tiny

#: Largest difference of a number from the same generation alone, in parts of the largest: products of several rows round differently.
CLOSE = 1e-5

SITES = [
    Site(None, Component.EMBEDDING),
    Site(None, Component.LOGITS),
    *(
        Site(1, kind)
        for kind in (Component.QUERY, Component.HEAD_OUTPUT, Component.ATTENTION_SCORES, Component.ATTENTION_PATTERN)
    ),
    *(Site(2, kind) for kind in (Component.RESIDUAL_PRE, Component.MLP, Component.MLP_OUTPUT, Component.RESIDUAL)),
]
WIDTH = 11


def prompt(length: int) -> TokenBatch:
    return TokenBatch.of([np.random.default_rng(length).integers(3, 90, length).tolist()])


def scaled(site: Site, by: float) -> Edit:
    return Edit(site, lambda value, _: value * by)


def close(a: Array, b: Array) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= CLOSE * max(1.0, float(b.abs().max()))


def all_of(decoding: Decoding) -> list[Step]:
    return [decoding.take() for _ in range(len(decoding.found))]


@pytest.fixture(scope="module")
def model() -> TransformerModel:
    found = tiny.model("llama")
    found.engine.end_tokens = ()
    found.tokenizer.eos_token = None
    return found


def another(model: TransformerModel, *hooks: ActivationHook) -> TransformerModel:
    """The same weights with hooks of its own."""
    made = TransformerModel(model.engine, model.tokenizer, model.name, model.loaded_hash)
    for hook in hooks:
        made.hook_manager.add_hook(hook)
    return made


def rows(model: TransformerModel) -> int:
    return len(GenerationBatch.of(model.engine))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_shared_pass_gives_what_each_generation_has_alone(architecture: str) -> None:
    """Prompts of different lengths, longer than the windows; joining and leaving; greedy and sampled; edits and captures of their own."""
    engine = tiny.engine(architecture)
    lengths, news = (3, 9, 1, 14), (12, 7, 12, 9)
    sites = [*SITES, Site(1, Component.ROUTER)] if architecture == "gpt_oss" else SITES
    asked = [
        (
            prompt(length),
            GenerationSettings(max_tokens=new, seed=at, temperature=0 if at % 2 else 1.0, top_p=0.9),
            {"capture": sites if at < 2 else (), "edits": [scaled(SITES[at + 1], 1.5)] if at else []},
        )
        for at, (length, new) in enumerate(zip(lengths, news, strict=True))
    ]
    alone = [list(engine.generate(batch, settings, **how)) for batch, settings, how in asked]
    begun = [engine.decoding(batch, settings, **how) for batch, settings, how in asked]
    before, passes = engine.block_calls, 0
    while not all(one.ended for one in begun):
        engine.advance([one for one in begun[: 2 if passes < 3 else 4] if not one.ended])
        passes += 1
    assert engine.block_calls - before == passes * tiny.LAYERS == 15 * tiny.LAYERS
    for one, expected in zip(begun, alone, strict=True):
        found = all_of(one)
        assert [step.tokens.tolist() for step in found] == [step.tokens.tolist() for step in expected]
        for step, single in zip(found, expected, strict=True):
            assert close(step.logits, single.logits)
            assert step.activations.keys() == single.activations.keys()
            assert all(close(step.activations[site], single.activations[site]) for site in single.activations)


def test_in_half_precision_a_shared_pass_rounds_within_what_it_stores() -> None:
    engine = TorchEngine(tiny.hf_model("llama").to(torch.bfloat16))
    settings = GenerationSettings(max_tokens=1)
    batches = [prompt(length) for length in (3, 8)]
    begun = [engine.decoding(batch, settings) for batch in batches]
    engine.advance(begun)
    for one, batch in zip(begun, batches, strict=True):
        (alone,) = engine.generate(batch, settings)
        assert torch.allclose(one.take().logits.float(), alone.logits.float(), rtol=0.05, atol=0.1)


def test_an_edit_sees_its_own_generation_and_nothing_else(model: TransformerModel) -> None:
    seen: list[tuple[Any, ...]] = []

    def look(value: Array, scope: EditScope) -> Array:
        assert scope.tokens is not None
        seen.append((tuple(value.shape), scope.batch.ids.tolist(), scope.first_position, scope.phase, scope.tokens.shape))
        return value

    engine, settings = model.engine, GenerationSettings(max_tokens=2)
    begun = [engine.decoding(prompt(length), settings, edits=[Edit(Site(1, Component.RESIDUAL), look)]) for length in (4, 2)]
    engine.advance(begun)
    engine.advance(begun)
    ids = [prompt(length).ids.tolist() for length in (4, 2)]
    assert seen == [
        ((1, 4, 32), ids[0], 0, Phase.PREFILL, (1, 4)),
        ((1, 2, 32), ids[1], 0, Phase.PREFILL, (1, 2)),
        ((1, 1, 32), ids[0], 4, Phase.DECODE, (1, 1)),
        ((1, 1, 32), ids[1], 2, Phase.DECODE, (1, 1)),
    ]


def failing(value: Array, _: EditScope) -> Array:
    raise HookError("No.")


@pytest.mark.parametrize(
    ("ruin", "error"),
    [
        (lambda value, _: value * float("nan"), NonFiniteActivationError),
        (lambda value, _: value[:, :, :1], SiteError),
        (failing, HookError),
    ],
    ids=["nan", "shape", "error"],
)
@pytest.mark.parametrize("architecture", ["llama", "gpt_oss"])
def test_what_ruins_one_generation_leaves_the_others(architecture: str, ruin: Any, error: type[Exception]) -> None:
    """Not a bit changes in a dense model; experts round by how many tokens they get."""
    engine = tiny.engine(architecture)
    settings = GenerationSettings(max_tokens=4)

    def together(apply: Any) -> list[Decoding]:
        edits = [Edit(Site(0, Component.RESIDUAL), apply)]
        begun = [engine.decoding(prompt(5), settings, edits=edits), *(engine.decoding(prompt(n), settings) for n in (3, 7))]
        engine.advance(begun)
        for _ in range(3):
            engine.advance([one for one in begun if not one.ended])
        return begun

    well, ruined = together(lambda value, _: value), together(ruin)
    with pytest.raises(error):
        ruined[0].take()
    for a, b in zip(well[1:], ruined[1:], strict=True):
        first, second = all_of(a)[0], all_of(b)
        same = torch.equal if architecture == "llama" else close
        assert same(first.logits, second[0].logits)
        assert len(second) == 4


def test_tokens_that_are_none_fail_alone(model: TransformerModel) -> None:
    settings = GenerationSettings(max_tokens=1)
    wrong, right = (model.engine.decoding(batch, settings) for batch in (TokenBatch.of([[5, 5000]]), prompt(3)))
    model.engine.advance([wrong, right])
    with pytest.raises(Exception, match="5000"):
        wrong.take()
    assert right.take().index == 0


def test_a_pass_that_was_stopped_in_the_middle_can_run_again(model: TransformerModel) -> None:
    class Stopped(BaseException):
        pass

    engine, settings, armed = model.engine, GenerationSettings(max_tokens=5), [0]

    def stop(value: Array, _: EditScope) -> Array:
        armed[0] += 1
        if armed[0] in (1, 4):  # in the prompt's pass, and in a later one
            raise Stopped
        return value

    expected = list(engine.generate(prompt(4), settings))
    begun = [
        engine.decoding(prompt(4), settings),
        engine.decoding(prompt(6), settings, edits=[Edit(Site(1, Component.RESIDUAL), stop)]),
    ]
    for number in range(7):
        if number in (0, 3):
            with pytest.raises(Stopped):
                engine.advance(begun)
        else:
            engine.advance(begun)
    found = all_of(begun[0])
    assert len(found) == len(expected)
    assert all(close(a.logits, b.logits) for a, b in zip(found, expected, strict=True))


# --- the batch of a model ------------------------------------------------------------------------------------------------


def settings_of(number: int, new: int = WIDTH) -> GenerationSettings:
    return GenerationSettings(max_tokens=new, seed=number, temperature=0.0 if number % 2 else 1.5)


def hooked(model: TransformerModel, number: int) -> TransformerModel:
    return another(model, ActivationHook(number % 3, "residual", lambda activations: activations * (1 + 0.1 * number)))


def written(model: TransformerModel, number: int, **how: Any) -> Iterator[Any]:
    words = " ".join(f"w{5 + word}" for word in range(1 + number))
    return hooked(model, number).written(words, settings_of(number), **how)


@pytest.fixture(scope="module")
def expected(model: TransformerModel) -> list[list[int]]:
    return [[piece.id for piece in written(model, number)] for number in range(8)]


def test_eight_streams_take_as_many_passes_as_one(model: TransformerModel, expected: list[list[int]]) -> None:
    streams = [written(model, number, ahead=True) for number in range(8)]
    assert rows(model) == 8
    before = model.engine.block_calls
    found = [[next(stream).id for stream in streams] for _ in range(WIDTH)]
    assert model.engine.block_calls - before == WIDTH * tiny.LAYERS
    assert np.array(found).T.tolist() == expected
    assert [list(stream) for stream in streams] == [[]] * 8
    assert rows(model) == 0


def test_eight_threads_share_passes(model: TransformerModel, expected: list[list[int]]) -> None:
    found: dict[int, list[int]] = {}
    ready = threading.Barrier(8)

    def work(number: int) -> None:
        ready.wait(20)
        found[number] = [piece.id for piece in written(model, number)]

    before = model.engine.block_calls
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[number] for number in range(8)] == expected
    assert (model.engine.block_calls - before) // tiny.LAYERS < 6 * WIDTH  # 11 where all are in step, 88 one by one


def test_some_join_and_some_leave_while_the_others_go_on(model: TransformerModel, expected: list[list[int]]) -> None:
    first, second = written(model, 0, ahead=True), written(model, 1, ahead=True)
    start = [(next(first).id, next(second).id) for _ in range(3)]
    third = written(model, 2, ahead=True)
    middle = [(next(first).id, next(second).id, next(third).id) for _ in range(2)]
    second.close()  # type: ignore[attr-defined]
    assert rows(model) == 2
    rest = [[piece.id for piece in stream] for stream in (first, third)]
    assert [a for a, *_ in (*start, *middle)] + rest[0] == expected[0]
    assert [b for _, b, *_ in (*start, *middle)] == expected[1][:5]
    assert [c for *_, c in middle] + rest[1] == expected[2]


def test_a_slow_reader_gets_one_token_ahead_and_no_more(model: TransformerModel, expected: list[list[int]]) -> None:
    slow, quick = hooked(model, 0), written(model, 1, ahead=True)
    ran = []
    slow.hook_manager.add_hook(ActivationHook(0, "mlp", lambda activations: (ran.append(1), activations)[1], name="counts"))
    stream = slow.written("w5", settings_of(0), ahead=True)
    assert [piece.id for piece in quick] == expected[1]
    assert len(ran) == 1
    assert [piece.id for piece in stream] == expected[0]


def test_a_cancelled_row_leaves_at_once(model: TransformerModel, expected: list[list[int]]) -> None:
    gone = threading.Event()
    with events.cancellable(gone.is_set):
        leaving = written(model, 0, ahead=True)
    ran = GenerationBatch.of(model.engine)._rows[0].decoding
    staying = written(model, 1, ahead=True)
    next(leaving)
    gone.set()
    before = model.engine.block_calls
    assert [piece.id for piece in staying] == expected[1]
    assert model.engine.block_calls - before == WIDTH * tiny.LAYERS - tiny.LAYERS  # its first token came with the other's
    assert ran.index == 1
    with pytest.raises(CancelledError):
        list(leaving)
    assert rows(model) == 0


def test_a_waiting_thread_is_cancelled_while_another_holds_the_model(model: TransformerModel) -> None:
    gone, found = threading.Event(), []

    def work() -> None:
        with events.cancellable(gone.is_set), pytest.raises(CancelledError):
            list(written(model, 1))
        found.append("cancelled")

    with model.engine.exclusive():
        leader = threading.Thread(target=lambda: found.append(len(list(written(model, 0)))))
        leader.start()
        while GenerationBatch.of(model.engine).leader is None:
            pass
        waiting = threading.Thread(target=work)
        waiting.start()
        while rows(model) < 2:
            pass
        gone.set()
        waiting.join(10)
        assert found == ["cancelled"]
    leader.join(30)
    assert found == ["cancelled", WIDTH]


def test_each_row_has_its_own_stop_text(model: TransformerModel) -> None:
    free = "".join(piece.text for piece in another(model).written("w5 w6", settings_of(1)))
    stop = free.split()[4]
    stopped = GenerationSettings(max_tokens=WIDTH, seed=1, stop=(stop,))
    streams = [another(model).written("w5 w6", settings, ahead=True) for settings in (stopped, settings_of(1))]
    texts = ["", ""]
    for _ in range(WIDTH):
        for at, stream in enumerate(streams):
            texts[at] += next(stream, SimpleNamespace(text="")).text
    assert texts == [free[: free.index(stop)], free]


def test_an_error_of_one_rows_hook_is_its_own(model: TransformerModel, expected: list[list[int]]) -> None:
    def third(activations: Any, token: int) -> Any:
        if token == 3:
            raise ValueError("enough")
        return activations

    broken = another(model, ActivationHook(1, "residual", third)).written("w5", settings_of(0), ahead=True)
    other = written(model, 1, ahead=True)
    found = []
    with pytest.raises(HookError, match="enough"):
        for _ in range(WIDTH):
            found.append(next(other).id)
            next(broken)
    assert len(found) == 4
    assert found + [piece.id for piece in other] == expected[1]


def test_a_hook_that_generates_does_so_alone(model: TransformerModel, expected: list[list[int]]) -> None:
    inner: list[list[int]] = []

    def generates(activations: Any) -> Any:
        if not inner:
            inner.append([])
            inner[0] += [piece.id for piece in written(model, 2)]
        return activations

    outer = another(model, ActivationHook(0, "residual", generates)).written("w5", settings_of(0), ahead=True)
    other = written(model, 1, ahead=True)
    next(outer)
    assert inner == [expected[2]]
    assert [piece.id for piece in other] == expected[1]
    outer.close()


def test_who_holds_the_model_generates_without_the_others(model: TransformerModel, expected: list[list[int]]) -> None:
    other = written(model, 1, ahead=True)
    next(other)
    ran = GenerationBatch.of(model.engine)._rows[0].decoding
    weight = model.weights("1.mlp.W_out")
    kept = weight.read()
    with model.engine.exclusive():
        weight.write(kept * 0)
        alone = [piece.id for piece in written(model, 2)]
        weight.write(kept)
    assert alone != expected[2]
    assert ran.index == 1
    assert [piece.id for piece in other] == expected[1][1:]


def test_blocks_of_scripts_and_those_who_want_the_same_bits_run_alone(
    model: TransformerModel, expected: list[list[int]]
) -> None:
    class Block:
        num_args = 1

        def __call__(self, activations: Any) -> Any:
            threads.append(threading.current_thread())
            assert rows(model) == 1  # the other one
            return activations

    threads: list[threading.Thread] = []
    other = written(model, 1, ahead=True)
    list(another(model, ActivationHook(0, "residual", Block())).written("w5", settings_of(1), ahead=True))
    assert set(threads) == {threading.current_thread()}
    with batching.alone(), closing(written(model, 0, ahead=True)) as stream:  # type: ignore[type-var]
        assert rows(model) == 1
        assert [piece.id for piece in stream] == expected[0]
    other.close()  # type: ignore[attr-defined]
    assert [mixes_positions(SimpleNamespace(rope_type=kind)) for kind in ("longrope", {"full": "dynamic"}, "yarn")] == [
        True,
        True,
        False,
    ]
    assert not mixes_positions(None)


def test_a_full_pass_takes_those_first_that_wait_longest(model: TransformerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "ROWS", 2)
    streams = [written(model, number, ahead=True) for number in range(5)]
    ran = [row.decoding for row in GenerationBatch.of(model.engine)._rows]
    spread = []
    for _ in range(6):
        for stream in streams:
            next(stream)
            spread.append(max(one.index for one in ran) - min(one.index for one in ran))
    assert max(spread) <= 2
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]


def test_long_prompts_join_one_after_another(model: TransformerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "PROMPTS", 6)
    engine = model.engine
    streams = [model.written(prompt(length), settings_of(1), ahead=True) for length in (4, 5, 2, 9)]
    ran = [row.decoding for row in GenerationBatch.of(engine)._rows]
    next(streams[0])
    assert [one.index for one in ran] == [1, 0, 1, 0]
    next(streams[1])
    assert [one.index for one in ran] == [2, 1, 1, 0]
    next(streams[3])
    assert ran[3].index == 1
    for stream in streams:
        stream.close()


def test_a_sweep_lets_generations_in_between_its_chunks(model: TransformerModel) -> None:
    ended, chunks = threading.Event(), 0

    def sweep() -> None:
        nonlocal chunks
        while not ended.is_set():
            with model.engine.exclusive():  # as a run does
                time.sleep(0.005)
            chunks += 1

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        while chunks < 2:
            time.sleep(0.001)
        before = chunks
        assert len(list(written(model, 0))) == WIDTH
        assert chunks - before < 4 * WIDTH  # about one for each token
    finally:
        ended.set()
        thread.join(10)


def test_a_hook_runs_in_the_context_of_who_asked(model: TransformerModel) -> None:
    """Whoever computes: its notices reach its own listeners."""

    def notices(number: int) -> TransformerModel:
        return another(model, ActivationHook(0, "residual", lambda activations: (events.notice(str(number)), activations)[1]))

    heard: dict[int, list[Any]] = {0: [], 1: []}
    streams = []
    for number, listener in heard.items():
        with events.listen(listener.append):
            streams.append(notices(number).written("w5 w6", settings_of(1), ahead=True))
    with events.quietly():
        for stream in streams:
            next(stream)
            stream.close()
    assert [event.message for event in heard[1]] == ["1"]
    assert heard[0] == []  # it computed, and so was in the context of who asks now
