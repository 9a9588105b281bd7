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
    """Record model, weights' hash, engine, precision, device, task, seed, sizes and versions: enough to repeat a result.

    found: provenance of an earlier finding that is tested now; its precision is kept if it differs.
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
    """Whether something was found in a precision other than the model's; unknown (older files) counts as float32."""
    return (found.dtype or "float32") != model.engine.precision


def tell_precision(what: str, found: Provenance, model: TransformerModel) -> None:
    """Warn when something was found in a precision other than that of the model it is used on."""
    tell_dtype(what, found.dtype, model)


def tell_dtype(what: str, dtype: str | None, model: TransformerModel, told: set[str] | None = None) -> None:
    """The same for something of which the type alone is known; None counts as float32. told: the types for which this was said already."""
    now = model.engine.precision
    if (dtype or "float32") != now and (told is None or now not in told):
        if told is not None:
            told.add(now)
        events.notice(f"{what} was found in {dtype or 'float32'} and is used here in {now}, on the same weights.", "warning")


def tell_weights(what: str, title: str, weights_hash: str, model: TransformerModel, told: set[str]) -> None:
    """Warn when something was measured on other weights than the model's, those before an edit for example.

    told: the hashes of the weights on which this was said already; the model's is added.
    """
    now = model.weights_hash
    if weights_hash != now and now not in told:
        told.add(now)
        events.notice(
            f"{what} was measured on {title} with the weights {weights_hash[:12]}…, and {model.title} has the weights {now[:12]}… now: "
            "measure it again, or take the edit back.",
            "warning",
        )


def versions() -> dict[str, str]:
    """Versions of NeuroScope and of the packages that affect results."""
    found = {"neuroscope": neuroscope.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
