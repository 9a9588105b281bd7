"""Every writer, with every fault: what was there stays whole, nothing hidden stays, and the error is one of ours."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroscope import files
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.journal import Journal
from neuroscope.circuits.library import CircuitLibrary
from neuroscope.circuits.storage import FILES, read
from neuroscope.editing.edit import WeightEdit
from neuroscope.errors import CircuitError, NeuroScopeError
from neuroscope.models.model import TransformerModel
from neuroscope.safety.probe import Probe
from neuroscope.steering import storage
from neuroscope.validation.report import ValidationReport
from neuroscope_bridge.cli.output import write_json
from neuroscope_dsl.workspace import Workspace
from tests import tiny
from tests.backend.circuits.pairs import pairs_with_an_effect

Write = Callable[[Path], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("models") / "tiny"
    tiny.hf_model("gpt2").save_pretrained(target)
    tiny.tokenizer().save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def model(folder: Path) -> TransformerModel:
    return TransformerModel.from_hugging_face(str(folder))


@pytest.fixture(scope="module")
def circuit(model: TransformerModel) -> Circuit:
    return CircuitFinder(model, target=0.5).search("induction", pairs_with_an_effect(model))


@pytest.fixture(scope="module")
def writers(
    model: TransformerModel, circuit: Circuit, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, Write]]:
    """Name → the file's name, and what writes it into a folder."""
    workspace = Workspace()
    workspace.bind("model", model)
    page: Any = circuit
    report: Any = ValidationReport({}, {})
    probe = Probe(
        name="p", layer=1, component="residual", reading="segments", provenance=circuit.provenance,
        _weights=np.zeros(32, np.float32), _bias=0.0,
    )  # fmt: skip
    journal = Journal("journals", {"a": 1})

    def in_library(folder: Path) -> object:
        with library(folder):
            return CircuitLibrary.save(circuit, "mine")

    def in_journal(folder: Path) -> object:
        journal.folder = folder
        journal.save("scores", 3, {"x": np.zeros(100)})
        return None

    return {
        "page": ("x.html", lambda folder: page.save_page(str(folder / "x.html"))),
        "drawing": ("x.svg", lambda folder: page.draw(str(folder / "x.svg"))),
        "circuit": ("x.circuit", lambda folder: circuit.save(str(folder / "x.circuit"))),
        "edit": ("x.edit", lambda folder: WeightEdit.scaling("1.mlp.W_out", 2.0, model).save(str(folder / "x.edit"))),
        "probe": ("x.probe", lambda folder: probe.save(str(folder / "x.probe"))),
        "vectors": ("x.safetensors", lambda folder: storage.write(model, [], folder / "x.safetensors")),
        "report": ("x.json", lambda folder: report.save_as(str(folder / "x.json"))),
        "json": ("run.json", lambda folder: write_json(workspace, folder / "run.json")),
        "library": ("mine.circuit", in_library),
        "journal": ("scores.npz", in_journal),
        "model": ("saved", lambda folder: model.save(str(folder / "saved"))),
    }  # fmt: skip


NAMES = "page drawing circuit edit probe vectors report json library journal model".split()


@contextmanager
def library(folder: Path) -> Iterator[None]:
    before = os.environ.get("NEUROSCOPE_LIBRARY")
    os.environ["NEUROSCOPE_LIBRARY"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["NEUROSCOPE_LIBRARY"]
        else:
            os.environ["NEUROSCOPE_LIBRARY"] = before


@contextmanager
def full_at(call: str, number: int) -> Iterator[None]:
    """The disk is full at a call of the system."""
    real = getattr(os, call)

    def full(*arguments: Any, **named: Any) -> Any:
        raise OSError(number, os.strerror(number))

    setattr(os, call, full)
    try:
        yield
    finally:
        setattr(os, call, real)


@contextmanager
def small_files() -> Iterator[None]:
    """The system writes no more than a hundred bytes into a file: a disk that fills up midway, in any language."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


FAULTS: dict[str, Callable[[], Any]] = {
    "full at fsync": lambda: full_at("fsync", errno.ENOSPC),
    "full at rename": lambda: full_at("replace", errno.ENOSPC),
    "full midway": small_files,
}


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_leaves_what_was_there(writers: dict[str, tuple[str, Write]], tmp_path: Path, name: str, fault: str) -> None:
    file, write = writers[name]
    if name != "model":
        write(tmp_path)
    before = content(tmp_path)
    if fault == "full at rename" and name == "model":
        pytest.skip("a folder is not renamed by replace")
    with FAULTS[fault](), pytest.raises(NeuroScopeError, match="cannot be written") as caught:
        write(tmp_path)
    assert str(tmp_path) in str(caught.value)
    after = content(tmp_path)
    # The library keeps its current version under its lasting name first.
    assert {path: data for path, data in after.items() if "@" not in path} == before
    if name == "library":
        assert read(tmp_path / file).version == 1
    write(tmp_path)
    assert (tmp_path / file).exists()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_is_a_file_is_an_error_of_ours(writers: dict[str, tuple[str, Write]], tmp_path: Path, name: str) -> None:
    """As a read-only folder, which the superuser who may run these tests can write to all the same."""
    (tmp_path / "no").write_text("a file")
    with pytest.raises(NeuroScopeError, match="cannot be written"):
        writers[name][1](tmp_path / "no" / "deeper")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_folder_is_an_error_of_ours(writers: dict[str, tuple[str, Write]], tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(NeuroScopeError, match="cannot be written"):
            writers[name][1](tmp_path)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "model"])
def test_a_link_is_replaced_and_not_followed(writers: dict[str, tuple[str, Write]], tmp_path: Path, name: str) -> None:
    file, write = writers[name]
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "to").mkdir()
    if name != "library":  # whose current version must be a circuit
        (tmp_path / "to" / file).symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "to")
    assert not (tmp_path / "to" / file).is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "precious"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_files_have_the_rights_that_the_umask_leaves(writers: dict[str, tuple[str, Write]], tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for _, write in writers.values():
            write(tmp_path)
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask, path


KILLED = """
import os, signal, sys
from pathlib import Path
from neuroscope import files
number, path = int(sys.argv[1]), Path(sys.argv[2])
count = 0
def watch(name):
    real = getattr(os, name)
    def call(*a, **k):
        global count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **k)
    setattr(os, name, call)
for name in ("open", "fsync", "replace", "link", "close", "scandir"):
    watch(name)
print("started", flush=True)
exec(sys.argv[3])
print(count, flush=True)
"""
FILE = "files.write_whole(path / 'x', b'new' * 1000)"
LIBRARY = """
with files.locked(path):
    if (path / 'x').exists():
        files.keep(path / 'x', path / 'x@1')
    files.write_whole(path / 'x', b'new' * 1000)
"""


def killed(number: int, folder: Path, code: str) -> str:
    command = [sys.executable, "-c", KILLED, str(number), str(folder), code]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    return done.stdout.removeprefix("started").strip()


@pytest.mark.parametrize("code", [FILE, LIBRARY], ids=["file", "library"])
def test_kill_9_at_every_call_leaves_a_whole_file(tmp_path: Path, code: str) -> None:
    number = 0
    while True:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        (place / "x").write_bytes(b"old")
        ended = killed(number, place, code)
        assert (place / "x").read_bytes() in (b"old", b"new" * 1000), number
        files.write_whole(place / "y", b"next")  # the next writer of the folder
        assert not [path.name for path in place.iterdir() if path.name.endswith(".part")], number
        if ended:
            break
    assert 5 < number < 40
    assert (place / "x").read_bytes() == b"new" * 1000


def test_a_part_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    """The control of the cleaning: it removes what nobody holds, and nothing else."""
    part, handle = files._part(tmp_path / "x", 0o666)
    (tmp_path / ".x.0123456789ab.part").write_text("left")
    (tmp_path / ".mine.part").write_text("not ours")
    os.mkfifo(tmp_path / ".pipe.0123456789ab.part")
    files.write_whole(tmp_path / "y", "whole")
    assert part.exists()
    assert {path.name for path in tmp_path.iterdir()} == {part.name, ".mine.part", ".pipe.0123456789ab.part", "y"}
    os.close(handle)


def _saved_five_times(circuit: Circuit, ready: Any) -> None:
    ready.wait()
    for _ in range(5):
        CircuitLibrary.save(circuit, "mine")


def test_two_processes_lose_no_version(circuit: Circuit, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    with library(tmp_path / "library"):
        ready = fork.Barrier(2)
        both = [fork.Process(target=_saved_five_times, args=(circuit, ready)) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(60)
            assert process.exitcode == 0
    kept = sorted((tmp_path / "library").glob("*.circuit"))
    assert sorted(read(path).version for path in kept) == list(range(1, 11))
    assert read(tmp_path / "library" / "mine.circuit").version == 10


def test_a_lock_is_given_up_with_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"import time\nfrom pathlib import Path\nfrom neuroscope.files import locked\nwith locked(Path({str(tmp_path)!r})):\n print('held', flush=True)\n time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    monkeypatch.setattr(files, "_PATIENCE", 0.2)
    with pytest.raises(NeuroScopeError, match="Another process"), files.locked(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with files.locked(tmp_path):
        pass


# --- damaged circuits -------------------------------------------------------------------------------------------------

_JUNK: list[Any] = [None, True, -1, 10**12, 1.5, "x", "", [], [[]], {}, {"a": 1}, [None], "\ud800", 10**400]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from _paths(value[0], (*path, 0))


def test_every_damaged_header_is_an_error_of_ours(circuit: Circuit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value of the header, replaced by some values of other kinds or removed, under a hash that is right."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    path = Path(circuit.save(str(tmp_path / "c.circuit")))
    _, header, tensors = FILES.read(path, absent="")
    refused = tried = 0
    for number, where in enumerate(_paths(header)):
        for junk in [*_JUNK, "removed"][number % 3 :: 3]:
            changed = json.loads(json.dumps(header))
            inner: Any = changed
            for step in where[:-1]:
                inner = inner[step]
            if not where:
                changed = {"name": junk}
            elif junk == "removed":
                del inner[where[-1]]
            else:
                inner[where[-1]] = junk
            tried += 1
            try:
                file = FILES.write(path, changed, tensors)
            except (ValueError, UnicodeEncodeError):  # what JSON or UTF-8 cannot hold
                continue
            try:
                read(file).circuit().summary()
            except CircuitError as error:
                assert "is refused" in error.message
                refused += 1
    assert refused > tried / 2


@pytest.mark.parametrize("name", ["edges", "scores", "means", "clean", "corrupt", "lengths", "answers", "wrongs"])
def test_every_damaged_tensor_is_an_error_of_ours(circuit: Circuit, tmp_path: Path, name: str) -> None:
    path = Path(circuit.save(str(tmp_path / "c.circuit")))
    _, header, tensors = FILES.read(path, absent="")
    for junk in (
        None,
        np.zeros(0),
        np.zeros(3),
        np.zeros((2, 2, 2)),
        tensors[name][:-1],
        -tensors[name].astype(np.float64) - 10**6,
    ):
        if junk is not None and junk.shape == tensors[name].shape and name in ("scores", "means"):
            continue  # other numbers, and as good
        FILES.write(path, header, {key: value for key, value in {**tensors, name: junk}.items() if value is not None})
        with pytest.raises(CircuitError, match="is refused"):
            read(path).circuit()


def test_weights_that_changed_under_an_old_date_have_another_hash(folder: Path, tmp_path: Path) -> None:
    from neuroscope.models.cache import file_hash

    path = tmp_path / "weights"
    path.write_bytes(b"a" * 1000)
    first, status = file_hash(path), path.stat()
    path.write_bytes(b"b" * 1000)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_hash(path) != first
