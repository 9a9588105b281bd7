"""The command line in a shell: pipes, one-liners, settings, completion, the experiments' files, and `doctor`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from neuroscope.errors import ArgumentError
from neuroscope_bridge.cli import doctor, values
from neuroscope_bridge.cli.app import app, main
from neuroscope_bridge.cli.preferences import VARIABLES, chosen_settings
from neuroscope_bridge.files import FileError
from tests.bridge.serving import running
from tests.bridge.test_cli import ENVIRONMENT, neuroscope, script


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: its status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


Here = Callable[..., tuple[int, str, str]]


def test_text_comes_from_a_pipe_or_from_the_line_itself(tmp_path: Path) -> None:
    done = neuroscope("run", script(tmp_path, "x := 2"), "-", "-e", "y * 10", stdin="y := x + 1. Transcript show: 'é'; cr")
    assert (done.returncode, done.stdout, done.stderr) == (0, "é\n30\n", "")
    failed = neuroscope("run", "-", stdin="1 +")
    assert failed.returncode == 1
    assert "-:1:4" in failed.stderr


def test_json_on_standard_output_is_alone_there(here: Here) -> None:
    _, out, errors = here("run", "-e", "Transcript show: 'told'; cr. x := 3 + 4", "--json", "-")
    assert json.loads(out)["variables"] == {"x": 7}
    assert errors == "told\n"
    status, out, _ = here("run", "-e", "x := 1. x foo", "--json", "-")
    assert status == 1
    assert "#foo" in json.loads(out)["failed"]["error"]


def test_a_pipe_without_an_error_ends_well() -> None:
    done = neuroscope("repl", stdin="3 + 4\n? Bag >> add:withOccurrences:\n")
    assert done.returncode == 0
    assert done.stdout.startswith("7\nBag >> add:withOccurrences:\n")


def test_pipes_are_utf_8_whatever_the_locale() -> None:
    environment = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "neuroscope", "run", "-", "-e", "x, 'ü'"],
        input="x := '→'".encode(), capture_output=True, env=environment, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "'→ü'\n".encode()), done.stderr


def test_watching_runs_again_after_a_change_and_survives_errors(tmp_path: Path) -> None:
    path = script(tmp_path, "1 + 1")
    with running("run", "--watch", path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "2\n"
        assert process.stderr.readline().startswith("watching ")
        Path(path).write_text("1 foo")
        assert "#foo" in process.stderr.readline()
        while not process.stderr.readline().startswith("watching "):
            pass
        time.sleep(0.05)
        Path(path).write_text("2 + 3")
        assert process.stdout.readline() == "5\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130


def test_settings_give_defaults_that_options_and_variables_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    file = tmp_path / "settings.toml"
    file.write_text('seed = 5\nalias = ["a=b"]\n[serve]\nhttp = "off"\n[library.build]\nseed = 6\n')
    monkeypatch.setenv("NEUROSCOPE_SETTINGS", str(file))
    command = typer.main.get_command(app)
    found = chosen_settings(command)
    assert found["run"] == {"seed": 5, "alias": ["a=b"]}
    assert found["serve"] == {"seed": 5, "alias": ["a=b"], "http": "off"}
    assert found["library"]["build"]["seed"] == 6
    assert found["tasks"] == {}
    for wrong, said in (
        ("sed = 5", "seed"),
        ("[serv]\nx = 1", "serve"),
        ("[tasks]\nseed = 1", "json"),
        ('alias = "a=b"', "list"),
    ):
        file.write_text(wrong)
        with pytest.raises(ArgumentError, match=r"settings\.toml") as caught:
            chosen_settings(command)
        assert said in str(caught.value.remedy)
    file.write_text("seed =")
    with pytest.raises(FileError):
        chosen_settings(command)
    monkeypatch.setenv("NEUROSCOPE_SETTINGS", str(tmp_path / "none.toml"))
    assert chosen_settings(command) == {}


def test_a_variable_comes_before_the_file_and_an_option_before_both(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text("seed = 5")
    monkeypatch.setenv("NEUROSCOPE_SETTINGS", str(tmp_path / "settings.toml"))
    asked = ["run", "-e", "1", "--json", "-"]
    seen = [json.loads(here(*asked)[1])["seed"]]
    monkeypatch.setenv("NEUROSCOPE_SEED", "6")
    seen += [json.loads(here(*asked)[1])["seed"], json.loads(here(*asked, "--seed", "7")[1])["seed"]]
    assert seen == [5, 6, 7]


def test_every_variable_is_documented() -> None:
    told = (Path(__file__).parents[2] / "docs" / "shell.md").read_text(encoding="utf-8")
    assert [name for name in VARIABLES if f"`{name}`" not in told] == []


def test_values_are_completed() -> None:
    assert values.completer(values.models)("gpt-oss") == ["gpt-oss-120b", "gpt-oss-20b"]
    assert "bundled:gpt2-medium" in values.models()
    assert values.completer(values.tasks)("indirect") == ["indirect_object_identification"]
    assert values.completer(values.analyses)("attention") == ["attention_patterns"]
    assert "relation_extraction" in values.circuits()
    assert values.completer(values.experiments)("2") == ["2", "20"]
    assert values.engines() == ["torch", "mlx"]
    shell = {
        **ENVIRONMENT,
        "_NEUROSCOPE_COMPLETE": "complete_bash",
        "COMP_WORDS": "neuroscope evaluate gpt-oss-1",
        "COMP_CWORD": "2",
    }
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'neuroscope'; from neuroscope_bridge.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, env=shell, check=False)
    assert done.stdout.split() == ["gpt-oss-120b"]


def test_an_analysis_may_be_named_before_the_model(here: Here) -> None:
    assert "There is nothing at ./nowhere" in here("analyze", "logit_lens", "./nowhere")[2]


def test_a_revision_needs_a_model_that_has_some(here: Here) -> None:
    assert "--model NAME" in here("run", "--revision", "main", "-e", "1")[2]
    assert "has no revision 'main'" in here("run", "--revision", "main", "--model", "bundled:gpt2-medium", "-e", "1")[2]


def test_a_device_that_is_not_here_is_told(here: Here) -> None:
    status, _, errors = here("verify", "bundled:gpt2-medium", "--device", "abacus", "--engine", "torch")
    assert status == 1
    assert "'abacus' cannot be used" in errors


def test_an_experiment_is_copied_with_what_it_needs(here: Here, tmp_path: Path) -> None:
    asked = ["examples", "copy", "3", str(tmp_path / "mine")]
    _, out, errors = here(*asked)
    files = [Path(line) for line in out.splitlines()]
    assert [file.name for file in files] == ["workspace.st", "03_multi_token_steering.st", "03_call.st"]
    assert "neuroscope run --embedded --model gpt2-medium" in errors
    assert here(*asked)[0] == 0
    files[2].write_text("mine")
    assert here(*asked)[0] == 1
    assert files[2].read_text() == "mine"


def test_the_doctor_names_what_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"torch": ("torch",), "abacus": ("no_such_package",)})
    monkeypatch.setattr(doctor, "_engine", lambda engine: f"{engine} answers")
    assert doctor.examine(as_json=True)
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert found["abacus"]["state"] == "absent"
    assert found["abacus"]["remedy"] == "pip install 'neuroscope-interp[abacus]'"
    assert found["engine torch"]["found"] == "torch answers"

    def broken(engine: str) -> str:
        raise OSError("libtorch.so is damaged")

    monkeypatch.setattr(doctor, "_engine", broken)
    assert not doctor.examine(as_json=False)
    assert "wrong   engine torch" in capsys.readouterr().out


def test_the_doctor_really_runs_a_model() -> None:
    assert doctor._engine("torch") == "bundled:gpt2-medium answers on cpu"


def test_every_entry_point_of_the_distribution_exists() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    groups = {"scripts": project["scripts"], **project["entry-points"]}
    assert {"neuroscope", project["name"]} <= groups["scripts"].keys()
    for entries in groups.values():
        for target in entries.values():
            module, _, name = target.partition(":")
            assert hasattr(import_module(module), name), target


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "neuroscope", "--version"], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.stdout.startswith("neuroscope ")
