"""What a result was measured on and with."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import neuroscope
from neuroscope.results import Provenance

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

_PACKAGES = ("torch", "transformers", "mlx", "mlx-lm", "numpy")


def provenance(model: TransformerModel, task: str | None, seed: int, **sizes: int) -> Provenance:
    """Model, weights' hash, engine, task, seed, sizes and versions: enough to repeat a result."""
    return Provenance(model.name, model.weights_hash, model.engine.name, task, seed, sizes, versions())


def versions() -> dict[str, str]:
    """Versions of NeuroScope and of the packages that numbers depend on."""
    found = {"neuroscope": neuroscope.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
