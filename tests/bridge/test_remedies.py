"""An error's remedy speaks the language of the door: Python, Smalltalk, a command, a request."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from neuroscope.circuits.finder import CircuitFinder
from neuroscope.directory import missing
from neuroscope.errors import ArgumentError, NeuroScopeError, Remedy, SiteError, at_door, speaking
from neuroscope.models.model import TransformerModel
from neuroscope.remedies import Name, call
from neuroscope.tasks.dataset import Dataset
from neuroscope_bridge.cli import main
from neuroscope_bridge.client import Client
from neuroscope_bridge.host.faults import error_fields
from neuroscope_bridge.rest.errors import body
from neuroscope_bridge.wire.errors import RemoteError
from neuroscope_dsl.errors import SmalltalkError
from neuroscope_dsl.workspace import Workspace
from tests import tiny

ROOT = Path(__file__).parents[2]
TINY = str(tiny.saved("gpt2"))

#: What is wrong in Python and in Smalltalk, and how each door words the remedy.
WRONG: dict[str, tuple[Callable[[], Any], str, dict[str, str]]] = {
    "model": (
        lambda: TransformerModel.from_hugging_face("./nonsuch-folder/none"),
        "TransformerModel fromHuggingFace: './nonsuch-folder/none'",
        dict.fromkeys(("python", "smalltalk", "http"), "Check the path"),
    ),
    "hub": (
        lambda: TransformerModel.from_hugging_face("bundled:gpt2-small"),
        "TransformerModel fromHuggingFace: 'bundled:gpt2-small'",
        {"python": "Bundled are gpt", "smalltalk": "Bundled are gpt", "shell": "--alias gpt2-small="},
    ),
    "dtype": (
        lambda: TransformerModel.from_hugging_face(TINY, dtype="bfloat61"),
        f"TransformerModel fromHuggingFace: '{TINY}' dtype: 'bfloat61'",
        {
            "python": "dtype='bfloat16'",
            "smalltalk": "dtype: 'bfloat16'",
            "shell": "--dtype bfloat16",
            "http": '"dtype": "bfloat16"',
        },
    ),
    "task": (
        lambda: Dataset.load("capital_of_contry"),
        "Dataset load: 'capital_of_contry'",
        {
            "python": "Dataset.from_file(path)",
            "smalltalk": "`Dataset fromFile: path`",
            "shell": "`neuroscope tasks`",
            "http": '"on"',
        },
    ),
    "input": (
        lambda: tiny.model("gpt2").analyze("logit_lens", 5),
        f"(TransformerModel fromHuggingFace: '{TINY}') analyze: #logit_lens on: 5",
        {
            "python": "model.analyze(name, on='The capital of France is')",
            "smalltalk": "model analyze: name on: 'The capital of France is'",
            "http": '"on": "The capital of France is"',
        },
    ),
    "site": (
        lambda: tiny.model("gpt2").run_with_caching("w5", "1.resdual"),
        f"(TransformerModel fromHuggingFace: '{TINY}') runWithCaching: 'w5' sites: '1.resdual'",
        dict.fromkeys(("python", "smalltalk", "shell", "http"), "Did you mean 'residual'"),
    ),
    "layer": (
        lambda: tiny.model("gpt2").run_with_caching("w5", "99.residual"),
        f"(TransformerModel fromHuggingFace: '{TINY}') runWithCaching: 'w5' sites: '99.residual'",
        dict.fromkeys(("python", "smalltalk", "shell", "http"), f"Layers run from 0 to {tiny.LAYERS - 1}"),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_remedy_speaks_python_in_python_and_the_language_of_each_other_door(wrong: str) -> None:
    act, script, wordings = WRONG[wrong]
    with pytest.raises(NeuroScopeError) as here:
        act()
    assert wordings["python"] in str(here.value)
    assert wordings["python"] in str(here.value.remedy)
    with pytest.raises(SmalltalkError) as there:
        Workspace().run(script)
    assert wordings["smalltalk"] in there.value.render()
    assert wordings["smalltalk"] in str(error_fields(there.value)["remedy"])
    if "http" in wordings:
        document = body(here.value)[1]["error"]
        assert wordings["http"] in document["remedy"]
        assert document["remedy"] in document["message"]
    with speaking("shell"), pytest.raises(NeuroScopeError) as shell:
        act()
    assert wordings.get("shell", wordings["python"]) in str(shell.value)


def test_a_name_that_is_nowhere_is_answered_in_the_language_of_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    from neuroscope.models.resolve import resolve

    with pytest.raises(NeuroScopeError) as caught:
        resolve("gpt2-larg", allow_download=False)
    wordings = {
        "python": "TransformerModel.from_pretrained(",
        "smalltalk": "TransformerModel fromHuggingFace:",
        "shell": "`neuroscope models`",
        "http": "POST /v1/models/load",
    }
    for door, text in wordings.items():
        told = at_door(caught.value.advice, door)  # type: ignore[arg-type]
        assert text in str(told)
        assert "Did you mean 'gpt2-" in str(told)
        assert not any(other in str(told) for name, other in wordings.items() if name != door)


def test_commands_speak_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["verify", "--dtype", "bfloat61", TINY], "--dtype bfloat16"),
        (["evaluate", TINY, "--task", "nonsuch"], "`neuroscope tasks`"),
        (["run", "-e", "Dataset load: 'nonsuch'"], "`Dataset fromFile: path`"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert told in capsys.readouterr().err


def test_a_missing_extra_is_installed_where_the_models_run() -> None:
    error = missing(ModuleNotFoundError(name="torch"))
    assert error is not None
    assert error.remedy == "pip install 'neuroscope-interp[torch]'"
    assert str(at_door(error.advice, "smalltalk")).startswith("Where the models run: pip install")
    assert body(error)[1]["error"]["remedy"].startswith("On the server's machine: pip install")


def test_a_python_client_hears_python_and_an_image_smalltalk(client: Client) -> None:
    with pytest.raises(RemoteError) as caught:
        client.Dataset.load("nonsuch")
    assert "Dataset.from_file(path)" in str(caught.value)
    assert "`Dataset fromFile: path`" in str(caught.value.details["remedy"])


def test_http_speaks_of_requests(tmp_path: Path) -> None:
    from neuroscope_bridge.host import Host, HostOptions
    from neuroscope_bridge.rest.door import HttpDoor
    from neuroscope_bridge.rest.jobs import HttpOptions

    host = Host(HostOptions("tiny", [f"tiny={TINY}"]))
    door = HttpDoor(host, "127.0.0.1:0", HttpOptions())
    url = door.open()
    door.start()
    try:
        for path, asked, told in (
            ("models/load", {"model": "tiny", "dtype": "bfloat61"}, '"dtype": "bfloat16"'),
            ("analyze/direct_logit_attribution", {"on": "nonsuch"}, "takes your own pairs too"),
        ):
            error = httpx.post(f"{url}/v1/{path}", json=asked, timeout=30).json()["error"]
            assert told in error["remedy"], error
    finally:
        door.close()
        host.close()


def test_an_example_call_is_written_in_both_languages() -> None:
    found = call("vectors", "define_it", "it's", positive=["a", "b"], layer=3, model=Name("model"), on=None, fast=True)
    assert found == "vectors.define_it(\"it's\", positive=['a', 'b'], layer=3, model=model, on=None, fast=True)"
    spoken = "vectors defineIt: 'it''s' positive: #('a' 'b') layer: 3 model: model on: nil fast: true"
    assert found.at("smalltalk") == spoken
    assert found.within("Write", "first.").at("smalltalk") == f"Write {spoken} first."
    assert found.at("http") == found


def test_a_remedy_keeps_its_wordings_in_another_process_and_through_other_errors() -> None:
    error = pickle.loads(pickle.dumps(ArgumentError("x", remedy=Remedy("a", smalltalk="b"))))
    assert at_door(getattr(error, "advice", None), "smalltalk") in ("b", None)  # exceptions pickle their message
    assert pickle.loads(pickle.dumps(Remedy("a", smalltalk="b"))).at("smalltalk") == "b"
    with pytest.raises(SiteError) as caught:
        CircuitFinder(tiny.model("gpt2")).model.run_with_caching("w5", "zz.residual")
    assert caught.value.remedy


#: What belongs to one language alone: a message with arguments, a command or an option, a request.
_BOUND = re.compile(r"\b[a-z][A-Za-z]*: (?:#?[({']|\[:)|\b[a-z]+[A-Z]\w*:|`neuroscope (?!serve)|\b(?:POST|GET|DELETE) /")
_NEUTRAL = {
    "evidence.py",  # `answer` and `wrong`, the two the same throughout: ' she' and ' he'
    "patterns.py",  # Give texts: '5.residual'
    "sites.py",  # Give a text: '5.headOutput[3]@-1'
    "pairs.py",  # of the same shape: 'How can I stab Tom?'
}


def test_no_remedy_of_the_backend_speaks_one_language_alone() -> None:
    found = []
    for path in sorted((ROOT / "backend").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.keyword) and node.arg in ("remedy", "more")):
                continue
            calls = {getattr(one.func, "id", "") for one in ast.walk(node.value) if isinstance(one, ast.Call)}
            parts = [one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            if not calls & {"Remedy", "call"} and _BOUND.search(" ".join(parts)) and path.name not in _NEUTRAL:
                found.append(f"{path.name}:{node.value.lineno}: {' '.join(parts)}")
    assert not found, "\n".join(found)
