"""Examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import neuroscope
import neuroscope_bridge
import neuroscope_dsl

MODULES = sorted(
    module.name
    for package in (neuroscope, neuroscope_dsl, neuroscope_bridge)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if (found := Path(package.__path__[0], *module.name.split(".")[1:]).with_suffix(".py")).is_file()
    and ">>> " in found.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert (failed, tried > 0) == (0, True)


def test_the_small_grammars_have_examples() -> None:
    assert {"neuroscope.engines.sites", "neuroscope.engines.weights", "neuroscope.names", "neuroscope.tasks.statistics"} <= set(
        MODULES
    )
