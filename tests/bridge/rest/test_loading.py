"""Models over HTTP: asked for while the server loads its own, loaded on demand, unloaded."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from neuroscope.models.model import TransformerModel
from neuroscope_bridge.cli import main
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.jobs import HttpOptions
from tests.bridge.rest.conftest import Serve, within

ASKED: dict[str, Any] = {"prompt": "w5 w6", "max_tokens": 1, "temperature": 0}


class Starting:
    """A server whose own model waits to be loaded."""

    def __init__(self, chatty: Path, model: str = "chatty") -> None:
        options = HostOptions(model, [f"chatty={chatty}"], readable=(chatty.parents[1],))
        self.host = Host(options, load=False)
        self._door = HttpDoor(self.host, "127.0.0.1:0", HttpOptions())
        self.url = self._door.open()
        self._door.start()
        self.wait = self._door.wait

    def close(self) -> None:
        self._door.close()
        self.host.close()


@pytest.fixture
def starting(chatty: Path) -> Iterator[Starting]:
    found = Starting(chatty)
    yield found
    if not found.host.is_loaded:
        found.host.load()
    found.close()


def test_while_the_model_is_being_loaded_health_says_so_and_requests_wait(starting: Starting) -> None:
    answer = httpx.get(f"{starting.url}/health")
    assert answer.status_code == 503
    assert (answer.json()["status"], answer.json()["loading"], answer.json()["models"]) == ("loading", ["chatty"], [])
    assert httpx.get(f"{starting.url}/openapi.json").status_code == 200
    with ThreadPoolExecutor(2) as threads:
        asked = [
            threads.submit(httpx.post, f"{starting.url}/v1/completions", json={**ASKED, **more}, timeout=30)
            for more in ({}, {"model": "chatty"})
        ]
        assert not within(0.3, lambda: any(one.done() for one in asked))
        starting.host.load()
        starting.wait()
        assert [one.result().status_code for one in asked] == [200, 200]
    answer = httpx.get(f"{starting.url}/health")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["loading"], answer.json()["model"]) == ("ok", [], "chatty")


def test_a_model_that_cannot_be_loaded_ends_the_wait_with_the_reason(chatty: Path) -> None:
    server = Starting(chatty, "bundled:nothing")
    with pytest.raises(Exception, match="nothing") as told:
        server.host.load()
    with pytest.raises(type(told.value), match="nothing"):
        server.wait()
    assert httpx.get(f"{server.url}/v1/models/nothing").status_code == 404
    server.close()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "chatty", "--revision", "main"], "has no revision"),
        (["--revision", "main"], "--model NAME"),
        (["--model", "chatty", "--device", "cuda:99"], "cuda"),
    ],
)
def test_the_command_ends_with_the_reason_that_its_model_cannot_be_loaded(
    chatty: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    served = ["serve", "--zmq", "off", "--http", "127.0.0.1:0", "--alias", f"chatty={chatty}", *options]
    with pytest.raises(SystemExit) as ended:
        main(served)
    found = capsys.readouterr()
    assert ended.value.code == 1
    assert reason in found.err
    assert "NeuroScope serves" not in found.out


@pytest.fixture(scope="module")
def lazy(serve: Serve) -> str:
    return serve()


def test_a_model_that_is_here_is_loaded_when_a_request_names_it(lazy: str) -> None:
    with httpx.Client(base_url=lazy, timeout=60) as http:
        assert "speechless" not in http.get("/health").json()["models"]
        assert http.get("/v1/models/speechless").status_code == 404  # to look is not to load
        assert http.delete("/v1/models/speechless").status_code == 404
        answer = http.post("/v1/completions", json={**ASKED, "model": "speechless"})
        assert (answer.status_code, answer.json()["model"]) == (200, "speechless")
        assert "speechless" in http.get("/health").json()["models"]
        assert http.get("/health").json()["model"] == "chatty"
        assert http.delete("/v1/models/speechless").json()["deleted"]
        assert "speechless" not in http.get("/health").json()["models"]
        assert http.post("/v1/embeddings", json={"input": "w5", "model": "speechless"}).status_code == 200


def test_nothing_is_downloaded_on_demand_and_the_server_may_decline(lazy: str, serve: Serve, tmp_path: Path) -> None:
    refused = httpx.post(f"{lazy}/v1/completions", json={**ASKED, "model": "somebody/unknown"})
    assert refused.status_code == 404
    assert "/v1/models/load" in refused.json()["error"]["message"]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{}")
    answers = [
        httpx.post(f"{lazy}/v1/completions", json={**ASKED, "model": name}) for name in (str(tmp_path / "damaged"), "/no")
    ]
    assert [answer.json()["error"]["code"] for answer in answers] == ["model_not_found"] * 2
    assert ["is loaded" in answer.json()["error"]["message"] for answer in answers] == [True, True]
    strict = serve(on_demand=False)
    assert httpx.post(f"{strict}/v1/completions", json={**ASKED, "model": "speechless"}).status_code == 404
    assert httpx.post(f"{strict}/v1/models/load", json={"model": "speechless"}, timeout=30).status_code == 200


def test_a_model_is_loaded_once_for_requests_that_come_together(lazy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    httpx.delete(f"{lazy}/v1/models/speechless")
    begun: list[str] = []
    real = TransformerModel.from_hugging_face.__func__  # type: ignore[attr-defined]

    def counted(cls: type, name: str, **options: Any) -> Any:
        begun.append(threading.current_thread().name)
        return real(cls, name, **options)

    monkeypatch.setattr(TransformerModel, "from_hugging_face", classmethod(counted))
    with ThreadPoolExecutor(4) as threads:
        body = {**ASKED, "model": "speechless"}
        answers = list(threads.map(lambda _: httpx.post(f"{lazy}/v1/completions", json=body, timeout=60), range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(set(begun)) == 1  # one thread loads; the shared registry keeps one engine
    assert len(httpx.get(f"{lazy}/v1/models").json()["data"]) == 2


# --- the reference ------------------------------------------------------------------------------------------------------------


def test_the_reference_names_every_request_and_field_and_takes_nothing_from_elsewhere(url: str) -> None:
    document, answer = httpx.get(f"{url}/openapi.json").json(), httpx.get(f"{url}/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    text = answer.text
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"<code>{method.upper()} {path}</code>" in text
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None:
                schema = document["components"]["schemas"][body["schema"]["$ref"].rsplit("/", 1)[1]]
                assert all(f"<code>{name}</code>" in text for name in schema["properties"])
    assert "<code>messages.role</code>" in text  # fields within fields
    assert "<script" not in text
    assert not re.findall(r"(?:src|href)=.(?!/)", text)  # its files are the server's own
    for file in re.findall(r'(?:src|href)="(/page/[^"]+)"', text):
        assert httpx.get(f"{url}{file}").status_code == 200


def test_the_reference_is_open_where_a_token_is_needed(serve: Serve) -> None:
    url = serve("0.0.0.0:0", token="secret").replace("0.0.0.0", "127.0.0.1")
    assert httpx.get(f"{url}/docs").status_code == 200
    assert httpx.get(f"{url}/docsx").status_code == 401
