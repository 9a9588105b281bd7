"""Figures of circuits: the numbers drawn, read out of the page and held against the result's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.comparison import GrowthAnalysis, ModelGrowth
from neuroscope.circuits.curve import SIZES, CurvePoint, FaithfulnessCurve
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.patching import ActivationPatcher, CausalTestResults, NodeEffect, ResidualMap
from neuroscope.circuits.quality import QualityReport, QualityScore
from neuroscope.engines.sites import Component, Site
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples
from tests.backend.views.drawn import Figure, shown
from tests.backend.views.test_feature_figures import PROVENANCE, estimate, is_drawn


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    """One that was found, with held-out figures that nothing else has."""
    found = CircuitFinder(handmade(), target=0.95).find_circuit("induction", induction_examples(36))
    controls = [replace(each, faithfulness=estimate(0.2 + at / 10)) for at, each in enumerate(found.controls)]
    return replace(found, held_out_faithfulness=estimate(0.7), controls=controls)


@pytest.fixture(scope="module")
def patching(circuit: Circuit) -> CausalTestResults:
    """One that was measured, with nodes and controls whose figures differ."""
    found = ActivationPatcher(circuit.model, controls=2).test_causal_relationship(circuit)
    sites = [Site(1, Component.HEAD_OUTPUT, head=0), Site(0, Component.MLP_OUTPUT), Site(0, Component.HEAD_OUTPUT, head=1)]
    components = [NodeEffect(site, estimate(0.9 - at / 5), estimate(0.8 - at / 3)) for at, site in enumerate(sites)]
    controls = [NodeEffect(sites[0], estimate(0.05), estimate(-0.3)), NodeEffect(sites[1], estimate(0.1), estimate(0.02))]
    return replace(found, components=components, controls=controls)


def sizes_are_drawn(figure: Figure, circuit: Circuit) -> None:
    """A line for each weight of negative scores, the circuit itself, and its controls at its size."""
    weights = sorted({point.negative_weight for point in circuit.curve})
    assert weights
    for weight in weights:
        points = sorted((each for each in circuit.curve if each.negative_weight == weight), key=lambda each: each.fraction)
        line = figure.trace(f"negative scores × {weight:g}")
        assert line["x"] == pytest.approx([100 * each.fraction for each in points])
        is_drawn(line, [each.faithfulness for each in points])
    mark = figure.trace("the circuit, held-out pairs")
    assert mark["x"] == pytest.approx([100 * circuit.edge_count / circuit.graph.edges])
    is_drawn(mark, [circuit.held_out_faithfulness])
    assert circuit.controls
    for control in circuit.controls:
        trace = figure.trace(f"{control.kind} circuits of that size")
        assert trace["x"] == mark["x"]
        is_drawn(trace, [control.faithfulness])
    assert len(figure.traces) == len(weights) + 1 + len(circuit.controls)
    assert figure.layout["xaxis"]["type"] == "log"


def test_a_circuits_size_and_graph_are_drawn_as_they_are(circuit: Circuit) -> None:
    page = shown(circuit)
    sizes_are_drawn(page.figure("Faithfulness against size: induction"), circuit)
    graph = next(each for each in page.figures if not each.title.startswith("Faithfulness"))
    (nodes,) = (trace for trace in graph.traces if "markers" in trace["mode"])
    assert len(nodes["x"]) == len(circuit.nodes) + 2  # embedding and logits
    edges = [trace for trace in graph.traces if trace is not nodes]
    assert len(edges) == circuit.edge_count
    widths = {trace["text"]: trace["line"]["width"] for trace in edges}
    assert set(widths) == {f"{source} → {receiver}: {score:+.3g}" for source, receiver, score in circuit.edges}
    assert widths == {title: pytest.approx(5, abs=0.1) for title in widths}  # all carry as much


def test_nodes_are_drawn_with_what_they_do(patching: CausalTestResults) -> None:
    page = shown(patching)
    sizes_are_drawn(page.figure("Faithfulness against size"), patching.circuit)
    figure = page.figure("Recovery and damage by node")
    effects = {str(effect.site): effect for effect in patching.components}
    for name, which in (("recovered (denoising)", "recovered"), ("damage (noising)", "damage")):
        bars = figure.trace(name, "bar")
        assert sorted(bars["x"]) == sorted(effects)
        is_drawn(bars, [getattr(effects[site], which) for site in bars["x"]])
    layers = [int(site.partition(".")[0]) for site in bars["x"]]
    assert layers == sorted(layers)
    assert figure.layout["shapes"][0]["y0"] == pytest.approx(0.3)  # the largest of the random others, either way
    assert patching.residual_map is not None
    heat = page.figure("Denoising the residual stream").trace(kind="heatmap")
    assert np.array(heat["z"]) == pytest.approx(np.array(patching.residual_map.values))


def test_a_residual_map_names_its_tokens_and_its_scale() -> None:
    result = ResidualMap([[0.0, 0.25], [1.0, -0.5]], [" a", "b"], 7)
    figure = shown(result).figure("Denoising the residual stream (7 pairs)")
    heat = figure.trace(kind="heatmap")
    assert heat["z"] == result.values
    assert heat["x"] == ["0 ' a'", "1 'b'"]
    assert (heat["zmin"], heat["zmax"]) == (-1, 1)


def test_without_a_circuit_both_metrics_are_drawn() -> None:
    none = CircuitFinder(tiny.model("gpt2", scale=0.05)).find_circuit("induction", induction_examples(36))
    assert not none.exists
    (figure,) = shown(none).figures
    assert figure.title == "No circuit for induction"
    assert figure.trace()["x"] == ["clean", "corrupt"]
    is_drawn(figure.trace(), [none.clean_metric, none.corrupt_metric])
    assert figure.layout["xaxis"]["title"]["text"] == none.reason


def points(offset: float, weight: float = 1.0) -> list[CurvePoint]:
    return [CurvePoint(10 * at, share, estimate(offset + at / 10), 0.5, weight) for at, share in enumerate(SIZES, 1)]


def test_a_faithfulness_curve_is_drawn_in_both_orders() -> None:
    curve = FaithfulnessCurve("induction", "eap_ig", "patch", 0.812, 0.123, points(0), points(5), PROVENANCE)
    figure = shown(curve).figure("induction, eap_ig: CPR 0.812, CMD 0.123")
    for name, expected in (("by |score|", curve.points), ("by score", curve.signed_points)):
        line = figure.trace(name)
        assert line["x"] == pytest.approx([100 * share for share in SIZES])
        is_drawn(line, [each.faithfulness for each in expected])
    assert figure.layout["shapes"][0]["y0"] == 1


def test_growth_is_drawn_for_the_weight_that_gave_each_circuit() -> None:
    """Shuffled points of two weights; only those of the chosen circuit's weight are drawn, by size."""
    mixed = [each for pair in zip(points(0, 1.0)[::-1], points(5, 0.5), strict=True) for each in pair]
    small, large = (
        ModelGrowth(name, "plain", estimate(0.9), estimate(2), exists, edges=edges, curve=curve)
        for name, exists, edges, curve in (
            ("one", True, 31, [*mixed, CurvePoint(31, 0.03, estimate(9), 0.9, 0.5)]),
            ("two", False, None, []),
        )
    )
    figure = shown(GrowthAnalysis("induction", small, large, {})).figure("Growth of the circuit for induction")
    line = figure.trace("one")
    expected = sorted([*points(5), CurvePoint(31, 0.03, estimate(9), 0.9, 0.5)], key=lambda each: each.fraction)
    assert line["x"] == pytest.approx([100 * each.fraction for each in expected])
    is_drawn(line, [each.faithfulness for each in expected])
    assert figure.trace("two: no circuit")["x"] == []


def test_a_quality_report_is_drawn_with_the_scores_it_has() -> None:
    report = QualityReport()
    report.functional, report.safety = QualityScore("functional", 0.625, {}), QualityScore("safety", 0.25, {})
    bars = shown(report).figure("Quality of the circuit").trace(kind="bar")
    assert (bars["x"], bars["y"]) == (["functional", "safety"], [0.625, 0.25])
    report.overall_score = 0.4375
    bars = shown(report).figure("Quality of the circuit").trace(kind="bar")
    assert (bars["x"], bars["y"]) == (["functional", "safety", "overall"], [0.625, 0.25, 0.4375])
    assert bars["text"] == ["0.62", "0.25", "0.44"]


def test_a_patching_map_is_drawn_by_token_by_head_or_by_site() -> None:
    pairs = [("w5 w9 w12 w7", "w5 w9 w40 w7", "w8", "w22"), ("w6 w9 w12 w7", "w6 w9 w41 w7", "w8", "w22")]
    patcher = ActivationPatcher(tiny.model("gpt2"))
    by_token = patcher.patch(pairs, "heads@*")
    page = shown(by_token)
    assert "2 pairs" in page.heading
    drawn = page.figure("Denoising headOutput").trace(kind="heatmap")
    assert np.allclose(np.array(drawn["z"], dtype=float), by_token.numpy().reshape(12, 4))
    assert drawn["y"][:5] == ["0.0", "0.1", "0.2", "0.3", "1.0"]
    assert drawn["x"] == ["0 w5", "1 w9", "2 w12", "3 w7"]
    bars = page.figure("The strongest 30 of 48 sites").trace(kind="bar")
    strongest = by_token.strongest(30)[::-1]
    assert bars["x"] == pytest.approx([one.value for one in strongest])
    assert bars["error_x"]["array"] is not None
    by_head = patcher.patch(pairs[:1], "heads", direction="noising")
    page = shown(by_head)
    assert np.allclose(np.array(page.figure("Noising headOutput").trace(kind="heatmap")["z"], dtype=float), by_head.numpy())
    assert "error_x" not in page.figure("The strongest").trace(kind="bar")
    assert [each.title for each in shown(patcher.patch(pairs, "mlps")).figures] == ["The strongest 3 of 3 sites"]
