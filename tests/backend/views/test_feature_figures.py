"""Figures of neurons, ablations and entangled units: the numbers drawn, read out of the page and held against the result's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from neuroscope.features.ablation import AblationResults, ModeResult
from neuroscope.features.contexts import Context
from neuroscope.features.entanglement import EntangledFeatures, EntangledUnit
from neuroscope.features.neurons import Neuron, NeuronSet
from neuroscope.results import Provenance
from neuroscope.tasks.statistics import Estimate
from neuroscope.views.theme import BLUE, ORANGE
from tests import tiny
from tests.backend.views.drawn import shown

PROVENANCE = Provenance("tiny", "hash", "torch", None, 0, {"judging": 20, "choosing": 20, "controls": 3})


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.3, 8)


def is_drawn(trace: dict[str, Any], expected: Sequence[Estimate]) -> None:
    """The trace shows these values with these intervals."""
    assert trace["y"] == pytest.approx([each.value for each in expected])
    bars = trace["error_y"]
    assert bars["symmetric"] is False
    assert bars["array"] == pytest.approx([each.high - each.value for each in expected])
    assert bars["arrayminus"] == pytest.approx([each.value - each.low for each in expected])


def neurons(*, by_effect: bool = False) -> NeuronSet:
    """Three neurons of layer 1 out of three layers, by hand and all different."""
    values = (0.95, 0.9, 0.75)
    found = [
        Neuron(10 + at, None if by_effect else value, 0.01, 0.02, [f"context {at}"], estimate(value) if by_effect else None)
        for at, value in enumerate(values)
    ]
    return NeuronSet(
        concept="country_names",
        layer=1,
        neurons=found,
        auroc=None if by_effect else 0.87,
        probe_accuracy=None if by_effect else estimate(0.8),
        pca=[],
        by_layer=[0.5, 2.6 if by_effect else 0.87, 0.6],
        exists=True,
        reason=None,
        provenance=PROVENANCE,
        _model=tiny.model("gpt2"),
        choosing="effect" if by_effect else "selectivity",
        damage=estimate(1.5) if by_effect else None,
    )


def test_neurons_are_drawn_as_they_tell() -> None:
    result = neurons()
    page = shown(result)
    layers = page.figure("country_names: the chosen neurons of each layer (chosen: 1)")
    assert layers.trace()["x"] == [0, 1, 2]
    assert layers.trace()["y"] == result.by_layer
    assert layers.trace()["marker"]["color"] == [BLUE, ORANGE, BLUE]
    assert layers.layout["shapes"][0]["y0"] == 0.5
    assert layers.layout["yaxis"]["title"]["text"] == "mean AUROC, held out"
    bars = page.figure("Neurons of layer 1").trace()
    assert bars["x"] == ["10", "11", "12"]
    assert bars["y"] == [each.auroc for each in result.neurons]
    assert bars["text"] == ["context 0", "context 1", "context 2"]
    assert "error_y" not in bars


def test_neurons_chosen_by_effect_are_drawn_in_nats_with_intervals() -> None:
    result = neurons(by_effect=True)
    page = shown(result)
    layers = page.figure("country_names: contribution of each layer's confirmed neurons to an answer (chosen: 1)")
    assert layers.trace()["y"] == result.by_layer
    assert "shapes" not in layers.layout
    bars = page.figure("Neurons of layer 1")
    is_drawn(bars.trace(), [each.effect for each in result.neurons if each.effect is not None])
    assert bars.layout["yaxis"]["title"]["text"] == "contribution to an answer (nats)"


def test_a_set_without_neurons_shows_its_layers_only() -> None:
    none = NeuronSet(**{**neurons().__dict__, "neurons": [], "exists": False, "reason": "none tells"})
    (figure,) = shown(none).figures
    assert figure.trace()["y"] == none.by_layer


def test_an_ablation_is_drawn_as_it_is() -> None:
    modes = [
        ModeResult(
            mode=mode,
            ablated=estimate(3 - at),
            accuracy=estimate(0.9),
            damage=estimate(1.0 + at),
            random_damage=[0.1 * at, 0.2, -0.3],
            p_value=0.25,
            off_target_damage=estimate(-0.05 * at),
        )
        for at, mode in enumerate(("zero", "mean", "resample"))
    ]
    result = AblationResults(
        concept="country_names",
        layer=1,
        neurons=[10, 11, 12],
        task="capital_of_country",
        off_target="greater_than",
        baseline=estimate(4),
        baseline_accuracy=estimate(0.9),
        modes=modes,
        firing_rate=(0.5, 0.4),
        norm=(2.0, 1.0),
        exists=True,
        reason=None,
        provenance=PROVENANCE,
        _neurons=neurons(),
    )
    page = shown(result)
    figure = page.figure("Ablating 3 neurons of country_names in layer 1")
    for name, expected in (
        ("on capital_of_country", [mode.damage for mode in modes]),
        ("on greater_than", [mode.off_target_damage for mode in modes]),
    ):
        trace = figure.trace(name, "bar")
        assert trace["x"] == ["zero", "mean", "resample"]
        is_drawn(trace, expected)
    random = figure.trace("random sets of the layer", "scatter")
    assert list(zip(random["x"], random["y"], strict=True)) == [
        (mode.mode, value) for mode in modes for value in mode.random_damage
    ]
    assert len(figure.traces) == 3


def entangled() -> EntangledFeatures:
    contexts = [Context("a", ["one ", "two"], [0.25, 3.0], 1), Context("b", ["three"], [2.0], 0)]
    units = [
        EntangledUnit(kind, layer, 7, f"{layer}.mlp[7]", domains, aurocs, 0.2, 0.01, contexts, "a guess")
        for kind, layer, domains, aurocs in (
            ("neuron", 0, ["a", "b"], {"a": 0.9, "b": 0.8, "c": 0.4}),
            ("direction", 2, ["a", "b"], {"a": 0.7, "b": 0.95, "c": 0.5}),
            ("neuron", 1, ["a", "b", "c"], {"a": 0.9, "b": 0.85, "c": 0.99}),
        )
    ]
    return EntangledFeatures(["a", "b", "c"], ["letters"], units, [[3, 3, 1], [3, 3, 1], [1, 1, 1]], 60, 1, 0.05, PROVENANCE)


def test_entangled_units_are_drawn_as_they_are() -> None:
    result = entangled()
    page = shown(result)
    shared = page.figure("Units that respond in both (60 judged; 1 found in shuffled texts)").trace(kind="heatmap")
    assert shared["z"] == result.matrix
    assert shared["x"] == shared["y"] == result.domains
    assert (shared["zmin"], shared["zmax"]) == (0, 3)
    where = page.figure("Units by layer")
    drawn = {trace["name"]: (trace["x"], trace["y"], trace["text"]) for trace in where.traces}
    assert drawn == {
        "a + b (neurons)": ([0], [0.8], ["0.mlp[7]"]),
        "a + b (directions)": ([2], [0.7], ["2.mlp[7]"]),
        "a + b + c (neurons)": ([1], [0.9], ["1.mlp[7]"]),
    }
    cards = page.panels["units"]
    assert cards["combinations"] == [["a", "b"], ["a", "b", "c"]]
    assert [unit["site"] for unit in cards["units"]] == [unit.site for unit in result.units]
    for card, unit in zip(cards["units"], result.units, strict=True):
        assert card["auroc"] == unit.auroc
        assert (card["qValue"], card["selectivity"], card["hypothesis"]) == (0.01, 0.2, "a guess")
        assert [context["activations"] for context in card["topContexts"]] == [[0.25, 3.0], [2.0]]
        assert [context["peak"] for context in card["topContexts"]] == [1, 0]


def test_domains_that_share_nothing_have_an_empty_matrix() -> None:
    result = entangled()
    none = EntangledFeatures(result.domains, result.background, [], [[0] * 3] * 3, 60, 0, 0.05, PROVENANCE)
    (figure,) = shown(none).figures
    assert figure.trace()["z"] == [[0] * 3] * 3
    assert figure.trace()["zmax"] == 1
