"""How many threads a run uses, and how they wait for each other.

OpenMP's threads spin while they wait for the next piece of work. On a machine that has other work they spin on a core that
others need, and wait for a thread that does not run: a run of a small model takes several times as long. Two remedies:

1. Threads that wait go to sleep after a short spin. libgomp (Linux) and libomp (macOS, conda) read this from the environment
   when they are loaded; whoever has set a policy keeps it.
2. A small model runs on one thread: its products are so short that a second thread costs more than it brings. The number
   holds for the whole process, so only a process that is NeuroScope's own (the command line, the server) sets it.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

#: Policies of waiting; where one is set, its user has decided.
_POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")

#: Turns of libgomp's waiting loop before a thread sleeps: a tenth of a millisecond, where its default is some ten.
_SPINS = "2000"
#: Milliseconds of libomp, whose default is 200.
_BLOCKTIME = "0"

#: Parameters up to which one thread is as fast as two, alone on the machine.
SMALL = 30_000_000


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep soon, unless the user set a policy. Holds for libraries that are loaded later."""
    if not any(name in environment for name in _POLICIES):
        environment["GOMP_SPINCOUNT"] = _SPINS
        environment["KMP_BLOCKTIME"] = _BLOCKTIME


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
