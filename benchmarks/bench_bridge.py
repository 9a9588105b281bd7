"""How fast the bridge is, beside bare ZeroMQ and beside JSON over HTTP, all over loopback TCP in the same run.

    python benchmarks/bench_bridge.py [--rounds 3000] [--megabytes 64]

Prints the median round trip of a small message, and what a tensor moves at from the server to the client.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import zmq

from neuroscope_bridge.cookie import USER, read_cookie
from neuroscope_bridge.wire import decode, encode

SMALL: dict[str, Any] = {"op": "send", "receiver": 3, "selector": "+", "arguments": [4]}


def echo(pipe: Connection, size: int) -> None:
    """Bare ZeroMQ: sends back what came; on an empty message, `size` bytes without a copy."""
    router = zmq.Context().socket(zmq.ROUTER)
    pipe.send(router.bind_to_random_port("tcp://127.0.0.1"))
    payload = np.ones(size // 4, dtype=np.float32)
    while True:
        identity, message = router.recv_multipart()
        router.send_multipart([identity, message or payload], copy=bool(message))


def json_over_http(pipe: Connection, size: int) -> None:
    """A keep-alive HTTP server that answers JSON."""
    values = np.random.default_rng(0).random(size // 4, dtype=np.float32)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536  # one packet, not one for each line
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = {"value": values.tolist()} if request["op"] == "tensor" else {"value": request["receiver"] + 4}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    server.serve_forever()


def started(target: Callable[[Connection, int], None], size: int) -> tuple[multiprocessing.Process, int]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(there, size), daemon=True)
    process.start()
    return process, here.recv()


def median(action: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Asking:
    """The smallest client there can be: frames out, frames in."""

    def __init__(self, address: str) -> None:
        self._socket = zmq.Context().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.PLAIN_USERNAME, USER)
        self._socket.setsockopt(zmq.PLAIN_PASSWORD, read_cookie(address) or b"")
        self._socket.connect(address)
        self._number = 0

    def __call__(self, **fields: Any) -> Any:
        self._number += 1
        self._socket.send_multipart(encode({"v": 1, "id": self._number, **fields}))
        while True:
            frames: list[Any] = [self._socket.recv()]
            while self._socket.getsockopt(zmq.RCVMORE):
                frames.append(self._socket.recv(copy=False).buffer)
            answer = decode(frames)
            if answer["type"] in ("result", "error"):
                if answer["type"] == "error":
                    raise RuntimeError(answer["error"]["message"])
                return answer["value"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--megabytes", type=int, default=64)
    options = parser.parse_args()
    size = options.megabytes << 20

    bare, port = started(echo, size)
    web, web_port = started(json_over_http, size)
    serve = [sys.executable, "-m", "neuroscope_bridge", "serve", "--quiet", "--http", "off", "--zmq", "tcp://127.0.0.1:*"]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        ask = Asking(server.stdout.readline().split()[-1])
        ask(op="hello")
        dealer = zmq.Context().socket(zmq.DEALER)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        connection = http.client.HTTPConnection("127.0.0.1", web_port)

        def bare_round() -> None:
            dealer.send(b"x" * 40)
            dealer.recv()

        def web_round(operation: str) -> Any:
            connection.request("POST", "/", json.dumps({**SMALL, "op": operation}), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())["value"]

        def bare_tensor() -> None:
            dealer.send(b"")
            dealer.recv(copy=False)

        for _ in range(200):
            bare_round()
            ask(**SMALL)
        # Interleaved, so that whatever else the machine does falls on all alike.
        small: dict[str, list[float]] = {"bare ZeroMQ echo": [], "NeuroScope": [], "JSON over HTTP": []}
        for _ in range(10):
            small["bare ZeroMQ echo"].append(median(bare_round, options.rounds // 10))
            small["NeuroScope"].append(median(lambda: ask(**SMALL), options.rounds // 10))
            small["JSON over HTTP"].append(median(lambda: web_round("send"), max(options.rounds // 50, 1)))
        array = np.ones(size // 4, dtype=np.float32)
        held = ask(op="send", receiver=array, selector="yourself", answer={"form": "handle"})
        fetch = {"op": "send", "receiver": held, "selector": "yourself", "answer": {"form": "tensor"}}
        assert ask(**fetch).nbytes == size
        large: dict[str, list[float]] = {
            "bare ZeroMQ frames": [median(bare_tensor, 5) for _ in range(3)],
            "NeuroScope": [median(lambda: ask(**fetch), 5) for _ in range(3)],
            "JSON over HTTP": [median(lambda: web_round("tensor"), 1)],
        }
        show("round trip of a small message", {k: statistics.median(v) * 1e6 for k, v in small.items()}, "µs")
        show(f"a tensor of {options.megabytes} MiB", {k: size / statistics.median(v) / 1e9 for k, v in large.items()}, "GB/s")
    finally:
        server.terminate()
        server.wait(20)
        for process in (bare, web):
            process.terminate()


def show(title: str, values: dict[str, float], unit: str) -> None:
    first = next(iter(values.values()))
    print(title)
    for name, value in values.items():
        print(f"  {name:20} {value:12.3f} {unit:5} {value / first:8.2f} ×")


if __name__ == "__main__":
    main()
