"""What goes wrong between a server and its clients, and what must stay right then."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuroscope_bridge.client import connect
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.host.limits import Limits
from neuroscope_bridge.keys import is_loopback, make_keys
from neuroscope_bridge.server import ZmqDoor
from neuroscope_bridge.server.peers import Peer
from neuroscope_bridge.wire import ClassName, Handle, encode
from neuroscope_bridge.wire.errors import LimitError, ServerGoneError
from neuroscope_bridge.wire.messages import parse_request
from tests.bridge.serving import ENVIRONMENT, Raw, save_tiny, serving


@pytest.fixture
def raw(server: str) -> Iterator[Raw]:
    with Raw(server) as raw:
        raw.value(op="hello", client="test")
        yield raw


def test_what_hello_says(server: str) -> None:
    with Raw(server) as raw:
        about = raw.value(op="hello", lease=5.0, events=["progress"])
        assert about["versions"] == [1]
        assert about["lease"] == 5.0
        assert "CircuitFinder" in about["classes"]
        assert about["limits"]["handles"] == 100_000
        assert raw.value(op="hello")["session"] == about["session"]
        assert raw.code(op="hello", seed=3) == "protocol"


def test_without_hello_there_is_no_session(server: str) -> None:
    with Raw(server) as raw:
        assert raw.code(op="evaluate", source="1") == "no-session"
        raw.value(op="hello")
        assert raw.value(op="evaluate", source="1") == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"op": "evalute", "source": "1"}, "unknown-operation"),
        ({"op": "evaluate"}, "protocol"),
        ({"op": "evaluate", "source": "1", "tine": 3}, "protocol"),
        ({"op": "evaluate", "source": "1", "time": 0}, "protocol"),
        ({"op": "evaluate", "source": "1", "answer": {"form": "tensr"}}, "protocol"),
        ({"op": "evaluate", "source": "1", "answer": {"slice": [1]}}, "protocol"),
        ({"op": "evaluate", "source": "1", "answer": {"form": "tensor", "slice": [[0, 1, 0]]}}, "protocol"),
        ({"op": "evaluate", "source": "1", "answer": {"form": "tensor"}}, "argument"),
        ({"op": "evaluate", "source": "1", "within": 9}, "protocol"),
        ({"op": "evaluate", "source": "1 +"}, "syntax"),
        ({"op": "evaluate", "source": "1/0"}, "zero-divide"),
        ({"op": "evaluate", "source": "1", "bindings": {"self": 1}}, "smalltalk"),
        ({"op": "hello", "v": 2}, "protocol-version"),
        ({"op": "cancel", "request": "x"}, "protocol"),
        ({"op": "subscribe", "events": ["weather"]}, "protocol"),
        ({"op": "release", "handles": ["x"]}, "protocol"),
        ({"op": "answer", "call": 7, "value": 1}, "protocol"),
        ({"op": "describe", "class": "Nothing"}, "unknown-class"),
        ({"op": "send", "receiver": Handle(999, "X", "an X"), "selector": "foo"}, "stale-handle"),
        ({"op": "send", "receiver": [[Handle(999, "X", "an X")]], "selector": "foo"}, "stale-handle"),
        ({"op": "send", "receiver": ClassName("Nothing"), "selector": "new"}, "unknown-class"),
        ({"op": "send", "receiver": ClassName("TransformerModel"), "selector": "fromHuggingFace:", "arguments": ["./no"]}, "model-not-found"),
        ({"op": "send", "receiver": 3, "selector": "foo"}, "message-not-understood"),
        ({"op": "send", "receiver": 3, "selector": "+", "arguments": []}, "message-not-understood"),
    ],
)  # fmt: skip
def test_each_fault_has_its_code_and_harms_nothing(raw: Raw, fields: dict[str, Any], code: str) -> None:
    assert raw.code(**fields) == code
    assert raw.value(op="evaluate", source="3 + 4") == 7


@pytest.mark.parametrize(
    "selector", ["__class__", "__init__", "_engine", "engine", "tokenizer", "run:", "__dict__", "_lock", "numpy", "mro"]
)
def test_python_s_internals_are_out_of_reach(raw: Raw, selector: str) -> None:
    for receiver in (3, "x", ClassName("TransformerModel"), ClassName("Dataset")):
        arguments = [1] if selector.endswith(":") else []
        code = raw.code(op="send", receiver=receiver, selector=selector, arguments=arguments)
        assert code == "message-not-understood"


def test_a_handle_is_its_session_s_own_until_it_is_released(raw: Raw, server: str) -> None:
    handle = raw.value(op="evaluate", source="Set new")
    assert isinstance(handle, Handle)
    assert raw.value(op="send", receiver=handle, selector="size") == 0
    with Raw(server) as other:
        other.value(op="hello")
        assert other.code(op="send", receiver=handle, selector="size") == "stale-handle"
    assert raw.value(op="release", handles=[handle.id, 12345]) == 1
    assert raw.code(op="send", receiver=handle, selector="size") == "stale-handle"


def test_released_sessions_are_gone(raw: Raw) -> None:
    raw.value(op="evaluate", source="Set new")
    assert raw.value(op="release", session=True) == 1
    assert raw.code(op="evaluate", source="1") == "no-session"


def test_ten_thousand_bad_messages_leave_the_server_answering(raw: Raw, server: str) -> None:
    chance = random.Random(7)
    good = bytes(
        encode({"v": 1, "id": 5, "op": "send", "receiver": [1, "x", {"a": 2.5}], "selector": "foo", "arguments": []})[0]
    )  # type: ignore[arg-type]
    with Raw(server) as bad:
        bad.value(op="hello")
        for index in range(10_000):
            frames = [bytearray(good)]
            match index % 5:
                case 0:
                    frames = [frames[0][: chance.randrange(len(good))]]
                case 1:
                    for _ in range(chance.randrange(1, 6)):
                        frames[0][chance.randrange(len(good))] = chance.randrange(256)
                case 2:
                    frames = [bytearray(chance.randbytes(chance.randrange(60))) for _ in range(chance.randrange(1, 4))]
                case 3:
                    frames.append(bytearray(chance.randbytes(8)))
                case 4:
                    frames = [bytearray(b"\x91" * chance.randrange(1, 3000))]
            bad.socket.send_multipart([bytes(frame) for frame in frames])
            if index % 500 == 499:
                while bad.socket.poll(0):
                    bad.receive()
                assert raw.value(op="evaluate", source="3 + 4") == 7
        bad.send(op="evaluate", source="1")
        last = bad.answer(bad.number)
    assert last["value"] == 1


def test_a_message_that_is_too_long_loses_its_connection_and_no_other(tmp_path: Path) -> None:
    with serving("--max-message", "100000") as (_, address), Raw(address) as raw, Raw(address) as long:
        raw.value(op="hello")
        long.value(op="hello")
        long.send(op="evaluate", source="1" * 200_000)
        assert raw.value(op="evaluate", source="3 + 4") == 7
        assert not long.socket.poll(500)
        assert long.code(op="evaluate", source="1") == "no-session"  # ZeroMQ connected anew


def test_requests_stop_when_their_time_is_over(raw: Raw) -> None:
    start = time.monotonic()
    assert raw.code(op="evaluate", source="[true] whileTrue: [1 + 1]", time=0.3) == "time-limit"
    assert time.monotonic() - start < 5
    assert raw.value(op="evaluate", source="3 + 4") == 7


def test_the_server_answers_and_beats_while_a_session_computes(raw: Raw, server: str) -> None:
    running = raw.send(op="evaluate", source="[true] whileTrue: [1 + 1]")
    with Raw(server) as other:
        other.value(op="hello")
        times = []
        for _ in range(20):
            start = time.monotonic()
            other.value(op="evaluate", source="3 + 4")
            times.append(time.monotonic() - start)
        assert sorted(times)[10] < 0.5
    time.sleep(1.5)
    assert raw.value(op="cancel", request=running) is True
    assert raw.answer(running)["error"]["code"] == "cancelled"
    assert {"beat"} <= {message["type"] for message in raw.others}
    assert raw.value(op="cancel", request=running) is False


def test_a_second_request_of_the_same_id_is_refused(raw: Raw) -> None:
    running = raw.send(op="evaluate", source="[true] whileTrue: [1 + 1]")
    raw.send(op="evaluate", source="1", id=running)
    assert raw.answer(running)["error"]["code"] == "protocol"
    raw.value(op="cancel", request=running)
    assert raw.answer(running)["error"]["code"] == "cancelled"


BUSY = """
import sys
from neuroscope_bridge.client import connect
client = connect(sys.argv[1])
client.evaluate("o := Set new")
client.evaluate("[true] whileTrue: [1 + 1]")
"""


def test_a_killed_client_loses_its_job_and_its_objects(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log=log) as (_, address):
        process = subprocess.Popen([sys.executable, "-c", BUSY, address], env=ENVIRONMENT)
        deadline = time.monotonic() + 60
        while "opened" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.7)
        process.kill()
        process.wait(10)
        deadline = time.monotonic() + 10
        while "connection is gone" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "session 1: its connection is gone" in log.read_text()
        with Raw(address) as raw:
            assert raw.value(op="hello")["session"] == 2
            assert raw.value(op="evaluate", source="3 + 4") == 7


def test_a_silent_session_ends_with_its_lease(tmp_path: Path) -> None:
    with serving() as (_, address), Raw(address) as raw:
        raw.value(op="hello", lease=1.0)
        time.sleep(0.6)
        raw.value(op="evaluate", source="1")  # any message renews it
        time.sleep(0.6)
        assert raw.value(op="evaluate", source="1") == 1
        time.sleep(1.5)
        assert raw.code(op="evaluate", source="1") == "no-session"


def test_a_killed_server_is_a_clear_error_and_reconnect_works() -> None:
    with serving() as (process, address):
        client = connect(address, timeout=2)
        assert client.evaluate("3 + 4") == 7
        process.kill()
        process.wait()
        start = time.monotonic()
        with pytest.raises(ServerGoneError, match="has gone silent"):
            client.evaluate("3 + 4")
        assert time.monotonic() - start < 5
    with serving("--zmq", address):
        client.reconnect()
        assert client.evaluate("3 + 4") == 7
        client.close()


def test_nobody_at_the_address_is_a_clear_error() -> None:
    with pytest.raises(ServerGoneError, match="does not answer"):
        connect("tcp://127.0.0.1:1", timeout=0.5)


def test_thirty_two_clients_get_what_they_asked_for(server: str) -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        chance = random.Random(number)
        with Raw(server) as raw:
            raw.value(op="hello", client=f"crowd {number}")
            expected: dict[int, Any] = {}
            for index in range(100):
                match chance.randrange(4):
                    case 0:
                        sent = raw.send(op="send", receiver=number, selector="*", arguments=[index])
                        expected[sent] = number * index
                    case 1:
                        sent = raw.send(op="evaluate", source=f"#({number} {index}) reverse")
                        expected[sent] = [index, number]
                    case 2:
                        sent = raw.send(op="evaluate", source=f"x{index} := '{number}-{index}'")
                        expected[sent] = f"{number}-{index}"
                    case _:
                        sent = raw.send(op="subscribe", events=[])
                        expected[sent] = []
            while expected:
                message = raw.receive(60)
                if message["type"] != "beat" and expected.pop(message["re"]) != message.get("value"):
                    failures.append(f"{number}: {message}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures


def test_limits_are_errors_and_not_the_end() -> None:
    host = Host(HostOptions(limits=Limits(handles=3, sessions=2)))
    session = host.open_session()
    for _ in range(3):
        session.exporter.handle(object())
    with pytest.raises(LimitError, match="3 objects"):
        session.exporter.handle(object())
    host.open_session()
    with pytest.raises(LimitError, match="2 sessions"):
        host.open_session()
    host.close_session(session, "enough")
    host.open_session()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly_even_while_it_computes(number: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log=log) as (process, address), Raw(address) as raw:
        raw.value(op="hello")
        running = raw.send(op="evaluate", source="[[true] whileTrue: [1 + 1]] ensure: [Transcript show: 'x']")
        time.sleep(0.5)
        process.send_signal(number)
        assert raw.answer(running, 10)["error"]["code"] == "cancelled"
        assert process.wait(15) == 0
    assert "Traceback" not in log.read_text()
    assert log.read_text().rstrip().endswith("stopped")


def test_an_address_in_use_is_a_clear_error(server: str) -> None:
    command = [sys.executable, "-m", "neuroscope_bridge", "serve", "--http", "off", "--zmq", server]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == 1
    assert "Choose another port" in done.stderr


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://192.168.1.2:5555", "tcp://eth0:1"])
def test_beyond_this_machine_keys_are_needed(address: str) -> None:
    assert not is_loopback(address)
    command = [sys.executable, "-m", "neuroscope_bridge", "serve", "--http", "off", "--zmq", address]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == 1
    assert "neuroscope keys" in done.stderr


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:5555", "tcp://localhost:1", "tcp://[::1]:9", "ipc:///tmp/x", "inproc://x"]
)
def test_this_machine_is_recognised(address: str) -> None:
    assert is_loopback(address)


def test_with_keys_only_known_clients_come_in(tmp_path: Path) -> None:
    make_keys(tmp_path)
    stranger = tmp_path / "elsewhere"
    make_keys(stranger)
    assert (tmp_path / "client.key_secret").stat().st_mode & 0o077 == 0
    with serving("--keys", str(tmp_path)) as (_, address):
        known = {"key": tmp_path / "client.key_secret", "server_key": tmp_path / "server.key"}
        with connect(address, timeout=5, **known) as client:  # type: ignore[arg-type]
            assert client.evaluate("3 + 4") == 7
        with pytest.raises(ServerGoneError):
            connect(address, timeout=1.5)
        with pytest.raises(ServerGoneError):
            connect(address, timeout=1.5, key=stranger / "client.key_secret", server_key=tmp_path / "server.key")


def test_a_model_named_at_the_start_is_there_for_every_session(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    log, options = tmp_path / "log", ("--alias", f"gpt2-medium={folder}", "--model", "gpt2-medium")
    with serving(*options, log=log) as (_, address), Raw(address) as raw:
        assert f"{folder} stands in for gpt2-medium." in log.read_text()
        assert raw.value(op="hello")["models"] == ["gpt2-medium"]
        assert raw.value(op="evaluate", source="model name") == "gpt2-medium"


def test_a_request_between_the_queue_and_its_first_step_can_be_cancelled() -> None:
    host = Host(HostOptions())
    session = host.open_session()
    job = session.job(parse_request({"v": 1, "id": 5, "op": "evaluate", "source": "[true] whileTrue"}), lambda *_: None)
    assert session.enqueue(job)
    assert session.next_job() is job
    assert session.cancel(5)
    kind, fields = job.outcome()
    assert (kind, fields["error"]["code"]) == ("error", "cancelled")
    assert session.rest()
    assert not session.cancel(5)
    host.close()


def test_a_client_that_falls_behind_between_two_answers_keeps_its_other_requests() -> None:
    class Late(Peer):
        looks = iter([False, True, False, True])
        behind = property(lambda self: next(self.looks, False))

    host = Host(HostOptions())
    door = ZmqDoor(host, "inproc://late")
    door.open()
    session = host.open_session()
    peer = Late(b"late", session, time.monotonic(), 1 << 20)
    for number in (1, 2, 3):
        request = parse_request({"v": 1, "id": number, "op": "evaluate", "source": "3 + 4"})
        session.enqueue(session.job(request, lambda *_: None))
    door._advance(peer)(False)
    waiting = len(session.jobs())
    assert len(door._outbox) + waiting == 3
    assert bool(waiting) == (peer in door._ready)
    door._outbox.clear()
    door.close()
    host.close()
