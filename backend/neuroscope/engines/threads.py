"""The number of threads of a run. (`neuroscope.waiting` sets how they wait.)

A small model is fastest on one thread, since its products are short. The number holds for the whole process, so only
NeuroScope's own processes (the command line, the server) set it.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")

#: Parameters up to which one thread is as fast as two on an idle machine.
SMALL = 30_000_000


def threads_for(parameters: int, available: int, environment: MutableMapping[str, str] = os.environ) -> int:
    """Threads for a model of that many parameters: one for a small model, unless the user set a number."""
    if any(name in environment for name in _THREADS):
        return available
    return 1 if parameters <= SMALL else available


class Governor:
    """Sets the number of threads of this process, by the largest model loaded so far."""

    def __init__(self) -> None:
        self._governs = False
        self._largest = 0

    def take_over(self) -> None:
        """Let models set this process's number of threads from now on: it runs only NeuroScope."""
        self._governs = True

    def threads(self, parameters: int, available: int) -> int | None:
        """Number of threads after loading a model of that size; None if this process is not NeuroScope's."""
        self._largest = max(self._largest, parameters)
        return threads_for(self._largest, available) if self._governs else None


governor = Governor()
