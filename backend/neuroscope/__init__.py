"""NeuroScope: look inside language models, test what you think you see, change it, and prove what the change did."""

from __future__ import annotations

import importlib
from typing import Any

import neuroscope.waiting  # noqa: F401  # before anything loads the library that reads what it sets
from neuroscope import bars
from neuroscope.directory import EXPORTS, announced, missing

__version__ = "0.1.0"

__all__ = ["EXPORTS", "__version__", "connect", *sorted(EXPORTS)]


if bars.at_a_prompt():
    bars.show()


def __getattr__(name: str) -> Any:
    if name == "connect":
        return _connect()
    module = EXPORTS.get(name) or (None if name.startswith("_") else announced().get(name))
    if module is None:
        from neuroscope.vocabulary import planned

        raise AttributeError(planned(name) or f"module 'neuroscope' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise missing(error) or error from error


def _connect() -> Any:
    """`neuroscope.connect(url)`, found through an entry point, since nothing here may import the bridge."""
    from importlib.metadata import entry_points

    found = entry_points(group="neuroscope", name="connect")
    if not found:
        from neuroscope.errors import MissingExtraError

        raise MissingExtraError(
            "The package neuroscope_bridge, which has the client, is not installed.",
            remedy="Reinstall neuroscope-interp (pip install -e .).",
        )
    return next(iter(found)).load()


def __dir__() -> list[str]:
    return sorted(__all__)
