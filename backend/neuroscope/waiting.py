"""How long OpenMP's threads spin before they sleep.

On a busy machine a thread that spins holds a core that others need, and a run of a small model takes several times as long.
libgomp (Linux) and libomp (macOS, conda) read the spin time from the environment once, when they are loaded. So it is set when
NeuroScope is imported, and works if torch is imported later. A policy that the user set is kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, MutableMapping

#: Environment variables by which a user sets a policy.
_POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")

#: Iterations of libgomp's waiting loop before a thread sleeps: about 0.1 ms instead of the default of about 10 ms.
_SPINS = "2000"
#: Milliseconds for libomp, whose default is 200.
_BLOCKTIME = "0"


def wait_briefly(environment: MutableMapping[str, str] = os.environ, loaded: Container[str] = sys.modules) -> bool:
    """Let OpenMP's threads sleep soon, unless the user set a policy. Return whether it is too late: torch is already loaded."""
    if any(name in environment for name in _POLICIES):
        return False
    environment["GOMP_SPINCOUNT"] = _SPINS
    environment["KMP_BLOCKTIME"] = _BLOCKTIME
    return "torch" in loaded


#: Whether this process's threads spin for OpenMP's default time.
spinning = wait_briefly()
