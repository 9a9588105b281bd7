"""Engines: the only rooms that import a tensor framework.

Places in a model (`sites`, `weights`, `anatomy`), the table of `architectures`, the `Engine` protocol, what both engines share
(`decoder`, `taps`, `parameters`, `sampling`), reading a model's files (`folder`, `weight_files`, `tokenizers`, `checkpoint`),
and the two engines, `torch` and `mlx`. Uses only the ground (`errors`, `naming`, `events`, `vocabulary`). Start with
`protocol`.
"""

from __future__ import annotations

import importlib.util
import platform
from typing import TYPE_CHECKING, Any

from neuroscope.errors import ArgumentError, MissingExtraError, did_you_mean
from neuroscope.importing import without_collecting
from neuroscope.remedies import install

if TYPE_CHECKING:
    from neuroscope.engines.checkpoint import Loader
    from neuroscope.engines.protocol import ArrayOps

ENGINES = ("torch", "mlx")


def usual_engine() -> str:
    """The default engine: mlx if it is installed on Apple silicon, else torch (on CUDA or the CPU)."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    installed = all(importlib.util.find_spec(package) is not None for package in ("mlx", "mlx_lm"))
    return "mlx" if apple and installed else "torch"


def host_ops() -> ArrayOps:
    """Single-precision operations on arrays in main memory that belong to no model."""
    from neuroscope.engines.numpy_ops import NumpyOps

    return NumpyOps()


def torch_tensor(array: Any, ops: ArrayOps) -> Any:
    """An engine's array as a `torch.Tensor`; that of the engine torch itself, with its gradients. Raises `MissingExtraError`."""
    try:
        from neuroscope.engines.torch.ops import as_tensor
    except ImportError as error:
        raise MissingExtraError("torch is not installed.", remedy=install("torch")) from error
    return as_tensor(array, ops.to_numpy)


def loader(engine: str) -> Loader:
    """Import the engine's framework, and no other."""
    if engine == "torch":
        with without_collecting():
            from neuroscope.engines.torch.loading import TorchLoader

        return TorchLoader()
    if engine == "mlx":
        from neuroscope.engines.mlx import library as mlx_library

        mlx_library.require()
        with without_collecting():
            from neuroscope.engines.mlx.loading import MlxLoader

        return MlxLoader()
    raise ArgumentError(f"There is no engine {engine!r}.", remedy=did_you_mean(engine, ENGINES, listing="Engines"))
