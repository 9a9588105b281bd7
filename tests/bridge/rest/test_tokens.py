"""End tokens, stop texts, log-probabilities and hooks over HTTP, on machines whose next token is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from neuroscope.errors import InertHookError
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.client import LMStudioRESTClient
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.jobs import HttpOptions
from tests import machines

PROMPT = "The capital of France is Paris"
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
#: After " Paris": " and", an e with its accent in two bytes, a special token, " so", " on", and a token that ends.
PATHS = {
    "spaces": ("▁Paris", "▁and", "<0xC3>", "<0xA9>", "<turn>", "▁so", "▁on", "<other>", "▁Rome"),
    "bytes": ("ĠParis", "Ġand", "Ã", "©", "<turn>", "Ġso", "Ġon", "<other>", "ĠRome"),
}
MAKE = {"spaces": machines.sentencepiece, "bytes": machines.byte_level}


@pytest.fixture(scope="module", params=PATHS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = MAKE[kind](bos=True, eos=True)
    tokenizer.chat_template = TEMPLATE
    after: dict[int, Any] = dict(machines.chain(tokenizer, *PATHS[kind]))
    first, space = PATHS[kind][0], PATHS[kind][1]
    alike = [tokenizer.convert_tokens_to_ids(text) for text in (space, space[1:], "<0xC3>", "a")]
    after[tokenizer.convert_tokens_to_ids(first)] = [id_ for id_ in alike if id_ is not None]
    return machines.machine(tmp_path_factory.mktemp("tokens") / "m", tokenizer, after, generation={"eos_token_id": [2, 4]})


@pytest.fixture(scope="module")
def direct(folder: Path) -> TransformerModel:
    return TransformerModel.from_hugging_face(str(folder))


@pytest.fixture(scope="module")
def http(folder: Path) -> Iterator[httpx.Client]:
    host = Host(HostOptions("machine", [f"machine={folder}"]))
    door = HttpDoor(host, "127.0.0.1:0", HttpOptions())
    url = door.open()
    door.start()
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client
    door.close()
    host.close()


def complete(http: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = http.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 20, "temperature": 0, **asked})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["choices"][0])


def events(http: httpx.Client, path: str, **asked: Any) -> list[dict[str, Any]]:
    body = {"max_tokens": 20, "temperature": 0, "stream": True, **asked}
    lines = http.post(path, json=body).text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def test_every_end_token_ends_an_answer(http: httpx.Client, direct: TransformerModel) -> None:
    choice = complete(http)
    assert choice["text"] == direct.generate(PROMPT, max_tokens=20) == " andé so on"
    assert choice["finish_reason"] == "stop"
    chat = http.post(
        "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 20, "temperature": 0},
    ).json()
    assert chat["choices"][0]["message"]["content"] == " andé so on"
    assert chat["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/chat/completions/with_activations"])
def test_near_the_end_of_the_context_an_answer_is_as_long_as_there_is_room(http: httpx.Client, path: str) -> None:
    """ " The" goes on with nothing in particular, so that only the context of 64 ends it."""
    prompt = " ".join(["The"] * 57)
    asked = {"prompt": prompt} if path == "/v1/completions" else {"messages": [{"role": "user", "content": prompt}]}
    answer = http.post(path, json={"temperature": 0, **asked})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"] == {"prompt_tokens": 58, "completion_tokens": 6, "total_tokens": 64}
    refused = http.post(path, json={"temperature": 0, "max_tokens": 7, **asked})
    assert refused.status_code == 400
    assert "at most 6 new tokens" in refused.text
    client = LMStudioRESTClient(str(http.base_url))
    assert client.generate_with_activations(prompt)["usage"]["completion_tokens"] == 6
    assert client.chat(asked.get("messages", [{"role": "user", "content": prompt}])) is not None


def test_prompts_are_the_same_tokens_by_every_door(http: httpx.Client, direct: TransformerModel) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    expected = direct.encode(PROMPT).ids[0].tolist()
    assert expected[0] == 1
    assert expected.count(1) == 1
    assert 2 not in expected
    assert http.post("/v1/tokenize", json={"text": PROMPT}).json()["ids"] == expected
    chat = http.post("/v1/tokenize", json={"messages": messages}).json()["ids"]
    assert chat == direct.encode(direct.chat_prompt(PROMPT)).ids[0].tolist()
    assert chat.count(1) == 1
    assert chat == direct.tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("<turn>", " andé"),
        ("é<turn>", " and"),
        ("<turn> so", " andé"),
        ("é so", " and"),  # as it is shown, without the special token between
        (" and", ""),
        ("so", " andé "),
        ("<other>", " andé so on"),
        ("nothing", " andé so on"),
    ],
)
def test_stop_texts_are_found_special_tokens_or_not(http: httpx.Client, direct: TransformerModel, stop: str, text: str) -> None:
    assert direct.generate(PROMPT, max_tokens=20, stop=stop) == text
    choice = complete(http, stop=stop)
    assert (choice["text"], choice["finish_reason"]) == (text, "stop")
    chunks = events(http, "/v1/completions", prompt=PROMPT, stop=stop)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text


def test_log_probabilities_have_places_bytes_and_alternatives(http: httpx.Client) -> None:
    choice = complete(http, logprobs=4)
    found = choice["logprobs"]
    assert found["tokens"] == [" and", "bytes:\\xc3", "bytes:\\xa9", "<turn>", " so", " on", "<other>"]
    assert found["text_offset"] == [0, 4, 4, 5, 5, 8, 11]
    assert all(len(one) == 4 for one in found["top_logprobs"])
    assert list(found["top_logprobs"][0])[:2] == [" and", "and"]
    chunks = events(http, "/v1/completions", prompt=PROMPT, logprobs=4)
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [one for chunk in chunks for one in chunk["choices"][0]["logprobs"][name]] == found[name]


def test_a_chats_log_probabilities_hold_the_bytes_of_the_text(http: httpx.Client) -> None:
    asked = {"messages": [{"role": "user", "content": PROMPT}], "logprobs": True, "top_logprobs": 4}
    whole = http.post("/v1/chat/completions", json={"max_tokens": 20, "temperature": 0, **asked}).json()
    content = whole["choices"][0]["logprobs"]["content"]
    assert bytes(byte for one in content for byte in one["bytes"]).decode() == " andé<turn> so on<other>"
    assert [one["token"] for one in content[:3]] == [" and", "\\xc3", "\\xa9"]
    assert [one["token"] for one in content[0]["top_logprobs"][:2]] == [" and", "and"]
    assert content[0]["top_logprobs"][0] == {key: content[0][key] for key in ("token", "logprob", "bytes")}
    chunks = events(http, "/v1/chat/completions", **asked)[1:]
    assert [one for chunk in chunks for one in chunk["choices"][0]["logprobs"]["content"]] == content


def test_offsets_of_text_that_waits_for_a_stop_text(http: httpx.Client) -> None:
    asked = {"logprobs": 1, "stop": " andé so off"}  # everything up to " so" waits
    choice = complete(http, **asked)
    assert choice["text"] == " andé so on"
    assert choice["logprobs"]["text_offset"] == [0, 4, 4, 5, 5, 8, 11]
    chunks = events(http, "/v1/completions", prompt=PROMPT, **asked)
    assert [chunk["choices"][0]["logprobs"]["text_offset"][0] for chunk in chunks] == [0, 4, 4, 5, 5, 8, 11]
    assert [chunk["choices"][0]["text"] for chunk in chunks][:3] == ["", "", ""]


@pytest.mark.parametrize("stop", [[], ["<turn>"], [" and"]])
def test_a_hook_that_never_fired_is_told_however_the_generation_ends(direct: TransformerModel, stop: list[str]) -> None:
    hook = ActivationHook(0, "residual", lambda activations: activations, position=60)
    with direct.hook_manager.temporarily(hook), pytest.raises(InertHookError, match="never fired"):
        direct.generate(PROMPT, max_tokens=20, stop=stop)


def test_a_hook_that_never_fired_is_told_over_http(http: httpx.Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP's own interventions act everywhere, so that one is given a position that no run comes to."""
    from neuroscope_bridge.rest import hooks

    made = hooks._intervention

    def elsewhere(*arguments: Any) -> ActivationHook:
        hook = made(*arguments)
        return ActivationHook(0, "residual", hook.action, position=60, name=hook.name)

    monkeypatch.setattr(hooks, "_intervention", elsewhere)
    asked = {"hooks": [{"layer_name": "0", "action": "ablate"}], "max_tokens": 20, "temperature": 0}
    for stop in ([], ["<turn>"], [" and"]):
        answer = http.post("/v1/completions", json={"prompt": PROMPT, "stop": stop, **asked})
        assert answer.status_code == 400
        assert "never fired" in answer.text
        streamed = events(http, "/v1/completions", prompt=PROMPT, stop=stop, **asked)
        assert "never fired" in streamed[-1]["error"]["message"]


def test_a_contrast_leaves_out_the_end_token_that_the_tokenizer_adds(direct: TransformerModel) -> None:
    """Every text is the same there, so that it would halve the difference."""
    from neuroscope.steering.vectors import contrast_direction

    site = machines_site()
    vector = contrast_direction(direct, ["so Paris"], ["so Rome"], site)
    more, less = (direct.run_with_caching(text, [str(site)])[site].numpy()[0, 1:].mean(0) for text in ("so Paris", "so Rome"))
    np.testing.assert_allclose(vector, more - less, rtol=1e-4, atol=1e-5)
    assert np.abs(vector).max() >= 0.5 - 1e-6


def machines_site() -> Any:
    from neuroscope.engines.sites import Site

    return Site.parse("0.residual")
