"""Keys and tokens: who may read them, and what happens when they are taken away or damaged."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import zmq
from zmq.auth import load_certificate

from neuroscope_bridge import secrets
from neuroscope_bridge.cli.serve import EscapedLines, TokenFile, token_from
from neuroscope_bridge.client import connect
from neuroscope_bridge.files import FileError
from neuroscope_bridge.keys import Clients, make_keys, read_pair, read_public
from neuroscope_bridge.wire.errors import RemoteError, ServerGoneError
from tests.bridge.serving import ENVIRONMENT, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_keys_are_for_their_user_alone_from_the_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    real = os.fdopen

    def looked(descriptor: int, *arguments: object, **named: object) -> object:
        seen.append((os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_mode & 0o777))
        return real(descriptor, *arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "fdopen", looked)
    before = os.umask(0)
    try:
        made = make_keys(tmp_path / "deep" / "keys")
    finally:
        os.umask(before)
    assert len(seen) == len(made) == 4
    assert all(found == (0o600 if name.endswith("_secret") else 0o644) for name, found in seen)
    assert [mode(path) for path in (made[0].parent, made[0].parent / "clients")] == [0o700, 0o700]
    for path in made:
        assert load_certificate(str(path))[0] == read_public(path)
    assert read_pair(tmp_path / "deep" / "keys" / "client.key_secret") == load_certificate(str(made[2]))


def test_keys_that_cannot_be_made_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str, mode: int) -> None:
        if path.name == "client.key":
            raise FileError(f"{path} cannot be written: No space left on device.")
        secrets.write_new(path, text, mode)

    monkeypatch.setattr("neuroscope_bridge.keys.write_new", full)
    with pytest.raises(FileError, match="No space"):
        make_keys(tmp_path / "keys")
    assert [path for path in (tmp_path / "keys").rglob("*") if path.is_file()] == []


def test_no_file_is_replaced_and_no_link_followed(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="already exists"):
        make_keys(folder)
    (folder / "two.key_secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="already exists"):
        make_keys(folder, "two")
    assert not (tmp_path / "elsewhere").exists()
    assert not (folder / "clients" / "two.key").exists()


DAMAGED = {
    "short": lambda text: text.replace('secret-key = "', 'secret-key = "').replace(text.rsplit('"', 2)[1], "abc"),
    "long": lambda text: text.replace(text.rsplit('"', 2)[1], "a" * 41),
    "not Z85": lambda text: text.replace(text.rsplit('"', 2)[1], "~" * 40),
    "not ASCII": lambda text: text.replace(text.rsplit('"', 2)[1], "é" * 40),
    "another secret": lambda text: text.replace(text.rsplit('"', 2)[1], zmq.curve_keypair()[1].decode()),
    "without a secret": lambda text: text.replace("secret-key", "secret"),
    "empty": lambda text: "",
    "huge": lambda text: "x" * (1 << 20),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_secret_is_an_error_that_says_so(damage: str, folder: Path) -> None:
    path = folder / "server.key_secret"
    path.write_text(DAMAGED[damage](path.read_text()))
    with pytest.raises(FileError, match=r"server\.key_secret"):
        read_pair(path)
    if damage == "short":
        assert_refused("--keys", str(folder), "--http", "off", "--zmq", "tcp://127.0.0.1:*", says="server.key_secret")


def assert_refused(*options: str, says: str) -> None:
    command = [sys.executable, "-m", "neuroscope_bridge", "serve", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("open_to", [0o604, 0o640, 0o602])
def test_secrets_that_others_can_read_are_refused(open_to: int, folder: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    for path in (folder / "client.key_secret", token):
        path.chmod(open_to)
    with pytest.raises(FileError, match="Other users of this machine can read or change") as caught:
        read_pair(folder / "client.key_secret")
    assert "chmod 600" in str(caught.value)
    with pytest.raises(FileError, match="Other users"):
        token_from(token)
    (folder / "server.key_secret").chmod(open_to)
    with pytest.raises(FileError, match="Other users"):
        connect("tcp://127.0.0.1:1", key=folder / "server.key_secret", server_key=folder / "server.key")


def test_a_folder_of_keys_that_others_can_change_is_refused_and_one_that_they_can_read_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.chmod(0o755)
    with caplog.at_level(logging.WARNING):
        Clients(folder)
    assert f"chmod 700 {folder}" in caplog.text
    for path, at in ((folder, 0o777), (folder / "clients", 0o770)):
        before = mode(path)
        path.chmod(at)
        with pytest.raises(FileError, match="can change"):
            Clients(folder)
        path.chmod(before)
    (folder / "clients" / "client.key").chmod(0o666)
    caplog.clear()
    assert Clients(folder).keys() == frozenset()
    assert "can change" in caplog.text


@pytest.mark.parametrize("state", ["missing", "empty"])
def test_a_folder_without_clients_is_told_and_a_key_that_comes_later_counts(
    state: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = (folder / "clients" / "client.key").read_text()
    (folder / "clients" / "client.key").unlink()
    if state == "missing":
        (folder / "clients").rmdir()
    clients = Clients(folder)
    assert f"is {state}: no client can connect" in caplog.text
    (folder / "clients").mkdir(exist_ok=True)
    (folder / "clients" / "new.key").write_text(key)
    assert clients.allow(read_public(folder / "clients" / "new.key"))


def test_a_damaged_client_key_is_told_once_and_the_others_count(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "clients" / "bad.key").write_text("nothing")
    (folder / "clients" / "pipe.key").mkdir()
    clients = Clients(folder)
    assert clients.keys() == {read_public(folder / "clients" / "client.key")}
    os.utime(folder / "clients" / "bad.key", (1, 1))
    clients.keys()
    assert caplog.text.count("bad.key is not a key file") == 1


def test_a_key_that_is_taken_away_ends_its_sessions_and_opens_no_more(folder: Path, tmp_path: Path) -> None:
    make_keys(folder, "other")
    log = tmp_path / "log"
    keys = {name: {"key": folder / f"{name}.key_secret", "server_key": folder / "server.key"} for name in ("client", "other")}
    with serving("--keys", str(folder), log=log) as (_, address):
        with connect(address, timeout=5, **keys["client"]) as gone, connect(address, timeout=5, **keys["other"]) as kept:  # type: ignore[arg-type]
            assert (gone.evaluate("3 + 4"), kept.evaluate("3 + 4")) == (7, 7)
            taken = (folder / "clients" / "client.key").read_text()
            (folder / "clients" / "client.key").unlink()
            end = time.monotonic() + 10
            while "its key was taken away" not in log.read_text():
                assert time.monotonic() < end
                time.sleep(0.05)
            with pytest.raises(RemoteError, match="no session"):
                gone.evaluate("3 + 4")
            with pytest.raises(RemoteError, match="taken away"):
                gone._connection.request("hello", client="again").result(5)
            assert kept.evaluate("3 + 4") == 7
            with pytest.raises(ServerGoneError):
                connect(address, timeout=1.5, **keys["client"])  # type: ignore[arg-type]
            (folder / "clients" / "client.key").write_text(taken)
            with connect(address, timeout=5, **keys["client"]) as back:  # type: ignore[arg-type]
                assert back.evaluate("3 + 4") == 7


def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    secrets.write_new(path, "first\n", 0o600)
    token = token_from(path)
    assert isinstance(token, TokenFile)
    assert token() == "first"
    for text in ("second\n", "", "third"):
        path.write_text(text)
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
        expected = text.strip()
        assert (token() == expected) if expected else token() not in ("", "second")
    path.chmod(0o644)
    assert token() != "third"
    path.chmod(0o600)
    assert token() == "third"
    path.unlink()
    assert token() != "third"


@pytest.mark.parametrize("text", ["", "  \n", "two words\n", "Gr\u00fc\u00dfe\n", "a\x00b"])
def test_what_is_no_token_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    secrets.write_new(path, text, 0o600)
    with pytest.raises(FileError, match="has no token"):
        token_from(path)
    if text.strip() and "\x00" not in text:
        monkeypatch.setenv("NEUROSCOPE_TOKEN", text)
        with pytest.raises(Exception, match="NEUROSCOPE_TOKEN is no token"):
            token_from(None)


def test_a_pipe_is_no_token_file_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    failed: list[FileError] = []

    def read() -> None:
        try:
            token_from(tmp_path / "pipe")
        except FileError as error:
            failed.append(error)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(5)
    assert failed


def test_a_log_line_is_one_line(tmp_path: Path) -> None:
    record = logging.LogRecord(
        "x", logging.INFO, "", 0, "session 1 (%s): opened", ("a\n12:00:00 ERROR \x1b[2J\u202e\u2028b",), None
    )
    line = EscapedLines("%(message)s").format(record)
    assert line == r"session 1 (a\n12:00:00 ERROR \x1b[2J\u202e\u2028b): opened"
    try:
        raise ValueError("a\x1b[2J\nb")
    except ValueError:
        record.exc_info = sys.exc_info()
    shown = EscapedLines("%(message)s").format(record)
    assert "\x1b" not in shown
    assert all(line.startswith("  | ") for line in shown.splitlines()[1:])


def test_an_open_token_file_stops_the_server_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "token"
    secrets.write_new(path, "secret", 0o644)
    assert_refused("--token-file", str(path), "--zmq", "off", "--http", "127.0.0.1:0", says="chmod 600")
    path.chmod(0o600)
    with serving("--token-file", str(path), "--http", "127.0.0.1:0") as (process, _):
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        ask = {"Authorization": "Bearer secret"}
        assert httpx.get(f"{url}/v1/models", headers=ask).status_code == 200
        path.write_text("new")
        assert httpx.get(f"{url}/v1/models", headers=ask).status_code == 401
