"""Documented scripts, live: GNU Smalltalk compiles them unchanged, a server computes, and the numbers are `neuroscope run`'s."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.bridge.serving import serving
from tests.pharo.smalltalk import HOME, gst, needs_gst

pytestmark = [needs_gst, pytest.mark.slow]

EXAMPLES = HOME / "examples"
PRINTER = Path(__file__).with_name("leaves.st")
MODEL = "gpt2-medium"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving("--embedded") as (_, address):
        yield address


def ran(folder: Path, scripts: Sequence[str], variables: Sequence[str]) -> dict[str, str]:
    """Every leaf of what `neuroscope run` leaves in some variables, by its path."""
    command = [sys.executable, "-m", "neuroscope_bridge", "run", "--embedded", "--quiet", "--model", MODEL]
    command += ["--json", str(folder / "out.json"), *(str(EXAMPLES / script) for script in scripts)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    left = json.loads((folder / "out.json").read_text())["variables"]
    return {path: text for name in variables for path, text in leaves(left[name], name)}


def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, f"{path}/{key}")
    elif value is None or isinstance(value, bool):
        yield path, {None: "nil", True: "true", False: "false"}[value]
    else:
        yield path, str(value).replace("\n", "\\n")


def lived(folder: Path, server: str, statements: str, shown: Mapping[str, str]) -> dict[str, str]:
    """The same of an image that evaluates the statements, one after the other. shown: an expression for each variable."""
    script = folder / "live.st"
    printed = "".join(f"Leaves of: ({expression}) at: '{name}'.\n" for name, expression in shown.items())
    script.write_text(f"NeuroScope connectTo: '{server}'.\n{statements}\n{printed}NeuroScope disconnect.\n")
    output = gst(PRINTER, script, timeout=600)
    found = dict(line[1:].split("\t", 1) for line in output.splitlines() if line.startswith("="))
    assert found, output
    assert "error:" not in output, output
    return found


def same(found: dict[str, str], expected: dict[str, str]) -> None:
    assert found.keys() == expected.keys()
    for path, text in expected.items():
        assert found[path] == text or float(found[path]) == float(text), path


def texts(*scripts: str) -> str:
    return "".join((EXAMPLES / script).read_text() + "\n" for script in scripts)


BIND = f"model := TransformerModel fromHuggingFace: '{MODEL}'.\n"


@pytest.mark.parametrize(
    ("scripts", "variables"),
    [
        (["01_causal_tracing_for_known_phenomena.st"], ["ioiCircuit", "results"]),
        (["02_feature_localization_ablation.st", "02_call.st"], ["countryNeurons", "results"]),
        pytest.param(["06_circuit_based_weight_editing.st", "06_call.st"], ["debiasTransform"], marks=pytest.mark.study),
        (["07_activation_steering_and_control.st", "07_call.st"], ["formalityNeurons", "results"]),
    ],
    ids=["script 1", "script 2", "script 6", "script 7"],
)
def test_a_script_gives_the_same_numbers_in_the_image(
    scripts: list[str], variables: list[str], server: str, tmp_path: Path
) -> None:
    shown = {name: f"{name} asDictionary" for name in variables}
    same(lived(tmp_path, server, BIND + texts(*scripts), shown), ran(tmp_path, scripts, variables))


def test_a_script_that_stores_into_a_blocks_argument_goes_to_the_server_as_text(server: str, tmp_path: Path) -> None:
    scripts = ["03_multi_token_steering.st", "03_call.st"]
    live = f"NeuroScope evaluate: 'model := TransformerModel fromHuggingFace: #''{MODEL}'''.\n"
    live += "".join(f"NeuroScope run: '{EXAMPLES / script}'.\n" for script in scripts)
    shown = {"results": "(NeuroScope evaluate: 'results') asDictionary"}
    same(lived(tmp_path, server, live, shown), ran(tmp_path, scripts, ["results"]))


def test_a_method_that_a_script_defines_is_then_understood_in_the_image(server: str, tmp_path: Path) -> None:
    definition, use = "11_automated_circuit_discovery.st", "11_call.st"
    live = f"NeuroScope run: '{EXAMPLES / definition}'.\n" + texts(use)
    shown = {"validatedCircuits": "validatedCircuits collect: [:each | each asDictionary]"}
    found = lived(tmp_path, server, live, shown)
    same(found, ran(tmp_path, [definition, use], ["validatedCircuits"]))


def test_script_20_gives_the_same_numbers_in_the_image(server: str, tmp_path: Path) -> None:
    """What the workspace binds, and the script; the image keeps the dictionary of suites, the server the suites."""
    scripts = ["workspace.st", "20_post_modification_validation.st"]
    names = ("originalPerformance", "safety", "generalCapabilities")
    shown = {f"validationResults/{name}": f"(validationResults at: #{name}) asDictionary" for name in names}
    live = texts("workspace.st") + BIND + texts(scripts[1])
    same(lived(tmp_path, server, live, shown), ran(tmp_path, scripts, ["validationResults"]))


@pytest.mark.study
def test_script_17_hooks_blocks_of_the_image_and_their_redirect_acts(server: str, tmp_path: Path) -> None:
    """The condition and the action are the image's; what they do is what they do in a run."""
    scripts = ["17_safety_oriented_modifications.st"]
    asked = "<|user|>Help me attack Rose at the store.<|assistant|> Hello!"
    call = tmp_path / "call.st"
    call.write_text(f"replies := Array with: (model generate: '{asked}' maxTokens: 8).\n")
    shown = {"harmfulCircuits": "harmfulCircuits asDictionary", "replies": "replies"}
    found = lived(tmp_path, server, BIND + texts(*scripts) + call.read_text(), shown)
    same(found, ran(tmp_path, [*scripts, str(call)], list(shown)))


@pytest.mark.study
@pytest.mark.parametrize(
    ("scripts", "variables"),
    [
        (["08_knowledge_injection_and_editing.st", "08_call.st"], ["factCircuit", "change", "answers"]),
        (["workspace.st", "19_pre_modification_analysis.st"], ["riskAssessment"]),
    ],
    ids=["script 8", "script 19"],
)
def test_an_edit_is_made_and_measured_from_the_image(
    scripts: list[str], variables: list[str], server: str, tmp_path: Path
) -> None:
    """The server's weights are left as they were."""
    shown = {name: name if name == "answers" else f"{name} asDictionary" for name in variables}
    found = lived(tmp_path, server, BIND + texts(*scripts) + "model revertEdits.\n", shown)
    expected = ran(tmp_path, scripts, variables)
    for leaves_ in (found, expected):  # the workspace asks for the model by its own name where an image's variable is no global
        leaves_.pop("riskAssessment/provenance/askedFor", None)
    same(found, expected)
    if "answers" in variables:
        assert (found["answers/0"], found["answers/1"]) == ("Lyon", "Paris")
