"""Every error NeuroScope raises on purpose, each with a stable code and a next step.

An error means the same in Python, in a script, over msgpack and over HTTP: `code` names the kind, `site`
the place in the model it is about (if any), and `remedy` what to do next. Catch `NeuroScopeError` for all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class NeuroScopeError(Exception):
    """Base of all deliberate errors."""

    code: ClassVar[str] = "error"
    #: Whether it ends the whole job, past every handler: the user cancelled, or a limit was reached.
    stops: ClassVar[bool] = False

    def __init__(self, message: str, *, site: object | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.site = site
        self.remedy = remedy

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
