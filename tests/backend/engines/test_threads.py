"""Threads: waiting ones sleep soon, small models take one, and whoever decided otherwise is obeyed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from neuroscope.engines.threads import SMALL, Governor, threads_for
from neuroscope.waiting import wait_briefly
from tests import tiny

_POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def test_waiting_is_brief_unless_somebody_set_a_policy() -> None:
    free: dict[str, str] = {}
    assert not wait_briefly(free, {})
    assert set(free) == {"GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    for name in _POLICIES:
        given = {name: "user"}
        assert not wait_briefly(given, {"torch"})
        assert given == {name: "user"}


def test_the_policy_is_set_before_torch_loads() -> None:
    code = (
        "import os, sys, neuroscope\n"
        "print(os.environ['GOMP_SPINCOUNT'])\n"
        "import neuroscope.models.model\n"
        "assert 'torch' not in sys.modules\n"
        "import neuroscope.engines.torch.loading"
    )
    environment = {name: value for name, value in os.environ.items() if name not in _POLICIES}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


@pytest.mark.parametrize(
    ("first", "policy", "told"), [("torch", {}, 1), ("neuroscope", {}, 0), ("torch", {"OMP_WAIT_POLICY": "PASSIVE"}, 0)]
)
def test_threads_that_spin_because_torch_came_first_are_told_once(first: str, policy: dict[str, str], told: int) -> None:
    code = (
        f"import {first}\n"
        "import torch, neuroscope\n"
        "from neuroscope import events\n"
        "torch.set_num_threads(2)\n"
        "heard = []\n"
        "with events.listen(lambda event: heard.append(getattr(event, 'message', ''))):\n"
        "    for _ in range(2): neuroscope.TransformerModel.from_hugging_face(sys.argv[1], engine='torch')\n"
        "print(sum('OMP_WAIT_POLICY' in text for text in heard))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in _POLICIES} | policy
    command = [sys.executable, "-c", f"import sys\n{code}", str(tiny.saved("gpt2"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == told


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
