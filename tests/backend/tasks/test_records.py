"""Facts from the published layouts, in small files made up for this."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from neuroscope.errors import DatasetError
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.records import FactExample

COUNTERFACT = {
    "case_id": 0,
    "requested_rewrite": {
        "prompt": "The capital of {} is",
        "target_new": {"str": "Rome", "id": "Q1"},
        "target_true": {"str": "Paris", "id": "Q2"},
        "subject": "France",
    },
    "paraphrase_prompts": ["A wall. France's capital is"],
    "neighborhood_prompts": ["Lyon is a town of the land of"],
}
ZSRE = {
    "subject": "Ana Silva",
    "src": "What is the job of Ana Silva?",
    "rephrase": "Ana Silva has which job?",
    "alt": "pilot",
    "answers": ["singer"],
    "loc": "nq question: who wrote the song?",
    "loc_ans": "Bob",
}
QUERY = {
    "prompt": "The continent of France is",
    "answers": [{"value": "Europe", "aliases": ["the old world"]}, {"value": "", "aliases": []}],
}
RIPPLE = {
    "example_type": "popular",
    "edit": {
        "prompt": "The capital of France is Rome.",
        "subject_id": "Q142",
        "relation": "CAPITAL",
        "original_fact": {"prompt": "The capital of France is Paris."},
    },
    "Relation_Specificity": [{"test_queries": [QUERY], "test_condition": "OR", "condition_queries": []}],
    "Logical_Generalization": [],
    "Subject_Aliasing": [{"test_queries": [QUERY | {"prompt": "The capital of Gaul is"}]}],
}


def loaded(folder: Path, *records: Any, suffix: str = ".json") -> list[FactExample]:
    file = folder / f"facts{suffix}"
    file.write_text(json.dumps(records) if suffix == ".json" else "\n".join(map(json.dumps, records)))
    found = Dataset.from_file(str(file)).examples
    assert all(isinstance(one, FactExample) for one in found)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_counterfact(tmp_path: Path, suffix: str) -> None:
    (fact,) = loaded(tmp_path, COUNTERFACT, suffix=suffix)
    assert (fact.clean, fact.answer, fact.wrong, fact.subject) == ("The capital of France is", " Rome", " Paris", "France")
    assert [(one.prompt, one.answer) for one in fact.paraphrases] == [("A wall. France's capital is", " Rome")]
    assert [one.answer for one in fact.neighbours] == [" Paris"]


def test_zsre(tmp_path: Path) -> None:
    (fact,) = loaded(tmp_path, ZSRE)
    assert (fact.clean, fact.answer, fact.wrong, fact.subject) == (ZSRE["src"], " pilot", " singer", "Ana Silva")
    assert fact.paraphrases[0].answer == " pilot"
    assert (fact.neighbours[0].prompt, fact.neighbours[0].answer) == ("Who wrote the song?", " Bob")


def test_ripple_edits(tmp_path: Path) -> None:
    (fact,) = loaded(tmp_path, RIPPLE)
    assert (fact.clean, fact.answer, fact.wrong, fact.subject) == ("The capital of France is", " Rome", " Paris", None)
    assert [(one.answer, one.others) for one in fact.own] == [(" Europe", (" the old world",))]
    assert [one.kind for one in fact.consequences] == ["Subject_Aliasing"]
    assert fact.as_dictionary()["consequences"][0]["prompt"] == "The capital of Gaul is"


def without(record: Any, *path: str, put: Any = None) -> Any:
    changed = copy.deepcopy(record)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    if put is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = put
    return changed


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (without(COUNTERFACT, "requested_rewrite", "subject"), "record 2: the field requested_rewrite.subject is missing"),
        (without(COUNTERFACT, "requested_rewrite", "target_new", put="Rome"), "requested_rewrite.target_new must be an object"),
        (without(COUNTERFACT, "requested_rewrite", "prompt", put="The capital is"), "has no {} for the subject"),
        (without(COUNTERFACT, "paraphrase_prompts", put=[3]), "paraphrase_prompts must be a list of texts"),
    ],
)
def test_a_faulty_record_names_itself_and_the_field(tmp_path: Path, record: Any, says: str) -> None:
    with pytest.raises(DatasetError) as caught:
        loaded(tmp_path, COUNTERFACT, record)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (without(ZSRE, "subject", put="Bob"), "src does not name the subject 'Bob'"),
        (without(ZSRE, "alt"), "record 1: the field alt is missing"),
        (without(RIPPLE, "edit", "prompt", put="Rome"), "does not end in an object"),
        (without(RIPPLE, "Subject_Aliasing", put=[{"test_queries": [{"prompt": "x"}]}]), "answers is missing"),
    ],
)
def test_the_other_layouts_too(tmp_path: Path, record: Any, says: str) -> None:
    with pytest.raises(DatasetError) as caught:
        loaded(tmp_path, record)
    assert says in str(caught.value)


def test_a_json_file_holds_an_array(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    for text, says in (('{"a": 1}', "not an array"), ("[{", "invalid JSON")):
        file.write_text(text)
        with pytest.raises(DatasetError, match=says):
            Dataset.from_file(str(file))
