"""The four scores, on a circuit that deserves full marks and on one that does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.quality import CircuitQualityAssurance, QualityReport
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope_dsl import SmalltalkError, Workspace
from tests.backend.circuits.examples import handmade, induction_examples


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    return CircuitFinder(handmade(distractor=True), target=0.95).find_circuit("induction", induction_examples(60))


def assurance(circuit: Circuit) -> CircuitQualityAssurance:
    made = CircuitQualityAssurance(items=12, seeds=1)
    made.circuit = circuit
    made.examples = induction_examples(60, seed=9)
    return made


def test_the_circuit_set_by_hand_works_is_cheap_and_understood(circuit: Circuit) -> None:
    made = assurance(circuit)
    functional = made.test_functionality()
    assert functional.score > 0.99
    assert functional.evidence["right items kept"].value == 1
    performance = made.benchmark_performance()
    assert performance.evidence["share of block weights used"] == pytest.approx(_share_of_two_heads(), rel=1e-6)
    interpretability = made.validate_interpretability()
    assert interpretability.score == pytest.approx(1, abs=1e-6)
    assert interpretability.evidence["overlap by chance"] < 0.5


def _share_of_two_heads() -> float:
    head, mlp = 4 * 52 * 26, 2 * 52 * 4  # four matrices of d_model × d_head; two of d_model × 4 neurons
    return 2 * head / (2 * (2 * head + mlp))


def test_a_circuit_without_its_main_edge_fails(circuit: Circuit) -> None:
    mask = circuit.mask.copy()
    mask[circuit.graph.logits] = False
    broken = dataclasses.replace(circuit, _mask=mask, held_out_faithfulness=circuit.random_circuit_faithfulness)
    assert assurance(broken).test_functionality().score < 0.2


def test_what_the_model_cannot_express_is_said(circuit: Circuit) -> None:
    with pytest.raises(CircuitError, match="Refusals cannot be measured"):
        assurance(circuit).test_safety()


def test_a_report_holds_what_it_is_given(circuit: Circuit) -> None:
    made = assurance(circuit)
    report = QualityReport()
    report.functional = made.test_functionality()
    report.overall_score = 0.5
    data = report.as_dictionary()
    assert data["functional"]["score"] == report.functional.score
    assert data["safety"] is None
    assert "overall" in report.summary()
    assert np.isfinite(data["overallScore"])


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(CircuitError, match="no circuit"):
        CircuitQualityAssurance().test_functionality()
    with pytest.raises(ArgumentError, match="needs a Circuit"):
        CircuitQualityAssurance().circuit = "ioi"  # type: ignore[assignment]
    with pytest.raises(ArgumentError, match="at least 4 items"):
        CircuitQualityAssurance(items=1)


def test_scripts_name_the_circuit_when_they_make_one(circuit: Circuit) -> None:
    workspace = Workspace()
    workspace.bind("circuit", circuit)
    for way in ("CircuitQualityAssurance circuit: circuit", "CircuitQualityAssurance new circuit: circuit"):
        made = workspace.run(way)
        assert isinstance(made, CircuitQualityAssurance), way
        assert made.circuit is circuit
    assert workspace.run("CircuitQualityAssurance circuit: circuit items: 12").items == 12
    with pytest.raises(SmalltalkError, match="needs a Circuit"):
        workspace.run("CircuitQualityAssurance circuit: 5")
