"""The `openai` package as a client."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import openai
import pytest
from openai import OpenAI

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
