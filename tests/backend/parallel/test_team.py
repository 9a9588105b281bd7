"""Shared work: the bits do not depend on who does it, a dead worker loses nothing, and what cannot be shared says why."""

from __future__ import annotations

import importlib.util
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroscope import events
from neuroscope.circuits import journal, sweeps
from neuroscope.circuits.discovery import journaled_node_effects, journaled_scores
from neuroscope.circuits.evaluation import Removal
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.journal import Journal
from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.editing.edit import WeightEdit
from neuroscope.errors import ArgumentError, CancelledError, MissingExtraError, WorkerLostError
from neuroscope.features.ablated import AblatedRuns
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope.parallel.executors import LocalWorkers, RayWorkers, executor, working
from neuroscope.parallel.team import Team
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.evaluate import answered
from neuroscope.validation import risk
from neuroscope.validation.measuring import _ask
from neuroscope.validation.risk import ModificationSafetyAnalyzer, _Battery
from neuroscope.validation.suites import Replies, Texts
from tests import tiny
from tests.backend.circuits.pairs import random_pairs

PAIRS = random_pairs(10, length=8)
ITEMS = [Example(f"w{at} w6 w{at + 3} w8", answer=f" w{at + 1}", wrong=f" w{at + 2}") for at in range(10, 22)]
OWN = [(f"w{at} w5 w{at + 7} w8 w9", f"w{at} w6 w{at + 9} w8 w9", f" w{at + 1}", f" w{at + 2}") for at in range(10, 50)]
SETS = [[number, number + 7] for number in range(20)]


@pytest.fixture(scope="module")
def model() -> TransformerModel:
    return TransformerModel.from_hugging_face(str(tiny.saved("gpt2")), engine="torch")


@pytest.fixture(scope="module")
def one() -> Iterator[LocalWorkers]:
    with LocalWorkers(1) as workers:
        yield workers


@pytest.fixture(scope="module")
def two() -> Iterator[LocalWorkers]:
    with LocalWorkers(2) as workers:
        yield workers


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEUROSCOPE_CACHE", str(tmp_path))


def everything(model: TransformerModel, executor: Any) -> dict[str, np.ndarray]:
    """What sweeps, discovery, ablations, attribution, circuits, own prompts, tasks and validation measure."""
    team = Team.of(model, executor)
    finder = CircuitFinder(model, executor=executor)
    effects, p_values = journaled_node_effects(finder, PAIRS, Journal("nodes", {}), team)
    with events.progress("ablating") as job:
        ablated = AblatedRuns(model, 1, ITEMS).scores("resample", SETS, job, team)
    return {
        "residual map": np.array(ActivationPatcher(model, executor=executor).residual_map(PAIRS).values),
        "scores": journaled_scores(finder, PAIRS, Journal("scores", {}), team),
        "effects": effects,
        "p-values": p_values,
        "ablated": ablated,
        **circuits(model, executor),
        **own_prompts(model, executor),
        **asked(model, executor),
    }


def circuits(model: TransformerModel, executor: Any) -> dict[str, np.ndarray]:
    """Scores by every kind of method, and circuits measured on a part of the pairs at a time."""
    finder, graph = CircuitFinder(model, executor=executor, method="hybrid", steps=2), Graph.of(model.architecture)
    random = np.random.default_rng(0)
    masks = [graph.valid & (random.random(graph.valid.shape) < share) for share in (0.2, 0.5, 0.8, 0.9)]
    evaluation = finder.evaluation(PAIRS)
    receivers, sources = np.nonzero(masks[1])
    edges = [Removal(int(receivers[at]), int(sources[at])) for at in range(0, 120, 6)]
    return {
        "hybrid": finder._scores(PAIRS),
        "circuits": evaluation.metrics(masks),
        "without": evaluation.without([[1], [2, 5], [3], [4, 7, 9]]),
        "removals": evaluation.removals(masks[1], edges),
    }


def own_prompts(model: TransformerModel, executor: Any) -> dict[str, np.ndarray]:
    patcher = ActivationPatcher(model, seed=3, executor=executor)
    found = {}
    for kind in ("pair", "resample", "mean", "zero"):
        found[f"patched by {kind}"] = patcher.patch(OWN, "heads@*" if kind == "pair" else "heads", replacement=kind)
    found["attributed"] = patcher.patch(OWN, "heads@*", method="attribution", direction="noising")
    found["paths"] = patcher.patch_paths(OWN, "heads", ["logits", "2.query[1]"])
    return {name: np.array([site.metric for site in result.sites]) for name, result in found.items()}


def asked(model: TransformerModel, executor: Any) -> dict[str, np.ndarray]:
    answers = answered(model, ITEMS * 3, registry.get("subtraction"), executor)
    texts = tuple((f"w{at} w{at + 1} w{at * 2 % 90 + 3}", "g") for at in range(3, 40))
    losses = _ask(Texts("texts", texts), [model], executor)[0].items
    replies = _ask(Replies("requests", "refusals", (*ITEMS, *ITEMS)), [model], executor)[0].items
    edit = WeightEdit.planned(model, {"1.mlp.W_out[3]": np.full(32, 0.5)}, title="one", method="test", tied=True)
    null = ModificationSafetyAnalyzer(model, seed=1, null=6, executor=executor)._null(_Battery(model, [risk.BEHAVIOR], 1), edit)
    return {
        "shares": np.array([one.share for one in answers]),
        "losses": np.array([item.score for item in losses]),
        "replies": np.array([zlib.crc32((item.reply or "").encode()) for item in replies]),
        "random edits": np.array([[one.perplexity, one.high_percentile or 0.0] for one in null]),
    }


def test_one_worker_and_two_give_the_same_bits(model: TransformerModel, one: LocalWorkers, two: LocalWorkers) -> None:
    alone, single, shared = everything(model, None), everything(model, one), everything(model, two)
    for name, expected in single.items():
        assert np.array_equal(expected, shared[name]), name
        np.testing.assert_allclose(expected, alone[name], rtol=1e-4, atol=1e-5, err_msg=name)
        assert len(np.unique(expected)) > 5, name


def test_the_contexts_executor_shares_work_and_threads_use_the_model_itself(model: TransformerModel) -> None:
    heard: list[events.Event] = []
    before = model.engine.block_calls
    with ThreadPoolExecutor(2) as threads, working(threads), events.listen(heard.append):
        shared = ActivationPatcher(model).residual_map(PAIRS).values
    assert model.engine.block_calls > before
    np.testing.assert_allclose(shared, ActivationPatcher(model).residual_map(PAIRS).values, atol=1e-5)
    told = [event for event in heard if isinstance(event, events.Progress) and event.job == "mapping the residual stream"]
    assert told[-1].done == told[-1].total > 0


def _hash(model: TransformerModel) -> str:
    return model.weights_hash


def test_weights_written_since_loading_are_the_workers_too(model: TransformerModel, one: LocalWorkers) -> None:
    team, view = Team(model, one), model.weights("1.mlp.W_out[3]")
    loaded, kept = model.weights_hash, view.snapshot()
    view.write(view.read() * 2)
    assert team.map(_hash, [()], name="hashing", unit="models", sizes=[1]) == [model.weights_hash] != [loaded]
    view.restore(kept)
    assert team.map(_hash, [()], name="hashing", unit="models", sizes=[1]) == [loaded]


def _dies_once(model: TransformerModel, number: int, trace: str) -> int:
    if number == 1 and not Path(trace).exists():
        Path(trace).touch()
        os._exit(1)
    return number * model.architecture.layers


def _dies(model: TransformerModel) -> None:
    os._exit(1)


def test_what_a_dead_worker_lost_is_done_again(model: TransformerModel, one: LocalWorkers, tmp_path: Path) -> None:
    work = [(number, str(tmp_path / "died")) for number in range(4)]
    found = Team(model, one).map(_dies_once, work, name="counting", unit="numbers", sizes=[1] * 4)
    assert found == [0, 3, 6, 9]
    assert (tmp_path / "died").exists()


class _Broken(LocalWorkers):
    """Workers that die on everything."""

    def submit(self, function: Any, /, *arguments: Any) -> Any:
        from concurrent.futures import BrokenExecutor, Future

        found: Future[Any] = Future()
        found.set_exception(BrokenExecutor())
        return found


def test_workers_that_die_on_the_same_work_again_and_again_end_it(model: TransformerModel) -> None:
    with pytest.raises(WorkerLostError, match=r"died 4 times while counting.*(?s:.)*fewer"):
        Team(model, _Broken(1)).map(_hash, [()], name="counting", unit="numbers", sizes=[1])


def _fails(model: TransformerModel) -> None:
    raise ArgumentError("It cannot be done.", remedy="Leave it.")


def test_errors_of_the_work_arrive_whole_and_a_cancelled_job_ends(model: TransformerModel, one: LocalWorkers) -> None:
    with pytest.raises(ArgumentError, match=r"cannot be done\.\n  Leave it"):
        Team(model, one).map(_fails, [()], name="failing", unit="jobs", sizes=[1])
    with events.cancellable(lambda: True), pytest.raises(CancelledError):
        Team(model, one).map(_hash, [()], name="hashing", unit="models", sizes=[1])


def test_a_model_made_in_memory_or_another_version_of_it_is_refused(model: TransformerModel, one: LocalWorkers) -> None:
    with pytest.raises(ArgumentError, match=r"made in memory(?s:.)*Save the model"):
        Team(tiny.model("gpt2"), one).map(_hash, [()], name="hashing", unit="models", sizes=[1])
    other = TransformerModel(model.engine, model.tokenizer, model.name, "another hash")
    other._recipe = model.recipe
    with pytest.raises(ArgumentError, match=r"another version(?s:.)*same files"):
        Team(other, one).map(_hash, [()], name="hashing", unit="models", sizes=[1])


def test_what_cannot_take_work_is_refused(model: TransformerModel) -> None:
    with pytest.raises(ArgumentError, match="no `submit`"):
        executor(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="at least 1"):
        LocalWorkers(0)
    assert Team.of(model) is None
    assert issubclass(ProcessPoolExecutor, Executor)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_error_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"needs Ray\.\n.*neuroscope-interp\[ray\]"):
        RayWorkers()


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'neuroscope-interp[ray]'")
def test_ray_gives_the_bits_of_one_local_worker(model: TransformerModel, one: LocalWorkers, tmp_path: Path) -> None:
    with RayWorkers(count=2) as workers:
        for name, expected in everything(model, one).items():
            assert np.array_equal(expected, everything(model, workers)[name]), name
        work = [(number, str(tmp_path / "died")) for number in range(4)]
        assert Team(model, workers).map(_dies_once, work, name="counting", unit="numbers", sizes=[1] * 4) == [0, 3, 6, 9]


def test_an_interrupted_sweep_goes_on_from_disk(model: TransformerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SELDOM", 0.0)
    patcher = ActivationPatcher(model)
    swept: list[int] = []
    real = sweeps._cells

    def counted(*arguments: Any) -> Any:
        swept.append(len(arguments[-1]))
        return real(*arguments)

    monkeypatch.setattr(sweeps, "_cells", counted)
    whole = patcher.patch(OWN, "heads@*").as_dictionary()["sites"]
    total = sum(swept)
    swept.clear()
    with events.cancellable(lambda: sum(swept) > 10), pytest.raises(CancelledError):
        patcher.patch(OWN, "heads@*")
    assert 10 < sum(swept) < total
    assert patcher.patch(OWN, "heads@*").as_dictionary()["sites"] == whole
    assert sum(swept) == total  # each cell once, in both runs together
    swept.clear()
    patcher.patch(OWN, "heads@*")
    assert sum(swept) == total  # a finished job leaves nothing behind


def test_a_models_hooks_and_what_was_made_in_memory_stay_here(model: TransformerModel, one: LocalWorkers) -> None:
    told: list[events.Event] = []
    hooked = TransformerModel(model.engine, model.tokenizer, "hooked", model.loaded_hash)
    hooked._recipe = model.recipe
    plain = [item.share for item in answered(hooked, ITEMS, executor=one)]
    hook = hooked.hook_manager.add_hook(ActivationHook(1, "residual", lambda a, p: a * -1))
    with events.listen(told.append):
        changed = [item.share for item in answered(hooked, ITEMS, executor=one)]
    assert changed != plain
    assert [event.message for event in told if isinstance(event, events.Notice)] == [
        f"Work on {hooked.title} is not shared among workers: its hooks do not leave this process."
    ]
    hooked.hook_manager.remove_hook(hook)
    assert [item.share for item in answered(hooked, ITEMS, executor=one)] == plain
    made = tiny.model("gpt2")
    with working(one), events.listen(told.append):
        assert len(answered(made, ITEMS)) == len(ITEMS)
    assert any("made in memory" in getattr(event, "message", "") for event in told)
    with pytest.raises(ArgumentError, match="made in memory"):
        answered(made, ITEMS, executor=one)
