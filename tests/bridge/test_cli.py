"""The command line as its user meets it: a process with arguments, output, errors and exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuroscope.errors import ArgumentError
from neuroscope.parallel import executors
from neuroscope_bridge.cli.run import RunOptions, prepared
from tests import tiny
from tests.bridge.serving import running

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NEUROSCOPE_LIBRARY": os.devnull}


def neuroscope(*arguments: str, stdin: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "neuroscope_bridge", *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    tiny.hf_model("gpt2").save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def script(folder: Path, text: str, name: str = "script.st") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_the_last_answer_is_printed_and_the_transcript_flows(tmp_path: Path) -> None:
    done = neuroscope("run", script(tmp_path, "Transcript show: 'working'; cr. #(1 2 3) collect: [:e | e * e]"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "working\n#(1 4 9)\n", "")


def test_a_run_that_ends_with_the_transcript_prints_no_answer(tmp_path: Path) -> None:
    done = neuroscope("run", script(tmp_path, "3 + 4. Transcript show: 'done'; cr"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_dates_are_written_as_iso_8601(tmp_path: Path) -> None:
    text = "d := Date year: 2024 month: 2 day: 29. t := Time hour: 15 minute: 2 second: 3. l := {d. Duration seconds: 90}"
    neuroscope("run", "--json", str(tmp_path / "out.json"), script(tmp_path, text))
    found = json.loads((tmp_path / "out.json").read_text())["variables"]
    assert found == {"d": "2024-02-29", "t": "15:02:03", "l": ["2024-02-29", "0:00:01:30"]}


def test_scripts_of_one_run_share_a_workspace(tmp_path: Path) -> None:
    first, second = script(tmp_path, "x := 20.", "a.st"), script(tmp_path, "x + y", "b.st")
    done = neuroscope("run", "--bind", "y=1 + 1", first, second)
    assert (done.returncode, done.stdout) == (0, "22\n")


def test_a_model_is_bound_and_its_alias_told(tmp_path: Path, model: Path) -> None:
    done = neuroscope("run", "--alias", f"gpt2-medium={model}", "--model", "gpt2-medium", "-q", script(tmp_path, "model name"))
    assert done.stdout == "'gpt2-medium'\n"
    assert done.stderr == f"{model} stands in for gpt2-medium.\n"


@pytest.mark.parametrize("option", ["--json", "--figures"])
def test_what_cannot_be_written_is_told_before_the_work(option: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    done = neuroscope("run", option, str(out), script(tmp_path, "Transcript show: 'worked'"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"{out} cannot be written: not a directory." in done.stderr


def test_a_folder_is_no_script(tmp_path: Path) -> None:
    done = neuroscope("run", str(tmp_path))
    assert done.returncode != 0
    assert f"{tmp_path} cannot be read: is a directory." in done.stderr


def test_json_holds_variables_model_seed_and_versions(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "out.json"
    text = f"m := TransformerModel fromHuggingFace: '{model}'.\nthird := 1/3. words := #(a 'b' $c). d := Dictionary new. d at: #k put: 7"
    done = neuroscope("run", "--seed", "5", "--json", str(out), script(tmp_path, text))
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert document["seed"] == 5
    assert document["variables"]["third"] == pytest.approx(1 / 3)
    assert document["variables"]["words"] == ["a", "b", "c"]
    assert document["variables"]["d"] == {"k": 7}
    assert document["variables"]["m"]["architecture"]["layers"] == tiny.LAYERS
    assert document["model"]["weightsHash"]
    assert document["versions"].keys() >= {"neuroscope", "torch", "transformers", "numpy"}


def test_a_run_that_does_not_begin_leaves_an_earlier_json_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("before")
    assert neuroscope("run", "--json", str(out), script(tmp_path, "x := 1. x foo: [")).returncode == 1
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "script.st"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("m := TransfomerModel new", "Did you mean 'TransformerModel'"),
        ("TransformerModel fromHugingFace: 'x'", "#fromHuggingFace:"),
        ("TransformerModel fromHuggingFace: './nowhere'", "There is nothing at ./nowhere"),
        ("x := results + 1", "--bind results="),
        ("#(1 2) at: 9", "out of bounds"),
        ("x := (3 + ", ":1:"),
        ("1/0", "ZeroDivide"),
        ("Dataset fromFile: 'nowhere.csv'", "There is no file nowhere.csv"),
    ],
)
def test_an_error_names_what_where_and_what_would_be_right(tmp_path: Path, text: str, says: str) -> None:
    done = neuroscope("run", script(tmp_path, f"a := 1.\n{text}"))
    assert done.returncode == 1
    assert says in done.stderr or says.replace(":1:", ":2:") in done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"script\.st:2:\d+", done.stderr)
    assert "^" in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = neuroscope("run", "--debug", script(tmp_path, "1 foo"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_syntax_error_in_a_later_file_stops_before_anything_runs(tmp_path: Path) -> None:
    good, bad = script(tmp_path, "Transcript show: 'ran'", "a.st"), script(tmp_path, "x := )", "b.st")
    done = neuroscope("run", good, bad)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "b.st:1:6" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run",), 2, "Missing argument"),
        (("run", "nowhere.st"), 1, "There is no file nowhere.st"),
        (("run", "--alias", "x", "nowhere.st"), 1, "There is no file"),
        (("rnu",), 2, "No such command"),
        (("verify", "./nowhere"), 1, "There is nothing at ./nowhere"),
        (("models", "--alias", "x"), 1, "NAME=TARGET"),
    ],
)
def test_wrong_usage_says_so(arguments: tuple[str, ...], code: int, says: str) -> None:
    done = neuroscope(*arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "option", [["--bind", "x"], ["--bind", "3x=1"], ["--alias", "nothing"], ["--engine", "abacus", "--model", "gpt2"]]
)
def test_faulty_options_are_explained(tmp_path: Path, option: list[str]) -> None:
    done = neuroscope("run", *option, script(tmp_path, "1"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")


def test_json_to_a_folder_that_is_not_there_fails_before_the_work(tmp_path: Path) -> None:
    done = neuroscope("run", "--json", str(tmp_path / "no" / "out.json"), script(tmp_path, "Transcript show: 'worked'"))
    assert done.returncode == 1
    assert done.stdout == ""


def test_a_time_limit_stops_a_runaway_script(tmp_path: Path) -> None:
    done = neuroscope("run", "--time-limit", "0.5", script(tmp_path, "[true] whileTrue: [1 + 1]"))
    assert done.returncode == 1
    assert "0.5" in done.stderr


def test_ctrl_c_ends_cleanly(tmp_path: Path) -> None:
    text = "[Transcript show: 'started'; cr. [true] whileTrue: [1 + 1]] ensure: [Transcript show: 'tidied'; cr]"
    with running("run", script(tmp_path, text)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == "tidied\n"
    assert errors.strip().splitlines()[-1] == "interrupted"


def test_the_repl_reads_statements_over_lines_and_survives_errors() -> None:
    done = neuroscope("repl", stdin="x := 3.\nx +\n4.\n1 foo.\n[:y |\n  y * x] value: 5\n")
    assert done.returncode == 1  # as any program whose pipe held an error
    assert done.stdout.splitlines() == ["3", "7", "15"]
    assert "does not understand #foo" in done.stderr


def test_models_lists_what_resolves_where(model: Path) -> None:
    done = neuroscope("models", "--json", "--alias", f"mine={model}")
    entries = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert entries["mine"]["kind"] == "folder"
    assert entries["mine"]["bytesFloat32"] == 4 * entries["mine"]["parameters"]
    assert entries["gpt-oss-20b"]["target"] == "openai/gpt-oss-20b"
    assert "gpt-oss-20b" in neuroscope("models").stdout


def test_verify_prints_every_check(model: Path) -> None:
    done = neuroscope("verify", str(model))
    assert done.returncode == 0
    assert done.stdout.count("ok  ") == 11
    report = json.loads(neuroscope("verify", "--json", "--dtype", "bfloat16", str(model)).stdout)
    assert (report["precision"], report["engine"], report["device"]) == ("bfloat16", "torch", "cpu")
    assert all(check["difference"] <= check["tolerance"] for check in report["checks"])
    assert any(check["difference"] > 1e-4 for check in report["checks"])
    refused = neuroscope("verify", "--dtype", "bfloat", str(model))
    assert refused.returncode == 1
    assert "'bfloat16'" in refused.stderr


def test_help_and_version_start_without_a_tensor_framework() -> None:
    probe = (
        "import sys\nfrom neuroscope_bridge.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules, 'torch was imported'"
    )
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0
    assert re.fullmatch(r"neuroscope \d+\.\d+\.\d+\n", neuroscope("--version").stdout)


def succeeding(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = neuroscope(*arguments)
    assert done.returncode == 0, done.stderr
    return done


def test_tasks_are_listed_with_examples() -> None:
    done = succeeding("tasks", "--json")
    listed = {task["name"]: task for task in json.loads(done.stdout)}
    assert {"indirect_object_identification", "addition", "harmful_requests"} <= listed.keys()
    assert listed["addition"]["example"]["answer"].strip().isdigit()
    assert "indirect_object_identification" in succeeding("tasks").stdout


def test_an_unknown_task_names_the_nearest(model: Path) -> None:
    done = neuroscope("evaluate", str(model), "--task", "capital_of_contry")
    assert done.returncode == 1
    assert "capital_of_country" in done.stderr


def test_a_tokenizer_that_knows_no_words_is_told_for_each_task(model: Path) -> None:
    scores = json.loads(succeeding("evaluate", str(model), "--task", "ioi", "-n", "4", "--json").stdout)["scores"]
    assert scores[0]["accuracy"] is None
    assert "fit the tokenizer" in scores[0]["note"]


def test_a_model_is_evaluated_on_the_tasks_asked_for() -> None:
    done = succeeding("evaluate", "gpt2-medium", "--embedded", "--task", "capitals", "--task", "ioi", "-n", "40", "--json")
    found = json.loads(done.stdout)
    assert (found["model"], found["askedFor"]) == ("bundled:gpt2-medium", "gpt2-medium")
    assert (found["engine"], found["dtype"], found["device"]) == ("torch", "float32", "cpu")
    scores = {score["task"]: score for score in found["scores"]}
    assert scores.keys() == {"capital_of_country", "indirect_object_identification"}
    assert scores["capital_of_country"]["accuracy"]["n"] == 40
    assert scores["capital_of_country"]["accuracy"]["value"] > 0.9


def test_the_library_is_listed_shown_and_measured_again() -> None:
    listed = json.loads(succeeding("library", "list", "--json").stdout)
    assert {entry["name"] for entry in listed} >= {"subject_verb_agreement", "sentiment_polarity", "tokenization"}
    assert "held out" in succeeding("library", "show", "entityRecognition").stdout
    assert "agrees" in succeeding("library", "verify", "relation_extraction").stdout


def test_a_circuit_that_the_library_has_not_is_told() -> None:
    failed = neuroscope("library", "show", "relation_extractor")
    assert failed.returncode == 1
    assert "relation_extraction" in failed.stderr


def test_a_run_that_fails_leaves_what_it_found(tmp_path: Path, model: Path) -> None:
    out, pages = tmp_path / "out.json", tmp_path / "pages"
    text = (
        f"m := TransformerModel fromHuggingFace: '{model}'.\n"
        "lens := m analyze: #logitLens on: 'w5 w17 w40'.\nnumber := 3 + 4.\nnumber foo: 1"
    )
    done = neuroscope("run", "--json", str(out), "--figures", str(pages), script(tmp_path, text))
    assert done.returncode == 1
    assert "does not understand" in done.stderr
    document = json.loads(out.read_text())
    assert document["variables"]["number"] == 7
    assert document["variables"]["lens"]["provenance"]["model"] == str(model)
    assert document["failed"]["place"].startswith(f"{tmp_path / 'script.st'}:4")
    assert "foo:" in document["failed"]["error"]
    page = (pages / "lens.html").read_text()
    assert "The run failed at" in page
    assert "foo:" in page


def test_a_run_that_ends_well_is_not_marked(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert neuroscope("run", "--json", str(out), script(tmp_path, "x := 3")).returncode == 0
    assert "failed" not in json.loads(out.read_text())


def test_pages_of_results_wherever_they_lie(tmp_path: Path, model: Path) -> None:
    pages = tmp_path / "pages"
    text = (
        f"m := TransformerModel fromHuggingFace: '{model}'.\nread := [:t | m analyze: #logitLens on: t].\n"
        "list := OrderedCollection new. list add: (read value: 'w5 w6'); add: (read value: 'w7 w8').\n"
        "table := Dictionary new. table at: #first put: list first; at: #deep put: {3. {read value: 'w9 w10'}}.\n"
        "cache := m runWithCaching: 'w5 w17 w40'. list := list. 1"
    )
    done = neuroscope("run", "--figures", str(pages), script(tmp_path, text))
    assert done.returncode == 0, done.stderr
    found = {path.stem for path in pages.iterdir()}
    assert found == {"cache", "list-1", "list-2", "table-deep-2-1"}
    assert "0.residual" in (pages / "cache.html").read_text()


def test_results_are_written_whatever_collection_or_object_holds_them(tmp_path: Path, model: Path) -> None:
    out, pages = tmp_path / "out.json", tmp_path / "pages"
    text = (
        f"m := TransformerModel fromHuggingFace: '{model}'.\nread := [:t | m analyze: #logitLens on: t].\n"
        "set := Set new. set add: (read value: 'w5 w6'); add: 3.\n"
        "bag := Bag new. bag add: (read value: 'w7 w8').\n"
        "pair := #first -> (read value: 'w9 w10'). span := (1 to: 3). place := 3 @ 4. bytes := #[1 2].\n"
        "Object subclass: #Holder instanceVariableNames: 'kept none' classVariableNames: '' package: 'P'.\n\n"
        "Holder >> keep: anObject\n    kept := anObject\n\n"
        "holder := Holder new. holder keep: (read value: 'w11 w12'). block := [:x | x]. read := m := nil. 1"
    )
    done = neuroscope("run", "--json", str(out), "--figures", str(pages), script(tmp_path, text))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["variables"]
    assert (found["set"][0]["text"], found["set"][1]) == ("w5 w6", 3)
    assert found["bag"][0]["text"] == "w7 w8"
    assert (found["pair"]["key"], found["pair"]["value"]["text"]) == ("first", "w9 w10")
    assert (found["holder"]["class"], found["holder"]["kept"]["text"], found["holder"]["none"]) == ("Holder", "w11 w12", None)
    assert (found["span"], found["bytes"], found["place"], found["block"]) == ([1, 2, 3], [1, 2], "(3@4)", "[:x | x]")
    assert {path.stem for path in pages.iterdir()} == {"set-1", "bag-1", "pair-value", "holder-kept"}


def test_arrays_that_hold_themselves_and_broken_characters_are_written(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    text = "a := Array new: 2. a at: 1 put: a; at: 2 put: 5.\nbroken := String with: (Character value: 16rD800). 1"
    done = neuroscope("run", "--json", str(out), script(tmp_path, text))
    assert done.returncode == 0, done.stderr
    variables = json.loads(out.read_text())["variables"]
    assert variables["a"][0].startswith("(itself")
    assert variables["a"][1] == 5
    assert variables["broken"] == "\ufffd"


def test_a_stand_in_is_named_with_what_was_asked_for(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "out.json"
    text = "m := TransformerModel fromHuggingFace: 'gpt-oss-20b'. lens := m analyze: #logitLens on: 'w5 w6'"
    done = neuroscope("run", "--alias", f"gpt-oss-20b={model}", "--json", str(out), script(tmp_path, text))
    assert f"{model} (for gpt-oss-20b)" in done.stdout
    document = json.loads(out.read_text())
    stamp = document["variables"]["lens"]["provenance"]
    assert (stamp["model"], stamp["askedFor"], stamp["dtype"]) == (str(model), "gpt-oss-20b", "float32")
    assert (document["model"]["ran"], document["model"]["name"]) == (str(model), "gpt-oss-20b")


def test_a_server_needs_one_door(tmp_path: Path) -> None:
    for off in ("off", "Off"):
        done = neuroscope("serve", "--zmq", off, "--http", off)
        assert done.returncode == 1
        assert "leave nothing to serve" in done.stderr
    done = neuroscope("serve", "--zmq", "none", "--http", "off")
    assert done.returncode == 1
    assert "'none' is not an address" in done.stderr
    assert "or off" in done.stderr


def test_workers_are_the_contexts_executor_for_as_long_as_the_run() -> None:
    with prepared(RunOptions(files=[], workers=2)):
        found = executors.executor()
        assert isinstance(found, executors.LocalWorkers)
        assert found.count == 2
    assert executors.executor() is None
    with (
        pytest.raises(ArgumentError, match="--workers N, or --ray ADDRESS"),
        prepared(RunOptions(files=[], workers=2, ray="auto")),
    ):
        pass
    with pytest.raises(ArgumentError, match="at least 1"), prepared(RunOptions(files=[], workers=0)):
        pass
