"""Probes over HTTP: trained or sent, listed, and a score at every token of a generation that equals the probe's own."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from neuroscope.models.model import TransformerModel
from neuroscope.safety.probe import Probe
from tests.bridge.rest.test_activations import events

WITH = "/v1/chat/completions/with_activations"
POSITIVE = [f"w{3 + at} w40 w41" for at in range(8)]
NEGATIVE = [f"w{3 + at} w50 w51" for at in range(8)]
TRAINED = {"name": "forties", "positive": POSITIVE, "negative": NEGATIVE, "layer": 1, "reading": "tokens"}
ASKED: dict[str, Any] = {"prompt": "w5 w40 w7", "max_tokens": 4, "temperature": 0}


@pytest.fixture
def probe(http: httpx.Client) -> Iterator[dict[str, Any]]:
    answer = http.post(
        "/v1/probes", json={**TRAINED, "calibrating": [f"w{60 + at} w50" for at in range(9)], "false_positive_rate": 0.2}
    )
    assert answer.status_code == 200, answer.text
    yield answer.json()
    http.delete("/v1/probes/forties")


@pytest.fixture
def same(direct: TransformerModel, probe: dict[str, Any]) -> Probe:
    """The probe that the server trained, trained here."""
    made = Probe.train("forties", POSITIVE, NEGATIVE, direct, 1, reading="tokens")
    return made.calibrate([f"w{60 + at} w50" for at in range(9)], direct, 0.2)


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return f"{answer.json()['error']['message']} {answer.json()['error'].get('remedy', '')}"


def test_a_stream_scores_every_token_as_the_probe_does(
    http: httpx.Client, probe: dict[str, Any], same: Probe, direct: TransformerModel
) -> None:
    assert probe["threshold"] == pytest.approx(same.threshold, abs=1e-4)
    whole = http.post(WITH, json={**ASKED, "probe": "forties"}).json()
    wanted = same.token_scores(" ".join(whole["tokens"][:-1]), direct)
    assert whole["probe"]["scores"] == pytest.approx(wanted.scores, abs=2e-3)
    assert whole["probe"]["read"] == wanted.read == [False, *[True] * (len(wanted) - 1)]

    chunks = events(http.post(WITH, json={**ASKED, "probe": "forties", "stream": True}).text)
    told = [chunk["probe"] for chunk in chunks if "token" in chunk]
    assert [one["first"] for one in told] == [0, *range(3, 3 + len(told) - 1)]
    assert [score for one in told for score in one["scores"]] == whole["probe"]["scores"]
    assert {one["name"] for one in told} == {"forties"}
    assert "probe" not in http.post(WITH, json=ASKED).json()


def test_the_scores_are_of_what_the_hooks_made_of_the_tokens(http: httpx.Client, probe: dict[str, Any]) -> None:
    ablate = {"layer_name": "0", "component": "mlpOutput", "action": "ablate"}
    plain, hooked = (http.post(WITH, json={**ASKED, "probe": "forties", "hooks": hooks}).json() for hooks in ([], [ablate]))
    assert plain["probe"]["scores"][:3] != pytest.approx(hooked["probe"]["scores"][:3], abs=1e-2)


def test_the_lens_page_gets_them_too(http: httpx.Client, probe: dict[str, Any]) -> None:
    opening, *rest = events(http.post("/v1/lens", json={**ASKED, "probe": "forties"}).text)
    assert opening["probe"] == {"name": "forties", "threshold": pytest.approx(probe["threshold"])}
    assert len([score for event in rest for score in event["probe"]["scores"]]) == 3 + len(rest) - 1
    assert events(http.post("/v1/lens", json=ASKED).text)[0]["probe"] is None


def test_a_file_is_sent_listed_and_removed(http: httpx.Client, same: Probe, tmp_path: Path) -> None:
    http.delete("/v1/probes/forties")
    data = base64.b64encode(Path(same.save(str(tmp_path / "forties"))).read_bytes()).decode()
    assert http.post("/v1/probes", json={"file": data}).json()["false_positives"]["n"] == 9
    assert "forties" in [one["name"] for one in http.get("/v1/probes").json()["data"]]
    assert "already exists" in refused(http.post("/v1/probes", json={"file": data}), 400)
    assert http.delete("/v1/probes/forties").json()["removed"] == ["forties"]
    assert "forties" not in [one["name"] for one in http.get("/v1/probes").json()["data"]]


def test_mistakes_are_said(http: httpx.Client, probe: dict[str, Any]) -> None:
    assert "forties" in refused(http.post(WITH, json={**ASKED, "probe": "fortys"}), 404)
    assert "forties" in refused(http.delete("/v1/probes/fortys"), 404)
    assert "too few" in refused(http.post("/v1/probes", json={**TRAINED, "name": "few", "positive": POSITIVE[:3]}), 400)
    assert "positive" in refused(http.post("/v1/probes", json={"name": "few", "layer": 1}), 400)
    assert "base64" in refused(http.post("/v1/probes", json={"file": "?"}), 400)
    assert "probe" in refused(http.post("/v1/probes", json={"file": base64.b64encode(b"nothing").decode()}), 400)
    assert http.post("/v1/models/load", json={"model": "speechless"}).status_code == 200
    try:
        assert "weights" in refused(http.post(WITH, json={**ASKED, "probe": "forties", "model": "speechless"}), 400)
    finally:
        http.post("/v1/models/load", json={"model": "chatty"})
