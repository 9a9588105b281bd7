"""How long OpenMP's threads wait for their next piece of work before they sleep.

Waiting, they spin. On a machine that has other work they spin on a core that others need, and a run of a small model takes
several times as long. libgomp (Linux) and libomp (macOS, conda) read from the environment how long to spin, once, when they are
loaded. So it is set when NeuroScope is imported, and holds if torch is imported later. Whoever has set a policy keeps it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, MutableMapping

#: Policies of waiting; where one is set, its user has decided.
_POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")

#: Turns of libgomp's waiting loop before a thread sleeps: a tenth of a millisecond, where its default is some ten.
_SPINS = "2000"
#: Milliseconds of libomp, whose default is 200.
_BLOCKTIME = "0"


def wait_briefly(environment: MutableMapping[str, str] = os.environ, loaded: Container[str] = sys.modules) -> bool:
    """Let OpenMP's threads sleep soon, unless the user set a policy. Answers whether that is too late: torch is loaded already."""
    if any(name in environment for name in _POLICIES):
        return False
    environment["GOMP_SPINCOUNT"] = _SPINS
    environment["KMP_BLOCKTIME"] = _BLOCKTIME
    return "torch" in loaded


#: Whether this process's threads spin as long as OpenMP lets them.
spinning = wait_briefly()
