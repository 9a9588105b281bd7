"""Hostile sessions: what they send is refused or bounded, each message is answered, and others go on."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from neuroscope_bridge.client import connect
from neuroscope_bridge.cookie import USER, cookie_path, read_cookie
from neuroscope_bridge.files import FileError
from neuroscope_bridge.wire import Handle, encode
from neuroscope_bridge.wire.errors import RefusedError
from tests.bridge.attacks import SCRIPTS, attacked, resident
from tests.bridge.serving import Raw, serving

Server = tuple[subprocess.Popen[str], str, Path]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("attacked") / "log"
    with serving("--max-memory", "256", log=log) as (process, address):
        yield process, address, log
        assert "Traceback" not in log.read_text()
        assert process.poll() is None


@pytest.fixture
def raw(server: Server) -> Iterator[Raw]:
    with Raw(server[1]) as raw:
        raw.value(op="hello", client="attacker")
        yield raw
        assert raw.value(op="evaluate", source="3 + 4") == 7
        raw.value(op="release", session=True)


# --- who may speak ------------------------------------------------------------------------------------------------------

BODY = bytes(encode({"v": 1, "id": 1, "op": "hello", "client": "page"})[0])  # type: ignore[arg-type]

STRANGERS = {
    "a page's POST": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n" + bytes([len(BODY) + 1, 0]) + BODY,
    "a page's GET": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "ZMTP 1": bytes([1, 0]) + bytes([len(BODY) + 1, 0]) + BODY,
    "ZMTP 2": b"\xff" + bytes(7) + b"\x01\x7f\x01\x05\x00\x00" + bytes([0, len(BODY)]) + BODY,
    "ZMTP 3 without a secret": b"\xff" + bytes(7) + b"\x01\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_client_of_this_user_is_cut_off(server: Server, name: str) -> None:
    _, address, log = server
    opened = log.read_text().count("opened")
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), 5) as stranger:
        stranger.sendall(STRANGERS[name])
        stranger.settimeout(5)
        while True:  # the server's greeting, and then the end
            try:
                if not stranger.recv(4096):
                    break
            except ConnectionResetError:
                break
    assert log.read_text().count("opened") == opened


@pytest.mark.parametrize("cookie", [b"", b"0" * 64], ids=["none", "wrong"])
def test_without_the_cookie_there_is_no_answer(server: Server, cookie: bytes) -> None:
    with Raw(server[1], cookie=cookie) as stranger:
        stranger.send(op="hello")
        assert not stranger.socket.poll(500)


def test_a_client_without_the_cookie_is_told_so(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROSCOPE_COOKIES", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(RefusedError, match="refuses") as caught:
        connect(server[1], timeout=20)
    assert time.monotonic() - start < 10
    assert str(tmp_path) in str(caught.value.remedy)


def test_the_cookie_is_its_user_s_alone_and_goes_with_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as (_, address):
        path = cookie_path(address)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        first = read_cookie(address)
        path.chmod(0o644)
        with pytest.raises(FileError, match="other users"):
            connect(address, timeout=1)
    assert not path.exists()
    with serving("--zmq", address):
        assert read_cookie(address) != first
    path.symlink_to(tmp_path / "elsewhere")
    try:
        with pytest.raises(FileError):
            read_cookie(address)
    finally:
        path.unlink()
    assert len(USER) < 32


# --- messages -----------------------------------------------------------------------------------------------------------


def ext(code: int, payload: bytes) -> msgpack.ExtType:
    return msgpack.ExtType(code, payload)


def header(**fields: Any) -> bytes:
    return bytes(msgpack.packb({"v": 1, "id": 77, "op": "hello", **fields}))


def big(size: int) -> msgpack.ExtType:
    return ext(7, b"\x7f" + b"\x55" * (size - 1))


MESSAGES = {
    "a fraction of 300 kB": lambda: header(seed=ext(8, msgpack.packb([big(300_000), big(299_999)]))),
    "a fraction of 20 kB": lambda: header(seed=ext(8, msgpack.packb([big(20_000), big(19_999)]))),
    "an operation of 20 MB": lambda: header(op="x" * 20_000_000),
    "an operation of 60 kB": lambda: header(op="x" * 60_000),
    "a field of 60 kB": lambda: header(**{"x" * 60_000: 1}),
    "a long integer": lambda: header(seed=big(60_000)),
    "colliding keys": lambda: header(bindings={}) + b"",
    "a million arrays": lambda: b"\xdd\x00\x0f\xff\xff" + b"\x90" * 0xFFFFF,
    "many symbols": lambda: header(events=[ext(3, str(number).encode()) for number in range(5_000)]),
    "a tensor of nothing": lambda: header(seed=ext(1, msgpack.packb(["float32", [1 << 62, 1 << 62], 0]))),
}


@pytest.mark.parametrize("opened", [False, True], ids=["before hello", "after hello"])
@pytest.mark.parametrize("name", MESSAGES)
def test_a_hostile_message_is_answered_at_once(server: Server, name: str, opened: bool) -> None:
    with Raw(server[1]) as bad, Raw(server[1]) as good:
        good.value(op="hello")
        if opened:
            bad.value(op="hello")
        start = time.monotonic()
        bad.socket.send(MESSAGES[name]())
        answer = bad.receive(20)
        assert answer["type"] == "error", answer
        assert answer["error"]["code"] in ("wire", "protocol", "limit", "unknown-operation"), answer
        assert len(answer["error"]["message"]) < 3_000
        assert time.monotonic() - start < 15
        assert good.value(op="evaluate", source="3 + 4") == 7


def colliding(count: int) -> bytes:
    """A map whose keys have one hash."""
    keys = b"".join(bytes(msgpack.packb(ext(7, (number * ((1 << 61) - 1)).to_bytes(12, "big", signed=True)))) + b"\xc0" for number in range(1, count))  # fmt: skip
    return b"\xdf" + (count - 1).to_bytes(4, "big") + keys


def test_a_map_of_colliding_keys_is_refused(server: Server) -> None:
    with Raw(server[1]) as raw:
        raw.value(op="hello")
        start = time.monotonic()
        raw.socket.send(b"\x84\xa1v\x01\xa2id\x09\xa2op\xa8evaluate\xa8bindings" + colliding(200_000))
        assert raw.receive(20)["error"]["code"] == "wire"
        assert time.monotonic() - start < 15


def test_long_messages_are_performed_in_their_order(server: Server) -> None:
    with Raw(server[1]) as raw:
        raw.value(op="hello")
        raw.value(op="evaluate", source="n := -1")
        numbers = []
        for index in range(20):
            text = "x" * (200_000 if index % 3 == 0 else 10)
            numbers.append(raw.send(op="evaluate", source=f"n := n + 1. n -> '{text}' size"))
        values = [raw.answer(number)["value"].key for number in numbers]
        assert values == list(range(20))


HUGE = 7**6000

FIELDS: list[dict[str, Any]] = [
    {"op": "hello", "lease": HUGE},
    {"op": "hello", "seed": HUGE},
    {"op": "evaluate", "source": "1", "time": HUGE},
    {"op": "evaluate", "source": "1", "within": HUGE},
    {"op": "evaluate", "source": "1", "v": HUGE},
    {"op": "evaluate", "source": "1", "answer": {"form": HUGE}},
    {"op": "evaluate", "source": "#(1 2)", "answer": {"form": "tensor", "slice": [HUGE]}},
    {"op": "cancel", "request": HUGE},
    {"op": "release", "handles": [True]},
    {"op": "answer", "call": HUGE, "value": 1},
    {"op": "subscribe", "events": [HUGE]},
    {"op": "subscribe", "events": [[]]},
    {"op": "send", "receiver": Handle(HUGE, "X", "an X"), "selector": "foo"},
    {"op": "send", "receiver": [1, 2], "selector": "at:", "arguments": [HUGE]},
    {"op": "send", "receiver": HUGE, "selector": "foo"},
    {"op": "send", "receiver": 3, "selector": "x" * 400_000},
    {"op": "send", "receiver": Fraction(HUGE, 2), "selector": "foo"},
    {"op": "evaluate", "source": "x" * 600_000},
    {"op": "evaluate", "source": "(7 raisedTo: 6000) foo"},
    {"op": "evaluate", "source": "a := Array new: 1. a at: 1 put: a", "answer": {"form": "tensor"}},
    {"op": "evaluate", "source": "a := Array new: 1. a at: 1 put: a. a hash"},
    {"op": "evaluate", "source": "a := Array new: 1. a at: 1 put: a. Set with: a"},
    {"op": "evaluate", "source": "[1/0] on: ZeroDivide do: [:e | x := e]. x resume: 3"},
    {"op": "evaluate", "source": "[[1/0. 5] ensure: [e resume: 4]] on: ZeroDivide do: [:ex | e := ex. 7]"},
    {"op": "evaluate", "source": "[1/0] on: ZeroDivide do: [:e | x := e]. x outer"},
    {"op": "evaluate", "source": "[1/0] on: ZeroDivide do: [:e | x := e]. x retry"},
    {
        "op": "evaluate",
        "source": "Object subclass: #P.\nP >> printOn: s\n    ^s print: self\nP new",
        "answer": {"form": "string"},
    },
]


@pytest.mark.parametrize("fields", FIELDS, ids=[str(index) for index in range(len(FIELDS))])
def test_every_fault_is_answered_by_an_error_of_ours(raw: Raw, fields: dict[str, Any]) -> None:
    number = fields.get("id", raw.number + 1)
    raw.send(**fields)
    answer = raw.receive(20)
    assert answer["type"] == "error", answer
    assert answer["error"]["code"] not in ("internal", "library"), answer
    assert answer["re"] in (number, None)


def test_an_array_that_holds_itself_has_a_handle(raw: Raw) -> None:
    handle = raw.value(op="evaluate", source="a := Array new: 1. a at: 1 put: a. a")
    assert isinstance(handle, Handle)
    assert raw.value(op="send", receiver=handle, selector="size") == 1


def test_a_printed_form_that_never_ends_can_be_cancelled(raw: Raw) -> None:
    source = "Object subclass: #Q.\nQ >> printOn: s\n    [true] whileTrue\nQ new"
    number = raw.send(op="evaluate", source=source, answer={"form": "string"})
    time.sleep(0.3)
    assert raw.value(op="cancel", request=number) is True
    assert raw.answer(number, 10)["error"]["code"] == "cancelled"


def test_what_clients_say_cannot_look_like_a_line_of_the_log(server: Server) -> None:
    with Raw(server[1]) as raw:
        raw.value(op="hello", client="x\n12:00:00 INFO    session 1: forged\r\x1b[2J")
        raw.value(op="release", session=True)
    lines = server[2].read_text().splitlines()
    assert not any(line.startswith("12:00:00 INFO    session 1: forged") for line in lines)
    assert any("\\n12:00:00" in line and "\x1b" not in line for line in lines)


# --- limits of a peer ---------------------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_holds_a_bounded_amount(server: Server) -> None:
    process, address, _ = server
    with Raw(address) as bad, Raw(address) as good:
        good.value(op="hello")
        bad.socket.setsockopt(zmq.RCVHWM, 1)
        bad.value(op="hello")
        before = resident(process)
        text = "('abcdefgh' repeat: 400000)"
        for _ in range(900):
            bad.send(op="evaluate", source=text)
        most = 0.0
        start = time.monotonic()
        while time.monotonic() - start < 3:
            assert good.value(op="evaluate", source="3 + 4") == 7
            most = max(most, resident(process) - before)
            time.sleep(0.05)
        assert most < 450
        # whoever reads gets what was computed, and then the rest
        assert len(bad.answer(2, 20)["value"]) == 3_200_000


def test_events_that_nobody_reads_are_left_out(server: Server) -> None:
    process, address, _ = server
    with Raw(address) as bad:
        bad.value(op="hello", events=["transcript"])
        before = resident(process)
        number = bad.send(op="evaluate", source="[true] whileTrue: [Transcript show: ('x' repeat: 100000)]", time=2.0)
        time.sleep(2.5)
        assert resident(process) - before < 400
        assert bad.answer(number, 30)["error"]["code"] == "time-limit"


def test_waiting_requests_are_counted(server: Server) -> None:
    with Raw(server[1]) as raw:
        raw.value(op="hello")
        running = raw.send(op="evaluate", source="[true] whileTrue")
        sent = [raw.send(op="evaluate", source="1") for _ in range(1_010)]
        answers = [raw.receive() for _ in range(5)]
        assert {answer["error"]["code"] for answer in answers if answer["type"] != "beat"} == {"limit"}
        raw.value(op="cancel", request=running)
        assert raw.answer(sent[0])["value"] == 1


# --- worst scripts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["padding beyond", "colliding keys", "large products", "patterns", "growing within ensure"])
def test_another_session_goes_on_while_one_runs_its_worst(server: Server, name: str) -> None:
    """`make attacks` measures all of them. The bounds are loose, so that a busy machine passes."""
    process, address, _ = server
    found = attacked(process, address, SCRIPTS[name], seconds=1.0)
    assert found["ended"] in ("time-limit", "memory-limit", "argument")
    assert found["p99"] < 1.0
    assert found["memory"] < 300
    assert found["took"] < 8


def test_many_sessions_at_once_do_not_starve_a_new_one(server: Server) -> None:
    """Eight sessions loop; meanwhile another opens, is served, and closes."""
    before = threading.active_count()
    raws = [Raw(server[1]) for _ in range(8)]
    try:
        for each in raws:
            each.value(op="hello")
            each.send(op="evaluate", source="[true] whileTrue: [1 + 1]", time=20.0)
        with Raw(server[1]) as good:
            start = time.monotonic()
            good.value(op="hello")
            assert good.value(op="evaluate", source="3 + 4") == 7
            assert time.monotonic() - start < 15
    finally:
        for each in raws:
            each.close()
    assert threading.active_count() <= before
