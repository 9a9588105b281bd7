"""Extension of models: `model save:` also stores their steering vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuroscope.models.saving import KEEPERS
from neuroscope.steering.vectors import SteeringVectors

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

VECTORS = "steering.safetensors"


class _Vectors:
    """`saving.Keeper` of the model's steering vectors."""

    def write(self, model: TransformerModel, folder: Path) -> None:
        vectors = SteeringVectors(model)
        if len(vectors):
            vectors.save(str(folder / VECTORS))

    def read(self, model: TransformerModel, folder: Path, *, allow_imports: Sequence[str] = ()) -> None:
        if (folder / VECTORS).is_file():
            SteeringVectors(model).read(str(folder / VECTORS))


KEEPERS.append(_Vectors())
