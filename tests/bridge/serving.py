"""A server as its users meet it: a process, with a tiny model under the name `tiny`."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from neuroscope_bridge.cookie import USER, read_cookie
from neuroscope_bridge.wire import decode, encode
from tests import tiny

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command line as a process that goes on; killed if it has not ended at the end, also after a failure."""
    line = [sys.executable, "-m", "neuroscope_bridge", *arguments]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    with process:
        try:
            yield process
        finally:
            process.kill()  # it may wait for what a failed test did not send


def save_tiny(folder: Path) -> Path:
    tiny.hf_model("gpt2").save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@contextmanager
def serving(*options: str, log: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address; ended at the end, whatever happens."""
    command = [sys.executable, "-m", "neuroscope_bridge", "serve", *options]
    if "--zmq" not in options:
        command += ["--zmq", "tcp://127.0.0.1:*"]
    if "--http" not in options:
        command += ["--http", "off"]
    errors = subprocess.DEVNULL if log is None else log.open("w")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=ENVIRONMENT)
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 60)
        line = process.stdout.readline() if ready else ""
        assert "listens on" in line, f"the server did not start: {line!r}"
        yield process, line.split()[-1]
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)
        if process.stdout is not None:
            process.stdout.close()
        if not isinstance(errors, int):
            errors.close()


class Raw:
    """A client that can say anything."""

    def __init__(self, address: str, cookie: bytes | None = None) -> None:
        """`cookie` is that of the server's file, unless given; with an empty one, none is shown."""
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        secret = read_cookie(address) if cookie is None else cookie
        if secret:
            self.socket.setsockopt(zmq.PLAIN_USERNAME, USER)
            self.socket.setsockopt(zmq.PLAIN_PASSWORD, secret)
        self.socket.connect(address)
        self.number = 0
        self.others: list[dict[str, Any]] = []

    def send(self, **header: Any) -> int:
        self.number += 1
        header = {"v": 1, "id": self.number, **header}
        self.socket.send_multipart(encode(header))
        return int(header["id"])

    def receive(self, timeout: float = 30) -> dict[str, Any]:
        assert self.socket.poll(int(timeout * 1000)), "no answer"
        message: dict[str, Any] = decode(self.socket.recv_multipart())
        return message

    def answer(self, number: int | None, timeout: float = 30) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while True:
            message = self.receive(max(0.0, end - time.monotonic()))
            if message["type"] in ("result", "error") and message["re"] == number:
                return message
            self.others.append(message)

    def ask(self, **header: Any) -> dict[str, Any]:
        return self.answer(self.send(**header))

    def value(self, **header: Any) -> Any:
        answer = self.ask(**header)
        assert answer["type"] == "result", answer
        return answer["value"]

    def code(self, **header: Any) -> str:
        answer = self.ask(**header)
        assert answer["type"] == "error", answer
        return str(answer["error"]["code"])

    def close(self) -> None:
        self.socket.close(0)
        self.context.term()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
