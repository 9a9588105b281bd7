"""What an engine makes a model of, and the errors for weights that do not fit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from neuroscope.errors import ModelLoadError

if TYPE_CHECKING:
    from neuroscope.engines.protocol import Engine


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder, its configuration as written there, and the files of its weights.

    part: whether `config` is the language model's part of a model of several parts, whose weights the files hold too.
    """

    folder: Path
    config: dict[str, Any]
    weights: list[Path]
    part: bool = False


class Loader(Protocol):
    """How an engine makes a model of a checkpoint."""

    @property
    def name(self) -> str: ...
    @property
    def dtypes(self) -> Collection[str]: ...
    def tokenizer(self, folder: Path) -> Any: ...
    def engine(self, checkpoint: Checkpoint, dtype: str, device: str | None) -> Engine: ...


def unfilled(folder: Path, names: Collection[str]) -> ModelLoadError:
    """The error for a checkpoint that leaves parameters to chance."""
    return ModelLoadError(
        f"The weights in {folder} leave {len(names)} parameters unfilled, the first {next(iter(names))}.",
        remedy="The checkpoint and its config.json do not belong together.",
    )


def misconfigured(folder: Path, error: Exception) -> ModelLoadError:
    """The error for a configuration with values that its architecture cannot have."""
    said = " ".join(line.strip() for line in str(error).splitlines())
    return ModelLoadError(
        f"{folder / 'config.json'} holds what its architecture cannot be made of: {said}.", remedy="Save the model again."
    )


def damaged(folder: Path, error: Exception) -> ModelLoadError:
    """The error for weights that cannot be read."""
    return ModelLoadError(f"The weights in {folder} are damaged: {error}", remedy="Download or copy them again.")
