"""The vocabulary: what a class lets messages reach, and that every exported name is real."""

from __future__ import annotations

from typing import ClassVar

import pytest

import neuroscope
from neuroscope import vocabulary
from neuroscope.vocabulary import AmbiguousNameError, Kind, operations, public, python_only


@pytest.mark.parametrize("name", sorted(neuroscope.EXPORTS))
def test_every_exported_name_is_a_public_class(name: str) -> None:
    cls = vocabulary.find(name)
    assert cls is getattr(neuroscope, name)
    assert cls is not None
    assert vocabulary.is_public(cls)


def test_only_declared_public_members_are_operations() -> None:
    @public
    class Thing:
        size: int
        limit: ClassVar[int] = 3

        def open_door(self) -> None: ...

        def _hidden(self) -> None: ...

        @python_only
        def array(self) -> None: ...

        @property
        def colour(self) -> str:
            return "red"

        @classmethod
        def make(cls) -> Thing:
            return cls()

        @staticmethod
        def helper() -> None: ...

    found = operations(Thing)
    assert {name: operation.kind for name, operation in found.items()} == {
        "size": Kind.ATTRIBUTE,
        "opendoor": Kind.METHOD,
        "colour": Kind.PROPERTY,
        "make": Kind.CLASS_METHOD,
    }
    assert found["size"].writable
    assert not found["colour"].writable


def test_two_names_that_are_one_to_a_script_are_refused_when_the_class_is_made() -> None:
    with pytest.raises(AmbiguousNameError):

        @public
        class _Twice:
            def load_it(self) -> None: ...

            def loadIt(self) -> None: ...


def test_an_unknown_name_is_none_and_an_unknown_attribute_an_error() -> None:
    assert vocabulary.find("TransfomerModel") is None
    with pytest.raises(AttributeError):
        _ = neuroscope.TransfomerModel


def test_planned_classes_are_not_built_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(vocabulary.PLANNED) & set(vocabulary.names())
    monkeypatch.setattr(vocabulary, "PLANNED", {"CircuitDream": ("dreaming", "21")})
    with pytest.raises(AttributeError, match=r"CircuitDream .* is planned and not built yet"):
        neuroscope.CircuitDream  # noqa: B018
