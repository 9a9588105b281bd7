"""Datasets: generated ones, the user's own files, and fitting either to a tokenizer."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuroscope import events
from neuroscope.errors import ArgumentError, DatasetError, NeuroScopeError, TaskNotFoundError
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.statistics import wilson


class Words:
    """A tokenizer that splits at spaces and knows only some names; others become two pieces."""

    def __init__(self, known: set[str]) -> None:
        self.known = known

    def __call__(self, text: str | list[str], add_special_tokens: bool = True) -> dict[str, Any]:
        if isinstance(text, list):
            return {"input_ids": [self(one)["input_ids"] for one in text]}
        pieces = [part for word in text.split() for part in ([word] if word.strip(".,") in self.known else [word, word])]
        return {"input_ids": [zlib.crc32(piece.encode()) for piece in pieces]}

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))

    def convert_ids_to_tokens(self, id_: int) -> None:
        """None: it keeps no vocabulary."""


def model(tokenizer: Any) -> Any:
    return SimpleNamespace(tokenizer=tokenizer, name="a model")


def test_ioi_examples_are_pairs_that_differ_in_the_giver_alone() -> None:
    dataset = Dataset.load_ioi_examples(200)
    assert len(dataset) == 200
    for example in dataset:
        clean, corrupt = example.clean.split(), (example.corrupt or "").split()
        assert sum(a != b for a, b in zip(clean, corrupt, strict=True)) == 1
        assert example.clean.count(str(example.wrong).strip()) == 2
        assert example.clean.count(str(example.answer).strip()) == 1
        assert str(example.wrong).strip() not in str(example.corrupt).split()[len(clean) // 2 :]
    orders = [example.meta["order"] for example in dataset]
    assert 60 < orders.count("ABBA") < 140


def test_the_same_seed_gives_the_same_examples_and_another_seed_others() -> None:
    first, again, other = (Dataset.load_ioi_examples(20, seed=seed).as_dictionary()["examples"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_generated_dataset_makes_more_until_enough_fit() -> None:
    from neuroscope.tasks.ioi import NAMES, OBJECTS, PLACES, TEMPLATES

    words = {word.strip(".,") for template in TEMPLATES for word in template.text.split() if "{" not in word}
    known = words | set(PLACES) | set(OBJECTS) | set(NAMES[:12])
    fitted = Dataset.load_ioi_examples(5).for_model(model(Words(known)), n=40)
    assert len(fitted) == 40
    assert {str(example.answer).strip() for example in fitted} <= set(NAMES[:12])


def test_too_few_that_fit_is_an_error_that_quotes_one() -> None:
    with pytest.raises(DatasetError, match="is 2 tokens"):
        Dataset.load_ioi_examples(5).for_model(model(Words(set())))


def test_own_examples_that_do_not_fit_are_dropped_and_told() -> None:
    own = [{"clean": "a b", "corrupt": other, "answer": "b"} for other in ("a c", "a", "a a", "c")]
    heard: list[str] = []
    with events.listen(lambda event: heard.append(event.message) if isinstance(event, events.Notice) else None):
        fitted = Dataset.from_examples(own).for_model(model(Words({"a", "b", "c"})))
    assert len(fitted) == 2
    assert "2 of 4 examples do not fit" in heard[0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("a b", "not a list of examples"),
        (b"a", "not a list of examples"),
        ({"clean": "a"}, "not a list of examples"),
        (None, "a list of"),
        ([("a", "b")], "must be an object"),
        ([{"clean": "a", "corrupt": "b"}, {"clean": "c"}, {"clean": "a", "corrupt": "b"}], "Examples 0 and 2 are the same"),
        ([{"clean": "a\ud800"}], "surrogate"),
    ],
)
def test_what_is_no_list_of_examples_is_refused(given: Any, says: str) -> None:
    with pytest.raises((DatasetError, ArgumentError), match=says):
        Dataset.from_examples(given)
    with pytest.raises((DatasetError, ArgumentError), match="xamples"):
        Dataset(given)


def test_numbers_of_examples_are_whole_and_seeds_from_zero() -> None:
    for n in (2.5, "3", 0, -1, True, None):
        with pytest.raises(ArgumentError, match="whole number"):
            Dataset.load("ioi", n=n)  # type: ignore[arg-type]
    for seed in (-1, 1.5, "a"):
        with pytest.raises(ArgumentError, match="whole number"):
            Dataset.load("ioi", seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no -1 examples"):
        Dataset.load("ioi", n=3).take(-1)


def test_tasks_are_found_by_any_spelling() -> None:
    for name in ("indirect_object_identification", "indirectObjectIdentification", "IOI"):
        assert registry.get(name).name == "indirect_object_identification"
    with pytest.raises(TaskNotFoundError, match="indirect_object_identification"):
        registry.get("indirect_object_identificaton")


def test_jsonl_and_csv_load_the_same(tmp_path: Path) -> None:
    lines = tmp_path / "own.jsonl"
    lines.write_text('{"clean": "a b", "corrupt": "a c", "answer": " b", "wrong": " c"}\n\n{"clean": "x"}\n')
    table = tmp_path / "own.csv"
    table.write_text("clean,corrupt,answer,wrong\na b,a c, b, c\nx,,,\n")
    first, second = Dataset.from_file(str(lines)), Dataset.from_file(str(table))
    assert first.as_dictionary() == second.as_dictionary()
    assert first[1].corrupt is None


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.jsonl", '{"clean": "a"}\n{"clean": }\n', "line 2: invalid JSON"),
        ("x.jsonl", '{"clean": "a"}\n{"answer": "b"}\n', "line 2: the field clean is missing"),
        ("x.jsonl", '{"clean": "a", "anser": "b"}\n', "'answer'"),
        ("x.jsonl", '{"clean": 3}\n', "must be text"),
        ("x.jsonl", "[1]\n", "must be an object"),
        ("x.jsonl", "\n", "holds no examples"),
        ("x.csv", "clean,answer\na\n", "1 fields, but the header has 2"),
        ("x.txt", "a", "neither JSONL, JSON nor CSV"),
    ],
)
def test_a_faulty_file_names_line_and_field(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(NeuroScopeError) as caught:
        Dataset.from_file(str(tmp_path / name))
    assert says in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DatasetError, match=r"There is no file nowhere\.csv"):
        Dataset.from_file("nowhere.csv")


def test_wilson_matches_a_published_figure() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662.
    rate = wilson(81, 263)
    assert (rate.low, rate.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
