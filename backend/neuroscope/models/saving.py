"""Saved models: Hugging Face's files, persistent hooks, and data of upper rooms."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from neuroscope import extensions, places
from neuroscope.errors import ArgumentError, NeuroScopeError
from neuroscope.files import planned, whole_folder
from neuroscope.hooks import storage

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel


class Keeper(Protocol):
    """Writes and reads a model's additional data; a module with these two functions."""

    def write(self, model: TransformerModel, folder: Path) -> None: ...
    def read(self, model: TransformerModel, folder: Path, *, allow_imports: Sequence[str] = ()) -> None: ...


#: Keepers of additional data, in the order of writing. Modules that extend models append to it.
KEEPERS: list[Keeper] = [storage]


def save(model: TransformerModel, path: str | Path) -> Path:
    """Write a model to a new folder, whole or not at all."""
    target = places.to_write(path, "model", folder=True)
    if target.exists():
        raise ArgumentError(f"{target} already exists.", remedy="Give a folder that does not exist yet.")
    with planned("The model", target, ArgumentError), whole_folder(target) as temporary, places.own():
        with _disk_errors():
            model.engine.save(temporary)
            model.tokenizer.save_pretrained(temporary)
        for keeper in _keepers(model):
            keeper.write(model, temporary)
    return target


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Errors of writers in other languages, which say in words what the system said, as `OSError`."""
    try:
        yield
    except (OSError, NeuroScopeError):
        raise
    except Exception as error:
        said = str(error)
        number = next((code for code in errno.errorcode if f"os error {code}" in said or os.strerror(code) in said), None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number)) from error


def restore(model: TransformerModel, folder: Path, *, allow_imports: Sequence[str] = ()) -> None:
    """Restore the additional data of a model that was loaded from a folder. allow_imports: modules whose functions hooks may run."""
    if isinstance(allow_imports, (str, bool)) or not all(isinstance(name, str) for name in allow_imports):
        raise ArgumentError(
            f"allow_imports is {allow_imports!r}.", remedy='Name the modules whose functions hooks may run: ["my_hooks"].'
        )
    for keeper in reversed(_keepers(model)):
        keeper.read(model, folder, allow_imports=allow_imports)


def _keepers(model: TransformerModel) -> list[Keeper]:
    extensions.load(type(model))
    return KEEPERS
