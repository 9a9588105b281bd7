"""HTTP at its edges: unfinished requests, clients that leave, many spellings of one model, other sites, other users."""

from __future__ import annotations

import gc
import os
import socket
import threading
import weakref
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from neuroscope.hooks.hook import InterventionHook
from neuroscope.models import bundled
from neuroscope.models.model import TransformerModel
from neuroscope_bridge.rest import peers
from neuroscope_dsl.workspace import Workspace
from tests.bridge.rest.conftest import Serve, save_chatty, within
from tests.bridge.rest.test_streams import PATH, Reader, generations

SHORT: dict[str, Any] = {"prompt": "w5 w6", "max_tokens": 1, "temperature": 0}


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=5)


def is_closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        while one.recv(1 << 16):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


# --- connections --------------------------------------------------------------------------------------------------------------

HEAD = b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
UNFINISHED = {
    "nothing": b"",
    "half a line": b"POST /v1/tok",
    "half a head": HEAD,
    "half a body": HEAD + b"Content-Length: 100\r\n\r\n{",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "half a second request": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
}


@pytest.fixture(scope="module")
def impatient(serve: Serve) -> str:
    return serve(patience=0.4, stall=0.5)


def test_requests_that_never_end_are_closed(impatient: str) -> None:
    open_ones = {f"{name} {number}": connect(impatient) for name in UNFINISHED for number in range(13)}
    for name, one in open_ones.items():
        one.sendall(UNFINISHED[name.rsplit(" ", 1)[0]])
    assert httpx.get(f"{impatient}/health").status_code == 200
    assert within(3, lambda: all(is_closed(one) for one in open_ones.values())), [
        name for name, one in open_ones.items() if not is_closed(one)
    ]
    for one in open_ones.values():
        one.close()


def test_bytes_that_drip_do_not_keep_a_request_open(impatient: str) -> None:
    one = connect(impatient)
    one.sendall(HEAD)

    def drip() -> bool:
        try:
            one.send(b"X")
        except OSError:
            return True
        return False

    assert within(3, drip)
    one.close()


def test_an_answer_that_nobody_reads_is_given_up(impatient: str) -> None:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    parts = urlsplit(impatient)
    one.connect((parts.hostname, parts.port))
    one.settimeout(0.1)
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def ask() -> bool:  # until the server gives up; each answer has 60 kB
        try:
            one.send(asked * 20)
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    assert within(10, ask)
    one.close()


def test_a_slow_reader_of_one_long_answer_gets_it_whole(impatient: str) -> None:
    one = Reader(impatient, {"prompt": "w5 w6", "max_tokens": 100, "temperature": 3.0, "seed": 1, "activation_hooks": [
        {"layer_name": str(layer), "component": part} for layer in range(3) for part in ("residual", "mlp", "query", "logits")[:3]
    ]})  # fmt: skip
    found, quiet = b"", threading.Event()
    while part := one.socket.recv(1 << 14):
        found += part
        quiet.wait(0.02)
    assert found.endswith(b"}")
    one.close()


def test_a_full_house_still_lets_callers_in(serve: Serve) -> None:
    url = serve(connections=20)
    idle = [connect(url) for _ in range(40)]
    for one in idle:
        one.sendall(b"GET /hea")
    assert httpx.get(f"{url}/health", timeout=5).status_code == 200
    assert within(3, lambda: sum(not is_closed(one) for one in idle) <= 20)
    for one in idle:
        one.close()


# --- clients that leave ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {**SHORT, "max_tokens": 100}),
        ("/v1/completions", {**SHORT, "max_tokens": 100, "stream": True}),
        ("/v1/completions", {**SHORT, "hooks": [{"layer_name": "1", "action": "steer", "contrast": {"more": ["w5"], "less": ["w6"]}}]}),
        ("/v1/lens", SHORT),
        ("/v1/analyze/logit_lens", {"on": "w5 w6"}),
    ],
)  # fmt: skip
def test_the_work_of_clients_that_left_is_dropped(
    path: str, body: dict[str, Any], serve: Serve, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = serve.engine(url)
    assert httpx.post(f"{url}{path}", json=body, timeout=60).status_code == 200
    monkeypatch.setattr("tests.bridge.rest.test_streams.PATH", path)
    with engine.exclusive():
        first = [Reader(url, body) for _ in range(30)]
        assert within(5, lambda: generations(url) > 0 or path.startswith("/v1/analyze") or "hooks" in body)
        threading.Event().wait(0.3)
        for one in first:
            one.close()
        threading.Event().wait(0.3)
        before = engine.block_calls
    assert httpx.post(f"{url}/v1/completions", json=SHORT, timeout=10).status_code == 200
    assert within(5, lambda: generations(url) == 0)
    # the one that had begun, at most a few steps of it, and the new one
    assert engine.block_calls - before <= 3 * 20, engine.block_calls - before


def test_a_client_that_leaves_is_noticed_behind_a_request_that_it_sent_ahead(serve: Serve, url: str) -> None:
    engine = serve.engine(url)
    one = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    body = b'{"prompt": "w5 w6", "max_tokens": 100}'
    with engine.exclusive():
        raw = connect(url)
        raw.sendall(one % (len(body), body) * 3)
        assert within(5, lambda: generations(url) == 1)
        raw.close()
        assert within(5, lambda: generations(url) == 0)


# --- models ---------------------------------------------------------------------------------------------------------------------


def spellings(folder: Path, beside: Path) -> list[str]:
    links = []
    for number in range(5):
        link = beside / f"link{number}"
        link.symlink_to(folder if number == 0 else links[-1])
        links.append(link)
    return [
        *(f"{folder.parent}/{'./' * count}{folder.name}" for count in range(12)),
        *(f"{folder}{'/' * count}" for count in range(1, 6)),
        *map(str, links),
        *(f"{folder}/../{folder.name}/{'.' if odd else ''}" for odd in (False, True)),
        f"{folder}/../../{folder.parent.name}/{folder.name}",
    ]


def test_one_folder_is_one_model_however_it_is_spelled(serve: Serve, chatty: Path, tmp_path: Path) -> None:
    url = serve()
    names = spellings(chatty, tmp_path)
    assert len(set(names)) >= 25
    for name in names:
        assert httpx.post(f"{url}/v1/models/load", json={"model": name}, timeout=30).status_code == 200, name
        assert httpx.post(f"{url}/v1/completions", json={**SHORT, "model": name}, timeout=30).json()["model"] == name
    assert len(httpx.get(f"{url}/v1/models").json()["data"]) == 1


def test_loads_are_bounded_and_taken_back(serve: Serve, tmp_path: Path) -> None:
    url = serve(host={"models": 3})
    folders = [str(save_chatty(tmp_path / f"m{number}")) for number in range(3)]
    with httpx.Client(base_url=url, timeout=60) as http:
        for folder in folders[:2]:
            assert http.post("/v1/models/load", json={"model": folder}).status_code == 200
        engine = weakref.ref(serve.engine(url, folders[0]))
        full = http.post("/v1/models/load", json={"model": folders[2]})
        assert (full.status_code, full.json()["error"]["code"]) == (409, "too_many_models")
        assert http.delete(f"/v1/models/{folders[0]}x").status_code == 404
        assert http.delete(f"/v1/models/{folders[0]}").json() == {"id": folders[0], "object": "model", "deleted": True}
        assert within(5, lambda: gc.collect() >= 0 and engine() is None)
        assert http.get(f"/v1/models/{folders[0]}").status_code == 404
        assert http.post("/v1/models/load", json={"model": folders[2]}).status_code == 200
        kept = http.delete("/v1/models/chatty")
        assert (kept.status_code, kept.json()["error"]["code"]) == (403, "forbidden")
        assert http.post("/v1/completions", json=SHORT).json()["model"] == "chatty"


def test_a_load_does_not_change_what_others_get_without_naming_a_model(serve: Serve) -> None:
    url = serve()
    with httpx.Client(base_url=url, timeout=60) as http:
        before = http.post("/v1/completions", json=SHORT).json()
        for body in ({"model": "speechless"}, {"model": "chatty", "dtype": "bfloat16"}):
            assert http.post("/v1/models/load", json=body).status_code == 200
            after = http.post("/v1/completions", json=SHORT).json()
            assert {**after, "id": 0, "created": 0} == {**before, "id": 0, "created": 0} | {"seed": after["seed"]}
        assert http.get("/health").json()["model"] == "chatty"


def test_a_request_in_flight_keeps_its_model(serve: Serve, tmp_path: Path) -> None:
    url, folder = serve(), str(save_chatty(tmp_path / "m"))
    httpx.post(f"{url}/v1/models/load", json={"model": folder}, timeout=60)
    engine = serve.engine(url, folder)
    answers: list[int] = []

    def ask() -> None:
        answers.append(httpx.post(f"{url}/v1/completions", json={**SHORT, "model": folder}, timeout=60).status_code)

    with engine.exclusive():
        asking = threading.Thread(target=ask)
        asking.start()
        assert within(5, lambda: generations(url) == 1)
        assert httpx.delete(f"{url}/v1/models/{folder}").status_code == 200
    asking.join()
    assert answers == [200]


@pytest.mark.parametrize(
    "name", ["x/../gpt2-medium", "./gpt2-medium", "gpt2-medium/", "gpt2-medium/.", "../weights/gpt2-medium", ""]
)
def test_bundled_models_have_one_name_each(name: str, http: httpx.Client) -> None:
    refused = http.post("/v1/models/load", json={"model": f"bundled:{name}"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    with pytest.raises(bundled.ModelNotFoundError):
        bundled.path(name)


def test_loading_tells_nothing_of_the_files_of_this_machine(http: httpx.Client, tmp_path: Path) -> None:
    secret = "hunter2"

    def folder(name: str, files: dict[str, str]) -> Path:
        made = tmp_path / name
        made.mkdir()
        for file, text in files.items():
            (made / file).write_text(text)
        return made

    (tmp_path / "secret.txt").write_text(secret)
    (tmp_path / "locked").mkdir(mode=0)
    tried = [
        tmp_path / "absent",
        tmp_path / "secret.txt",
        tmp_path / "locked" / "x",
        folder("empty", {}),
        folder("garbled", {"config.json": secret}),
        folder("other", {"config.json": f'{{"model_type": "{secret}"}}'}),
        folder("bare", {"config.json": '{"model_type": "gpt2"}'}),
        folder("pickled", {"config.json": '{"model_type": "gpt2"}', "pytorch_model.bin": secret}),
        folder("adapter", {"adapter_config.json": secret}),
        Path("x" * 4000),
        Path("README.md"),
        Path("docs"),
        Path("~nobody-here/x"),
    ]
    told = set()
    for path in tried:
        answer = http.post("/v1/models/load", json={"model": str(path)})
        told.add((answer.status_code, answer.text.replace(str(path)[:200], "NAME")))
    assert len(told) == 1, told
    assert secret not in str(told)


def test_a_models_saved_hooks_act_over_http(serve: Serve, direct: TransformerModel, chatty: Path, tmp_path: Path) -> None:
    url = serve()
    model = TransformerModel.from_hugging_face(str(chatty))
    block = Workspace().evaluate("[:a | a * 3]")
    hook = InterventionHook(1, "residual", block, name="tripled")
    model.hook_manager.add_persistent_hook(hook)
    model.save(str(tmp_path / "saved"))
    wanted = model.generate("w5 w6", max_tokens=8)
    assert wanted != direct.generate("w5 w6", max_tokens=8)
    with httpx.Client(base_url=url, timeout=60) as http:
        assert http.post("/v1/models/load", json={"model": str(tmp_path / "saved")}).status_code == 200
        body = {"prompt": "w5 w6", "max_tokens": 8, "temperature": 0, "model": str(tmp_path / "saved")}
        for _ in range(2):
            assert http.post("/v1/completions", json=body).json()["choices"][0]["text"] == wanted
        plain = http.post("/v1/completions", json={**body, "model": "chatty"}).json()
        assert plain["choices"][0]["text"] == direct.generate("w5 w6", max_tokens=8)


# --- other sites, other users -----------------------------------------------------------------------------------------------------

PATHS = ("/", "/page/main.js", "/health", "/openapi.json", "/v1/models", "/v1/completions", "/v1/lens", "/v1/edits", "/nowhere")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND")
FOREIGN: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Host": "evil.example"},
    {"Host": "evil.example:50111"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1@evil.example"},
    {"Host": "evil.example#@127.0.0.1"},
    {"Host": ""},
    {"Host": "evil.example", "Origin": "http://evil.example"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "X": "frame"},
]


@pytest.mark.parametrize("method", METHODS)
def test_no_method_of_another_site_comes_through(method: str, serve: Serve, url: str) -> None:
    friendly = serve.once("friendly", origins=("http://friend.example",))
    for server in (url, friendly):
        with httpx.Client(base_url=server) as http:
            for path in PATHS:
                for headers in FOREIGN:
                    visit = headers.get("Sec-Fetch-Mode") == "navigate" and path == "/" and method == "GET"
                    answer = http.request(method, path, headers={**headers, "Access-Control-Request-Method": "POST"})
                    assert answer.status_code == (200 if visit else 403), (path, headers)
                    assert "access-control-allow-origin" not in answer.headers


def test_no_websocket_and_no_stream_of_another_site(url: str) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "x" * 22 + "==",
    }
    for path in ("/", "/v1/lens"):
        assert httpx.get(f"{url}{path}", headers={**upgrade, "Origin": "http://evil.example"}).status_code == 403
        assert httpx.get(f"{url}{path}", headers=upgrade).status_code in (200, 404, 405)
    with httpx.stream("POST", f"{url}/v1/lens", json=SHORT, headers={"Origin": "http://evil.example"}) as answer:
        assert answer.status_code == 403


@pytest.mark.parametrize("path", PATHS)
def test_no_site_may_frame_anything(path: str, url: str) -> None:
    headers = httpx.get(f"{url}{path}").headers
    assert headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_another_user_of_the_machine_is_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, with_token = serve(), serve(token="secret")
    me = os.getuid()
    with connect(ours) as one:
        seen = peers.user_of(peers._written(one.getsockname()), peers._written(one.getpeername()))
    assert seen == me
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    if me == 0:  # the administrator's connections are never a stranger's
        monkeypatch.setattr(peers, "user_of", lambda local, remote: me + 2)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{ours}/health")
    assert httpx.get(f"{with_token}/health", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_a_token_that_changes_counts_at_once(serve: Serve) -> None:
    now: list[str | None] = ["first"]
    url = serve("0.0.0.0:0", token=lambda: now[0]).replace("0.0.0.0", "127.0.0.1")

    def ask(token: str) -> int:
        return httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {token}"}).status_code

    assert (ask("first"), ask("second")) == (200, 401)
    now[0] = "second"
    assert (ask("first"), ask("second")) == (401, 200)


def test_requests_held_in_memory_are_bounded(serve: Serve, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroscope_bridge.rest.attending.MOST", 1000)
    with connect(url) as holding:
        holding.sendall(HEAD + b"Content-Length: 10000\r\n\r\n" + b" " * 900)
        assert within(5, lambda: httpx.post(f"{url}/v1/tokenize", json={"text": "w5 " * 100}).status_code == 503)
    assert within(5, lambda: httpx.post(f"{url}/v1/tokenize", json={"text": "w5 " * 100}).status_code == 200)


def test_answers_that_nobody_reads_leave_no_memory_taken(serve: Serve) -> None:
    url = serve(memory=20 << 20, answer=20 << 20, stall=1.0)
    parts = ("residual", "mlp", "query", "key", "value")
    sites = [{"layer_name": str(layer), "component": part} for layer in range(3) for part in parts]
    many = [{**hook, "hook_id": str(index)} for index, hook in enumerate(sites * 16)]
    body: dict[str, Any] = {"prompt": [5] * 100, "max_tokens": 1, "temperature": 0, "activation_hooks": many}  # over 10 MiB
    asked = Reader(url, body)
    asked.socket.recv(1000)  # the answer goes out

    def ask() -> int:
        return httpx.post(f"{url}{PATH}", json=body, timeout=60).status_code

    assert ask() == 503
    assert within(20, lambda: ask() == 200)  # the other was given up
    asked.close()
    assert ask() == 200
