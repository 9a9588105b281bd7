"""Circuits across models: sizes, reuse against chance, and a model that cannot do the task."""

from __future__ import annotations

import numpy as np
import pytest

from neuroscope.circuits.comparison import CircuitComparator, _reuse
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.tasks.arithmetic import after_shown_sums
from neuroscope.tasks.dataset import Dataset, Example
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples
from tests.backend.circuits.pairs import pairs_with_an_effect


def dataset(count: int = 36) -> Dataset:
    return Dataset(induction_examples(count), name="induction by hand")


def test_the_same_circuit_in_two_models_does_not_grow() -> None:
    comparator = CircuitComparator(handmade(), handmade(distractor=True), pairs=36)
    analysis = comparator.analyze_circuit_growth("induction", dataset())
    assert analysis.growth == {"heads": 1, "edges": 1, "fraction_of_model": 1}
    for side in (analysis.small, analysis.large):
        assert (side.heads, side.mlps, side.edges) == (2, 0, 3)
        assert side.effect.low > 0
        assert side.random_circuit_faithfulness.value < side.held_out_faithfulness.low  # type: ignore[union-attr]
    data = analysis.as_dictionary()
    assert data["small"]["curve"]
    assert data["growth"]["heads"] == 1
    assert "heads for 80 %" in analysis.summary()


def test_a_model_that_cannot_do_the_task_has_no_circuit() -> None:
    analysis = CircuitComparator(handmade(), tiny.model("gpt_oss", scale=0.1)).analyze_circuit_growth("induction", dataset())
    assert analysis.small.edges == 3
    assert analysis.large.circuit is None
    assert analysis.large.edges is None
    assert analysis.growth == {}
    assert not analysis.large.exists
    assert "no circuit, clean and corrupt prompts do not differ significantly" in analysis.summary()


def test_reuse_is_counted_in_edges_beside_chance() -> None:
    model = tiny.model("gpt2", scale=0.1)
    circuit = CircuitFinder(model, target=0.5).search("induction", pairs_with_an_effect(model))
    graph = circuit.graph
    edges = np.argwhere(circuit.mask)
    half = np.zeros_like(graph.valid)
    half[tuple(edges[: len(edges) // 2].T)] = True
    reuse, chance = _reuse(circuit, {"another": half})
    assert reuse is not None
    assert reuse.value == pytest.approx((len(edges) // 2) / len(edges))
    assert chance == pytest.approx((len(edges) // 2) / graph.edges)
    assert _reuse(circuit, {}) == (None, None)


def test_a_sum_is_put_after_sums_that_are_done() -> None:
    phrased = after_shown_sums(Example("37+45=", "37+21=", answer="8", wrong="5"))
    assert phrased.clean.endswith("\n37 + 45 = ")
    assert phrased.corrupt is not None
    assert phrased.corrupt.endswith("\n37 + 21 = ")
    assert phrased.answer == "8"


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(ArgumentError, match="compares TransformerModels"):
        CircuitComparator(handmade(), "gpt2")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="found 0 examples independent"):
        CircuitComparator(handmade(), handmade()).analyze_circuit_growth("addition")
