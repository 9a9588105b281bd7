"""Every error NeuroScope raises on purpose, each with a stable code and a next step.

An error means the same in Python, in a script, over msgpack and over HTTP: `code` names the kind, `site`
the place in the model it is about (if any), and `remedy` what to do next, in the language of the door through which one came
(`neuroscope.remedies`). Catch `NeuroScopeError` for all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Literal

#: How one asks: from Python, in Smalltalk (scripts, images), on the command line, or over HTTP.
Door = Literal["python", "smalltalk", "shell", "http"]

_door: ContextVar[Door] = ContextVar("neuroscope_door", default="python")


@contextmanager
def speaking(door: Door) -> Iterator[None]:
    """In a block, errors speak the language of a door."""
    token = _door.set(door)
    try:
        yield
    finally:
        _door.reset(token)


class Remedy(str):
    """What to do next, with a wording for each door that has its own; the others have Python's, which the text itself is."""

    __slots__ = ("variants",)
    variants: dict[Door, str]

    def __new__(cls, python: str, *, smalltalk: str | None = None, shell: str | None = None, http: str | None = None) -> Remedy:
        made = super().__new__(cls, python)
        given: dict[Door, str | None] = {"python": python, "smalltalk": smalltalk, "shell": shell, "http": http}
        made.variants = {door: str(text) for door, text in given.items() if text is not None}
        return made

    def __reduce__(self) -> Any:
        return _remedy, (self.variants,)

    def at(self, door: Door) -> str:
        """The wording at a door."""
        return self.variants.get(door, self.variants["python"])

    def within(self, before: str, after: str = "") -> Remedy:
        """The same with a text before and after each wording."""
        return _remedy({door: f"{before} {text} {after}".strip() for door, text in self.variants.items()})


def _remedy(variants: dict[Door, str]) -> Remedy:
    return Remedy(**variants)


def joined(before: str, remedy: str, after: str = "") -> str:
    """A remedy between two texts that every door has."""
    return remedy.within(before, after) if isinstance(remedy, Remedy) else f"{before} {remedy} {after}".strip()


def at_door(remedy: str | None, door: Door) -> str | None:
    """A remedy's wording at a door; a plain text is the same at all."""
    return remedy.at(door) if isinstance(remedy, Remedy) else remedy


class NeuroScopeError(Exception):
    """Base of all deliberate errors."""

    code: ClassVar[str] = "error"
    #: Whether it ends the whole job, past every handler: the user cancelled, or a limit was reached.
    stops: ClassVar[bool] = False

    def __init__(self, message: str, *, site: object | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.site = site
        self.door = _door.get()
        self.advice = remedy

    @property
    def remedy(self) -> str | None:
        """What to do next, in the language of the door at which the error was met. `advice` has it for all."""
        return at_door(self.advice, self.door)

    @remedy.setter
    def remedy(self, remedy: str | None) -> None:
        self.advice = remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  {self.remedy}"

    @property
    def brief(self) -> str:
        """The message without the remedy."""
        return self.message

    def as_dictionary(self) -> dict[str, Any]:
        """The error as plain data."""
        return {
            "code": self.code,
            "message": self.message,
            "site": None if self.site is None else str(self.site),
            "remedy": self.remedy,
        }


class ModelNotFoundError(NeuroScopeError):
    """A model name or path resolves to nothing; the message lists the places searched."""

    code = "model-not-found"


class ModelLoadError(NeuroScopeError):
    """A model was found but cannot be used: damaged, of an unsupported kind, or refused for safety."""

    code = "model-load"


class ModelLimitError(NeuroScopeError):
    """As many models are loaded as the server allows."""

    code = "too-many-models"


class UnsupportedArchitectureError(ModelLoadError):
    """The architecture has no description, or the model does not fit it."""

    code = "unsupported-architecture"


class SiteError(NeuroScopeError):
    """A site names a part that the model does not have, or a component that does not exist."""

    code = "site"


class WeightError(NeuroScopeError):
    """A weight cannot be written as asked: it is quantised, or shared with another."""

    code = "weight"


class InertHookError(NeuroScopeError):
    """A hook could not fire, did not fire, or changed nothing when it said it would."""

    code = "inert-hook"


class HookError(NeuroScopeError):
    """A hook's action or condition failed, or returned something of the wrong kind."""

    code = "hook"


class NonFiniteActivationError(NeuroScopeError):
    """An activation, a gradient or a metric became NaN or infinite."""

    code = "non-finite"


class DatasetError(NeuroScopeError):
    """A dataset is empty, malformed or unfit for the model at hand."""

    code = "dataset"


class TaskNotFoundError(DatasetError):
    """No task has this name; the message lists the nearest names."""

    code = "task-not-found"


class AnalysisNotFoundError(NeuroScopeError):
    """No analysis has this name; the message lists the nearest names."""

    code = "analysis-not-found"


class CircuitError(NeuroScopeError):
    """A circuit cannot be found, measured or used as asked."""

    code = "circuit"


class EditError(NeuroScopeError):
    """An edit of weights cannot be made, applied or reverted as asked; nothing was changed."""

    code = "edit"


class FileError(NeuroScopeError):
    """A file cannot be read or written."""

    code = "file"


class AccessError(NeuroScopeError):
    """A path, a download or a program that may not be used through this door."""

    code = "access"


class ParityError(NeuroScopeError):
    """A check of `model.verify()` failed: NeuroScope's run differs from the bare model's."""

    code = "parity"


class WorkerLostError(NeuroScopeError):
    """Workers died again and again on the same work, or one of the processes that share a model is lost."""

    code = "worker-lost"


class CancelledError(NeuroScopeError):
    """The caller asked a long job to stop."""

    code = "cancelled"
    stops = True


class MissingExtraError(NeuroScopeError):
    """An optional package is missing; the remedy names the extra to install."""

    code = "missing-extra"


class ArgumentError(NeuroScopeError, ValueError):
    """An argument has an invalid value."""

    code = "argument"


def nearest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The `count` choices most like `name`, best first, compared without case and underscores."""
    if len(name) > _LONGEST_NAME:
        return []
    folded: dict[str, str] = {}
    for choice in choices:
        folded.setdefault(choice.replace("_", "").lower(), choice)
    matches = difflib.get_close_matches(name.replace("_", "").lower(), folded, n=count, cutoff=0.5)
    return [folded[match] for match in matches]


#: Longer names resemble nothing.
_LONGEST_NAME = 100


def first_line(error: Exception) -> str:
    """The first line of another library's error, or its class name if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def reason(error: Exception) -> str:
    """Why a file could not be read or written, without its path."""
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else first_line(error)


def did_you_mean(name: str, choices: Iterable[str], *, listing: str = "Known") -> str:
    """A remedy line: the nearest names if there are any, else the choices (at most twenty)."""
    choices = sorted(set(choices))
    close = nearest(name, choices)
    if close:
        return f"Did you mean {' or '.join(repr(choice) for choice in close)}?"
    shown = ", ".join(choices[:20]) + (", …" if len(choices) > 20 else "")
    return f"{listing}: {shown}." if choices else "There are none."
