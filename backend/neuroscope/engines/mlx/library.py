"""mlx-lm's model modules, without the rest of mlx-lm.

Importing `mlx_lm` imports transformers, and with it torch if that is installed. Its model modules need neither, so they are
imported under an empty package of that name, which is removed afterwards, so that a later `import mlx_lm` gets the real one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType

from neuroscope.errors import MissingExtraError
from neuroscope.remedies import install

_PACKAGE = "mlx_lm"
_lock = threading.Lock()


def require() -> None:
    """Raises `MissingExtraError` if MLX, mlx-lm or MLX's library for this platform is not installed."""
    remedy = install("mlx")
    for package in ("mlx", _PACKAGE):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"The engine mlx needs the package {package.replace('_', '-')}.", remedy=remedy)
    try:
        importlib.import_module("mlx.core")
    except ImportError as error:  # on Linux its CPU and CUDA libraries are packages of their own
        raise MissingExtraError(f"MLX is installed but does not load: {error}", remedy=remedy) from error


def models_module(name: str) -> ModuleType:
    """`mlx_lm.models.<name>`."""
    with _lock:
        if _PACKAGE in sys.modules:
            return importlib.import_module(f"{_PACKAGE}.models.{name}")
        spec = importlib.util.find_spec(_PACKAGE)
        assert spec is not None
        hollow = importlib.util.module_from_spec(spec)
        sys.modules[_PACKAGE] = hollow
        try:
            return importlib.import_module(f"{_PACKAGE}.models.{name}")
        finally:
            del sys.modules[_PACKAGE]
