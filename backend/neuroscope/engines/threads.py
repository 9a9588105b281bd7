"""How many threads a run uses. (How they wait for each other: `neuroscope.waiting`.)

A small model runs on one thread: its products are so short that a second thread costs more than it brings. The number holds for
the whole process, so only a process that is NeuroScope's own (the command line, the server) sets it.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")

#: Parameters up to which one thread is as fast as two, alone on the machine.
SMALL = 30_000_000


def threads_for(parameters: int, available: int, environment: MutableMapping[str, str] = os.environ) -> int:
    """Threads for a model of that many parameters: one for a small one, unless the user named a number."""
    if any(name in environment for name in _THREADS):
        return available
    return 1 if parameters <= SMALL else available


class Governor:
    """The number of threads of this process, by the largest model that it has loaded."""

    def __init__(self) -> None:
        self._governs = False
        self._largest = 0

    def take_over(self) -> None:
        """This process runs nothing but NeuroScope: from now on models set its number of threads."""
        self._governs = True

    def threads(self, parameters: int, available: int) -> int | None:
        """Threads to use once a model of that size is loaded too; None where that is not ours to say."""
        self._largest = max(self._largest, parameters)
        return threads_for(self._largest, available) if self._governs else None


governor = Governor()
