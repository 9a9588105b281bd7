"""Figures of an edit of a fact show what was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from neuroscope.editing import keys
from neuroscope.editing.facts import FactEdit, KnowledgeEditor
from neuroscope.editing.statements import Fact
from neuroscope.editing.tracing import FactCircuit
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.statistics import Estimate
from neuroscope.views.page import _load_drawers, figures
from tests import tiny


@pytest.fixture(scope="module")
def edit(tmp_path_factory: pytest.TempPathFactory) -> FactEdit:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_TEXTS", keys._ROWS)  # moments on less text
        patch.setenv("NEUROSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        model: TransformerModel = tiny.model()
        second = model.predictions("w5 w6 w7 w8", 2)[1][0].strip()
        return KnowledgeEditor(model).propose_fact(f"w5 w6 w7 w8 {second}", subject="w7", layer=0, method="memit")


def test_each_question_is_a_line_from_before_to_after(edit: FactEdit, tmp_path: Path) -> None:
    _load_drawers()
    drawn, rates = figures(edit)
    (answer,) = edit.answers
    assert [trace.x for trace in drawn.data if trace.name == "right after the edit, before"] == [
        (answer.wanted_probability.before,)
    ]
    assert [trace.x for trace in drawn.data if trace.name == "right after the edit, after"] == [
        (answer.wanted_probability.after,)
    ]
    assert answer.wanted_probability.after > answer.wanted_probability.before
    after = next(trace for trace in rates.data if trace.name == "by generation")
    assert after.y == (edit.efficacy.generation.value,)
    assert Path(edit.save_page(str(tmp_path / "edit.html"))).read_text().count("w5 w6 w7 w8")


def test_a_fact_without_a_known_object_is_compared_with_what_the_model_said(edit: FactEdit) -> None:
    (answer,) = edit.answers
    assert answer.other.strip() == answer.before.split()[0] != answer.wanted.strip()
    assert edit.before["efficacy"].probability.value == 0


def test_of_many_answers_a_figure_shows_the_first_of_each_kind(edit: FactEdit) -> None:
    _load_drawers()
    many = dataclasses.replace(edit, answers=edit.answers * 30)
    assert len(figures(many)[0].data[1].x) == 8


def test_a_trace_is_a_map_of_each_kind_and_none_where_there_is_no_circuit(edit: FactEdit) -> None:
    _load_drawers()
    parts: Any = {
        "statement": "w5 w6 w7", "subject": "w6", "object": " w7", "tokens": ["w5", "w6"], "subject_token": 1, "clean": 0.9,
        "disturbed": Estimate(0.1, 0.0, 0.2, 12), "stream": [[0.0, 0.5], [0.0, 0.25]], "mlp": [[0.0, 0.1]] * 2,
        "attention": [[0.0, -0.2]] * 2, "layer": 1, "layers": [1], "asked_layer": None, "provenance": edit.provenance,
        "_fact": Fact("w5 w6", "w6", " w7"),
    }  # fmt: skip
    drawn = figures(FactCircuit(exists=True, **parts))
    assert [figure.data[0].z.tolist() for figure in drawn] == [parts["stream"], parts["mlp"], parts["attention"]]
    assert figures(FactCircuit(exists=False, reason="none", **parts)) == []
