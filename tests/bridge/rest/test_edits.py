"""Edits of weights over HTTP: listed and reverted by anyone who may ask, applied only where the server consents."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from neuroscope.editing.edit import WeightEdit
from neuroscope.models.model import TransformerModel
from neuroscope_bridge.rest.client import LMStudioRESTClient
from neuroscope_bridge.wire.errors import RemoteError
from tests.bridge.rest.conftest import Serve, save_chatty

HALVED = {"scaling": {"weights": ["1.attn.W_O[2]"], "by": 0.5, "title": "a head turned down"}}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(save_chatty(tmp_path / "edited"))


@pytest.fixture
def http(serve: Serve, folder: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve.once("edits", edits=True), timeout=60) as client:
        client.post("/v1/models/load", json={"model": folder})
        yield client
        client.delete(f"/v1/models/{folder}")


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_without_consent_nothing_is_applied(url: str) -> None:
    before = httpx.get(f"{url}/v1/edits").json()
    refused = httpx.post(f"{url}/v1/edits", json=HALVED)
    assert error(refused) == (403, "forbidden")
    assert "--allow-edits" in refused.json()["error"]["remedy"]
    assert httpx.get(f"{url}/v1/edits").json() == before
    assert before["data"] == []


def test_an_edit_is_applied_listed_and_reverted_to_the_same_bits(http: httpx.Client, folder: str) -> None:
    model = {"model": folder}
    before = http.get("/v1/edits", params=model).json()
    applied = http.post("/v1/edits", json={**HALVED, **model}).json()
    (edit,) = applied["data"]
    assert (edit["id"], edit["title"], edit["weights"][0]["name"]) == (
        applied["applied"],
        "a head turned down",
        "1.attn.W_O[2]",
    )
    assert applied["weights_hash"] != before["weights_hash"]
    assert http.get("/v1/edits", params=model).json()["data"] == applied["data"]
    assert error(http.delete("/v1/edits/0123", params=model)) == (404, "edit_not_found")
    reverted = http.delete(f"/v1/edits/{edit['id']}", params=model).json()
    assert (reverted["reverted"], reverted["data"], reverted["weights_hash"]) == ([edit["id"]], [], before["weights_hash"])


def test_an_edit_below_another_stays_until_that_is_reverted(http: httpx.Client, folder: str) -> None:
    model = {"model": folder}
    first = http.post("/v1/edits", json={**HALVED, **model}).json()["applied"]
    second = http.post("/v1/edits", json={"scaling": {"weights": ["1.attn.W_O[2]"], "by": 2.0}, **model}).json()["applied"]
    assert error(http.delete(f"/v1/edits/{first}", params=model)) == (400, "edit")
    assert http.delete("/v1/edits", params=model).json()["reverted"] == [second, first]


def test_a_saved_edit_is_sent_as_a_file(http: httpx.Client, folder: str, tmp_path: Path) -> None:
    made = WeightEdit.scaling("0.mlp.W_in", 0.9, TransformerModel.from_hugging_face(folder))
    data = Path(made.save(str(tmp_path / "made"))).read_bytes()
    body: dict[str, Any] = {"model": folder, "file": base64.b64encode(data).decode()}
    assert http.post("/v1/edits", json=body).json()["data"][0]["title"] == made.title
    assert len(http.delete("/v1/edits", params={"model": folder}).json()["reverted"]) == 1
    for damaged in (data[:-1], data[: len(data) // 2], b"", b"\0" * 100):
        answer = http.post("/v1/edits", json={**body, "file": base64.b64encode(damaged).decode()})
        assert error(answer) == (400, "edit"), answer.text
    assert error(http.post("/v1/edits", json={**body, "file": "~"})) == (400, "argument")
    for wrong in ({"scaling": {"weights": ["9.attn.W_O"], "by": 2}}, {"scaling": {"weights": ["x"], "by": 2}}, {}):
        assert http.post("/v1/edits", json={"model": folder, **wrong}).status_code == 400
    assert http.get("/v1/edits", params={"model": folder}).json()["data"] == []


def test_the_clients_list_and_revert(http: httpx.Client, folder: str) -> None:
    with LMStudioRESTClient(str(http.base_url)) as client:
        client.load_model(folder)
        applied = http.post("/v1/edits", json={**HALVED, "model": folder}).json()["applied"]
        assert [edit["id"] for edit in client.edits()] == [applied]
        assert client.revert_edits(applied) == [applied]
        assert client.revert_edits() == []
        assert client.unload_model() == folder
        with pytest.raises(RemoteError, match="is loaded"):
            client.unload_model(folder)
