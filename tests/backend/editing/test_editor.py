"""Facts edited from a model's own files, and what an editor refuses: an error that says what would be right, and nothing changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroscope.editing import keys
from neuroscope.editing.facts import KnowledgeEditor
from neuroscope.editing.tracing import FactCircuit
from neuroscope.errors import ArgumentError, EditError, NeuroScopeError, SiteError, WeightError
from neuroscope.models.model import TransformerModel
from tests import tiny
from tests.backend.engines.test_quantised import mxfp4

PROMPT = "w5 w6 w7 w8"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEUROSCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr(keys, "_TEXTS", keys._ROWS)  # moments on less text


def second(model: TransformerModel) -> str:
    """What the model says second, as a statement."""
    return f"{PROMPT} {model.predictions(PROMPT, 2)[1][0].strip()}"


def test_a_model_read_from_its_files_has_its_facts_edited_on_every_engine(framework: str) -> None:
    """On MLX the tokenizer is not transformers'."""
    model = TransformerModel.from_hugging_face(str(tiny.saved("gpt2")), engine=framework)
    before, said = model.weights_hash, second(model)
    edit = KnowledgeEditor(model).update_fact(said, subject="w7", layer=0, method="memit")
    (answer,) = edit.answers
    assert answer.wanted_probability.after > 1.5 * answer.wanted_probability.before
    assert model.weights_hash != before
    model.revert(edit)
    assert model.weights_hash == before


@pytest.fixture(scope="module")
def model() -> TransformerModel:
    return tiny.model()


@pytest.fixture(scope="module")
def circuit(model: TransformerModel) -> FactCircuit:
    found = KnowledgeEditor(model).find_factual_knowledge_circuit(f"{PROMPT} w9", subject="w7")
    return dataclasses.replace(found, exists=True, layers=[0])  # a random model has none


Refused = Callable[[KnowledgeEditor, str, FactCircuit], Any]


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (lambda e, s, c: e.update_fact(s, subject="w10"), ArgumentError, "does not name the subject 'w10'"),
        (lambda e, s, c: e.update_fact("w5"), ArgumentError, "The capital of France is Paris"),
        (lambda e, s, c: e.update_fact(f"{PROMPT} Berlin", subject="w7", layer=0), EditError, "an object that the model uses"),
        (lambda e, s, c: e.update_fact(s, subject="w7", preserving_related=["citys"]), ArgumentError, "Did you mean 'cities'"),
        (lambda e, s, c: e.update_fact(s, subject="w7", preserving_related=7), ArgumentError, "Topics are names, not 7"),
        (lambda e, s, c: e.update_fact(s, subject="w7", method="memmit"), ArgumentError, "Did you mean 'memit'"),
        (lambda e, s, c: e.update_fact(s, subject="w7", layer=99), SiteError, "Layers run from 0 to 2"),
        (lambda e, s, c: e.update_fact(s, "layer 3", subject="w7"), ArgumentError, "Use find_factual_knowledge_circuit"),
        (lambda e, s, c: e.update_fact("w5 w9 w8 w3", c, subject="w9"), ArgumentError, "about 'w7'.*is about 'w9'"),
        (lambda e, s, c: e.update_fact(s, changed(c, exists=False), subject="w7"), EditError, "There is no circuit to edit"),
        (lambda e, s, c: e.update_fact(s, of_other_weights(c), subject="w7"), EditError, "was found on other weights"),
        (lambda e, s, c: e.update_facts([]), ArgumentError, "There is no fact"),
    ],
)
def test_what_cannot_be_edited_is_said_and_nothing_changes(
    model: TransformerModel, circuit: FactCircuit, given: Refused, error: type[NeuroScopeError], says: str
) -> None:
    editor, before = KnowledgeEditor(model), model.weights_hash
    with pytest.raises(error, match=f"(?s){says}"):
        given(editor, second(model), circuit)
    assert (model.weights_hash, model.edits, editor.edits) == (before, [], [])


def changed(circuit: FactCircuit, **parts: Any) -> FactCircuit:
    return dataclasses.replace(circuit, **parts)


def of_other_weights(circuit: FactCircuit) -> FactCircuit:
    return changed(circuit, provenance=dataclasses.replace(circuit.provenance, weights_hash="other"))


@tiny.needs_mlx
def test_a_quantised_weight_is_refused(tmp_path: Path) -> None:
    mxfp4(tmp_path / "model")
    model = TransformerModel.from_hugging_face(str(tmp_path / "model"), engine="mlx")
    editor, before = KnowledgeEditor(model), model.weights_hash
    with pytest.raises(WeightError, match="quantised"):
        editor.update_fact(second(model), subject="w7", layer=0, method="memit")
    assert (model.weights_hash, model.edits, editor.edits) == (before, [], [])
