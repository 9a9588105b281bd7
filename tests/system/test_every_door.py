"""The same questions by every door, with the same answers: Python, scripts, ZeroMQ and HTTP, on every engine.

On a machine whose next token is known, with a tokenizer that writes a space before every text and adds tokens on both sides, a
chat template that begins a text itself, and end tokens that only `generation_config.json` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from neuroscope import events, vocabulary
from neuroscope.errors import NeuroScopeError
from neuroscope.models import aliases
from neuroscope.models.model import TransformerModel
from neuroscope_bridge.client import Client, connect
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.jobs import HttpOptions
from neuroscope_bridge.server import ZmqDoor
from neuroscope_dsl.workspace import Workspace
from tests import machines, tiny

PROMPT = "The capital of France is Paris"
#: What follows " Paris"; after `<other>` a generation is over.
PATH = ("▁Paris", "▁and", "<0xC3>", "<0xA9>", "<turn>", "▁so", "▁on", "<other>", "▁Rome")
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"


@dataclass
class Doors:
    """One model by every door that takes messages; `http` beside them."""

    model: TransformerModel
    workspace: Workspace
    client: Client
    http: httpx.Client

    def messages(self, script: str) -> dict[str, str]:
        """What a script prints, or the error that it ends with, in a workspace and over ZeroMQ."""
        return {
            "script": _answer(lambda: self.workspace.print_string(self.workspace.run(script))),
            "zeromq": _answer(lambda: self.client.evaluate(f"[{script}] value printString")),
        }


def _answer(ask: Callable[[], Any]) -> str:
    try:
        return str(ask())
    except NeuroScopeError as error:
        return f"error: {error}"


@pytest.fixture(scope="module", params=tiny.ENGINES)
def framework(request: pytest.FixtureRequest) -> str:
    """Each engine in turn, by name."""
    return str(request.param)


@pytest.fixture(scope="module")
def doors(framework: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    tokenizer = machines.sentencepiece(bos=True, eos=True)
    tokenizer.chat_template = TEMPLATE
    made = machines.machine(
        tmp_path_factory.mktemp("doors") / "m",
        tokenizer,
        machines.chain(tokenizer, *PATH),
        generation={"eos_token_id": [2, 4]},
    )
    host = Host(HostOptions("asked", [f"asked={made}"], engine=framework, readable=(tmp_path_factory.getbasetemp(),)))
    zmq, web = ZmqDoor(host, "tcp://127.0.0.1:*"), HttpDoor(host, "127.0.0.1:0", HttpOptions())
    address, url = zmq.open(), web.open()
    zmq.start()
    web.start()
    with (
        aliases.in_force([f"asked={made}"]),
        connect(address) as client,
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        model = TransformerModel.from_hugging_face("asked", engine=framework)
        workspace = Workspace()
        workspace.bind("model", model)
        yield Doors(model, workspace, client, http)
    web.close()
    zmq.close()
    host.close()


def complete(doors: Doors, path: str = "/v1/completions", **asked: Any) -> dict[str, Any]:
    answer = doors.http.post(path, json={"temperature": 0, "max_tokens": 20, **asked})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize(
    ("stop", "text"), [(None, " andé so on"), ("<turn>", " andé"), ("é so", " and"), (" so", " andé"), ("</s>", " andé so on")]
)
def test_what_a_model_writes(doors: Doors, stop: str | None, text: str) -> None:
    """End tokens of the files, the first space, a character of two tokens, stop texts."""
    assert doors.model.generate(PROMPT, stop=() if stop is None else stop) == text
    asked = f"model generate: '{PROMPT}'" + ("" if stop is None else f" stop: '{stop}'")
    assert doors.messages(asked) == dict.fromkeys(("script", "zeromq"), repr(text))
    for path, prompt in (
        ("/v1/completions", {"prompt": PROMPT}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": PROMPT}]}),
        ("/v1/chat/completions/with_activations", {"prompt": PROMPT}),
    ):
        choice = complete(doors, path, **prompt, **({} if stop is None else {"stop": stop}))["choices"][0]
        assert (choice.get("text") or choice["message"]["content"], choice["finish_reason"]) == (text, "stop")


def test_stop_texts_of_the_files_end_what_a_model_writes(doors: Doors, tmp_path: Path) -> None:
    tokenizer = machines.sentencepiece(bos=True)
    tokenizer.chat_template = TEMPLATE
    folder = machines.machine(
        tmp_path / "m", tokenizer, machines.chain(tokenizer, *PATH), generation={"stop_strings": [" so", "Rome"]}
    )
    script = f"(TransformerModel fromHuggingFace: '{folder}' engine: '{doors.model.engine.name}') generate: '{PROMPT}'"
    assert doors.messages(script) == dict.fromkeys(("script", "zeromq"), repr(" andé"))
    assert doors.http.post("/v1/models/load", json={"model": str(folder)}).status_code == 200
    for path, prompt in (
        ("/v1/completions", {"prompt": PROMPT}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": PROMPT}]}),
        ("/v1/chat/completions/with_activations", {"prompt": PROMPT}),
    ):
        choice = complete(doors, path, model=str(folder), **prompt)["choices"][0]
        assert (choice.get("text") or choice["message"]["content"], choice["finish_reason"]) == (" andé", "stop")
    doors.http.post("/v1/models/load", json={"model": "asked"})
    wrong = machines.machine(tmp_path / "wrong", tokenizer, {}, generation={"stop_strings": 5})
    for error in doors.messages(f"TransformerModel fromHuggingFace: '{wrong}' engine: '{doors.model.engine.name}'").values():
        assert "generation_config.json has stop_strings 5" in error
    refused = doors.http.post(
        "/v1/models/load", json={"model": str(wrong)}
    )  # what stands in a client's file is for the log alone
    assert refused.status_code == 404
    assert "stop_strings" not in refused.text


def test_a_prompt_begins_once(doors: Doors) -> None:
    expected = ["<s>", " The", " capital", " of", " France", " is", " Paris"]
    for prompt in (PROMPT, f"<s>{PROMPT}"):
        assert doors.model.tokens(prompt) == expected
        printed = f"#({' '.join(map(repr, expected))})"
        assert doors.messages(f"(model tokens: '{prompt}') asArray") == dict.fromkeys(("script", "zeromq"), printed)
        ids = doors.http.post("/v1/tokenize", json={"text": prompt}).json()["ids"]
        assert ids == doors.model.encode(prompt).ids[0].tolist()


def test_an_answer_without_its_space_is_refused(doors: Doors) -> None:
    pair = {"clean": "The capital of France is", "corrupt": "The capital of Italy is", "answer": "Paris", "wrong": "Rome"}
    told = "'Paris' has no space before it, so after 'The capital of France is' it reads 'isParis'"
    assert told in _answer(lambda: doors.model.analyze("logit_attribution", [pair]))
    entries = ". ".join(f"#{name} -> '{text}'" for name, text in pair.items())
    for error in doors.messages(f"model analyze: #logitAttribution on: (Dictionary newFrom: {{{entries}}})").values():
        assert told in error
    answer = doors.http.post("/v1/analyze/logit_attribution", json={"on": [pair]})
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]
    spaced = pair | {"answer": " Paris", "wrong": " Rome"}
    assert doors.model.analyze("logit_attribution", spaced).summary()  # one pair of one's own
    assert doors.http.post("/v1/analyze/logit_attribution", json={"on": [spaced]}).status_code == 200


def test_near_the_end_of_the_context(doors: Doors) -> None:
    long = " ".join(["The"] * 57)
    for script, expected in (
        (f"(model generate: '{long}') isString", "true"),
        (f"model generate: '{long}' maxTokens: 7", "at most 6 new tokens"),
        (f"model generate: '{long} {long}'", "fill the model's context of 64"),
    ):
        for answer in doors.messages(script).values():
            assert expected in answer


def test_a_hook_that_never_fired_is_told(doors: Doors) -> None:
    script = (
        f"| hook | hook := ActivationHook layer: 0 component: #residual position: 60 action: [:a | a].\n"
        f"model hookManager addHook: hook.\n"
        f"[model generate: '{PROMPT}' stop: '<turn>'] ensure: [model hookManager clearHooks]"
    )
    for error in doors.messages(script).values():
        assert "never fired" in error


def test_captured_logits_and_the_mean_of_a_padded_batch(doors: Doors) -> None:
    assert doors.messages("((model runWithCaching: 'The capital' sites: #('logits')) at: 'logits') shape") == dict.fromkeys(
        ("script", "zeromq"), f"#(1 3 {doors.model.architecture.vocabulary})"
    )
    texts = ["The capital", PROMPT]
    whole = doors.model.run_with_caching(texts, ["1.residual"])["1.residual"]
    cells = sum(doors.model.encode(text).ids.size for text in texts) * doors.model.architecture.d_model
    alone = [doors.model.run_with_caching(text, ["1.residual"])["1.residual"].numpy().sum() for text in texts]
    assert whole.mean() == pytest.approx(sum(alone) / cells, rel=1e-5)
    script = f"((model runWithCaching: #('The capital' '{PROMPT}') sites: #('1.residual')) at: '1.residual') mean"
    for answer in doors.messages(script).values():
        assert float(answer) == pytest.approx(whole.mean(), rel=1e-5)


def test_what_ran_and_what_was_asked_for(doors: Doors) -> None:
    path = doors.model.ran
    assert Path(path).is_dir()
    title = f"{path} (for asked)"
    assert doors.model.title == title
    assert doors.messages("model title") == dict.fromkeys(("script", "zeromq"), repr(title))
    for answer in doors.messages(f"(model analyze: #logitLens on: '{PROMPT}') provenance title").values():
        assert answer == repr(title)
    written = complete(doors, prompt=PROMPT)
    assert (written["model"], written["ran"]) == ("asked", path)
    lens = doors.http.post("/v1/analyze/logit_lens", json={"on": PROMPT}).json()
    assert (lens["model"], lens["ran"]) == ("asked", path)
    stamp = lens["result"]["provenance"]
    assert (stamp["model"], stamp["askedFor"], stamp["dtype"]) == (path, "asked", "float32")


def test_half_precision_is_said(doors: Doors) -> None:
    script = (
        f"| half | half := TransformerModel fromHuggingFace: '{doors.model.ran}' engine: '{doors.model.engine.name}' "
        f"dtype: 'bfloat16'.\n((half analyze: #logitLens on: '{PROMPT}') provenance dtype), ' ', half verify precision, "
        f"(half generate: '{PROMPT}')"
    )
    assert doors.messages(script) == dict.fromkeys(("script", "zeromq"), repr("bfloat16 bfloat16 andé so on"))


def test_steering_vectors_of_a_model(doors: Doors) -> None:
    for answer in doors.messages("((SteeringVectors for: model) load: #formalStyle) printString").values():
        assert "SteeringVector(formal_style at 1.residual" in answer
    script = (
        "((SteeringVectors for: model) load: #formalStyle layer: 0) ="
        " (SteeringVectors load: #formalStyle model: model layer: 0)"
    )
    assert doors.messages(script) == dict.fromkeys(("script", "zeromq"), "true")


def test_planned_classes_say_so(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "PLANNED", {"CircuitDream": ("dreaming", "21")})
    for answer in doors.messages("CircuitDream for: model").values():
        assert "planned and not built yet" in answer
    with pytest.raises(AttributeError, match="planned and not built yet"):
        _ = doors.client.CircuitDream


def test_arrays_that_hold_themselves_cross_no_door_as_a_crash(doors: Doors) -> None:
    for answer in doors.messages("| a | a := Array new: 1. a at: 1 put: a. a size").values():
        assert answer == "1"


def test_notices_of_answers_behind_a_mark_are_told_in_scripts(doors: Doors) -> None:
    told: list[str] = []
    script = (
        "((Dataset fromExamples: {Dictionary newFrom: {#clean -> 'The capital, so, of France:'. #answer -> 'Paris'}})"
        " forModel: model) size"
    )
    with events.listen(lambda event: told.append(event.message) if isinstance(event, events.Notice) else None):
        assert doors.workspace.run(script) == 1
    assert len(told) == 1
    assert "write ' Paris'" in told[0]


def test_one_model_by_many_names_is_one(framework: str, tmp_path: Path) -> None:
    """Two names that lead to one folder: what ran is the same, what was asked for is not."""
    folder = tiny.saved("llama")
    with aliases.in_force([f"one={folder}", "two=one"]):
        one, two = (TransformerModel.from_hugging_face(name, engine=framework) for name in ("one", "two"))
    assert one.ran == two.ran == str(folder)
    assert (one.title, two.title) == (f"{folder} (for one)", f"{folder} (for two)")
    assert one.weights_hash == two.weights_hash
