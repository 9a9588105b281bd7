"""Automated discovery: on a circuit set by hand, with controls, interruptions and wrong settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroscope.circuits import attribution
from neuroscope.circuits.discovery import STRATEGIES, CircuitDiscovery, Hypothesis
from neuroscope.circuits.finder import part_sizes
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.journal import Journal
from neuroscope.engines.sites import Site
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.errors import ArgumentError, CircuitError, TaskNotFoundError
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples

HEADS = {"0.headOutput[0]", "1.headOutput[0]"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROSCOPE_CACHE", str(tmp_path / "cache"))


def discovery(strategy: str = "gradient", count: int = 45, **options: Any) -> CircuitDiscovery:
    made = CircuitDiscovery(**options)
    made.model = handmade(distractor=True)
    made.target_capability = "induction"
    made.search_strategy = strategy
    made.examples = induction_examples(count)
    return made


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_finds_the_circuit_set_by_hand(strategy: str) -> None:
    made = discovery(strategy)
    hypotheses = made.generate_hypotheses()
    tests = [made.test_hypothesis(hypothesis) for hypothesis in hypotheses]
    valid = [test for test in tests if test.is_valid]
    assert valid
    smallest = valid[0]
    assert set(smallest.hypothesis.nodes) == HEADS
    assert smallest.p_value < 0.01
    assert smallest.effect.low > 0.5
    circuit = made.extract_circuit(smallest.hypothesis)
    assert set(circuit.heads) == HEADS
    assert circuit.held_out_faithfulness.value == pytest.approx(smallest.faithfulness.value)


def test_random_edges_are_no_circuit() -> None:
    made = discovery()
    made.generate_hypotheses()
    graph = Graph.of(made.model.architecture)
    valid = 0
    for seed in range(20):
        mask = graph.valid & (np.random.default_rng(seed).random(graph.valid.shape) < 0.3)
        mask[graph.receiver_of(Site.parse("1.key[0]"))] = False  # without this read there is no induction
        valid += made.test_hypothesis(Hypothesis("random", "none", int(mask.sum()), [], mask, mask * 1.0)).is_valid
    assert valid == 0


def test_an_interrupted_search_loses_one_batch_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []
    real = attribution._on_inputs

    def counted(graph: Any, runs: Any, *arguments: Any) -> Any:
        if len(scored) == 3:
            scored.append(0)
            raise KeyboardInterrupt
        scored.append(runs.rows)
        return real(graph, runs, *arguments)

    monkeypatch.setattr(attribution, "_on_inputs", counted)
    monkeypatch.setattr(TorchEngine, "rows_that_fit", lambda *_: 8 * 4 * 5)
    made = discovery(count=80, pairs=75)
    with pytest.raises(KeyboardInterrupt):
        made.generate_hypotheses()
    again = discovery(count=80, pairs=75)
    found = again.generate_hypotheses()
    assert len(scored) > 4
    assert sum(scored) == part_sizes(75)[1]  # every pair of the finding half once, in both runs together
    monkeypatch.setattr(attribution, "_on_inputs", real)
    whole = discovery(count=80, pairs=75).generate_hypotheses()
    assert [h.size for h in found] == [h.size for h in whole]
    assert found[0]._scores == pytest.approx(whole[0]._scores, abs=1e-12)


def test_a_journal_of_another_question_is_not_continued(tmp_path: Path) -> None:
    journal = Journal("test", {"seed": 1})
    journal.save("scores", 5, {"total": np.ones(3)})
    assert Journal("test", {"seed": 1}).load("scores")[0] == 5
    assert Journal("test", {"seed": 2}).load("scores") == (0, {})
    (journal.folder / "scores.npz").write_bytes(b"cut off")
    assert journal.load("scores") == (0, {})
    journal.forget()
    assert not journal.folder.exists()


def test_what_is_missing_or_wrong_is_said() -> None:
    made = CircuitDiscovery()
    with pytest.raises(CircuitError, match="no model"):
        made.generate_hypotheses()
    made.model = tiny.model("gpt2")
    with pytest.raises(CircuitError, match="no capability"):
        made.generate_hypotheses()
    with pytest.raises(TaskNotFoundError, match="inducktion"):
        made.target_capability = "inducktion"
    with pytest.raises(ArgumentError) as caught:
        made.search_strategy = "gredy"
    assert "greedy" in caught.value.remedy
    with pytest.raises(ArgumentError, match="Only hypotheses"):
        made.test_hypothesis("this one")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="level"):
        CircuitDiscovery(alpha=2)
