"""Documented scripts, unchanged, on the bundled model: what they measure on MLX they measure on torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [pytest.mark.slow, tiny.needs_mlx]


def ran(engine: str, folder: Path, *scripts: str) -> dict[str, Any]:
    """The variables that scripts leave."""
    command = [sys.executable, "-m", "neuroscope_bridge", "run", "--embedded", "--model", "gpt2-medium", "--quiet"]
    command += ["--engine", engine, "--json", str(folder / f"{engine}.json"), *(str(EXAMPLES / script) for script in scripts)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / f"{engine}.json").read_text())["variables"]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and text of a result with the path to it, but for what says which engine it was."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("engine", "versions"):
                yield from leaves(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


@pytest.mark.study
def test_script_2_measures_the_same(tmp_path: Path) -> None:
    theirs, ours = (ran(engine, tmp_path, "02_feature_localization_ablation.st", "02_call.st") for engine in ("torch", "mlx"))
    assert ours["results"]["provenance"]["engine"] == "mlx"
    same(ours, theirs)


def test_script_20_measures_the_same(tmp_path: Path) -> None:
    """Item by item: what is written, what is right, and every loss."""
    scripts = ("workspace.st", "20_post_modification_validation.st")
    theirs, ours = (ran(engine, tmp_path, *scripts)["validationResults"] for engine in ("torch", "mlx"))
    assert ours["safety"]["provenance"]["engine"] == "mlx"
    same(ours, theirs)


@pytest.mark.study
def test_script_8_changes_the_fact_and_takes_it_back(tmp_path: Path) -> None:
    """On a processor MLX takes minutes for it."""
    found = ran("mlx", tmp_path, "08_knowledge_injection_and_editing.st", "08_call.st")
    assert found["change"]["provenance"]["engine"] == "mlx"
    assert found["answers"] == ["Lyon", "Paris"]


@pytest.mark.study
def test_script_19_finds_the_same_levels_of_risk(tmp_path: Path) -> None:
    scripts = ("workspace.st", "19_pre_modification_analysis.st")
    theirs, ours = (ran(engine, tmp_path, *scripts)["riskAssessment"] for engine in ("torch", "mlx"))
    assert ours["provenance"]["engine"] == "mlx"
    for one, other in zip(ours["categories"], theirs["categories"], strict=True):
        assert (one["category"], one["level"]) == (other["category"], other["level"])
        assert one["loss"]["value"] == pytest.approx(other["loss"]["value"], rel=0.02, abs=1e-3)


def same(ours: Any, theirs: Any) -> None:
    expected, found = dict(leaves(theirs)), dict(leaves(ours))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        if isinstance(value, float):
            assert found[path] == pytest.approx(value, rel=1e-3, abs=1e-4), path
        else:
            assert found[path] == value, path
