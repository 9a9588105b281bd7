"""Processes that run tests: forked from one that has imported the heavy libraries, or from one that has collected the tests too.

A fork starts in milliseconds and leaves nothing behind: pytest keeps no cache, hypothesis no examples, and a mutated module no
bytecode. A *warm* one has our packages and the tests loaded: the mutant takes the place of the code of its function, which is
right where nothing that the mutant changes ran before (an import, a table, a constant). Any other mutant gets a *cold* one that
imports our packages with the mutant in them.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
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


def fork(work: Callable[[], int], seconds: float | None, log: Path) -> int | None:
    """Run `work` in a fork with its output in `log`: its answer, or None when it took longer (wall) and was ended."""
    child = os.fork()
    if child == 0:
        status = FAILED
        with suppress(BaseException):
            os.setsid()
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            status = work()
            sys.stdout.flush()
        os._exit(status)
    deadline = time.monotonic() + (math.inf if seconds is None else seconds)
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


def run_against(mutant: Mutant, path: Path, tests: Sequence[str], seconds: float) -> int:
    """The exit status of pytest on tests with a mutant in place of its module, within CPU seconds; for a cold fork."""
    _limit(seconds)
    sys.meta_path.insert(0, _Finder(mutant.module, path, code_of(path, mutant)))
    return int(pytest.main([*_OPTIONS, "-x", *tests]))


def run_warm(work: Sequence[Work], files: Sequence[str], log: Path, answer: Callable[[Work, int | None, float], None]) -> int:
    """Collect the tests once, then for each piece of work fork, swap the mutant in, and run its tests until one is red.

    `answer` hears the exit status (`STALE` where the mutant could not be swapped in, None where time ran out) and wall seconds.
    """
    return int(pytest.main([*_OPTIONS, *files], plugins=[_Warm(work, log, answer)]))


@dataclass(frozen=True)
class Work:
    """A mutant, its source file, the tests to run in their order, and the CPU seconds that they may take."""

    mutant: Mutant
    path: Path
    tests: tuple[str, ...]
    seconds: float


#: The status of a fork in which a mutant cannot take the place of its function, and of one whose work raises.
STALE, FAILED = 98, 99


class _Warm:
    """A pytest plugin that runs mutants in place of the collected tests."""

    def __init__(self, work: Sequence[Work], log: Path, answer: Callable[[Work, int | None, float], None]) -> None:
        self._work, self._log, self._answer = work, log, answer

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        paths = {str(each.path) for each in self._work}
        functions = [each for each in gc.get_objects() if type(each) is FunctionType and each.__code__.co_filename in paths]
        for each in self._work:
            began = time.monotonic()
            status = fork(lambda each=each: self._run(each, items, functions), 30 + 15 * each.seconds, self._log)  # type: ignore[misc]
            self._answer(each, status, time.monotonic() - began)
        return True

    def _run(self, work: Work, items: dict[str, pytest.Item], functions: Sequence[FunctionType]) -> int:
        _limit(work.seconds)
        code = code_of(work.path, work.mutant)
        if work.mutant.module not in sys.modules:
            sys.meta_path.insert(0, _Finder(work.mutant.module, work.path, code))
        elif not swapped(functions, code, work.path):
            return STALE
        chosen = [items[test] for test in work.tests]
        for item, following in zip(chosen, [*chosen[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if item.session.testsfailed:
                return 1
        return 0


def code_of(path: Path, mutant: Mutant) -> CodeType:
    return compile(mutated(path, mutant.number), str(path), "exec")


def swapped(functions: Sequence[FunctionType], code: CodeType, path: Path) -> bool:
    """Give every function of the module that the mutant changes its new code; whether there was one."""
    plain, mutant = (dict(_codes(each)) for each in (compile(path.read_bytes(), str(path), "exec"), code))
    changed = [place for place in mutant if mutant[place] != plain.get(place)]
    alike = Counter(place for place, _ in _codes(code))
    found = False
    for function in functions:
        place = _at(function.__code__)
        if function.__code__.co_filename == str(path) and place in changed:
            if alike[place] > 1:  # functions without names on one line
                return False
            try:
                function.__code__ = mutant[place]
            except ValueError:  # another number of variables from outside
                return False
            found = True
    return found


def _codes(code: CodeType) -> Iterator[tuple[tuple[str, int], CodeType]]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield _at(each), each
            yield from _codes(each)


def _at(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _limit(seconds: float) -> None:
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, resource.RLIM_INFINITY))


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
    """What a test file's tests take and run: CPU seconds, by test and source file the lines (those of its fixtures among them), and
    the lines that run when the file and what it imports are loaded."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    loading: dict[str, list[int]] = field(default_factory=dict)


def trace(test_file: str, sources: Sequence[str], longest: float, answer: Path) -> int:
    """Run a test file without mutants and write what its tests that pass within `longest` CPU seconds run (`Tested` as JSON); for
    a fork."""
    recorder = _Recorder(sources, longest)
    status = int(pytest.main([*_OPTIONS, test_file], plugins=[recorder]))
    answer.write_text(json.dumps(asdict(recorder.found())))
    return status


#: After so many that took too long, other parameters of the same test are not tried; nor is what is left of a file that took as
#: long as so many tests may.
_LIKE, _FILE = 2, 4


class _TooLongError(BaseException):
    pass


def _stop(*_: object) -> None:
    raise _TooLongError


class _Recorder:
    """A pytest plugin that notes, by coverage.py, which lines of the sources run in each test and in each fixture."""

    def __init__(self, sources: Sequence[str], longest: float) -> None:
        self._coverage = coverage.Coverage(data_file=None, include=list(sources), config_file=False)
        self._longest = longest
        self._seconds: dict[str, float] = defaultdict(float)
        self._context = ""
        self._fixtures: dict[str, list[str]] = {}
        self._passed: set[str] = set()
        self._long: Counter[str] = Counter()

    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._fixtures = {
            item.nodeid: [f"fixture {name}" for name in getattr(item, "fixturenames", ())] for item in session.items
        }

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        with self._within(f"fixture {fixturedef.argname}"):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        began = time.process_time()
        try:
            with self._within(item.nodeid):
                return (yield)
        finally:
            self._seconds[item.nodeid] = time.process_time() - began

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if self._long[item.nodeid.split("[")[0]] >= _LIKE or sum(self._seconds.values()) > _FILE * self._longest:
            pytest.skip("it, or others like it, would take too long")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        name = item.nodeid.split("[")[0]
        signal.signal(signal.SIGVTALRM, _stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, self._longest)
        try:
            return (yield)
        except _TooLongError:
            self._long[name] += 1
            pytest.fail(f"took more than {self._longest} CPU seconds")
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    @contextmanager
    def _within(self, context: str) -> Iterator[None]:
        before, self._context = self._context, context
        self._coverage.switch_context(context)
        try:
            yield
        finally:
            self._context = before
            self._coverage.switch_context(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._passed.add(report.nodeid)

    def found(self) -> Tested:
        self._coverage.stop()
        data = self._coverage.get_data()
        users: dict[str, list[str]] = defaultdict(list)
        for test in sorted(self._passed):
            for context in (test, *self._fixtures[test]):
                users[context].append(test)
        found = Tested(
            {test: self._seconds[test] for test in sorted(self._passed)}, {test: {} for test in sorted(self._passed)}
        )
        for file in data.measured_files():
            for line, contexts in sorted(data.contexts_by_lineno(file).items()):
                for test in {test for context in contexts for test in users[context]}:
                    found.lines[test].setdefault(file, []).append(line)
                if "" in contexts:
                    found.loading.setdefault(file, []).append(line)
        return found
