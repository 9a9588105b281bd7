"""A model shared among processes: as in one process, at every site, and no process waits for one that is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from neuroscope.engines.checkpoint import Checkpoint
from neuroscope.engines.devices import Devices
from neuroscope.engines.torch.shared_loading import distribution
from neuroscope.errors import ArgumentError
from neuroscope.models.model import TransformerModel
from tests import tiny
from tests.backend.parallel import shared

MODELS = ("llama", "qwen3", "gpt_oss")
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Ended:
    """What the program left: what was found by model and check, its standard error, its exit code."""

    findings: dict[str, dict[str, str | None]]
    errors: str
    code: int


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """One start for all checks, since each process imports torch."""
    file = tmp_path_factory.mktemp("shared") / "findings.json"
    folders = {name: tiny.saved(name) for name in MODELS}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(shared.SIZE)]
    where = os.pathsep.join([str(ROOT), *(str(ROOT / part) for part in ("backend", "dsl", "bridge"))])
    ended = subprocess.run(
        [*torchrun, "-m", shared.__name__, str(file), *map(str, folders.values())],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        check=False,
    )
    assert file.exists(), ended.stderr[-3000:]
    found = json.loads(file.read_text(encoding="utf-8"))
    named = {name: found[folder.name] for name, folder in folders.items()}
    return Ended({**named, "all": found["all"]}, ended.stderr, ended.returncode)


@pytest.mark.parametrize("check", shared.CHECKS)
@pytest.mark.parametrize("architecture", MODELS)
def test_two_processes_equal_one(architecture: str, check: str, program: Ended) -> None:
    said = program.findings[architecture][check]
    assert said is None, said


def test_no_process_waits_for_one_that_is_lost(program: Ended) -> None:
    assert program.findings["all"]["lost"] is None, program.findings["all"]["lost"]
    assert "process 1 of 2 leaves the group" in program.errors
    assert "too little memory here" in program.errors
    assert program.code != 0


@pytest.mark.parametrize(
    ("architecture", "size", "said", "remedy"),
    [
        ("llama", 3, "4 heads and 2 key-value heads do not divide", "1, 2"),
        ("llama", 4, "2 key-value heads do not divide", "1, 2"),
        ("gpt_oss", 3, "4 experts do not divide", "1, 2, 4"),
        ("gpt2", 2, "no plan to share gpt2", "devices="),
    ],
)
def test_a_degree_that_does_not_divide_is_refused_with_those_that_do(
    architecture: str, size: int, said: str, remedy: str
) -> None:
    with pytest.raises(ArgumentError, match=said) as refused:
        distribution(Checkpoint(tiny.saved(architecture), {}, []), size)
    assert remedy in str(refused.value.remedy)


def test_what_tp_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    folder = str(tiny.saved("llama"))
    with pytest.raises(ArgumentError, match="this is one alone") as refused:
        TransformerModel.from_hugging_face(folder, engine="torch", tp=2)
    assert "torchrun --nproc-per-node 2" in str(refused.value.remedy)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ArgumentError, match="torchrun started 4"):
        TransformerModel.from_hugging_face(folder, engine="torch", tp=2)
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(ArgumentError, match="number of processes"):
            Devices.of(tp=wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="a device of its own"):
        Devices.of("cpu", tp=2)


@tiny.needs_mlx
def test_mlx_runs_in_one_process() -> None:
    with pytest.raises(ArgumentError, match="in one process, not 2"):
        TransformerModel.from_hugging_face(str(tiny.saved("llama")), engine="mlx", tp=2)
