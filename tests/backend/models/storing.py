"""What the processes of a test do that fill the cache at once. It imports little, since each of them begins by importing it."""

from __future__ import annotations

import os
from multiprocessing.synchronize import Barrier
from pathlib import Path

from neuroscope.models.cache import stored

SIZE = 100_000


def store(cache: str, barrier: Barrier) -> None:
    """Make an entry of the cache when everybody else is making it; fails unless the whole of it is there afterwards."""
    os.environ["NEUROSCOPE_CACHE"] = cache

    def make(folder: Path) -> None:
        barrier.wait(timeout=300)
        (folder / "data").write_bytes(b"x" * SIZE)

    assert (stored("shared", make) / "data").stat().st_size == SIZE
