"""Documented scripts 14 and 16, unchanged: Smalltalk through the command line, Python against a live server. And 15 over HTTP."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroscope import TransformerModel
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.client import LMStudioRESTClient
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.jobs import HttpOptions

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "14_rest_api_activation_capture.st"
MODEL = "bundled:gpt2-medium"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "neuroscope_bridge", "run", *options, str(EXAMPLES / "workspace.st"), str(SCRIPT)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False)


def test_script_14_runs_unchanged_on_a_server_started_for_it(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run("--alias", f"/path/to/model={MODEL}", "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert f"{MODEL} stands in for /path/to/model." in done.stderr
    assert "13 layers" in done.stderr  # of the 24 that the script asks for
    assert "an ActivationCache(40 sites)" in done.stdout

    found = json.loads(out.read_text())["variables"]
    assert len(found["hooks"]) == 1 + 3 * 13
    result = found["result"]
    assert result["choices"][0]["message"]["content"].strip()
    positions = result["usage"]["total_tokens"] - 1
    assert set(found["activations"]["sites"]) == {one["site"] for one in result["activations"].values()}
    assert found["activations"]["sites"]["12.residual"] == [1, positions, 112]


def test_script_14_with_its_path_not_replaced_says_what_to_do() -> None:
    done = run()
    assert done.returncode == 1
    assert "14_rest_api_activation_capture.st:3" in done.stderr
    assert "There is nothing at /path/to/model" in done.stderr
    assert "--alias /path/to/model=" in done.stderr


@pytest.fixture(scope="module")
def client() -> Iterator[LMStudioRESTClient]:
    host = Host(HostOptions(MODEL))
    door = HttpDoor(host, "127.0.0.1:0", HttpOptions())
    url = door.open()
    door.start()
    with LMStudioRESTClient(url) as client:
        yield client
    door.close()
    host.close()


def test_the_python_of_script_14(client: LMStudioRESTClient) -> None:
    names = runpy.run_path(str(EXAMPLES / "14_rest_api_activation_capture.py"), {"client": client})
    result, activations = names["result"], names["activations"]
    model = TransformerModel.from_hugging_face(MODEL)
    direct = model.generate(model.chat_prompt("Explain transformers"), max_tokens=100)
    assert result["choices"][0]["message"]["content"] == direct
    found = activations["layer_5_residual"]
    assert found["data"].shape == (result["usage"]["total_tokens"] - 1, 112)
    whole = "".join(result["tokens"][:-1])
    wanted = model.run_with_caching(whole, ["5.residual"])["5.residual"].numpy()[0]
    np.testing.assert_allclose(found["data"], wanted, rtol=1e-3, atol=1e-3)


def test_the_python_of_script_16(client: LMStudioRESTClient) -> None:
    hooks = [{"layer_name": "transformer.h.5", "component": "residual"}, {"layer_name": "10", "component": "attention"}]
    stream = runpy.run_path(str(EXAMPLES / "16_streaming_activation_analysis.py"), {"client": client, "hooks": hooks})["result"]
    events: list[dict[str, Any]] = list(stream)
    whole = client.generate_with_activations([{"role": "user", "content": "Write a story"}], hooks, max_tokens=200)
    assert "".join(event["text"] for event in events) == whole["choices"][0]["message"]["content"]
    assert [event["token"]["index"] for event in events] == list(range(whole["usage"]["completion_tokens"]))
    for site in ("5.residual", "10.attention"):
        parts = np.concatenate([event["activations"][site]["data"] for event in events])
        np.testing.assert_allclose(parts, whole["activations"][site]["data"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["mathematical_reasoning", "factual_recall", "creative_writing", "attention_patterns", "residual_stream"]
)
def test_the_analyses_of_script_15_over_http(client: LMStudioRESTClient, name: str) -> None:
    found = client.analyze(name)
    assert (found["name"], found["model"]) == (name, MODEL)
    assert len(found["summary"].splitlines()) > 2
    assert found["result"]
