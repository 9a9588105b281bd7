"""Engines: the only place that knows a tensor framework."""

from __future__ import annotations

import importlib.util
import platform
from typing import TYPE_CHECKING

from neuroscope.errors import ArgumentError, did_you_mean
from neuroscope.models.engines import threads

if TYPE_CHECKING:
    from neuroscope.models.engines.protocol import ArrayOps
    from neuroscope.models.loading import Loader
    from neuroscope.models.model import TransformerModel
    from neuroscope.models.resolve import ModelSource

ENGINES = ("torch", "mlx")

threads.wait_briefly()  # before any engine loads a library that reads it


def usual_engine() -> str:
    """The engine where none is named: mlx on Apple silicon where it is installed, else torch (on CUDA or the CPU)."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    installed = all(importlib.util.find_spec(package) is not None for package in ("mlx", "mlx_lm"))
    return "mlx" if apple and installed else "torch"


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
    from neuroscope.models import loading
    from neuroscope.models.model import TransformerModel

    loaded = loading.load(source, _loader(engine), dtype=dtype, device=device, allow_pickle=allow_pickle, revision=revision)
    return TransformerModel(loaded.engine, loaded.tokenizer, name, loaded.weights_hash, source.target)


def host_ops() -> ArrayOps:
    """Operations on arrays in this machine's memory that belong to no model, in single precision."""
    from neuroscope.models.engines.numpy_ops import NumpyOps

    return NumpyOps()


def _loader(engine: str) -> Loader:
    """Imports the engine's framework, and no other."""
    if engine == "torch":
        from neuroscope.models.engines.torch_loading import TorchLoader

        return TorchLoader()
    if engine == "mlx":
        from neuroscope.models.engines import mlx_library

        mlx_library.require()
        from neuroscope.models.engines.mlx_loading import MlxLoader

        return MlxLoader()
    raise ArgumentError(f"There is no engine {engine!r}.", remedy=did_you_mean(engine, ENGINES, listing="Engines"))
