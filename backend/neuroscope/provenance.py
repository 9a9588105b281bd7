"""What a result was measured on and with."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import neuroscope
from neuroscope import events
from neuroscope.results import Provenance

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

_PACKAGES = ("torch", "transformers", "mlx", "mlx-lm", "numpy")


def provenance(
    model: TransformerModel, task: str | None, seed: int, *, found: Provenance | None = None, **sizes: int
) -> Provenance:
    """Model, weights' hash, engine, precision, device, task, seed, sizes and versions: enough to repeat a result.

    found: what was found earlier and is tested now; that its precision was another is kept.
    """
    return Provenance(
        model.ran,
        model.weights_hash,
        model.engine.name,
        task,
        seed,
        sizes,
        versions(),
        asked_for=None if model.name == model.ran else model.name,
        dtype=model.engine.precision,
        device=model.engine.device_name,
        found_dtype=found.dtype if found is not None and other_precision(found, model) else None,
    )


def other_precision(found: Provenance, model: TransformerModel) -> bool:
    """Whether something was found in another precision than the model computes in; unknown (older files) counts as float32."""
    return (found.dtype or "float32") != model.engine.precision


def tell_precision(what: str, found: Provenance, model: TransformerModel) -> None:
    """Tell the user when something was found in another precision than the model it is used on computes in."""
    if other_precision(found, model):
        events.notice(
            f"{what} was found in {found.dtype or 'float32'} and is used on the same weights in {model.engine.precision}.",
            "warning",
        )


def versions() -> dict[str, str]:
    """Versions of NeuroScope and of the packages that numbers depend on."""
    found = {"neuroscope": neuroscope.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
