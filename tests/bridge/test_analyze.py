"""`neuroscope analyses` and `neuroscope analyze`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bridge.test_cli import neuroscope, succeeding


def test_analyses_are_listed() -> None:
    listed = {analysis["name"]: analysis for analysis in json.loads(succeeding("analyses", "--json").stdout)}
    assert {
        "mathematical_reasoning",
        "factual_recall",
        "creative_writing",
        "attention_patterns",
        "residual_stream",
    } <= listed.keys()
    assert listed["logit_lens"]["worksOn"] == "a text"
    assert "factual_recall" in succeeding("analyses").stdout


@pytest.mark.slow
def test_an_analysis_answers_json_and_a_page(tmp_path: Path) -> None:
    page = tmp_path / "recall.html"
    done = succeeding(
        "analyze", "gpt2-medium", "factualRecall", "--embedded", "--on", "The capital of France is", "--json", "--page", str(page)
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["answers"][0] == " Paris"
    assert found["answerRank"][-1] == 0
    assert max(map(max, found["heads"])) > 0.1
    country = next(at for at, token in enumerate(found["residualMap"]["tokens"]) if "France" in token)
    assert found["residualMap"]["values"][0][country] > 0.9
    assert found["residualMap"]["values"][-1][-1] > 0.9
    assert str(page) in done.stderr
    assert "Plotly.newPlot" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gpt2-medium", "factual_recal"), "factual_recall"),
        (("gpt2-medium", "logit_lens", "--on", "a b", "--file", "x.jsonl"), "--on and --file"),
        (("gpt2-medium", "logit_lens", "--page", "no/such/folder/x.html"), "cannot be written"),
        (("gpt2-medium", "logit_lens", "--file", "nowhere.jsonl"), "no file"),
    ],
)
def test_faults_are_told_before_a_model_is_loaded(arguments: tuple[str, ...], says: str) -> None:
    done = neuroscope("analyze", *arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert "loading" not in done.stderr
    assert "Traceback" not in done.stderr
