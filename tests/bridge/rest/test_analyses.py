"""Analyses over HTTP are those of `model.analyze`."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from neuroscope.analyses.registry import ANALYSES
from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.errors import DatasetError
from neuroscope.models.model import TransformerModel
from neuroscope_bridge.rest.client import AsyncLMStudioRESTClient, LMStudioRESTClient
from neuroscope_bridge.wire.errors import RemoteError
from tests.bridge.rest.conftest import Serve, within

TEXT = "w5 w6 w7 w5 w6"


def test_they_are_listed(url: str) -> None:
    with LMStudioRESTClient(url) as client:
        assert [one["name"] for one in client.analyses()] == [analysis.name for analysis in ANALYSES]


@pytest.mark.parametrize("name", ["attention_patterns", "logit_lens"])
def test_over_http_and_directly_they_answer_the_same(url: str, direct: TransformerModel, name: str) -> None:
    with LMStudioRESTClient(url) as client:
        found = client.analyze(name, on=TEXT, seed=1)
    wanted = direct.analyze(name, on=TEXT).as_dictionary()
    assert found["name"] == name
    assert found["summary"]
    assert found["result"].keys() == wanted.keys()
    assert found["result"]["text"] == TEXT


PAIRS = [
    ("w5 w9 w12 w7 w30 w4", "w5 w9 w40 w7 w30 w4", "w8", "w22"),
    {"clean": "w6 w9 w13 w7 w31 w4", "corrupt": "w6 w50 w13 w7 w31 w4", "answer": "w9", "wrong": "w3"},
]


def test_patching_over_http_and_directly_gives_the_same_map(url: str, direct: TransformerModel) -> None:
    patcher = ActivationPatcher(direct)
    with LMStudioRESTClient(url) as client:
        found = client.patch(PAIRS, ["heads@*", "1.mlp"], direction="noising", seed=0)
        paths = client.patch(PAIRS, "heads", receivers=["logits"])
        with pytest.raises(RemoteError, match="Did you mean 'heads'"):
            client.patch(PAIRS, "haeds")
        with pytest.raises(DatasetError, match="is not a pair"):
            client.patch("w5 w6")
    wanted = patcher.patch(PAIRS, ["heads@*", "1.mlp"], direction="noising")
    assert [one["value"] for one in found["result"]["sites"]] == pytest.approx(wanted.values, abs=1e-5)
    assert (found["object"], found["result"]["direction"]) == ("patching_map", "noising")
    assert found["result"].keys() == wanted.as_dictionary().keys()
    direct_paths = patcher.patch_paths(PAIRS, "heads")
    assert [one["value"] for one in paths["result"]["sites"]] == pytest.approx(direct_paths.values, abs=1e-5)


def test_mistakes_are_named(url: str, http: httpx.Client) -> None:
    with LMStudioRESTClient(url) as client, pytest.raises(RemoteError, match="logit_lens") as caught:
        client.analyze("logitlenz")
    assert caught.value.code == "analysis-not-found"
    assert http.post("/v1/analyze/logit_lens", json={"on": [{"clean": "w5"}]}).status_code == 400
    assert http.post("/v1/analyze/logit_lens", json={"onn": "w5"}).status_code == 400

    async def work() -> str:
        async with AsyncLMStudioRESTClient(url) as client:
            return str((await client.analyze("logitLens", on=TEXT))["name"])

    assert asyncio.run(work()) == "logit_lens"


def test_a_client_that_leaves_frees_the_server(serve: Serve) -> None:
    url = serve()
    with serve.engine(url).exclusive(), pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/analyze/logit_lens", json={"on": TEXT}, timeout=0.5)
    assert within(10, lambda: httpx.post(f"{url}/v1/analyze/logit_lens", json={"on": TEXT}).status_code == 200)
