"""Finding and testing circuits: a circuit known by construction, controls, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from neuroscope.circuits.attribution import METHODS, edge_scores
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.curve import SIZES, CurvePoint, area, curve_points
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.circuits.pruning import greedy_circuit
from neuroscope.circuits.search import NEGATIVE_WEIGHTS, reaches
from neuroscope.engines.sites import Site
from neuroscope.errors import ArgumentError, CircuitError, DatasetError, NonFiniteActivationError
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.metrics import PromptMetric
from neuroscope.tasks.pairs import PairBatch, make_pairs
from neuroscope.tasks.statistics import Estimate
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples
from tests.backend.circuits.handmade import induction_model, induction_pairs
from tests.backend.circuits.pairs import in_parts, pairs_with_an_effect, random_pairs

INDUCTION_EDGES = {
    ("embedding", "0.value[0]"),
    ("0.headOutput[0]", "1.key[0]"),
    ("1.headOutput[0]", "logits"),
}


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "with a distractor"])
def found(request: pytest.FixtureRequest) -> Circuit:
    finder = CircuitFinder(handmade(distractor=request.param), target=0.95)
    return finder.search("induction", in_parts(induction_pairs(36)))


def test_the_handmade_model_does_induction() -> None:
    engine, pairs = induction_model(), induction_pairs(50)
    answers = engine.forward(pairs.clean).logits[:, -1].argmax(-1)
    assert answers.tolist() == pairs.metric.answers.tolist()


def test_the_finder_returns_exactly_the_heads_and_edges_set_by_hand(found: Circuit) -> None:
    assert found.heads == ["0.headOutput[0]", "1.headOutput[0]"]
    assert found.mlps == []
    assert {(source, receiver) for source, receiver, _ in found.edges} == INDUCTION_EDGES


def test_its_figures_are_those_of_a_perfect_circuit(found: Circuit) -> None:
    assert found.faithfulness.value == pytest.approx(1, abs=1e-3)
    assert found.held_out_faithfulness.value == pytest.approx(1, abs=1e-3)
    assert found.completeness.value == pytest.approx(1, abs=1e-3)
    assert found.minimality.value == 1
    assert found.random_circuit_faithfulness.value < 0.2
    assert found.clean_metric.value > 0.5
    assert abs(found.corrupt_metric.value) < 1e-3


def test_heads_get_the_roles_that_they_were_built_for(found: Circuit) -> None:
    assert {(str(role.head), role.role, role.acts_on) for role in found.roles} == {
        ("0.headOutput[0]", "previous-token", "keys of 1.0"),
        ("1.headOutput[0]", "induction", "logits, on repeated sequences"),
        ("1.headOutput[0]", "attends to the answer's mention", "logits"),
    }


@pytest.mark.parametrize("distractor", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ablation", ["corrupt", "mean", "resample"])
def test_scores_tell_the_circuits_edges_from_all_others(distractor: bool, method: str, ablation: str) -> None:
    engine, pairs = induction_model(distractor=distractor), induction_pairs(12)
    graph = Graph.of(engine.anatomy)
    edges = [(int(receiver), int(source)) for receiver, source in np.argwhere(graph.valid)]
    truth = [(str(graph.source_site(s)), str(graph.receiver_site(c))) in INDUCTION_EDGES for c, s in edges]
    scores = edge_scores(engine, pairs, method=method, ablation=ablation)
    assert roc_auc_score(truth, np.abs([scores[edge] for edge in edges])) >= 0.95


@pytest.mark.parametrize("distractor", [False, True])
@pytest.mark.parametrize("ablation", ["corrupt", "mean", "resample"])
def test_greedy_pruning_leaves_the_edges_set_by_hand(distractor: bool, ablation: str) -> None:
    evaluation = CircuitEvaluation(induction_model(distractor=distractor), induction_pairs(12), ablation=ablation)
    graph = evaluation.graph
    mask = greedy_circuit(evaluation, 0.05)
    edges = {(str(graph.source_site(int(s))), str(graph.receiver_site(int(c)))) for c, s in np.argwhere(mask)}
    if ablation == "corrupt":
        assert edges == INDUCTION_EDGES
    else:  # tokens and positions that all pairs share are ablated too, so what reads them belongs to the circuit
        assert edges >= INDUCTION_EDGES
    assert evaluation.metric(mask).mean() == pytest.approx(evaluation.clean.mean(), rel=0.2)


def test_a_curve_of_true_scores_integrates_to_a_better_figure_than_one_of_wrong_scores() -> None:
    evaluation = CircuitEvaluation(induction_model(distractor=True), induction_pairs(12))
    scores = edge_scores(evaluation.engine, evaluation.pairs, method="exact")
    shuffled = scores.copy()
    shuffled[evaluation.graph.valid] = np.random.default_rng(0).permutation(scores[evaluation.graph.valid])
    points, wrong = (curve_points(evaluation, found, 1.0) for found in (scores, shuffled))
    assert area(points, from_one=True) < area(wrong, from_one=True)
    assert area(points, from_one=False) > area(wrong, from_one=False)
    assert points[-1].faithfulness.value == pytest.approx(1, abs=1e-6)


def test_areas_are_those_of_the_trapezoidal_rule() -> None:
    points = [CurvePoint(0, share, Estimate(share, 0, 1, 9), 0.0, 1.0) for share in SIZES]  # faithfulness = share
    assert area(points, from_one=False) == pytest.approx((1 - 0.001**2) / 2)
    assert area(points, from_one=True) == pytest.approx((1 - 0.001) ** 2 / 2)


def test_the_finder_measures_a_curve_by_name(found: Circuit) -> None:
    finder = CircuitFinder(tiny.model("gpt2", scale=0.1), method="EAP", ablation="mean")
    examples = [Example(f"w1 w{n} w3 w4", f"w1 w{n + 1} w3 w4", answer="w5", wrong="w6") for n in range(10, 90, 2)]
    _, parts = finder.pairs_of("induction", examples)
    with pytest.raises(CircuitError, match="no curve for induction in tiny gpt2: the metric is higher on corrupt prompts"):
        finder.faithfulness_curve("induction", examples)
    finder = CircuitFinder(found.model, method="EAP", ablation="mean")
    curve = finder.faithfulness_curve("induction", induction_examples(40))
    assert (curve.method, curve.ablation) == ("eap", "mean")
    assert len(curve.points) == len(curve.signed_points) == len(SIZES)
    assert "CPR" in curve.summary()
    assert curve.as_dictionary()["provenance"]["sizes"] == {
        "effect_pairs": parts.effect.rows,
        "pairs": parts.finding.rows,
        "held_out": parts.judging.rows,
        "steps": 5,
    }


@pytest.mark.parametrize(
    ("options", "says"), [({"method": "eap_gi"}, "eap_ig"), ({"ablation": "means"}, "mean"), ({"metric": "kll"}, "kl")]
)
def test_options_that_do_not_exist_name_the_nearest(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        CircuitFinder(tiny.model("gpt2"), **options)
    assert says in caught.value.remedy


def test_the_whole_graph_is_a_circuit_without_controls_and_with_a_doubt() -> None:
    finder = CircuitFinder(handmade(), target=0.95)
    parts = in_parts(induction_pairs(30))
    graph = Graph.of(finder.model.engine.anatomy)
    circuit = finder.judge("induction", graph.valid.copy(), np.ones(graph.valid.shape), parts)
    assert circuit.controls == []
    assert np.isnan(circuit.random_circuit_faithfulness.value)
    assert not circuit.trustworthy
    assert "100% of all edges" in circuit.summary()
    assert circuit.as_dictionary()["randomCircuitFaithfulness"]["value"] is None


def test_patching_finds_both_heads_necessary_and_sufficient(found: Circuit) -> None:
    results = ActivationPatcher(found.model).test_causal_relationship(found)
    effects = {str(effect.site): effect for effect in results}
    assert set(effects) == {"0.headOutput[0]", "1.headOutput[0]"}
    for effect in effects.values():
        assert effect.recovered.value == pytest.approx(1, abs=1e-2)
        assert effect.damage.value == pytest.approx(1, abs=1e-2)
        assert effect.recovered.low > 0.5
    assert results.controls
    assert max(abs(control.recovered.value) for control in results.controls) < 0.01
    residual = np.array(results.residual_map.values)
    assert residual.shape == (2, 6)
    # After layer 0 the answer hangs on what stands at the token after the first A; after layer 1 on the last token.
    assert residual[0].argmax() == 2
    assert residual[1].argmax() == 5
    assert residual[:, 0] == pytest.approx(np.zeros(2), abs=1e-9)


def test_a_finder_stands_for_its_last_circuit() -> None:
    finder = CircuitFinder(tiny.model("gpt2"), target=0.5)
    with pytest.raises(CircuitError, match="no circuit yet"):
        ActivationPatcher(finder.model).test_causal_relationship(finder)  # type: ignore[arg-type]


def test_the_circuit_measures_as_faithful_as_asked_and_random_ones_do_not() -> None:
    model = tiny.model("gpt_oss", scale=0.1)
    circuit = CircuitFinder(model, target=0.8).search("random", pairs_with_an_effect(model))
    assert circuit.exists
    assert abs(circuit.faithfulness.value - 1) <= 0.2
    assert circuit.random_circuit_faithfulness.value < circuit.faithfulness.value
    mine = next(point for point in circuit.curve if point.edges == circuit.edge_count)
    assert reaches(mine.faithfulness.value, mine.closeness, 0.8)


def test_no_measured_circuit_that_reaches_the_target_and_holds_is_smaller() -> None:
    model = tiny.model("llama", scale=0.1)
    circuit = CircuitFinder(model, target=0.8).search("random", pairs_with_an_effect(model))
    weights = {point.negative_weight for point in circuit.curve}
    assert weights == set(NEGATIVE_WEIGHTS)
    for weight in weights:
        line = sorted((point for point in circuit.curve if point.negative_weight == weight), key=lambda point: point.edges)
        for two in itertools.pairwise(line):
            if all(reaches(point.faithfulness.value, point.closeness, 0.8) for point in two):
                assert two[0].edges >= circuit.edge_count


@pytest.mark.parametrize("family", tiny.ARCHITECTURES)
def test_a_random_model_has_no_circuit(family: str) -> None:
    circuit = CircuitFinder(tiny.model(family, scale=0.1)).search("random", in_parts(random_pairs(36)))
    assert not circuit.exists
    assert not circuit.trustworthy
    assert circuit.edge_count == 0
    assert circuit.summary().startswith(
        f"No circuit for random in tiny {family}: clean and corrupt prompts do not differ significantly"
    )
    data = circuit.as_dictionary()
    assert data["exists"] is False
    assert "do not differ significantly" in data["reason"]
    assert data["heldOutFaithfulness"] == {"value": None, "low": None, "high": None, "n": 0}
    results = ActivationPatcher(circuit.model).test_causal_relationship(circuit)
    assert not results.exists
    assert results.summary() == circuit.summary()
    assert results.components == []


def test_a_gap_with_the_wrong_sign_is_no_effect() -> None:
    parts = pairs_with_an_effect(tiny.model("gpt2", scale=0.1))
    exchanged = PromptMetric("logit_difference", parts.effect.metric.wrongs, parts.effect.metric.answers)
    parts = dataclasses.replace(parts, effect=dataclasses.replace(parts.effect, metric=exchanged))
    circuit = CircuitFinder(tiny.model("gpt2", scale=0.1)).search("random", parts)
    assert not circuit.exists
    assert "higher on corrupt prompts" in str(circuit.reason)


def test_results_turn_into_json_with_the_documented_fields(found: Circuit) -> None:
    results = ActivationPatcher(found.model).test_causal_relationship(found)
    data = results.as_dictionary()
    for name in (
        "faithfulness", "completeness", "minimality", "cleanMetric", "corruptMetric", "components", "roles",
        "randomCircuitFaithfulness", "residualMap", "provenance",
    ):  # fmt: skip
        assert name in data
    component = data["components"][0]
    assert component["recovered"].keys() >= {"value", "low", "high", "n"}
    assert data["provenance"]["weightsHash"] == "handmade"
    assert results.summary().count("\n") > 8


def test_the_same_seed_gives_the_same_circuit() -> None:
    model = tiny.model("llama", scale=0.1)
    pairs = pairs_with_an_effect(model)
    first, second = (CircuitFinder(model, seed=3, target=0.7).search("random", pairs) for _ in range(2))
    assert first.as_dictionary() == second.as_dictionary()


def test_a_circuit_of_another_model_is_refused(found: Circuit) -> None:
    with pytest.raises(CircuitError, match=r"found on induction by hand .*, not on tiny gpt2"):
        ActivationPatcher(tiny.model("gpt2")).test_causal_relationship(found)


def example(clean: str, corrupt: str | None, answer: str = "w7", wrong: str | None = "w8") -> Any:
    return SimpleNamespace(clean=clean, corrupt=corrupt, answer=answer, wrong=wrong)


@pytest.mark.parametrize(
    ("examples", "says"),
    [
        ([], "no examples"),
        ([example("w3 w4 w5", "w3 w4")], "has 3 tokens and the corrupt one 2"),
        ([example("w3 w4 w5", None)], "no corrupt prompt"),
        ([example("w3 w4", "w3 w5", answer="w7 w8")], "is 2 tokens after"),
        ([example("w3 w4", "w3 w4")] * 3, "nothing to trace"),
        ([example("w3 w4", "w3 w5", wrong=None)], "No example names a wrong answer"),
    ],
)
def test_unfit_examples_are_named(examples: list[Any], says: str) -> None:
    with pytest.raises(DatasetError) as caught:
        make_pairs(tiny.model("gpt2"), examples)
    assert says in str(caught.value)


def test_pairs_that_do_not_differ_have_no_circuit() -> None:
    pairs = random_pairs(12)
    same = PairBatch(pairs.clean, pairs.clean, pairs.metric)
    assert not CircuitFinder(tiny.model("gpt2")).search("nothing", in_parts(same)).exists


def test_nan_weights_stop_the_search() -> None:
    model = tiny.model("gpt2")
    model.engine.layers[0].mlp.c_fc.weight[0, 0] = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(NonFiniteActivationError):
        CircuitFinder(model).search("broken", in_parts(random_pairs(6)))


@pytest.mark.parametrize("options", [{"target": 0}, {"target": 1.5}, {"pairs": 2}, {"metric": "logit_diference"}, {"steps": 0}])
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        finder = CircuitFinder(tiny.model("gpt2"), **options)
        finder.search("random", in_parts(random_pairs(6)))


def test_site_order_is_causal(found: Circuit) -> None:
    layers = [Site.parse(name).layer for name in found]
    assert layers == sorted(layers)  # type: ignore[type-var]


def test_runs_of_the_same_pairs_are_kept_as_long_as_nothing_that_they_hang_on_changes() -> None:
    model = tiny.model("gpt2", scale=0.1)
    finder, pairs = CircuitFinder(model), random_pairs()
    runs = finder.evaluation(pairs)
    before = model.engine.block_calls
    assert finder.evaluation(pairs) is runs
    assert model.engine.block_calls == before
    finder.ablation = "zero"
    zeroed = finder.evaluation(pairs)
    assert zeroed is not runs
    weight = model.weights("1.mlp.W_out")
    kept = weight.snapshot()
    weight.write(weight.read() * 2)
    assert not np.allclose(finder.evaluation(pairs).clean, zeroed.clean)
    weight.restore(kept)
    assert finder.evaluation(pairs) is zeroed


def test_a_circuit_of_a_size_has_the_best_edges_and_at_least_so_many() -> None:
    finder = CircuitFinder(handmade(), pairs=30)
    small, large = (finder.of_size("induction", induction_examples(30), edges) for edges in (3, 40))
    assert small is not None
    assert large is not None
    assert 3 <= small.sum() < large.sum()
    assert large.sum() >= 40
    assert not (small & ~large).any()
