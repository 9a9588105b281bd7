"""`neuroscope examples`: every documented experiment by its number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from neuroscope.errors import ArgumentError
from neuroscope_bridge.cli.examples import example, examples


def neuroscope(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "neuroscope_bridge", "examples", *arguments], capture_output=True, text=True, check=False
    )


def test_every_documented_experiment_is_listed_and_says_whether_it_runs() -> None:
    done = neuroscope("list", "--json")
    entries = {entry["number"]: entry for entry in json.loads(done.stdout)}
    assert set(entries) == set(range(1, 21)) - {15}
    assert not [number for number, entry in entries.items() if entry["missing"]]
    assert entries[16]["script"].endswith(".py")
    assert entries[1]["title"] == "Identify and test IOI circuits in larger models"


def test_scripts_that_leave_the_model_to_whoever_runs_them_are_known() -> None:
    assert {one.number for one in examples() if one.leaves_model} == {
        2,
        3,
        5,
        7,
        8,
        17,
        18,
        19,
        20,
    }


def test_a_script_is_shown_with_its_companion() -> None:
    shown = neuroscope("show", "13").stdout
    assert shown.index("CircuitQualityAssurance class>>validateCircuit:") < shown.index("validateCircuit: circuit.")


@pytest.mark.parametrize(
    ("number", "said"),
    [(15, "five analyses"), (21, "no experiment 21")],
)
def test_what_cannot_run_says_why(number: int, said: str) -> None:
    done = neuroscope("run", str(number))
    assert done.returncode == 1
    assert said in done.stderr
    with pytest.raises(ArgumentError):
        example(number)


@pytest.mark.slow
def test_a_run_needs_nothing_but_the_number_and_ends_with_a_picture(tmp_path: Path) -> None:
    done = neuroscope("run", "10", "--figures", str(tmp_path), "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "agreement.svg").read_text(encoding="utf-8").startswith("<svg")
    assert f"To look at:  {tmp_path / 'agreement.svg'}" in done.stderr
    assert done.stderr.count("neuroscope examples run ") == 2
    assert "neuroscope serve --embedded" in done.stderr
    assert "agreement" in json.loads((tmp_path / "out.json").read_text())["variables"]


@pytest.mark.slow
def test_a_python_experiment_runs_on_a_server_of_its_own() -> None:
    done = neuroscope("run", "16")
    assert done.returncode == 0, done.stderr
    assert "started one for this run" in done.stderr
    assert done.stdout.strip()
