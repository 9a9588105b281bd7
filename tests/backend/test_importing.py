"""Garbage is not collected while a framework is imported, and is afterwards where it was before."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from neuroscope.importing import without_collecting


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_left_as_it_was_found(before: bool) -> None:
    known = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with pytest.raises(ZeroDivisionError), without_collecting():
            assert not gc.isenabled()
            1 / 0  # noqa: B018
        assert gc.isenabled() is before
    finally:
        (gc.enable if known else gc.disable)()


@pytest.mark.slow
def test_importing_a_framework_collects_nothing() -> None:
    program = """
import gc
from neuroscope import engines
runs = []
gc.callbacks.append(lambda phase, _: runs.append(phase))
engines.loader("torch")
assert len(runs) < 10, len(runs)
assert gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
