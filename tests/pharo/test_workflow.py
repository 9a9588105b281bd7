"""What runs the packages in real images: the workflow and smalltalkCI's file name what there is."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from neuroscope_bridge.cli.app import app
from tests.pharo.smalltalk import HOME

PACKAGES = {path.name for path in (HOME / "pharo" / "src").iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def job() -> Any:
    workflow = yaml.safe_load((HOME / ".github" / "workflows" / "pharo.yml").read_text())
    assert workflow[True].keys() == {"push", "pull_request", "workflow_dispatch"}  # YAML reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    return job


def test_every_version_of_pharo_that_is_promised_is_tested(job: Any) -> None:
    tested = {image.removeprefix("Pharo64-") for image in job["strategy"]["matrix"]["smalltalk"]}
    promised = set(re.findall(r"^\| Pharo (\d+) ", (HOME / "pharo" / "README.md").read_text(), re.MULTILINE))
    assert tested == promised == {"11", "12", "13"}


def test_the_steps_of_the_workflow_exist(job: Any) -> None:
    text = "\n".join(step.get("run", "") for step in job["steps"])
    module, function = re.search(r"from (tests\.\S+) import (\w+)", text).groups()  # type: ignore[union-attr]
    assert callable(getattr(importlib.import_module(module), function))
    command = re.search(r"neuroscope (serve .*?) >", text)
    assert command is not None
    offered = CliRunner().invoke(app, ["serve", "--help"], terminal_width=200).output
    for option in re.findall(r"--[\w-]+", command[1]):
        assert option in offered
    assert (HOME / "constraints.txt").is_file()
    assert "smalltalkci -s ${{ steps.smalltalkci.outputs.smalltalk-image }} .smalltalk.ston" in text


def test_smalltalk_ci_loads_and_tests_packages_that_there_are() -> None:
    text = (HOME / ".smalltalk.ston").read_text()
    assert text.count("{") == text.count("}")
    assert text.count("[") == text.count("]")
    (baseline,) = re.findall(r"#baseline : '(\w+)'", text)
    (folder,) = re.findall(r"#directory : '([\w/]+)'", text)
    (group,) = re.findall(r"#load : \[ '(\w+)' \]", text)
    (script,) = re.findall(r"#path : '([\w/.]+)'", text)
    (tested,) = re.findall(r"#packages : \[ '([\w-]+)' \]", text)
    assert f"BaselineOf{baseline}" in PACKAGES
    assert (HOME / folder / ".properties").is_file()
    assert f"group: '{group}'" in (HOME / folder / f"BaselineOf{baseline}" / f"BaselineOf{baseline}.class.st").read_text()
    assert (HOME / script).is_file()
    assert tested in PACKAGES
