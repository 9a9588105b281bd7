"""What a session may do to the machine: attacks through a server's sessions, and the controls that show what is allowed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neuroscope import places
from neuroscope.errors import AccessError, ArgumentError
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.host.session import Session
from neuroscope_dsl.workspace import SmalltalkError, Workspace
from tests import tiny
from tests.bridge.serving import Raw, save_tiny, serving

Run = Callable[[str], Any]


@pytest.fixture(scope="module")
def tinyfolder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def host(tinyfolder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("NEUROSCOPE_LIBRARY", str(tmp_path / "library"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "mine.jsonl").write_text('{"clean": "w5 w6"}\n')
    (tmp_path / "secret.jsonl").write_text('{"clean": "w5 w6"}\n')
    (tmp_path / "own").mkdir()
    host = Host(HostOptions("tiny", [f"tiny={tinyfolder}"], folder=tmp_path / "own", readable=(tmp_path / "given",)))
    yield host
    host.close()


def runner(session: Session) -> Run:
    return lambda text: session._context.copy().run(session.workspace.run, text)


@pytest.fixture
def run(host: Host) -> Run:
    run = runner(host.open_session())
    run(
        "page := model analyze: #logit_lens. vectors := SteeringVectors for: model. edit := WeightEdit scaling: '1.mlp.W_out' by: 2 of: model"
    )
    return run


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


OUTSIDE = [
    "{0}/x",
    "../x",
    "a/../../x",
    "{0}/own/../x",
    "~/x",
    "/tmp/neuroscope-attack",
    "link/x",
    "given/../../x",
    "/dev/shm/x",
    ".hidden/x",
    ".x",
]
WRITERS = [
    "page savePage: '{}.html'",
    "model save: '{}'",
    "edit save: '{}'",
    "vectors save: '{}'",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_is_written_outside_the_own_folder(run: Run, tmp_path: Path, path: str) -> None:
    (tmp_path / "own" / "link").symlink_to(tmp_path)
    before = files(tmp_path)
    for writer in WRITERS:
        with pytest.raises(SmalltalkError):
            run(writer.format(path.format(tmp_path)))
    assert files(tmp_path) == before
    assert not Path("/tmp/neuroscope-attack").exists()
    assert not list(Path("/tmp").glob("neuroscope-attack*"))


def test_what_is_written_lies_in_the_own_folder(run: Run, tmp_path: Path) -> None:
    """The control of the attacks above."""
    assert run("page savePage: 'pages/x.html'") == str(tmp_path / "own" / "pages" / "x.html")
    assert run(f"edit save: '{tmp_path}/own/half'") == str(tmp_path / "own" / "half.edit")
    assert run("(WeightEdit load: 'half.edit') title") == run("edit title")
    run("model save: 'copy'")
    assert run("(TransformerModel load: 'copy') architecture layers") == 3
    assert files(tmp_path / "own") == files(tmp_path) - files(tmp_path / "given") - {tmp_path / "secret.jsonl"}


@pytest.mark.parametrize("name", ["x.pth", "x.py", "x.so", "sitecustomize.py", "x.sh", "x", "x.html.py", "x.desktop", "x.pkl"])
def test_no_kind_that_something_executes_is_written(run: Run, tmp_path: Path, name: str) -> None:
    with contextlib.suppress(SmalltalkError):
        run(f"page savePage: '{name}'")
    assert all(path.suffix == ".html" for path in files(tmp_path / "own"))
    with places.confined(places.Confinement(tmp_path / "own")), pytest.raises(AccessError):
        places.to_write(name)


def test_a_link_in_the_own_folder_is_not_followed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own" / "x.html").symlink_to(tmp_path / "target.html")
    (tmp_path / "own" / "folder").symlink_to(tmp_path / "given")
    (tmp_path / "own" / "read.jsonl").symlink_to(tmp_path / "secret.jsonl")
    for attack in (
        "page savePage: 'x.html'",
        "page savePage: 'folder/y.html'",
        "Dataset fromFile: 'read.jsonl'",
        "model save: 'folder/m'",
    ):
        with pytest.raises(SmalltalkError, match=r"outside|no file"):
            run(attack)
    assert not (tmp_path / "target.html").exists()
    assert [path.name for path in (tmp_path / "given").iterdir()] == ["mine.jsonl"]


READERS = [
    "Dataset fromFile: '{}'",
    "WeightEdit load: '{}'",
    "Probe load: '{}'",
    "ValidationReporter load: '{}'",
    "vectors read: '{}'",
    "CircuitLibrary loadCircuit: '{}'",
    "TransformerModel load: '{}'",
    "TransformerModel fromHuggingFace: '{}'",
]


@pytest.mark.parametrize("reader", READERS)
def test_nothing_is_read_or_told_of_outside(run: Run, tmp_path: Path, reader: str) -> None:
    """The answer is the same for what exists and for what does not."""

    def said(path: str) -> str:
        with pytest.raises(SmalltalkError) as caught:
            run(reader.format(path))
        return str(caught.value).replace(path, "PATH")

    for there, absent in (
        (f"{tmp_path}/secret.jsonl", f"{tmp_path}/absent.jsonl"),
        ("/etc/passwd", "/etc/nothing"),
        ("../secret.jsonl", "../no.jsonl"),
    ):
        assert said(there) == said(absent)
        assert "outside" in said(there) or "no circuit file" in said(there)


def test_folders_that_were_given_are_read(run: Run, tmp_path: Path) -> None:
    """The control of the attack above."""
    for path in ("mine.jsonl", f"{tmp_path}/given/mine.jsonl"):
        assert run(f"(Dataset fromFile: '{path}') size") == 1
    with pytest.raises(SmalltalkError, match="no file"):
        run("Dataset fromFile: 'secret.jsonl'")  # it lies where the server was started


@pytest.mark.parametrize("revision", ["../../../../etc/passwd", "..", "a b", "x\ny"])
def test_a_revision_is_no_path(run: Run, revision: str) -> None:
    with pytest.raises(SmalltalkError, match="is not a revision"):
        run(f"TransformerModel fromHuggingFace: 'org/name' revision: '{revision}'")


def test_no_session_downloads_unless_it_may(run: Run, tinyfolder: Path) -> None:
    with pytest.raises(SmalltalkError, match="this server downloads nothing"):
        run("TransformerModel fromHuggingFace: 'someone/something'")
    assert run("(TransformerModel fromHuggingFace: 'tiny') architecture layers") == 3  # the owner named it
    assert run("(TransformerModel fromHuggingFace: model ran) architecture layers") == 3


def test_no_session_opens_a_program_or_another_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: pytest.fail("a browser was opened"))
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(SmalltalkError, match="opens no browser"):
        run("page openBrowser")
    for url in ("http://169.254.169.254", "http://example.com:80", "http://127.0.0.1.example.com"):
        with pytest.raises(SmalltalkError, match="cannot be asked from here"):
            run(f"(LMStudioRESTClient url: '{url}') models")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/x", ".x", "a//b", "x\0y"])
def test_the_library_takes_names_alone(run: Run, tmp_path: Path, name: str) -> None:
    from neuroscope.circuits.library import _checked

    with pytest.raises(ArgumentError):
        _checked(name)


def test_a_folder_that_others_can_write_to_is_not_used(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own").chmod(0o777)
    with pytest.raises(SmalltalkError, match="Other users can write"):
        run("page savePage: 'x.html'")
    (tmp_path / "own").chmod(0o755)
    run("page savePage: 'x.html'")


def test_ones_own_run_is_free(tmp_path: Path) -> None:
    workspace = Workspace()
    workspace.bind("model", tiny.model("gpt2"))
    path = tmp_path / "deep" / "x.html"
    assert workspace.run(f"(model analyze: #logit_lens) savePage: '{path}'") == str(path)


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000, "\ud800"])
def test_what_is_no_path_is_an_error_of_ours(tmp_path: Path, path: str) -> None:
    for confinement in (None, places.Confinement(tmp_path)):
        with places.confined(confinement):
            for gate in (places.to_read, places.to_write):
                with pytest.raises(ArgumentError, match="is not a path"):
                    gate(path)


def test_a_server_process_keeps_to_its_folder(tinyfolder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    with serving("--alias", f"tiny={tinyfolder}", "--folder", str(own)) as (_, address), Raw(address) as raw:
        raw.value(op="hello")
        raw.value(op="evaluate", source="model := TransformerModel fromHuggingFace: 'tiny'")
        assert raw.code(op="evaluate", source=f"model save: '{tmp_path}/m'") == "access"
        assert raw.code(op="evaluate", source="Dataset fromFile: '/etc/passwd'") == "access"
        assert raw.value(op="evaluate", source="model save: 'm'") == str(own / "m")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert {path.name for path in tmp_path.iterdir()} == {"own"}
    assert os.listdir(own) == ["m"]
