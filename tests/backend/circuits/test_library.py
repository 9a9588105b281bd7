"""Circuit files and the library: what is written is read, what was changed is refused, versions are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from neuroscope import events
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.library import CircuitLibrary
from neuroscope.circuits.storage import read, write
from neuroscope.editing.edit import WeightEdit
from neuroscope.errors import ArgumentError, CircuitError
from neuroscope.models import aliases
from neuroscope.models.model import TransformerModel
from tests import tiny
from tests.backend.circuits.pairs import pairs_with_an_effect


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEUROSCOPE_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setattr("neuroscope.circuits.library.SHIPPED", tmp_path / "nothing-ships")
    return tmp_path / "library"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("models") / "tiny"
    tiny.hf_model("gpt2").save_pretrained(target)
    tiny.tokenizer().save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def circuit(folder: Path) -> Circuit:
    model = TransformerModel.from_hugging_face(str(folder))
    return CircuitFinder(model, target=0.5).search("induction", pairs_with_an_effect(model))


def test_a_circuit_is_read_as_it_was_written(circuit: Circuit, tmp_path: Path) -> None:
    again = read(circuit.save(str(tmp_path / "mine"))).circuit()
    assert (again.mask == circuit.mask).all()
    assert again.edges == circuit.edges
    assert again.as_dictionary() == circuit.as_dictionary()
    assert (again.pairs.clean.ids == circuit.pairs.clean.ids).all()
    assert again.means == pytest.approx(circuit.means)
    assert again.model.weights_hash == circuit.model.weights_hash  # loaded by its name only now


def test_means_are_the_means_of_the_writes(circuit: Circuit) -> None:
    from tests.backend.circuits.brute import BruteGPT2

    brute = BruteGPT2(tiny.hf_model("gpt2"))
    batch = circuit.pairs.corrupt
    traces = [brute.run(batch.ids[row][batch.real[row]].tolist()) for row in range(batch.rows)]
    head, mlp = (1, 2), 2
    graph = circuit.graph
    expected = np.concatenate([trace.head_writes[head] for trace in traces]).mean(0)
    assert circuit.means[graph.head(*head)] == pytest.approx(expected, abs=1e-5)
    assert circuit.means[graph.mlp(mlp)] == pytest.approx(np.concatenate([t.mlps[mlp] for t in traces]).mean(0), abs=1e-5)
    assert circuit.means[0] == pytest.approx(np.concatenate([trace.embedding for trace in traces]).mean(0), abs=1e-5)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _changed_scores(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _changed_figure(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b'version\\": 1', b'version\\": 7', 1))


def _foreign(path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, path)


def _newer(path: Path) -> None:
    save_file(load_file(path), path, {"format": "9", "header": "{}", "sha256": ""})


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (_cut, "cut off"),
        (_changed_scores, "changed after"),
        (_changed_figure, "changed after"),
        (_foreign, "no circuit"),
        (_newer, "format '9'"),
        (lambda path: path.write_bytes(b"not at all"), "not a circuit file"),
    ],
)
def test_a_file_that_was_changed_or_is_none_is_refused(circuit: Circuit, tmp_path: Path, how: Any, says: str) -> None:
    path = write(circuit, tmp_path / "mine")
    how(path)
    with pytest.raises(CircuitError, match=says):
        read(path)
    with pytest.raises(CircuitError, match=says):
        CircuitLibrary.load_circuit(str(path))


def test_a_library_keeps_versions(circuit: Circuit, library: Path) -> None:
    first = CircuitLibrary.save(circuit, "syntax/my_circuit")
    second = CircuitLibrary.save(circuit, "syntax/my_circuit")
    assert (first.version, second.version) == (1, 2)
    assert [entry.version for entry in CircuitLibrary.entries()] == [2]
    assert CircuitLibrary.load("myCircuit").edge_count == circuit.edge_count
    assert read(library / "syntax" / "my_circuit@1.circuit").version == 1
    assert CircuitLibrary.load("my_circuit", version=1).task == "induction"
    assert CircuitLibrary.load_circuit("syntax/my_circuit.circuit").task == "induction"
    with pytest.raises(CircuitError) as caught:
        CircuitLibrary.load("my_circuit", version=3)
    assert "1, 2" in caught.value.remedy
    assert [entry.name for entry in CircuitLibrary.search("SYNTAX")] == ["my_circuit"]
    assert CircuitLibrary.search("nothing like it") == []


def test_an_unknown_name_gives_the_nearest(circuit: Circuit) -> None:
    with pytest.raises(CircuitError) as caught:
        CircuitLibrary.load("whatever_it_is")
    assert "library" in caught.value.remedy
    CircuitLibrary.save(circuit, "tokenization")
    with pytest.raises(CircuitError) as caught:
        CircuitLibrary.load("tokenisation")
    assert "tokenization" in caught.value.remedy
    with pytest.raises(CircuitError, match="no circuit file syntax"):
        CircuitLibrary.load_circuit("syntax/none.circuit")


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "", "a b"])
def test_names_stay_inside_the_library(circuit: Circuit, name: str) -> None:
    with pytest.raises(ArgumentError, match="cannot name a circuit"):
        CircuitLibrary.save(circuit, name)


def test_a_damaged_entry_is_told_and_left_out(circuit: Circuit) -> None:
    _cut(Path(CircuitLibrary.save(circuit, "broken").path))
    CircuitLibrary.save(circuit, "whole")
    heard: list[str] = []
    with events.listen(lambda event: heard.append(event.message) if isinstance(event, events.Notice) else None):
        assert [entry.name for entry in CircuitLibrary.entries()] == ["whole"]
    assert "broken" in heard[0]


def test_a_circuit_measures_again_as_its_file_says(circuit: Circuit) -> None:
    CircuitLibrary.save(circuit, "mine")
    report = CircuitLibrary.verify("mine")
    assert report.agrees
    assert report.measured.value == pytest.approx(circuit.held_out_faithfulness.value, abs=1e-5)


def test_a_circuit_of_other_weights_is_refused(circuit: Circuit, folder: Path, tmp_path: Path) -> None:
    CircuitLibrary.save(circuit, "mine")
    other = tmp_path / "other"
    tiny.hf_model("gpt2", seed=5).save_pretrained(other)
    tiny.tokenizer().save_pretrained(other)
    with aliases.in_force([f"{folder}={other}"]), pytest.raises(CircuitError, match="was found on"):
        _ = CircuitLibrary.load("mine").model


def test_a_circuit_says_that_its_model_was_edited_since() -> None:
    model = tiny.model("gpt2")
    found = CircuitFinder(model, target=0.5).search("induction", pairs_with_an_effect(model))
    heard: list[str] = []
    with events.listen(lambda event: heard.append(event.message) if isinstance(event, events.Notice) else None):
        assert found.model is model
        assert heard == []
        edit = model.apply_edit(WeightEdit.scaling("1.mlp.W_out", 2.0, model))
        assert found.model is model
        assert found.model is model
        assert len(heard) == 1
        assert "was edited after the circuit for induction was found" in heard[0]
        model.revert(edit)
        heard.clear()
        assert found.model is model
        assert heard == []
