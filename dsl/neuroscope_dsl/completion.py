"""Completion of names and selectors, for a REPL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuroscope_dsl.errors import SmalltalkError

if TYPE_CHECKING:
    from neuroscope_dsl.workspace import Workspace

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_RECEIVER = re.compile(r"(?:^|[^A-Za-z0-9_#$:.])((?:[A-Za-z_][A-Za-z0-9_]*|[0-9]+|'[^']*'|#[A-Za-z]+))\s+\Z")
_PSEUDO = ("false", "nil", "self", "super", "thisContext", "true")


@dataclass(frozen=True)
class Completion:
    """Replace the text from `start` to the cursor by one of `choices`."""

    start: int
    choices: tuple[str, ...]


def complete(workspace: Workspace, text: str, cursor: int | None = None) -> Completion:
    """Completions before the cursor: selectors after a value of known class, otherwise names."""
    before = text if cursor is None else text[:cursor]
    found = _WORD.search(before)
    word = found.group() if found else ""
    start = len(before) - len(word)
    receiver = _RECEIVER.search(before[:start])
    if receiver is not None:
        known, value = _value(workspace, receiver.group(1))
        if known:
            choices = workspace.dispatcher.selectors(value)
            return Completion(start, _matching(word, (choice for choice in choices if choice[0].isalpha())))
    return Completion(start, _matching(word, (*workspace.variables, *workspace.class_names(), *_PSEUDO)))


def _matching(word: str, choices: Any) -> tuple[str, ...]:
    return tuple(sorted({choice for choice in choices if choice.startswith(word) and choice != word}))


def _value(workspace: Workspace, text: str) -> tuple[bool, Any]:
    """The value of a name or a literal, without running anything."""
    if text[0].isdigit():
        return True, 0
    if text[0] in "'#":
        return True, ""
    absent = object()
    try:
        value = workspace.lookup(text, absent)
    except SmalltalkError:
        return False, None
    return value is not absent, value
