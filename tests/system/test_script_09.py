"""Documented script 9, unchanged: a circuit of one model behind a layer of another, and what it honestly does there."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuroscope.circuits.finder import CircuitFinder
from neuroscope.editing.edit import WeightEdit
from neuroscope.models.model import TransformerModel
from neuroscope.transfer.circuits import CircuitTransfer

pytestmark = pytest.mark.slow


def test_the_script_says_what_the_circuit_does_in_the_other_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "neuroscope_bridge", "examples", "run", "9", "--json", str(tmp_path / "out.json")]
    command += ["--figures", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["variables"]
    adapted, installed = found["adaptedCircuit"], found["installation"]
    assert adapted["task"] == installed["task"] == "addition"
    assert installed["layer"] == 10
    quality = installed["mapR2"]
    for figure in ("raw", "standardised", "roundTrip", "substituted"):
        assert 0 < quality[figure]["value"] < 1, figure
        assert quality[figure]["low"] > 0, figure
    assert quality["aligned"] > 0.95
    assert [trial["gate"] for trial in installed["trials"]] == [0.25, 0.5, 1, 2]
    assert set(installed["controls"]) == {"random circuit", "mean vector"}
    assert "128 and 112 wide" in " ".join(installed["notes"])
    assert installed["sourceAccuracy"]["value"] > 0.9
    assert installed["before"]["n"] == 60
    assert installed["triedKl"]["low"] > 0  # at the gate that was tried something is carried
    # The target adds as well as the source, and the circuit alone does not add: there is nothing to gain, and the result says so.
    assert installed["before"]["value"] > 0.9
    assert installed["circuitAccuracy"]["high"] < 0.1
    assert installed["gate"] == 0
    assert installed["helps"] is False
    assert installed["after"] == installed["before"]
    assert installed["unrelatedKl"]["value"] == 0
    assert "The circuit does not help" in done.stdout
    assert (tmp_path / "installation.svg").is_file() or list(tmp_path.glob("installation*"))


def test_what_a_damaged_model_lost_can_be_carried_into_it() -> None:
    """The means can work: all edges of an intact model, behind the last layer of the same model with three MLPs silenced."""
    source, target = (TransformerModel.from_hugging_face("bundled:gpt2-medium") for _ in range(2))
    names = ["3.mlp.W_out", "5.mlp.W_out", "7.mlp.W_out"]
    silenced = {name: -target.weights(name).read() for name in names}
    target.apply_edit(WeightEdit.planned(target, silenced, title="silenced", method="by hand"))
    circuit = CircuitFinder(source, random_circuits=1, minimality_sample=2).find_circuit("addition")
    whole = dataclasses.replace(circuit, _mask=circuit.graph.valid)
    found = target.install_circuit(
        CircuitTransfer(source, target, gates=(0.25,), random_circuits=1).adapt_circuit(whole), at=12
    )
    assert found.before.value < 0.5 < found.circuit_accuracy.low
    assert found.at_tried.low > 0
    assert found.controls["without the map"].low > 0
    assert found.controls["mean vector"].high <= 0.1
