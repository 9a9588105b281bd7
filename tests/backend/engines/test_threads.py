"""Threads: waiting ones sleep soon, small models take one, and whoever decided otherwise is obeyed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from neuroscope.engines.threads import SMALL, Governor, threads_for, wait_briefly


def test_waiting_is_brief_unless_somebody_set_a_policy() -> None:
    free: dict[str, str] = {}
    wait_briefly(free)
    assert set(free) == {"GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"):
        given = {name: "user"}
        wait_briefly(given)
        assert given == {name: "user"}


def test_the_policy_is_set_before_torch_loads() -> None:
    code = (
        "import os, sys, neuroscope.models.model\n"
        "assert 'torch' not in sys.modules\n"
        "print(os.environ['GOMP_SPINCOUNT'])\n"
        "import neuroscope.engines.torch.loading"
    )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


@pytest.mark.parametrize(
    ("parameters", "environment", "expected"),
    [(SMALL, {}, 1), (SMALL + 1, {}, 8), (1, {"OMP_NUM_THREADS": "3"}, 8), (1, {"MKL_NUM_THREADS": "3"}, 8)],
)
def test_small_models_take_one_thread(parameters: int, environment: dict[str, str], expected: int) -> None:
    assert threads_for(parameters, 8, environment) == expected


def test_only_a_process_of_its_own_is_governed_and_by_its_largest_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT"):
        monkeypatch.delenv(name, raising=False)
    governor = Governor()
    assert governor.threads(5, 8) is None
    governor.take_over()
    assert governor.threads(5, 8) == 1
    assert governor.threads(SMALL + 1, 8) == 8
    assert governor.threads(5, 8) == 8
