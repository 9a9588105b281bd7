"""Saved models: Hugging Face's files, persistent hooks, and data of upper rooms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from neuroscope import extensions
from neuroscope.errors import ArgumentError
from neuroscope.files import whole_folder
from neuroscope.hooks import storage

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel


class Keeper(Protocol):
    """Writes and reads a model's additional data; a module with these two functions."""

    def write(self, model: TransformerModel, folder: Path) -> None: ...
    def read(self, model: TransformerModel, folder: Path, *, allow_imports: bool = False) -> None: ...


#: Keepers of additional data, in the order of writing. Modules that extend models append to it.
KEEPERS: list[Keeper] = [storage]


def save(model: TransformerModel, path: str | Path) -> Path:
    """Write a model to a new folder, whole or not at all."""
    target = Path(path).expanduser()
    if target.exists():
        raise ArgumentError(f"{target} already exists.", remedy="Give a folder that does not exist yet.")
    try:
        with whole_folder(target) as temporary:
            model.engine.save(temporary)
            model.tokenizer.save_pretrained(temporary)
            for keeper in _keepers(model):
                keeper.write(model, temporary)
    except OSError as error:
        raise ArgumentError(f"The model cannot be written to {target}: {error}", remedy="Choose another path.") from error
    return target


def restore(model: TransformerModel, path: str | Path, *, allow_imports: bool = False) -> None:
    """Restore the additional data of a model loaded from `path`."""
    folder = Path(path).expanduser()
    for keeper in reversed(_keepers(model)):
        keeper.read(model, folder, allow_imports=allow_imports)


def _keepers(model: TransformerModel) -> list[Keeper]:
    extensions.load(type(model))
    return KEEPERS
