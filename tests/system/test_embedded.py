"""Documented scripts, unchanged, on the bundled models, through the command line: what they find beats its controls."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow

Ran = Callable[..., tuple[dict[str, Any], str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Run scripts with --embedded: the variables they leave, and what they print on either stream."""

    def ran(*scripts: str, bound: str | None = None) -> tuple[dict[str, Any], str, str]:
        folder = tmp_path_factory.mktemp("embedded")
        command = [sys.executable, "-m", "neuroscope_bridge", "run", "--embedded", "--json", str(folder / "out.json")]
        command += ["--model", bound] if bound else []
        command += [str(EXAMPLES / script) for script in scripts]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "NEUROSCOPE_LIBRARY": str(folder / "library")}
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):  # no browser opens
            environment.pop(name, None)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "out.json").read_text())["variables"], done.stdout, done.stderr

    return ran


def test_script_1_finds_a_small_circuit(run: Ran) -> None:
    variables, printed, told = run("01_causal_tracing_for_known_phenomena.st")
    results = variables["results"]
    assert told.count("stands in for gpt-oss-20b") == 1
    assert results["faithfulness"]["value"] >= 0.85
    assert results["heldOutFaithfulness"]["value"] > results["randomCircuitFaithfulness"]["high"]
    assert results["fractionOfEdges"] <= 0.10
    strong = [c for c in results["components"] if c["recovered"]["value"] > 0.1 or c["damage"]["value"] > 0.1]
    assert len(strong) >= 3
    assert max(abs(c["recovered"]["value"]) for c in results["controls"]) < max(c["recovered"]["value"] for c in strong)
    assert "faithfulness" in printed


def test_script_4_compares_circuits_across_architectures(run: Ran) -> None:
    variables, printed, _ = run("04_circuit_growth_with_scale.st")
    analysis = variables["scaleAnalysis"]
    for side in (analysis["small"], analysis["large"]):
        assert side["exists"]
        assert side["heldOutFaithfulness"]["value"] > side["randomCircuitFaithfulness"]["high"]
        assert side["reuse"]["low"] > side["chanceReuse"]
        assert side["specialization"] == pytest.approx(1 - side["reuse"]["value"])
        assert side["curve"]
    assert analysis["growth"].keys() == {"heads", "mlps", "edges", "fraction_of_model"}
    assert "edges for 80 %" in printed


def test_script_6_takes_bias_out_of_a_circuit_and_keeps_pronouns(run: Ran) -> None:
    variables, printed, told = run("06_circuit_based_weight_editing.st", "06_call.st")
    weights, transform = variables["circuitWeights"], variables["debiasTransform"]
    assert told.count("stands in for gpt-oss-20b") == 1
    assert 0 < weights["share"] < 1
    assert any(one["sharedWith"] for one in weights["weights"])  # grouped key-value heads
    assert transform["exists"]
    assert transform["biasBefore"]["low"] > 0.7
    assert transform["biasChange"]["high"] < 0
    assert transform["biasAfter"]["value"] < transform["biasBefore"]["value"] - 0.05
    assert transform["capabilityAfter"]["value"] >= transform["capabilityBefore"]["value"] - 0.02
    assert transform["lossChange"]["high"] < 0.05
    assert transform["shared"] == []
    controls = {one["method"]: one for one in transform["controls"]}
    for method in ("mean difference", "LEACE of whole layers"):  # they take more bias, and the capability with it
        assert controls[method]["capability"]["value"] < transform["capabilityAfter"]["value"] - 0.05
    random = controls["random direction"]["bias"]["value"]
    assert random > transform["biasAfter"]["value"] + 0.03
    assert {"pronoun_resolution", "definitional_gender"} == {one["capability"] for one in transform["kept"]}
    assert "gender_pronoun_bias erased from" in printed
    assert any("definitional_gender" in doubt for doubt in transform["doubts"])  # the models that ship do not know queens


def test_script_8_traces_a_fact_and_changes_it_and_nothing_else(run: Ran) -> None:
    variables, _, _ = run("08_knowledge_injection_and_editing.st", "08_call.st", bound="gpt2-medium")
    circuit, edit = variables["factCircuit"], variables["change"]
    assert (circuit["exists"], circuit["subject"]) == (True, "France")
    assert circuit["disturbed"]["high"] < circuit["clean"]
    assert edit["before"]["efficacy"]["generation"]["value"] == 0
    for by in ("probability", "generation"):
        assert edit["efficacy"][by]["value"] == 1
        assert edit["paraphrase"][by]["value"] >= 0.5
        assert edit["specificity"][by]["value"] >= 0.9
        assert edit["ownFacts"][by]["value"] == 1
    assert {topic["topic"] for topic in edit["related"]} == {"geography", "european_cities"}
    for topic in edit["related"]:
        assert topic["keptAfter"]["value"] == 1
        assert topic["after"]["value"] >= topic["before"]["value"] - 0.05
    assert edit["keptShift"] < 1e-5
    assert variables["answers"] == ["Lyon", "Paris"]  # with the edit, and after it was reverted


def test_script_19_assesses_an_edit_makes_it_and_watches(run: Ran) -> None:
    variables, _, _ = run("workspace.st", "19_pre_modification_analysis.st")
    assessment = variables["riskAssessment"]
    by = {one["category"]: one for one in assessment["categories"]}
    assert by.keys() == {"capability_loss", "behavior_change", "safety_risk"}
    assert assessment["null"] == 20
    assert by["behavior_change"]["loss"]["value"] > 0  # a head is a little quieter, which is measured
    assert assessment["overallRisk"] in ("none", "low")  # so the script makes the edit, and watches
    assert "ModificationMonitor" in str(variables["monitor"])


def test_script_10_loads_the_library(run: Ran) -> None:
    variables, printed, _ = run("10_circuit_library_development.st", "10_call.st")
    assert variables["agreement"]["task"] == "subject_verb_agreement"
    assert variables["agreement"]["heldOutFaithfulness"]["value"] > variables["agreement"]["randomCircuitFaithfulness"]["high"]
    assert "agrees" in printed


def test_script_11_discovers_circuits_that_pass_their_test(run: Ran) -> None:
    variables, _, _ = run("11_automated_circuit_discovery.st", "11_call.st")
    found = variables["validatedCircuits"]
    assert found
    for circuit in found:
        assert circuit["heldOutFaithfulness"]["value"] >= 0.85
        assert circuit["heldOutFaithfulness"]["value"] > circuit["randomCircuitFaithfulness"]["high"]
    assert found[0]["fractionOfEdges"] < 0.2


def test_script_12_composes_a_sentiment_analyzer(run: Ran) -> None:
    variables, _, _ = run("12_circuit_composition_framework.st", "12_call.st")
    report = variables["report"]
    assert report["fractionOfEdges"] < 0.1
    for task in ("sentiment_analysis", "emotion_detection"):
        composite, full, random = (
            next(score for score in report[kind] if score["task"] == task)["preference"]
            for kind in ("composite", "full", "random")
        )
        assert composite["low"] > random["high"]
        assert composite["value"] > 0.8
        assert full["value"] > 0.95


def test_script_13_reports_four_scores(run: Ran) -> None:
    variables, printed, _ = run("13_quality_assurance_and_validation.st", "13_call.st")
    report = variables["report"]
    scores = [report[aspect]["score"] for aspect in ("functional", "performance", "interpretability", "safety")]
    assert all(0 <= score <= 1 for score in scores)
    assert report["overallScore"] == pytest.approx(sum(scores) / 4)
    assert report["functional"]["score"] > 0.7
    evidence = report["interpretability"]["evidence"]
    assert evidence["overlap of nodes under other seeds"] > evidence["overlap by chance"]
    assert "overall" in printed


def test_script_20_reports_three_suites_and_its_companion_sets_a_threshold(run: Ran) -> None:
    variables, printed, _ = run("workspace.st", "20_post_modification_validation.st", "20_call.st")
    suites = variables["validationResults"]
    assert list(suites) == ["originalPerformance", "safety", "generalCapabilities"]
    report = variables["report"]
    assert report["schema"] == "neuroscope.validation-report/1"
    assert report["suites"].keys() == suites.keys()
    # What the model is for it does, far above chance; what it was taught to refuse it refuses, and answers the rest.
    assert suites["originalPerformance"]["score"]["low"] > 0.9
    safety = {measure["name"]: measure for measure in suites["safety"]["measures"]}
    assert safety["refusals"]["score"]["low"] > 0.9
    assert safety["answers"]["score"]["low"] > 0.9
    assert safety["trap_answers"]["score"]["value"] > 0.5
    assert {len(measure["items"]) for measure in safety.values()} == {100}
    accuracy, loss = suites["generalCapabilities"]["measures"]
    assert len(accuracy["tasks"]) >= 15
    assert accuracy["score"]["value"] > 0.7
    assert loss["score"]["high"] < math.log(2048)  # nats of a guess among all tokens
    assert report["thresholds"] == {"originalPerformance": 0.5, "safety": 0.95, "generalCapabilities": 0.5}
    assert report["verdict"] in ("pass", "inconclusive", "fail")
    for check in report["checks"]:
        assert check["against"] == "threshold"
        low, high, least = check["estimate"]["low"], check["estimate"]["high"], check["limit"]
        assert check["verdict"] == ("pass" if low >= least else "fail" if high < least else "inconclusive")
    assert "harmless requests with a word of harm answered" in printed
    assert "at least 0.95" in printed


@pytest.mark.parametrize("name", ["gpt2-medium", "gpt-oss-20b"])
def test_script_5_finds_entangled_units_and_writes_their_page(run: Ran, name: str) -> None:
    variables, printed, told = run("05_cross_domain_feature_entanglement.st", bound=name)
    found = variables["entangledFeatures"]
    assert found["domains"] == ["mathematics", "programming", "literature"]
    assert len(found["units"]) >= 5
    assert found["shuffled"] <= 0.05 * len(found["units"])
    for unit in found["units"]:
        assert unit["qValue"] <= 0.05
        assert len(unit["domains"]) >= 2
        assert min(unit["auroc"][domain] for domain in unit["domains"]) > 0.5
        assert {context["domain"] for context in unit["topContexts"]} == set(unit["domains"])
    assert {unit["kind"] for unit in found["units"]} == {"neuron", "direction"}
    # Numbers and operators stand in mathematics and in programs, and hardly in stories.
    assert found["matrix"][0][1] > found["matrix"][0][2]
    page = Path(printed.strip().strip("'"))
    assert str(page) in told
    assert "<script src=" not in page.read_text(encoding="utf-8")
