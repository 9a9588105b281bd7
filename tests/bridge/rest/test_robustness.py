"""Whatever is sent, the server answers with a reason and goes on; and only who may ask is answered."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest
from urllib.parse import urlsplit

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from openai import AuthenticationError, OpenAI

from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.jobs import HttpOptions
from neuroscope_bridge.wire.errors import DeniedError
from tests.bridge.rest.conftest import Serve
from tests.bridge.serving import serving

#: Malformed requests; `make fuzz` sends more.
COUNT = int(os.environ.get("NEUROSCOPE_FUZZ", "2000"))

GOOD: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "w5 w6"}], "max_tokens": 2, "temperature": 0.5}),
    ("/v1/completions", {"prompt": "w5 w6", "max_tokens": 2, "logprobs": 2, "stop": ["w9"], "seed": 4}),
    (
        "/v1/chat/completions/with_activations",
        {
            "prompt": "w5 w6",
            "max_tokens": 2,
            "hooks": [
                {"layer_name": "1", "component": "residual", "positions": [0, 2], "features": [1, 2]},
                {"layer_name": "0", "component": "headOutput", "head": 1, "action": "scale", "factor": 2},
            ],
        },
    ),
    ("/v1/lens", {"prompt": "w5 w6", "max_tokens": 1, "top": 2, "neurons": 2}),
    ("/v1/tokenize", {"text": "w5 w6"}),
    ("/v1/activations/hooks", {"hooks": [{"layer_name": "1", "hook_id": "fuzz"}]}),
]


@pytest.fixture(scope="module")
def fuzzed(serve: Serve) -> str:
    return serve()


@pytest.mark.slow
def test_nothing_that_the_openapi_document_describes_is_a_fault(fuzzed: str) -> None:
    tried = 0
    for found in schemathesis.openapi.from_url(f"{fuzzed}/openapi.json").get_all_operations():
        operation = found.ok()
        tried += 1
        for mode in schemathesis.GenerationMode:

            @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
            @given(case=operation.as_strategy(generation_mode=mode))
            def holds(case: Any) -> None:
                response = case.call(timeout=30)
                assert response.status_code < 500, response.text
                if response.status_code >= 400:
                    assert response.json()["error"]["message"]

            with contextlib.suppress(Unsatisfiable, SkipTest):  # nothing can be wrong with a request that takes nothing
                holds()
    assert tried >= 12


def test_the_document_has_examples_that_work(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert "422" not in json.dumps(document)
    tried = 0
    for path, operations in document["paths"].items():
        body = operations.get("post", {}).get("requestBody")
        if body is None or path in ("/v1/models/load", "/v1/edits"):  # this server allows no edits
            continue
        reference = body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        for example in document["components"]["schemas"][reference].get("examples", []):
            if "activation_hooks" in example:  # the tiny model has three layers
                example["activation_hooks"][0]["layer_name"] = "transformer.h.2"
            if "positive" in example:  # a probe is trained on more than a document shows
                more, less = ([f"w{n} w{word}" for n in range(5, 25)] for word in (40, 60))
                example.update(positive=more, negative=less, layer=1, reading="tokens")
            if "pairs" in example:  # nor does it know countries
                example["pairs"] = [{"clean": "w5 w6", "corrupt": "w5 w7", "answer": " w8", "wrong": " w9"}]
            response = http.post(path.replace("{name}", "logit_lens"), json=example)
            assert response.status_code == 200, response.text
            tried += 1
    assert tried >= 5


def mutations(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Good requests gone wrong: in their values, in their bytes."""
    draw = random.Random(seed)
    wrong: list[Any] = [
        None, True, -1, 0, 1e308, -1e308, 2**63, 2**200, "", "x", "\ud800", "\x00", [], {}, [[]], [None], {"a": 1},
        "9" * 400, "w5 " * 300, [0] * 300, [-1], [10**9], "transformer.h.99999999999", "nan", float("nan"), float("inf"),
    ]  # fmt: skip

    def spoil(value: Any) -> Any:
        if isinstance(value, dict) and value and draw.random() < 0.8:
            name = draw.choice(list(value))
            new = {**value, name: spoil(value[name])}
            if draw.random() < 0.2:
                new.pop(name)
            if draw.random() < 0.1:
                new[draw.choice(["stream", "positions", "x" * 300, "model", "vector", "encoding"])] = draw.choice(wrong)
            return new
        if isinstance(value, list) and value and draw.random() < 0.8:
            at = draw.randrange(len(value))
            return [*value[:at], spoil(value[at]), *value[at + 1 :]]
        return draw.choice(wrong)

    for _ in range(count):
        path, body = draw.choice(GOOD)
        data = json.dumps(spoil(body)).encode()
        if draw.random() < 0.3:
            at = draw.randrange(len(data) + 1)
            data = data[:at] + bytes(draw.randrange(256) for _ in range(draw.randrange(4))) + data[at + draw.randrange(4) :]
        if draw.random() < 0.01:
            data = b"[" * 100_000
        yield path, data


@pytest.mark.slow
def test_malformed_requests_leave_it_serving(fuzzed: str) -> None:
    parts = urlsplit(fuzzed)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    answers: dict[int, int] = {}
    for path, data in mutations(1, COUNT):
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        assert response.status < 500, (path, data[:300], text[:300])
        answers[response.status] = answers.get(response.status, 0) + 1
    connection.close()
    assert answers[400] > COUNT / 2, answers
    httpx.delete(f"{fuzzed}/v1/activations/hooks")
    for path, body in GOOD:
        assert httpx.post(f"{fuzzed}{path}", json=body, timeout=30).status_code == 200


JSON_HEADER = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "param", "message"),
    [
        ('{"messages": [', JSON_HEADER, None, "The body is not JSON: Expecting value (character 14). Send one JSON object."),
        (
            '{"prompt": "w5"}',
            {},
            None,
            "The body is not a JSON object. Send one, with the header Content-Type: application/json.",
        ),
        ('{"prompt": "w5", "steer": 1}', JSON_HEADER, "steer", "steer: no such field; there are "),
        ('{"prompt": "w5", "n": 2}', JSON_HEADER, "n", "n: this field is not served here; leave it out, or give 1"),
        ('{"prompt": [9999]}', JSON_HEADER, None, "Ids run from 0 to 96"),
    ],
)
def test_a_request_that_cannot_be_read_says_what_would_be_right(
    content: str, headers: dict[str, str], param: str | None, message: str, http: httpx.Client
) -> None:
    answer = http.post("/v1/completions", content=content, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert message in error["message"]


def test_what_stands_in_for_a_model_is_told(http: httpx.Client, chatty: Path) -> None:
    assert http.get("/health").json()["stand_ins"]["chatty"] == str(chatty)
    assert http.get("/v1/models/chatty").json()["stand_in"] == str(chatty)


def test_bytes_that_are_no_http_leave_it_serving(fuzzed: str) -> None:
    import socket

    parts = urlsplit(fuzzed)
    draw = random.Random(5)
    for size in (0, 1, 10, 1000, 70_000):
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as raw:
            raw.sendall(draw.randbytes(size))
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        assert b"413" in raw.recv(100)
    assert httpx.get(f"{fuzzed}/health").status_code == 200


# --- who may ask ----------------------------------------------------------------------------------------------------------


def test_beyond_this_machine_it_wants_a_token(chatty: Path, serve: Serve) -> None:
    host = Host(HostOptions())
    with pytest.raises(DeniedError, match="--token-file"):
        HttpDoor(host, "0.0.0.0:0", HttpOptions())
    url = serve("0.0.0.0:0", token="secret").replace("0.0.0.0", "127.0.0.1")
    assert httpx.get(f"{url}/health").json().keys() == {"status", "version"}
    assert "models" in httpx.get(f"{url}/health", headers={"Authorization": "Bearer secret"}).json()
    assert httpx.get(f"{url}/").status_code == 200  # the page asks for the token itself
    refused = httpx.get(f"{url}/v1/models")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    with OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client, pytest.raises(AuthenticationError):
        client.models.list()
    with OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["chatty"]


def test_pages_of_other_sites_are_refused_unless_they_are_allowed(url: str, serve: Serve) -> None:
    evil = {"Origin": "http://evil.example"}
    answer = httpx.post(f"{url}/v1/completions", json={"prompt": "w5"}, headers=evil)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert httpx.get(f"{url}/health", headers={"Host": "evil.example"}).status_code == 403
    assert httpx.get(f"{url}/health", headers={"Origin": url}).status_code == 200

    friendly = serve(origins=("http://friend.example",))
    asked = {"Origin": "http://friend.example"}
    preflight = httpx.options(f"{friendly}/v1/completions", headers={**asked, "Access-Control-Request-Method": "POST"})
    assert preflight.headers["access-control-allow-origin"] == "http://friend.example"
    assert httpx.post(f"{friendly}/v1/tokenize", json={"text": "w5"}, headers=asked).status_code == 200
    assert httpx.get(f"{friendly}/health", headers=evil).status_code == 403


# --- the command line -----------------------------------------------------------------------------------------------------


def test_neuroscope_serve_serves_http_beside_zeromq(chatty: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("--http", "127.0.0.1:0", "--alias", f"chatty={chatty}", "--model", "chatty", "--device", "cpu")
    with serving(*options, log=log) as (process, _):
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        found = httpx.get(f"{url}/health").json()
        assert (found["status"], found["model"]) == ("ok", "chatty")
        assert "/health answers meanwhile" in log.read_text()
        assert "<title>NeuroScope Lens" in httpx.get(f"{url}/").text
        assert httpx.get(f"{url}/page/main.js").headers["content-type"].startswith("text/javascript")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
