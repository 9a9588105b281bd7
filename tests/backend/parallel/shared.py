"""What a model shared by two processes is compared with: the same model in one. A program for torchrun; only its first process compares.

Arguments: a file for the findings, then folders of models. The findings, as JSON: for each model and check, None or what went wrong.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.engines.protocol import ALL_LOGITS, Edit, EditScope, GenerationSettings, LogitRequest, Port, TokenBatch
from neuroscope.engines.sites import Site
from neuroscope.engines.torch import ranks
from neuroscope.engines.torch.parallel import ParallelEngine
from neuroscope.errors import ArgumentError, SiteError, WorkerLostError
from neuroscope.models.model import TransformerModel
from neuroscope_bridge.host import Host, HostOptions
from tests.backend.circuits.pairs import random_pairs

SIZE = 2
STOPS = 5
ROWS = [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14], [15, 16, 17, 18, 19, 20]]
BATCHES = [TokenBatch.of(ROWS), TokenBatch.of(ROWS, side="left")]
WHOLE = (
    "embedding", "0.query", "1.key", "1.value", "1.headOutput", "2.attentionScores", "2.attentionPattern", "1.attention",
    "0.mlp", "2.mlp", "1.mlpOutput", "1.residual", "logits",
)  # fmt: skip
NARROW = ("1.headOutput[3]", "1.headOutput[0]@-1", "0.key[1]", "1.mlp[40]", "1.mlp[3]@2", "2.attentionPattern[3]")
Numbers = np.ndarray[Any, Any]


def site(text: str) -> Site:
    return Site.parse(text)


def zero(value: torch.Tensor, scope: EditScope) -> torch.Tensor:
    return value * 0


def louder(value: torch.Tensor, scope: EditScope) -> torch.Tensor:
    return value * 1.5 + 0.3


#: Head 3, key-value head 1 and neuron 40 lie on the second process; the others on the first.
EDITS = {
    "head 3": [Edit(site("1.headOutput[3]"), zero)],
    "head 0 of a row": [Edit(site("1.headOutput[0]"), zero, rows=np.array([1]))],
    "key-value head 1": [Edit(site("0.value[1]"), louder)],
    "neuron 40": [Edit(site("1.mlp[40]@-1"), louder)],
    "neuron 3": [Edit(site("1.mlp[3]"), louder)],
    "pattern": [Edit(site("2.attentionPattern[2]"), zero)],
    "many": [
        Edit(site("0.headOutput"), louder),
        Edit(site("1.mlp"), louder),
        Edit(site("1.residual"), louder, rows=slice(0, 2)),
    ],
}


def near(found: Any, expected: Any, what: object, tolerance: float = 1e-4) -> None:
    one, two = (value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value) for value in (found, expected))
    np.testing.assert_allclose(one, two, atol=tolerance, rtol=tolerance, err_msg=str(what))


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, 5] - logits[:, -1, 6]


def check_each_process_holds_a_share(shared: TransformerModel, one: TransformerModel) -> None:
    held, whole = (
        sum(getattr(p, "_local_tensor", p).numel() for p in model.engine.model.parameters()) for model in (shared, one)
    )
    assert held < 0.75 * whole
    assert "2 processes" in shared.engine.device_name
    assert shared.weights_hash == one.weights_hash


def check_activations_and_logits(shared: TransformerModel, one: TransformerModel) -> None:
    sites = [site(text) for text in (*WHOLE, *NARROW)]
    for batch in BATCHES:
        real = torch.as_tensor(batch.real)
        found, expected = (model.engine.forward(batch, capture=sites) for model in (shared, one))
        for asked in sites:
            a, b = found[asked], expected[asked]
            if a.shape[:2] == real.shape:  # padding computes whatever it likes
                a, b = a[real], b[real]
            elif asked.component == "attentionScores":
                continue
            near(a, b, asked)
        assert found.logits is not None
        near(found.logits[real], expected.logits[real], "logits")
        some = LogitRequest.last(batch, np.array([[5, 60, 96], [0, 48, 49], [7, 8, 9]]))
        near(shared.engine.forward(batch, logits=some).logits, one.engine.forward(batch, logits=some).logits, "some tokens")


def check_edits_by_global_index(shared: TransformerModel, one: TransformerModel) -> None:
    batch = BATCHES[0]
    plain = one.engine.forward(batch).logits
    for name, edits in EDITS.items():
        found, expected = (model.engine.forward(batch, edits=edits).logits for model in (shared, one))
        near(found, expected, name)
        assert (found - plain).abs().max() > 1e-3, name


def check_gradients_are_whole(shared: TransformerModel, one: TransformerModel) -> None:
    sites = [site(text) for text in WHOLE[1:-1]] + [site("1.headOutput[3]"), site("1.mlp[40]")]
    batch = TokenBatch.of([row[:4] for row in ROWS])
    entry = one.engine.forward(batch, stop=0, logits=None).residual
    for edits in ((), EDITS["head 3"], EDITS["many"]):
        found, expected = (model.engine.gradients(batch, metric, sites, edits=edits, residual=entry) for model in (shared, one))
        near(found.metric, expected.metric, "metric")
        for asked in sites:
            near(found.values[asked], expected.values[asked], asked)
            near(found.gradients[asked], expected.gradients[asked], asked, 1e-4)
            if edits is EDITS["many"] or asked.head is None:
                assert expected.gradients[asked].abs().max() > 1e-3, asked
    found = shared.engine.gradients(batch, metric, [site("embedding")])
    near(
        found.gradients[site("embedding")],
        one.engine.gradients(batch, metric, [site("embedding")]).gradients[site("embedding")],
        "e",
    )


def check_edge_attribution_and_patching(shared: TransformerModel, one: TransformerModel) -> None:
    pairs = random_pairs(3, length=6)
    for method in ("eap_ig", "eap_ig_activations"):
        found, expected = (edge_scores(model.engine, pairs, method=method, steps=2) for model in (shared, one))
        near(found, expected, method)
        assert abs(expected).max() > 1e-3
    found, expected = (np.array(ActivationPatcher(model).residual_map(pairs).values) for model in (shared, one))
    near(found, expected, "patching")


def check_generation_samples_alike(shared: TransformerModel, one: TransformerModel) -> None:
    settings = GenerationSettings(max_tokens=4, temperature=1.0, seed=3)
    seen = []
    for model in (shared, one):
        steps = model.engine.generate(BATCHES[1], settings, edits=EDITS["head 3"], capture=[site("1.headOutput[3]")])
        seen.append([(step.tokens.tolist(), step.activations[site("1.headOutput[3]")]) for step in steps])
    assert [tokens for tokens, _ in seen[0]] == [tokens for tokens, _ in seen[1]]
    for (_, a), (_, b) in zip(*seen, strict=True):
        near(a, b, "captured")


def check_prefixes(shared: TransformerModel, one: TransformerModel) -> None:
    batch = BATCHES[0]
    runs = []
    for model in (shared, one):
        prefix = model.engine.prefix(batch, 3)
        assert prefix is not None
        some = model.engine.forward(batch.take(slice(1, 3)).repeat(2), prefix=prefix.take(slice(1, 3)).repeat(2)).logits
        runs.append((some, model.engine.forward(batch, prefix=prefix, edits=EDITS["head 3"]).logits))
    for found, expected in zip(*runs, strict=True):
        near(found, expected, "after a prefix")


def check_weights_are_whole(shared: TransformerModel, one: TransformerModel) -> None:
    random = np.random.default_rng(0)
    loaded = shared.weights_hash
    names = [
        "0.attn.W_Q[3]",
        "1.attn.W_K",
        "1.attn.W_O[3]",
        "1.mlp.W_out[40]",
        "1.mlp.W_in",
        "0.ln1.w",
        "embed.W_E[60]",
        "unembed.W_U",
    ]
    kept = []
    for name in names:
        a, b = shared.weights(name), one.weights(name)
        assert np.array_equal(a.read(), b.read()), name
        kept.append((a.snapshot(), b.snapshot()))
        values = random.normal(size=a.shape) * 0.2
        for view in (a, b):
            view.write(values)
        assert np.array_equal(a.read(), b.read()), name
        assert shared.weights_hash == one.weights_hash != loaded, name
    near(shared.engine.forward(BATCHES[0]).logits, one.engine.forward(BATCHES[0]).logits, "after writing")
    with tempfile.TemporaryDirectory() as folder:
        again = TransformerModel.from_hugging_face(shared.save(f"{folder}/saved"))
        near(again.engine.forward(BATCHES[0]).logits, one.engine.forward(BATCHES[0]).logits, "saved")
    for name, (a, b) in zip(names, kept, strict=True):
        shared.weights(name).restore(a)
        one.weights(name).restore(b)
    assert shared.weights_hash == loaded


def check_runs_equal_the_bare_model(shared: TransformerModel, one: TransformerModel) -> None:
    assert shared.verify().passed
    near(shared.engine.bare_logits(BATCHES[0]), one.engine.bare_logits(BATCHES[0]), "bare")


def check_an_edit_may_call_the_engine(shared: TransformerModel, one: TransformerModel) -> None:
    found = []
    for model in (shared, one):
        engine = model.engine

        def edit(value: torch.Tensor, scope: EditScope, engine: Any = engine) -> torch.Tensor:
            inner = engine.forward(BATCHES[0], capture=[site("1.headOutput")], edits=EDITS["neuron 3"], logits=None)
            written = engine.head_writes(1, inner[site("1.headOutput")]).sum(2)
            return value + engine.normalise(2, Port.MLP, written)  # type: ignore[no-any-return]

        found.append(engine.forward(BATCHES[0], edits=[Edit(site("1.residual"), edit)]).logits)
    near(*found, "nested")


def check_a_failure_fails_on_all_and_the_group_goes_on(shared: TransformerModel, one: TransformerModel) -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError("in an edit")

    def nested(*_: Any) -> Any:
        return shared.engine.forward(BATCHES[0], edits=[Edit(site("0.mlp"), fails)])

    def caught(value: torch.Tensor, scope: EditScope) -> torch.Tensor:
        with pytest.raises(ZeroDivisionError):
            nested()
        return value * 0

    outside = torch.zeros(32, requires_grad=True)
    calls: list[tuple[type[Exception], Callable[[], Any]]] = [
        (ZeroDivisionError, lambda: shared.engine.forward(BATCHES[0], edits=[Edit(site("1.headOutput[3]"), fails)])),
        (ZeroDivisionError, lambda: shared.engine.forward(BATCHES[0], edits=[Edit(site("1.headOutput[3]"), nested)])),
        (ZeroDivisionError, lambda: shared.engine.gradients(BATCHES[0], fails, [site("1.mlp")])),
        (SiteError, lambda: shared.engine.forward(BATCHES[0], capture=[site("2.mlp")], stop=1, logits=None)),
        (ArgumentError, lambda: shared.engine.forward(TokenBatch.of([[5000]]))),
        (ArgumentError, lambda: shared.engine.copy()),
        (
            ArgumentError,
            lambda: shared.engine.gradients(
                BATCHES[0], metric, [site("0.residual")], edits=[Edit(site("1.residual"), lambda value, _: value + outside)]
            ),
        ),
    ]
    for kind, call in calls:
        with pytest.raises(kind):
            call()
        near(shared.engine.forward(BATCHES[0]).logits, one.engine.forward(BATCHES[0]).logits, kind)
    found = shared.engine.forward(BATCHES[0], edits=[Edit(site("1.headOutput[3]"), caught)], logits=ALL_LOGITS).logits
    near(found, one.engine.forward(BATCHES[0], edits=EDITS["head 3"]).logits, "caught")


def check_sessions_of_a_server(shared: TransformerModel, one: TransformerModel) -> None:
    """As behind `neuroscope serve --tp 2`: two sessions at a time, one with a hook."""
    script = "{} model generate: 'w5 w6 w7' maxTokens: 4"
    hook = "model hookManager addHook: (ActivationHook layer: 1 component: #headOutput action: [:values :position | values * -1.5])."
    answers = []
    for tp in (SIZE, None):
        host = Host(HostOptions(model=shared.ran, engine="torch", tp=tp))
        sessions = [host.open_session() for _ in range(2)]
        with ThreadPoolExecutor(2) as threads:
            texts = [script.format(with_hook) for with_hook in (hook, "")]
            jobs = [threads.submit(s._context.run, s.workspace.run, text) for s, text in zip(sessions, texts, strict=True)]
            answers.append([str(job.result()) for job in jobs])
        host.close()
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[0][1]


def check_a_stop_in_the_midst_leaves_the_group_in_step(shared: TransformerModel, one: TransformerModel) -> None:
    """A script's limit raises at any instruction of its thread, be it in a run, in an edit or between the two."""
    stopped, failed = 0, []

    def work() -> None:
        nonlocal stopped
        while stopped < STOPS:
            try:
                shared.engine.gradients(BATCHES[0], metric, [site("1.mlp")], edits=EDITS["many"])
            except KeyboardInterrupt:
                stopped += 1

    def guarded() -> None:
        while stopped < STOPS:
            try:
                work()
            except KeyboardInterrupt:  # thrown between two runs
                continue
            except Exception as error:
                failed.append(error)
                return

    thread = threading.Thread()
    random = np.random.default_rng(0)
    while stopped < STOPS and not failed:
        if not thread.is_alive():
            thread = threading.Thread(target=guarded)
            thread.start()
        time.sleep(random.uniform(0.001, 0.05))
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt))
    thread.join()
    assert not failed, failed
    near(shared.engine.forward(BATCHES[0]).logits, one.engine.forward(BATCHES[0]).logits, "after stops")


def lose(*_: Any) -> None:
    """What the second process does of the last call: fail where the first does not."""
    ranks.PATIENCE = 1
    raise MemoryError("too little memory here")


def lost(engine: Any) -> None:
    """The first process is in a collective operation that the second never enters."""
    begun = time.monotonic()
    for _ in range(2):
        with pytest.raises(WorkerLostError, match="is lost"):
            engine.ranks.call("lose", engine.number, here=lambda: engine.ranks.share(torch.zeros(1)))
    assert time.monotonic() - begun < 30


CHECKS = {name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")}


def main(findings: str, *folders: str) -> None:
    found: dict[str, dict[str, str | None]] = {}
    ParallelEngine.do_lose = lose  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, when the second process is lost
    for folder in folders:
        shared = TransformerModel.from_hugging_face(folder, tp=SIZE)  # returns on the first process alone
        one = TransformerModel.from_hugging_face(folder)
        mine = found[Path(folder).name] = {}
        for name, check in CHECKS.items():
            try:
                check(shared, one)
                mine[name] = None
            except Exception:
                mine[name] = traceback.format_exc()
    try:
        lost(shared.engine)
        found["all"] = {"lost": None}
    except Exception:
        found["all"] = {"lost": traceback.format_exc()}
    Path(findings).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
