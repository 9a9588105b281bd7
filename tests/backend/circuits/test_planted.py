"""Circuits known by construction: the models do what they are built for, and edges are scored and found accordingly."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from neuroscope.circuits.attribution import PATCHED, Scores, chosen_method, edge_scores
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.graph import Graph
from tests import tiny
from tests.planted import CIRCUITS, Planted
from tests.planted.compiled import outputs


@cache
def built(name: str) -> Planted:
    return CIRCUITS[name](12)


@cache
def evaluation(name: str) -> CircuitEvaluation:
    return CircuitEvaluation(built(name).model.engine, built(name).pairs)


@cache
def scores(name: str, method: str) -> Scores:
    return edge_scores(built(name).model.engine, built(name).pairs, method=method)


@pytest.fixture(scope="module", params=CIRCUITS)
def planted(request: pytest.FixtureRequest) -> Planted:
    return built(str(request.param))


def auroc(planted: Planted, method: str) -> float:
    valid = planted.graph.valid
    return float(roc_auc_score(planted.truth[valid], np.abs(scores(planted.name, method)[valid])))


def closeness(planted: Planted, mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> float:
    model = evaluation(planted.name)
    return float(1 - np.abs(model.metric(mask) - model.clean).sum() / np.abs(model.clean - model.empty).sum())


def test_the_model_does_what_it_is_built_for(planted: Planted) -> None:
    for batch, targets in ((planted.pairs.clean, planted.pairs.metric.answers), (planted.pairs.corrupt, None)):
        logits = planted.model.engine.forward(batch).logits[:, -1]
        if targets is not None:
            assert logits.argmax(-1).tolist() == targets.tolist()
    assert evaluation(planted.name).clean.min() > 2
    assert evaluation(planted.name).empty.max() < evaluation(planted.name).clean.min() / 2


def test_the_compiled_model_answers_what_tracrs_own_does() -> None:
    model = built("histogram, compiled").model
    prompts, answers = outputs()
    for prompt, expected in zip(prompts, answers, strict=True):
        logits = model.engine.forward(model.encode(" ".join(prompt))).logits[0, 1:]
        assert [model.tokenizer.decode([int(token)]) for token in logits.argmax(-1)] == expected


def test_the_planted_edges_are_enough_and_each_is_needed(planted: Planted) -> None:
    assert closeness(planted, planted.truth) > 0.995
    for receiver, source in np.argwhere(planted.truth):
        less = planted.truth.copy()
        less[receiver, source] = False
        if planted.redundant and (planted.graph.pruned(less)).any():
            assert closeness(planted, less) > 0.98
        else:
            assert closeness(planted, less) < 0.9


def test_distractors_are_as_active_as_the_circuit_but_do_nothing(planted: Planted) -> None:
    others = scores(planted.name, "exact")[planted.graph.valid & ~planted.truth]
    gap = float((evaluation(planted.name).clean - evaluation(planted.name).empty).mean())
    assert others.any()
    assert np.abs(others).max() < 0.005 * gap


def test_the_default_method_tells_the_planted_edges_from_all_others(planted: Planted) -> None:
    assert planted.graph.edges * planted.pairs.rows <= PATCHED
    assert auroc(planted, "auto") >= 0.99


@pytest.mark.parametrize("method", ["eap", "eap_ig", "exact"])
def test_a_method_that_is_blind_to_a_circuit_is_known_to_be(planted: Planted, method: str) -> None:
    assert (auroc(planted, method) < 0.9) == (method in planted.blind)


def test_every_edge_is_patched_only_where_that_is_cheap() -> None:
    graph = Graph.of(tiny.engine("gpt2").anatomy)
    few = PATCHED // graph.edges
    assert chosen_method("auto", graph, few) == "hybrid"
    assert chosen_method("auto", graph, few + 1) == "eap_ig"
    assert chosen_method("EAP", graph, 1) == "eap"


def test_the_hybrid_has_the_larger_score_and_the_sign_of_what_is_patched() -> None:
    exact, gradients, hybrid = (scores("histogram, compiled", method) for method in ("exact", "eap_ig", "auto"))
    assert np.abs(hybrid) == pytest.approx(np.maximum(np.abs(exact), np.abs(gradients)))
    truth = built("histogram, compiled").truth
    assert (hybrid[truth] > 0).all()
    assert (gradients[truth] < 0).any()  # the softmax is saturated at every step
