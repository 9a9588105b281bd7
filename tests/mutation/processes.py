"""Processes that run tests: forked from one that has imported the heavy libraries, and none of ours.

A fork starts in milliseconds, imports our packages afresh (with a mutant in one module), and leaves nothing behind: pytest
keeps no cache, hypothesis no examples, and a mutated module no bytecode.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

import coverage
import pytest

from tests.mutation.mutants import Mutant, mutated

_HEAVY = (
    "numpy",
    "scipy.stats",
    "sklearn.linear_model",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors.numpy",
    "plotly.graph_objects",
    *(f"transformers.models.{name}.modeling_{name}" for name in ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3")),
    *(f"transformers.models.{name}.modeling_{name}" for name in ("gemma2", "gemma3", "gpt_oss")),
)
_OPTIONS = ("-q", "--no-header", "--no-summary", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=")


def prepare() -> None:
    """Import what every fork needs."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    for name in _HEAVY:
        importlib.import_module(name)
    import hypothesis
    import torch

    torch.set_num_threads(1)
    hypothesis.settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
    hypothesis.settings.load_profile("mutants")
    ours = [name for name in sys.modules if name.split(".")[0].startswith("neuroscope")]
    assert not ours, f"{ours[0]} is imported already, so a mutant of it could not be"


def fork(work: Callable[[], int], seconds: float, log: Path) -> int | None:
    """Run `work` in a fork with its output in `log`: its answer, or None when it took longer and was ended."""
    child = os.fork()
    if child == 0:
        status = 99
        with suppress(BaseException):
            os.setsid()
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            status = work()
            sys.stdout.flush()
        os._exit(status)
    deadline = time.monotonic() + seconds
    pause = 0.01
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(pause * 1.3, 0.25)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_against(mutant: Mutant, path: Path, tests: Sequence[str]) -> int:
    """The exit status of pytest on tests with a mutant in place of its module; for a fork."""
    sys.meta_path.insert(0, _Finder(mutant.module, path, compile(mutated(path, mutant.number), str(path), "exec")))
    return int(pytest.main([*_OPTIONS, "-x", *tests]))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, module: str, path: Path, code: CodeType) -> None:
        self._module, self._path, self._code = module, path, code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self._module:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=_Loader(name, str(self._path), self._code))


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


@dataclass
class Tested:
    """What a test file's tests take and run: seconds, and by source file the lines; those of set-ups are all its tests'."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    shared: dict[str, list[int]] = field(default_factory=dict)


def trace(test_file: str, sources: Sequence[str], answer: Path) -> int:
    """Run a test file without mutants and write what its passing tests run (`Tested` as JSON); for a fork."""
    recorder = _Recorder(sources)
    status = int(pytest.main([*_OPTIONS, test_file], plugins=[recorder]))
    found = recorder.found()
    answer.write_text(json.dumps({"seconds": found.seconds, "lines": found.lines, "shared": found.shared}))
    return status


class _Recorder:
    """A pytest plugin that notes, by coverage.py, which lines of the sources run in each test."""

    def __init__(self, sources: Sequence[str]) -> None:
        self._coverage = coverage.Coverage(data_file=None, include=list(sources), config_file=False)
        self._seconds: dict[str, float] = defaultdict(float)
        self._passed: set[str] = set()

    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration
        if report.when == "call" and report.passed:
            self._passed.add(report.nodeid)

    def found(self) -> Tested:
        self._coverage.stop()
        data = self._coverage.get_data()
        lines: dict[str, dict[str, list[int]]] = {test: {} for test in sorted(self._passed)}
        shared: dict[str, list[int]] = {}
        for file in data.measured_files():
            for line, contexts in sorted(data.contexts_by_lineno(file).items()):
                for context in contexts:
                    if context in lines:
                        lines[context].setdefault(file, []).append(line)
                    elif context == "":
                        shared.setdefault(file, []).append(line)
        return Tested({test: self._seconds[test] for test in lines}, lines, shared)
