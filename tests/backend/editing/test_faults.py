"""Files of edits when the process is killed, or the disk is full, at any step of writing them: the old one or the new one, whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neuroscope.editing.edit import WeightEdit
from neuroscope.errors import EditError
from tests import tiny

#: What a file is written by, in order: a fault before each of these calls, or behind it.
STEPS = ["open", "write", "flush", "fsync", "replace", "behind"]
FAULTS = """
import builtins, io, os, pathlib

def before(step, fault):
    def failing(owner, name):
        real = getattr(owner, name)
        def call(*given, **named):
            fault()
            return real(*given, **named)
        return call

    if step == "open":
        return pathlib.Path, "open", failing(pathlib.Path, "open")
    if step == "fsync":
        return os, "fsync", failing(os, "fsync")
    if step == "replace":
        return pathlib.Path, "replace", failing(pathlib.Path, "replace")
    if step == "behind":
        real = pathlib.Path.replace
        def call(*given):
            real(*given)
            fault()
        return pathlib.Path, "replace", call

    class Half(io.FileIO):  # the file itself, which writes half of what it is given
        def write(self, content):
            super().write(content[: len(content) // 2])
            if step == "write":
                fault()
            return super().write(content[len(content) // 2 :])

        def flush(self):
            if step == "flush":
                fault()

    return pathlib.Path, "open", lambda path, mode: Half(path, mode)
"""
KILLED = """
import os, signal, sys
from neuroscope.editing.edit import WeightEdit
edit = WeightEdit.load(sys.argv[1])
owner, name, call = before(sys.argv[3], lambda: os.kill(os.getpid(), signal.SIGKILL))
setattr(owner, name, call)
edit.save(sys.argv[2])
"""


@pytest.fixture(scope="module")
def edits() -> tuple[WeightEdit, WeightEdit]:
    model = tiny.model()
    name = "1.mlp.W_out"
    first, second = (np.full(model.weights(name).shape, size) for size in (0.01, 0.02))
    return (
        WeightEdit.planned(model, {name: first}, title="old", method="by hand"),
        WeightEdit.planned(model, {name: second}, title="new", method="by hand"),
    )


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_process_leaves_the_old_file_or_the_new_one(
    edits: tuple[WeightEdit, WeightEdit], step: str, tmp_path: Path
) -> None:
    target, source = edits[0].save(str(tmp_path / "kept")), edits[1].save(str(tmp_path / "source"))
    done = subprocess.run([sys.executable, "-c", FAULTS + KILLED, source, target, step], check=False, timeout=60)
    assert done.returncode == -9
    assert WeightEdit.load(target).title == ("new" if step == "behind" else "old")
    edits[1].save(target)  # what the killed one left is in nobody's way
    assert WeightEdit.load(target).title == "new"


@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    edits: tuple[WeightEdit, WeightEdit], step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = edits[0].save(str(tmp_path / "kept"))

    def full() -> None:
        raise OSError(28, os.strerror(28))

    faults: dict[str, Callable[..., tuple[object, str, object]]] = {}
    exec(FAULTS, faults)
    owner, name, call = faults["before"](step, full)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, call)
        with pytest.raises(EditError, match="No space left"):
            edits[1].save(target)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.edit"]
    assert WeightEdit.load(target).title == "old"
