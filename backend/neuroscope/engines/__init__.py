"""Engines: the only rooms that know a tensor framework.

Here live the words for places in a model (`sites`, `weights`, `anatomy`), the table of `architectures`, the `Engine` protocol, what
both engines share (`decoder`, `taps`, `parameters`, `sampling`), the reading of a model's files (`folder`, `weight_files`,
`tokenizers`, `checkpoint`), and the two engines, `torch` and `mlx`. Uses the ground alone (`errors`, `naming`, `events`,
`vocabulary`). Begin with `protocol`.
"""

from __future__ import annotations

import importlib.util
import platform
from typing import TYPE_CHECKING

from neuroscope.errors import ArgumentError, did_you_mean
from neuroscope.importing import without_collecting

if TYPE_CHECKING:
    from neuroscope.engines.checkpoint import Loader
    from neuroscope.engines.protocol import ArrayOps

ENGINES = ("torch", "mlx")


def usual_engine() -> str:
    """The engine where none is named: mlx on Apple silicon where it is installed, else torch (on CUDA or the CPU)."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    installed = all(importlib.util.find_spec(package) is not None for package in ("mlx", "mlx_lm"))
    return "mlx" if apple and installed else "torch"


def host_ops() -> ArrayOps:
    """Operations on arrays in this machine's memory that belong to no model, in single precision."""
    from neuroscope.engines.numpy_ops import NumpyOps

    return NumpyOps()


def loader(engine: str) -> Loader:
    """Imports the engine's framework, and no other."""
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
