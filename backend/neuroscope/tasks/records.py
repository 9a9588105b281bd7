"""Facts to edit, from the files of published datasets: CounterFact, zsRE and RippleEdits, each in the layout of its authors.

    CounterFact   Meng et al. 2022      requested_rewrite, paraphrase_prompts, neighborhood_prompts
    zsRE          Mitchell et al. 2022  src, subject, alt, answers, rephrase, loc, loc_ans (MEND's layout)
    RippleEdits   Cohen et al. 2024     edit, and queries by what they test (Logical_Generalization, …)

A file is one JSON array, or JSONL with a record a line. The layout is recognised by the first record's fields; the rest must have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuroscope.errors import DatasetError
from neuroscope.results import plain
from neuroscope.tasks.dataset import Example
from neuroscope.vocabulary import public

#: RippleEdits' kinds of queries that follow from the fact, and those that must not change with it.
_FOLLOWING = ("Logical_Generalization", "Compositionality_I", "Compositionality_II")
_STAYING = ("Relation_Specificity", "Forgetfulness")
_UNASKED = "nq question: "


@public
@dataclass(frozen=True)
class FactQuestion:
    """A prompt with its right answer. others: right answers too, such as other names. kind: what the dataset calls it."""

    prompt: str
    answer: str
    kind: str
    others: tuple[str, ...] = ()


@public
@dataclass(frozen=True)
class FactExample(Example):
    """A fact to edit: `clean` is its prompt, `answer` its new object, `wrong` the one it replaces, where the dataset tells.

    subject: None where the dataset does not name it. paraphrases: the same asked otherwise, with the new object. neighbours: the same of other
    subjects. own: other facts of the subject. consequences: what follows from the new fact. Neighbours and own facts stay.
    """

    subject: str | None = None
    paraphrases: tuple[FactQuestion, ...] = field(default=())
    neighbours: tuple[FactQuestion, ...] = field(default=())
    own: tuple[FactQuestion, ...] = field(default=())
    consequences: tuple[FactQuestion, ...] = field(default=())

    def as_dictionary(self) -> dict[str, Any]:
        asked = {name: plain(getattr(self, name)) for name in ("subject", "paraphrases", "neighbours", "own", "consequences")}
        return super().as_dictionary() | asked


def facts(records: Sequence[tuple[str, Any]]) -> list[FactExample] | None:
    """The records as facts, each with where it stands; None where they have none of the layouts.

    Raises `DatasetError` for a record that lacks a field of the layout or has something else there.
    """
    first = records[0][1] if records else None
    read = next((read for known, read in _LAYOUTS if isinstance(first, Mapping) and known in first), None)
    return None if read is None else [read(_Record(item, where)) for where, item in records]


class _Record:
    """A record, or a part of one, whose fields are checked as they are read."""

    def __init__(self, item: Any, where: str, path: str = "") -> None:
        self.where, self.path = where, path
        if not isinstance(item, Mapping):
            raise self._wrong(path or "the record", "an object", item)
        self.item = item

    def text(self, name: str) -> str:
        found = self._found(name)
        if not isinstance(found, str) or not found.strip():
            raise self._wrong(f"{self.path}{name}", "a text", found)
        return found.strip()

    def texts(self, name: str) -> list[str]:
        return [part.strip() for part in self._list(name, str, "a list of texts")]

    def part(self, name: str) -> _Record:
        return _Record(self._found(name), self.where, f"{self.path}{name}.")

    def parts(self, name: str) -> list[_Record]:
        found = self._list(name, Mapping, "a list of objects")
        return [_Record(one, self.where, f"{self.path}{name}[{at}].") for at, one in enumerate(found)]

    def has(self, name: str) -> bool:
        return self.item.get(name) is not None

    def _list(self, name: str, kind: type, what: str) -> list[Any]:
        found = self._found(name)
        if not isinstance(found, list) or not all(isinstance(one, kind) for one in found):
            raise self._wrong(f"{self.path}{name}", what, found)
        return found

    def _found(self, name: str) -> Any:
        if name not in self.item:
            raise DatasetError(
                f"{self.where}: the field {self.path}{name} is missing.",
                remedy=f"It has {', '.join(map(str, self.item)) or 'no field'}.",
            )
        return self.item[name]

    def _wrong(self, what: str, wanted: str, found: Any) -> DatasetError:
        return DatasetError(
            f"{self.where}: {what.rstrip('.')} must be {wanted}, not {str(found)[:60]!r}.", remedy="Use the authors' own file."
        )


def _counterfact(record: _Record) -> FactExample:
    rewrite = record.part("requested_rewrite")
    subject, shape = rewrite.text("subject"), rewrite.text("prompt")
    if "{}" not in shape:
        raise DatasetError(
            f"{record.where}: requested_rewrite.prompt has no {{}} for the subject: {shape!r}.",
            remedy="Write 'The capital of {} is'.",
        )
    new, old = rewrite.part("target_new").text("str"), rewrite.part("target_true").text("str")
    return FactExample(
        clean=shape.replace("{}", subject, 1),
        answer=f" {new}",
        wrong=f" {old}",
        label="CounterFact",
        units=(f"subject:{subject}",),
        subject=subject,
        paraphrases=tuple(FactQuestion(prompt, f" {new}", "paraphrase") for prompt in record.texts("paraphrase_prompts")),
        neighbours=tuple(FactQuestion(prompt, f" {old}", "neighbour") for prompt in record.texts("neighborhood_prompts")),
    )


def _zsre(record: _Record) -> FactExample:
    subject, prompt, new = record.text("subject"), record.text("src"), record.text("alt")
    if subject not in prompt:
        raise DatasetError(
            f"{record.where}: src does not name the subject {subject!r}: {prompt!r}.", remedy="Correct the subject."
        )
    local = record.text("loc").removeprefix(_UNASKED)
    answers = record.texts("answers")
    return FactExample(
        clean=prompt,
        answer=f" {new}",
        wrong=f" {answers[0]}" if answers else None,
        label="zsRE",
        units=(f"subject:{subject}",),
        subject=subject,
        paraphrases=(FactQuestion(record.text("rephrase"), f" {new}", "rephrase"),),
        neighbours=(FactQuestion(f"{local[:1].upper()}{local[1:].rstrip('?')}?", f" {record.text('loc_ans')}", "locality"),),
    )


def _ripple(record: _Record) -> FactExample:
    edit = record.part("edit")
    statement = edit.text("prompt").rstrip(".")
    old = (
        edit.part("original_fact" if edit.has("original_fact") else "previous_fact").text("prompt").rstrip(".")
        if (edit.has("original_fact") or edit.has("previous_fact"))
        else None
    )
    prompt, new = _before_object(statement, old, record)
    queries = {kind: list(_queries(record, kind)) for kind in (*_FOLLOWING, *_STAYING, "Subject_Aliasing")}
    return FactExample(
        clean=prompt,
        answer=f" {new}",
        wrong=None if old is None else f" {old.removeprefix(prompt).strip()}",
        label="RippleEdits",
        units=(f"subject:{edit.text('subject_id')}",),
        own=tuple(query for kind in _STAYING for query in queries[kind]),
        consequences=tuple(query for kind in ("Subject_Aliasing", *_FOLLOWING) for query in queries[kind]),
    )


def _before_object(statement: str, old: str | None, record: _Record) -> tuple[str, str]:
    """Prompt and object: what the statement shares with the one that it replaces, up to a verb; or up to its last " is "."""
    prompt, verb, new = statement.rpartition(" is ")
    if old is not None and not (verb and old.startswith(f"{prompt} is ")):
        words, theirs = statement.split(), old.split()
        common = next(
            (at for at, (a, b) in enumerate(zip(words, theirs, strict=False)) if a != b), min(len(words), len(theirs))
        )
        prompt, verb, new = " ".join(words[:common]), "", " ".join(words[common:])
    if not prompt.strip() or not new.strip():
        raise DatasetError(
            f"{record.where}: edit.prompt does not end in an object: {statement!r}.",
            remedy="It reads 'The capital of France is Lyon.'",
        )
    return f"{prompt}{verb.rstrip()}", new.strip()


def _queries(record: _Record, kind: str) -> Iterator[FactQuestion]:
    if not record.has(kind):
        return
    for test in record.parts(kind):
        for query in test.parts("test_queries"):
            names = [name for one in query.parts("answers") for name in (one.item.get("value"), *one.texts("aliases"))]
            answers = [name for name in names if isinstance(name, str) and name.strip()]  # Wikidata has entities without a name
            if answers:
                yield FactQuestion(query.text("prompt"), f" {answers[0]}", kind, tuple(f" {other}" for other in answers[1:]))


_LAYOUTS: tuple[tuple[str, Callable[[_Record], FactExample]], ...] = (
    ("requested_rewrite", _counterfact),
    ("src", _zsre),
    ("edit", _ripple),
)
