"""Importing what is large, without looking for garbage all the while.

A framework defines some hundred thousand functions, classes and tables, which all stay. While they are made, Python's collector
goes through all of them again and again: a fifth of the time of importing torch and transformers.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Reference cycles are not collected in this block; afterwards they are, where they were before."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
