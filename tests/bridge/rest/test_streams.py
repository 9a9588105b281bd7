"""Streams: many at once, slow readers, readers that leave."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.bridge.rest.conftest import Serve, within

PATH = "/v1/chat/completions/with_activations"
COMPONENTS = ("residual", "attention", "mlp", "query", "key", "value", "headOutput", "layerNorm", "mlpInput", "mlpOutput")
HOOKS = [{"layer_name": str(layer), "component": component} for layer in range(3) for component in COMPONENTS]
ANY = {"prompt": "w5 w6 w7", "max_tokens": 120, "temperature": 3.0, "activation_hooks": HOOKS, "stream": True}


def generations(url: str) -> int:
    return int(httpx.get(f"{url}/health").json()["generations"])


@pytest.fixture(scope="module")
def long(url: str) -> dict[str, Any]:
    """A request that generates all of its 120 tokens, as most seeds do not."""
    for seed in range(100):
        body = {**ANY, "seed": seed}
        answer = httpx.post(f"{url}{PATH}", json={**body, "stream": False, "activation_hooks": []}, timeout=60).json()
        if answer["usage"]["completion_tokens"] == 120:
            return body
    raise AssertionError("every seed met the end token")


class Reader:
    """A client with a tiny buffer that reads when it is told to."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        parts = urlsplit(url)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.socket.connect((parts.hostname, parts.port))
        data = json.dumps(body).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)

    def rest(self) -> bytes:
        found = b""
        while part := self.socket.recv(1 << 16):
            found += part
        return found

    def close(self) -> None:
        self.socket.close()


def test_fifty_streams_finish_with_every_event_in_order(url: str) -> None:
    async def one(client: httpx.AsyncClient, number: int) -> tuple[list[int], str]:
        body = {**ANY, "max_tokens": 16, "seed": number, "activation_hooks": [{"layer_name": "1"}]}
        indices, text = [], ""
        async with client.stream("POST", PATH, json=body) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if "token" in event:
                        indices.append(event["token"]["index"])
                        text += event["choices"][0]["delta"]["content"]
        return indices, text

    async def all_of_them() -> list[tuple[list[int], str]]:
        limits = httpx.Limits(max_connections=60)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(one(client, number) for number in range(50)))

    for number, (indices, text) in enumerate(asyncio.run(all_of_them())):
        assert indices == list(range(len(indices)))
        body = {**ANY, "max_tokens": 16, "seed": number, "stream": False, "activation_hooks": []}
        answer = httpx.post(f"{url}{PATH}", json=body).json()
        assert len(indices) == answer["usage"]["completion_tokens"]
        assert text == answer["choices"][0]["message"]["content"]
    assert within(5, lambda: generations(url) == 0)


def test_a_slow_reader_slows_its_generation_and_misses_nothing(serve: Serve, long: dict[str, Any]) -> None:
    url = serve()
    engine = serve.engine(url)
    whole = httpx.post(f"{url}{PATH}", json={**long, "stream": False}, timeout=60).json()
    tokens = whole["usage"]["completion_tokens"]
    assert tokens == 120
    before = engine.block_calls
    reader = Reader(url, long)
    time.sleep(1.5)
    reached = engine.block_calls - before
    assert 0 < reached < 0.8 * tokens * 3  # it waits for its reader
    time.sleep(0.5)
    assert engine.block_calls - before == reached
    others = httpx.post(f"{url}/v1/completions", json={"prompt": "w5", "max_tokens": 3}, timeout=10)
    assert others.status_code == 200  # nobody else waits

    lines = [line for line in reader.rest().decode().replace("\r", "").split("\n") if line.startswith("data: {")]
    reader.close()
    found = [json.loads(line[6:]) for line in lines]
    ids = [event["token"]["id"] for event in found if "token" in event]
    assert ids == whole["token_ids"][3:]


def test_a_reader_that_takes_nothing_is_given_up(serve: Serve, long: dict[str, Any]) -> None:
    url = serve(stall=0.5)
    reader = Reader(url, long)
    assert within(5, lambda: generations(url) == 1)
    assert within(10, lambda: generations(url) == 0)
    reader.close()


def test_a_gone_reader_ends_its_generation(serve: Serve, long: dict[str, Any]) -> None:
    url = serve()
    engine = serve.engine(url)
    reader = Reader(url, long)
    reader.socket.recv(1000)
    reader.close()
    assert within(5, lambda: generations(url) == 0)
    calls = engine.block_calls
    time.sleep(0.3)
    assert engine.block_calls == calls


def test_a_client_that_leaves_ends_an_answer_in_one(serve: Serve, long: dict[str, Any]) -> None:
    url = serve()
    engine = serve.engine(url)
    with engine.exclusive():
        reader = Reader(url, {**long, "stream": False})
        assert within(5, lambda: generations(url) == 1)
        reader.close()
    assert within(5, lambda: generations(url) == 0)
    assert engine.block_calls < 120 * 3


def test_as_many_generations_as_are_allowed(serve: Serve, long: dict[str, Any]) -> None:
    url = serve(generations=1)
    reader = Reader(url, long)
    assert within(5, lambda: generations(url) == 1)
    refused = httpx.post(f"{url}/v1/completions", json={"prompt": "w5", "max_tokens": 1})
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "busy"
    reader.close()
    assert within(5, lambda: generations(url) == 0)
    assert httpx.post(f"{url}/v1/completions", json={"prompt": "w5", "max_tokens": 1}).status_code == 200


def test_eight_streams_with_their_own_hooks_share_passes_and_have_what_each_has_alone(
    serve: Serve, long: dict[str, Any]
) -> None:
    url = serve()
    engine = serve.engine(url)

    def asked(number: int) -> dict[str, Any]:
        capture = {"layer_name": "2", "component": ("residual", "attentionPattern")[number % 2], "hook_id": "seen"}
        change = {"layer_name": str(number % 3), "action": "scale", "factor": 1 + number / 10}
        hooks = [capture, change] if number else [capture]
        return {
            **long,
            "prompt": "w5 w6 w7"[: 2 + 3 * (number % 3)],
            "max_tokens": 30,
            "seed": number,
            "activation_hooks": hooks,
        }

    async def one(client: httpx.AsyncClient, number: int) -> list[dict[str, Any]]:
        async with client.stream("POST", PATH, json=asked(number)) as response:
            events = [json.loads(line[6:]) async for line in response.aiter_lines() if line.startswith("data: {")]
            return [event for event in events if "token" in event]

    async def streamed(numbers: list[int]) -> list[list[dict[str, Any]]]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            return await asyncio.gather(*(one(client, number) for number in numbers))

    before = engine.block_calls
    alone = [asyncio.run(streamed([number]))[0] for number in range(8)]
    one_by_one = engine.block_calls - before
    with engine.exclusive():  # so that all of them are there when the first pass begins
        together = threading.Thread(target=lambda: found.extend(asyncio.run(streamed(list(range(8))))))
        found: list[list[dict[str, Any]]] = []
        together.start()
        assert within(10, lambda: generations(url) == 8)
    together.join(60)
    assert engine.block_calls - before - one_by_one < 0.5 * one_by_one
    for events, single in zip(found, alone, strict=True):
        assert [event["token"] for event in events] == [event["token"] for event in single]
        for event, expected in zip(events, single, strict=True):
            shown, wanted = event["activations"]["seen"], expected["activations"]["seen"]
            assert shown["shape"] == wanted["shape"]
            np.testing.assert_allclose(shown["data"], wanted["data"], atol=1e-5)
