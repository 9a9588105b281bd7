"""What an engine loads a model from, and the errors for weights that do not fit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from neuroscope.errors import ModelLoadError

if TYPE_CHECKING:
    from neuroscope.engines.devices import Devices
    from neuroscope.engines.protocol import Engine


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder, its configuration, and the files of its weights.

    part: whether `config` belongs to the language model inside a multimodal model, whose other weights the files also hold.
    packed: MXFP4 weights stay as they are stored.
    """

    folder: Path
    config: dict[str, Any]
    weights: list[Path]
    part: bool = False
    packed: bool = False


class Loader(Protocol):
    """How an engine loads a checkpoint."""

    @property
    def name(self) -> str: ...
    @property
    def dtypes(self) -> Collection[str]: ...
    def tokenizer(self, folder: Path) -> Any: ...
    def join(self, tp: int) -> None:
        """Make this process one of `tp` that share models. It returns on the first alone; the others do what the first does, and exit."""

    def engine(self, checkpoint: Checkpoint, dtype: str, devices: Devices) -> Engine: ...


def unfilled(folder: Path, names: Collection[str]) -> ModelLoadError:
    """The error for a checkpoint without some of the parameters."""
    return ModelLoadError(
        f"The weights in {folder} lack {len(names)} parameters, the first {next(iter(names))}.",
        remedy="The checkpoint and its config.json do not belong together.",
    )


def misconfigured(folder: Path, error: Exception) -> ModelLoadError:
    """The error for a configuration with invalid values."""
    said = " ".join(line.strip() for line in str(error).splitlines())
    return ModelLoadError(
        f"{folder / 'config.json'} has values that its architecture does not allow: {said}.", remedy="Save the model again."
    )


def damaged(folder: Path, error: Exception) -> ModelLoadError:
    """The error for weights that cannot be read."""
    return ModelLoadError(f"The weights in {folder} are damaged: {error}", remedy="Download or copy them again.")
