"""The `openai` package as a client."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from neuroscope.engines.protocol import TokenBatch
from neuroscope.models.model import TransformerModel
from tests.bridge.rest.conftest import Serve

MESSAGES = [{"role": "user", "content": "w5 w6 w7"}]
PROMPT = "w5 w6 w7 w3"  # the same in the template


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models_are_listed_and_described(client: OpenAI) -> None:
    assert "chatty" in [model.id for model in client.models.list()]
    assert client.models.retrieve("chatty").owned_by == "neuroscope"


def test_a_chat_is_what_the_model_says_in_its_own_template(client: OpenAI, direct: TransformerModel) -> None:
    answer = client.chat.completions.create(model="chatty", messages=MESSAGES, max_tokens=8, temperature=0)
    choice = answer.choices[0]
    assert choice.message.content == direct.generate(PROMPT, max_tokens=8)
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (4, 8, 12)


def test_a_stream_says_the_same_token_by_token(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="chatty", messages=MESSAGES, max_tokens=8, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model="chatty",
            messages=MESSAGES,
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[1:-1]] == [None] * 7 + ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_logprobs_are_the_models_own(client: OpenAI, direct: TransformerModel) -> None:
    answer = client.chat.completions.create(
        model="chatty", messages=MESSAGES, max_tokens=2, temperature=0, logprobs=True, top_logprobs=3
    )
    first = answer.choices[0].logprobs.content[0]
    predicted = direct.predictions(PROMPT, 3)
    assert [one.token for one in first.top_logprobs] == [text for text, _ in predicted]
    np.testing.assert_allclose([math.exp(one.logprob) for one in first.top_logprobs], [p for _, p in predicted], rtol=1e-4)
    assert first.token == first.top_logprobs[0].token
    assert bytes(first.bytes).decode() == first.token
    assert len(answer.choices[0].logprobs.content) == 2


def test_completions_continue_a_text_or_tokens(client: OpenAI, direct: TransformerModel) -> None:
    text = client.completions.create(model="chatty", prompt=PROMPT, max_tokens=5, temperature=0, logprobs=2)
    assert text.choices[0].text == direct.generate(PROMPT, max_tokens=5)
    logprobs = text.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 5
    ids = [int(token) for token in direct.encode(PROMPT).ids[0]]
    tokens = client.completions.create(model="chatty", prompt=ids, max_tokens=5, temperature=0)
    assert tokens.choices[0].text == text.choices[0].text
    streamed = client.completions.create(model="chatty", prompt=PROMPT, max_tokens=5, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == text.choices[0].text


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(client: OpenAI) -> None:
    words = client.completions.create(model="chatty", prompt=PROMPT, max_tokens=8, temperature=0).choices[0].text.split(" ")
    stop = words[1]
    before = words.index(stop)
    asked = {"model": "chatty", "prompt": PROMPT, "max_tokens": 8, "temperature": 0, "stop": [stop]}
    answer = client.completions.create(**asked)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].text == "".join(f"{word} " for word in words[:before])
    chunks = list(client.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_seed_repeats_an_answer_and_the_answer_names_its_seed(client: OpenAI) -> None:
    asked = {"model": "chatty", "prompt": PROMPT, "max_tokens": 12, "temperature": 1.5, "top_p": 0.95}
    first = client.completions.create(**asked)
    again = client.completions.create(**asked, seed=first.model_extra["seed"])
    assert again.choices[0].text == first.choices[0].text
    texts = {client.completions.create(**asked, seed=seed).choices[0].text for seed in range(4)}
    assert len(texts) > 1


def test_a_small_temperature_is_greedy(client: OpenAI, direct: TransformerModel) -> None:
    answer = client.completions.create(model="chatty", prompt=PROMPT, max_tokens=5, temperature=1e-30)
    assert answer.choices[0].text == direct.generate(PROMPT, max_tokens=5)


def test_an_unknown_model_is_not_found_and_says_how_to_load_it(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/models/load"):
        client.chat.completions.create(model="chaty", messages=MESSAGES)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"messages": []}, "messages"),
        ({"n": 2}, "n"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"extra_body": {"temprature": 1}}, "temperature"),
        ({"max_tokens": 4000}, "context"),
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 2}, "logprobs"),
    ],
)
def test_a_request_that_cannot_be_served_names_what_is_wrong(client: OpenAI, change: dict[str, object], named: str) -> None:
    with pytest.raises(openai.BadRequestError, match=named):
        client.chat.completions.create(**{"model": "chatty", "messages": MESSAGES, **change})


def test_a_streams_first_error_has_its_own_status(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(model="chatty", messages=MESSAGES, max_tokens=4000, stream=True)


def test_a_model_without_a_chat_template_says_so(serve: Serve) -> None:
    with OpenAI(base_url=f"{serve()}/v1", api_key="none", max_retries=0) as client:
        loaded = client.post("/models/load", body={"model": "speechless"}, cast_to=object)
        assert loaded["tokenizer"] == {"chat_template": False}
        assert loaded["architecture"]["layers"] == 3
        with pytest.raises(openai.BadRequestError, match=r"no chat template.*/v1/completions"):
            client.chat.completions.create(model="speechless", messages=MESSAGES)
        assert client.completions.create(model="speechless", prompt=PROMPT, max_tokens=2).usage.completion_tokens == 2
        with pytest.raises(openai.NotFoundError, match="nowhere"):
            client.post("/models/load", body={"model": "nowhere/to/be-found"}, cast_to=object)


def test_tokens_can_be_counted(client: OpenAI) -> None:
    found = client.post("/tokenize", body={"messages": MESSAGES}, cast_to=object)
    assert found["tokens"] == ["w5", "w6", "w7", "w3"]
    assert client.post("/tokenize", body={"text": "w9"}, cast_to=object)["ids"] == [9]


# --- what clients send in addition --------------------------------------------------------------------------------------------

NOTHING = {
    "tools": [],
    "tool_choice": "auto",
    "functions": [],
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "logit_bias": {},
    "n": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0,
    "store": False,
    "metadata": None,
    "audio": None,
    "service_tier": "auto",
    "reasoning_effort": None,
    "stream_options": None,
    "prompt_cache_key": "a key",
    "user": "somebody",
}


def test_fields_that_ask_for_nothing_change_nothing(http: httpx.Client) -> None:
    asked = {"messages": MESSAGES, "max_tokens": 3, "temperature": 0}
    plain, full = (http.post("/v1/chat/completions", json={**asked, **more}).json() for more in ({}, NOTHING))
    assert full["choices"] == plain["choices"]
    spoken = plain["choices"][0]["message"]
    again = {**asked, "messages": [*MESSAGES, {**spoken, "tool_calls": None, "annotations": []}, MESSAGES[0]]}
    assert http.post("/v1/chat/completions", json=again).status_code == 200
    text = {"prompt": PROMPT, "max_tokens": 1, "best_of": 1, "suffix": None, "echo": False, "logit_bias": None}
    assert http.post("/v1/completions", json=text).status_code == 200


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("chat/completions", "tools", [{"type": "function", "function": {"name": "f"}}]),
        ("chat/completions", "tool_choice", "required"),
        ("chat/completions", "response_format", {"type": "json_object"}),
        ("chat/completions", "logit_bias", {"5": 1}),
        ("chat/completions", "n", 2),
        ("chat/completions", "presence_penalty", 0.5),
        ("chat/completions", "store", True),
        ("chat/completions", "reasoning_effort", "high"),
        ("completions", "best_of", 2),
        ("completions", "suffix", "end"),
        ("embeddings", "dimensions", 8),
    ],
)
def test_a_field_that_asks_for_something_unserved_is_refused_by_name(
    http: httpx.Client, path: str, field: str, value: object
) -> None:
    body = {"chat/completions": {"messages": MESSAGES}, "completions": {"prompt": PROMPT}, "embeddings": {"input": PROMPT}}[
        path
    ]
    answer = http.post(f"/v1/{path}", json={**body, field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert f"{field}: this field is not served here; leave it out" in answer.json()["error"]["message"]


# --- several prompts, and prompts that are read ---------------------------------------------------------------------------------


def logs_of(model: TransformerModel, ids: list[int]) -> np.ndarray:
    """(tokens, vocabulary): log-probabilities of what follows each token."""
    logits = np.asarray(model.run(TokenBatch.of([ids])).logits, dtype=np.float64)[0]
    return (
        logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True)
    )


@pytest.mark.parametrize("as_ids", [False, True])
def test_a_list_of_prompts_is_answered_with_a_choice_for_each(client: OpenAI, direct: TransformerModel, as_ids: bool) -> None:
    texts = ["w5 w6", PROMPT, "w9"]
    prompts = [[int(token) for token in direct.encode(text).ids[0]] for text in texts] if as_ids else texts
    asked = {"model": "chatty", "prompt": prompts, "max_tokens": 4, "temperature": 0}
    answer = client.completions.create(**asked, logprobs=1)
    assert [choice.text for choice in answer.choices] == [direct.generate(text, max_tokens=4) for text in texts]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2 + 4 + 1, 12)
    assert [len(choice.logprobs.tokens) for choice in answer.choices] == [4, 4, 4]
    streamed = ["", "", ""]
    for chunk in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == [choice.text for choice in answer.choices]
    assert chunk.usage == answer.usage


def test_an_echo_has_the_log_probability_of_each_token_of_the_prompt(client: OpenAI, direct: TransformerModel) -> None:
    """As lm-evaluation-harness asks: rows of different lengths in one request, one token more, which it drops."""
    rows = [[5, 6, 7, 3], [9, 8]]
    answer = client.completions.create(
        model="chatty", prompt=rows, max_tokens=1, temperature=0, logprobs=2, echo=True, seed=1234
    )
    for row, choice in zip(rows, answer.choices, strict=True):
        logs, told = logs_of(direct, row), choice.logprobs
        assert told.tokens[: len(row)] == [direct.token_text(id_) for id_ in row]
        assert (told.token_logprobs[0], told.top_logprobs[0]) == (None, None)
        expected = [logs[at, id_] for at, id_ in enumerate(row[1:])]
        np.testing.assert_allclose(told.token_logprobs[1:-1], expected, atol=1e-4)
        for at, top in enumerate(told.top_logprobs[1:-1]):
            np.testing.assert_allclose(sorted(top.values()), np.sort(logs[at])[-2:], atol=1e-4)
        text = " ".join(f"w{id_}" for id_ in row)
        assert choice.text.startswith(text)
        assert [choice.text[offset:].lstrip().split(" ")[0] for offset in told.text_offset[:-1]] == text.split(" ")
        assert len(told.tokens) == len(told.text_offset) == len(row) + 1


def test_without_new_tokens_an_echo_is_the_prompt_alone(client: OpenAI, http: httpx.Client) -> None:
    answer = client.completions.create(model="chatty", prompt=PROMPT, max_tokens=0, logprobs=1, echo=True)
    assert answer.choices[0].text == PROMPT
    assert (len(answer.choices[0].logprobs.tokens), answer.usage.completion_tokens) == (4, 0)
    assert answer.choices[0].finish_reason == "length"
    (chunk,) = client.completions.create(model="chatty", prompt=PROMPT, max_tokens=0, logprobs=1, echo=True, stream=True)
    assert chunk.choices[0].logprobs == answer.choices[0].logprobs
    assert "echo" in http.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 0}).json()["error"]["message"]


def test_an_echo_is_of_the_model_with_its_hooks(http: httpx.Client) -> None:
    asked = {"prompt": PROMPT, "max_tokens": 0, "logprobs": 0, "echo": True}
    hook = {"layer_name": "1", "component": "mlpOutput", "action": "scale", "factor": 4}
    plain, hooked = (http.post("/v1/completions", json={**asked, "hooks": hooks}).json() for hooks in ([], [hook]))
    one, other = (answer["choices"][0]["logprobs"]["token_logprobs"][1:] for answer in (plain, hooked))
    assert np.abs(np.subtract(one, other)).max() > 0.01


# --- embeddings -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "last", "first", "max"])
def test_an_embedding_is_a_sites_activations_pooled(client: OpenAI, direct: TransformerModel, pooling: str) -> None:
    texts = ["w5 w6 w7", "w9"]
    body = {"site": "1.residual", "pooling": pooling, "normalize": False}
    answer = client.embeddings.create(model="chatty", input=texts, extra_body=body)
    for text, one in zip(texts, answer.data, strict=True):
        whole = np.asarray(direct.run_with_caching(text, ["1.residual"])["1.residual"])[0]
        inner = whole[1:] if len(whole) > 1 else whole
        expected = {"mean": inner.mean(0), "max": inner.max(0), "first": whole[0], "last": whole[-1]}[pooling]
        np.testing.assert_allclose(one.embedding, expected, atol=1e-5)
    assert answer.usage.prompt_tokens == 4


def test_embeddings_have_length_one_in_either_encoding(client: OpenAI, http: httpx.Client, direct: TransformerModel) -> None:
    ids = [[5, 6, 7], [9, 4]]
    numbers, coded = (
        client.embeddings.create(model="chatty", input=ids, encoding_format=kind).data for kind in ("float", "base64")
    )
    usual = client.embeddings.create(model="chatty", input=ids).data  # the package asks for base64 and decodes it
    for one, code, same in zip(numbers, coded, usual, strict=True):
        assert np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-5)
        assert np.frombuffer(base64.b64decode(code.embedding), "<f4").tolist() == pytest.approx(one.embedding)
        assert same.embedding == pytest.approx(one.embedding)
    found = http.post("/v1/embeddings", json={"input": "w5 w6"}).json()
    assert found["site"] == f"{direct.architecture.layers - 1}.residual"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"input": "w5", "site": "99.residual"}, "99"),
        ({"input": "w5", "site": "1.attentionPattern"}, "no vector"),
        ({"input": "w5", "site": "logits"}, "no vector"),
        ({"input": ["w5", ""]}, "input 1 has no tokens"),
        ({"input": []}, "input"),
        ({"input": [[5] * 4000]}, "context"),
        ({"input": [[10**6]]}, "vocabulary"),
    ],
)
def test_what_cannot_be_embedded_is_named(http: httpx.Client, body: dict[str, object], named: str) -> None:
    answer = http.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"]
