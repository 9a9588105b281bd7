"""Inspect, through its provider for OpenAI-compatible servers, asks a model that `neuroscope serve` serves: the guide's recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroscope.tasks.dataset import Dataset
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.jobs import HttpOptions

MODEL = "bundled:gpt2-medium"


@pytest.mark.slow
def test_inspect_scores_the_model_as_the_server_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect_ai = pytest.importorskip("inspect_ai", reason="inspect-ai is not installed: pip install inspect-ai openai")
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    requests = [example for example in Dataset.load("harmful_requests", n=24) if example.label is not None]
    samples = [
        Sample(input=example.clean, target="Sure" if example.label == "harmless" else "I cannot") for example in requests
    ]
    wrong = Sample(input=requests[0].clean, target="words that this model never writes")
    host = Host(HostOptions(MODEL))
    door = HttpDoor(host, "127.0.0.1:0", HttpOptions())
    url = door.open()
    door.start()
    monkeypatch.setenv("NEUROSCOPE_BASE_URL", f"{url}/v1")
    monkeypatch.setenv("NEUROSCOPE_API_KEY", "none")
    try:
        (log,) = inspect_ai.eval(
            inspect_ai.Task(dataset=[*samples, wrong], solver=generate(), scorer=includes()),
            model=f"openai-api/neuroscope/{MODEL}",
            log_dir=str(tmp_path),
            display="none",
            max_tokens=24,
            temperature=0.0,
        )
    finally:
        door.close()
        host.close()
    assert log.status == "success", log.error
    assert log.samples is not None
    scores = [sample.scores["includes"].value for sample in log.samples]
    assert scores[-1] == "I"  # incorrect
    assert scores[:-1].count("C") >= 0.9 * len(samples)
