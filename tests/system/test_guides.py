"""The guide to patching: every snippet runs, on the model that ships."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import neuroscope
from neuroscope.circuits.maps import PatchingMap
from neuroscope.models import aliases
from neuroscope_dsl.workspace import Workspace

GUIDE = (Path(__file__).parents[2] / "docs" / "patching.md").read_text(encoding="utf-8")
NAMED = "HuggingFaceTB/SmolLM2-135M-Instruct"


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_every_snippet_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    python, smalltalk = snippets("python"), snippets("smalltalk")
    assert len(python) >= 3
    assert len(smalltalk) == 2
    with aliases.in_force([f"{NAMED}=bundled:gpt2-medium"]):
        for text in python:
            exec(compile(text, "docs/patching.md", "exec"), names)  # the guide itself
            if text is python[0]:
                assert len(names["found"]) == names["model"].architecture.layers * names["model"].architecture.heads * 15
                assert (tmp_path / "heads.html").stat().st_size > 10_000
    assert names["cache"].mask[1] != names["cache"].mask[0]
    workspace = Workspace()
    workspace.bind("model", names["model"])
    workspace.bind("patcher", neuroscope.ActivationPatcher(names["model"]))
    for text in smalltalk:
        workspace.evaluate(text)
        assert isinstance(workspace.variables["found"], PatchingMap)
    by_block = workspace.variables["found"]
    by_name = neuroscope.ActivationPatcher(names["model"]).patch(names["pair"], "heads")
    assert by_block.values == pytest.approx(by_name.values, abs=1e-4)
