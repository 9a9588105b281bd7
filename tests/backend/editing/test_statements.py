"""Statements taken apart: prompt, subject, object; and where the subject stands among the tokens."""

from __future__ import annotations

import pytest

from neuroscope.editing.statements import Fact, split_statement, subject_token
from neuroscope.errors import ArgumentError
from neuroscope.tasks.countries import RELATIONS
from neuroscope.tasks.lexicon import COUNTRIES
from tests import tiny


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_wording_of_a_built_in_relation_is_recognised(relation: str) -> None:
    country = COUNTRIES[7]
    for template in RELATIONS[relation]:
        prompt = template.text.format(c=country)
        answer = getattr(country, relation)
        assert split_statement(f"{prompt} {answer}.") == [Fact(prompt, country.name, f" {answer}", relation)]


@pytest.mark.parametrize(
    ("statement", "prompt", "subjects", "object_"),
    [
        ("The Eiffel Tower is in Paris", "The Eiffel Tower is in", ["Eiffel Tower"], " Paris"),
        ("Mexico City lies in Mexico", "Mexico City lies in", ["Mexico City"], " Mexico"),
        ("The capital of Argentina is Buenos Aires", "The capital of Argentina is", ["Argentina"], " Buenos Aires"),
        ("The mother tongue of Marie Curie is Polish.", "The mother tongue of Marie Curie is", ["Marie Curie"], " Polish"),
        ("Anna plays with Bob in Rome", "Anna plays with Bob in", ["Bob", "Anna"], " Rome"),
        ("dogs chase cats", "dogs chase", ["chase", "dogs"], " cats"),
    ],
)
def test_other_statements_are_read_by_their_capitals(statement: str, prompt: str, subjects: list[str], object_: str) -> None:
    found = split_statement(statement)
    assert [(fact.prompt, fact.object) for fact in found] == [(prompt, object_)] * len(subjects)
    assert [fact.subject for fact in found] == subjects


def test_subject_and_object_can_be_named() -> None:
    (fact,) = split_statement("the cat eats raw fish", subject="cat", target="raw fish")
    assert (fact.prompt, fact.subject, fact.object) == ("the cat eats", "cat", " raw fish")


@pytest.mark.parametrize(
    ("statement", "named", "message"),
    [
        ("", {}, "is a sentence"),
        (7, {}, "is a sentence"),
        ("Paris", {}, "not a statement"),
        ("The is Paris", {}, "no word that it could be about"),
        ("The capital of France is Paris", {"subject": "Spain"}, "does not name the subject 'Spain'"),
        ("The capital of France is Paris", {"subject": "Fran"}, "does not name the subject 'Fran'"),
        ("The capital of France is Paris", {"target": "Lyon"}, "does not end in the object 'Lyon'"),
    ],
)
def test_what_is_not_a_statement_is_refused(statement: object, named: dict[str, str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        split_statement(statement, **named)  # type: ignore[arg-type]


def test_the_subject_ends_at_its_last_token() -> None:
    model = tiny.model()
    text = "w5 w6 w7 w8 w9"
    assert subject_token(model, text, text.index("w7") + 2) == 2
    assert Fact(text, "w6 w7", " w10").end() == text.index("w7") + 2
    with pytest.raises(ArgumentError, match="does not name"):
        Fact(text, "w6 w7", " w10").end("w8 w9")
