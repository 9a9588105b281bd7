"""Engines: the only place that knows a tensor framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuroscope.errors import ArgumentError, ModelLoadError, did_you_mean

if TYPE_CHECKING:
    from neuroscope.models.engines.protocol import ArrayOps
    from neuroscope.models.model import TransformerModel
    from neuroscope.models.resolve import ModelSource

ENGINES = ("torch",)


def load_engine(
    engine: str,
    source: ModelSource,
    *,
    name: str,
    device: str | None,
    dtype: str,
    allow_pickle: bool,
    revision: str | None,
) -> TransformerModel:
    """Load what a name resolved to onto an engine. Raises `ArgumentError` for an unknown engine, device or type."""
    if engine not in ENGINES:
        raise ArgumentError(f"There is no engine {engine!r}.", remedy=did_you_mean(engine, ENGINES, listing="Engines"))
    from neuroscope.models import loading
    from neuroscope.models.engines.torch_engine import TorchEngine
    from neuroscope.models.model import TransformerModel

    loaded = loading.load(source, dtype=dtype, device=device or _usual_device(), allow_pickle=allow_pickle, revision=revision)
    return TransformerModel(TorchEngine(loaded.model), _checked(loaded.tokenizer), name, loaded.weights_hash)


def host_ops() -> ArrayOps:
    """Operations on arrays in this machine's memory that belong to no model, in single precision."""
    import torch

    from neuroscope.models.engines.torch_ops import TorchOps

    return TorchOps(torch.device("cpu"), torch.float32)


def _usual_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _checked(tokenizer: Any) -> Any:
    if tokenizer is None:
        raise ModelLoadError("The model comes without a tokenizer.", remedy="Save its tokenizer beside the weights.")
    return tokenizer
