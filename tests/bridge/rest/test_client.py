"""The Python clients, and the same class from a script."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

import neuroscope
from neuroscope import events, settings
from neuroscope.errors import ArgumentError
from neuroscope.models import aliases
from neuroscope.models.model import TransformerModel
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.client import AsyncLMStudioRESTClient, LMStudioRESTClient
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.exchange import Lines, circuit_analysis_hooks, target
from neuroscope_bridge.rest.jobs import HttpOptions
from neuroscope_bridge.rest.substitute import served_by
from neuroscope_bridge.wire.errors import RemoteError, ServerGoneError
from neuroscope_dsl.workspace import Workspace
from tests import machines
from tests.bridge.rest.conftest import Serve

MESSAGES = [{"role": "user", "content": "w5 w6 w7"}]


@pytest.fixture
def client(url: str) -> LMStudioRESTClient:
    return LMStudioRESTClient(url)


def test_it_is_part_of_neuroscope() -> None:
    assert neuroscope.LMStudioRESTClient is LMStudioRESTClient
    assert "LMStudioRESTClient" in neuroscope.vocabulary.names()
    assert LMStudioRESTClient.default().url == "http://127.0.0.1:50111"


def test_models_hooks_and_chat(client: LMStudioRESTClient) -> None:
    assert client.health()["status"] == "ok"
    assert client.load_model("chatty")["architecture"]["layers"] == 3
    assert client.models() == ["chatty"]
    assert client.tokenize("w5 w6")["ids"] == [5, 6]
    assert client.register_hooks([{"layer_name": "1", "hook_id": "kept"}]) == ["kept"]
    assert client.hooks() == [{"layer_name": "1", "hook_id": "kept"}]
    assert client.remove_hooks() == ["kept"]
    assert client.chat(MESSAGES, max_tokens=5) == client.chat(MESSAGES, max_tokens=5)


def test_activations_become_a_cache(client: LMStudioRESTClient, direct: TransformerModel) -> None:
    client.load_model("chatty")
    told: list[Any] = []
    with events.listen(told.append):
        hooks = client.create_circuit_analysis_hooks(24)
    assert [event.message for event in told] == ["chatty has 3 layers: hooks are made for those, not for 24."]
    assert len(hooks) == 10
    result = client.generate_with_activations(MESSAGES, hooks=hooks, max_tokens=5)
    cache = client.convert_activations_for_neuroscope(result["activations"])
    wanted = direct.run_with_caching(" ".join(result["tokens"][:-1]), cache.sites)
    for site in cache.sites:
        np.testing.assert_allclose(cache[site], wanted[site], rtol=1e-4, atol=1e-5)
    assert "data" not in result.as_dictionary()["activations"]["layer_0_mlp"]


def test_both_names_of_hooks_and_not_both_at_once(client: LMStudioRESTClient) -> None:
    hooks = [{"layer_name": "1"}]
    one = client.generate_with_activations(MESSAGES, hooks=hooks, max_tokens=2)
    two = client.generate_with_activations("w5 w6 w7 w3", activation_hooks=hooks, max_tokens=2)
    np.testing.assert_array_equal(one["activations"]["1.residual"]["data"], two["activations"]["1.residual"]["data"])
    with pytest.raises(ArgumentError):
        client.generate_with_activations(MESSAGES, hooks=hooks, activation_hooks=hooks)
    with pytest.raises(ArgumentError):
        circuit_analysis_hooks(0)


def test_a_stream_iterates_events(client: LMStudioRESTClient) -> None:
    found = list(client.generate_with_activations(MESSAGES, hooks=[{"layer_name": "1"}], max_tokens=5, stream=True))
    assert [event["token"]["index"] for event in found] == [0, 1, 2, 3, 4]
    assert found[0]["activations"]["1.residual"]["data"].shape == (4, 32)
    whole = client.generate_with_activations(MESSAGES, max_tokens=5)
    assert "".join(event["text"] for event in found) == whole["choices"][0]["message"]["content"]


def test_a_streams_text_may_hold_every_line_end(tmp_path: Path) -> None:
    tokenizer = machines.byte_level()
    written = ["ĠParis", *(byte for odd in "\u2028\x85\x0b\x1e" for byte in _bytes(odd)), "Ġso"]
    after = dict(zip(written, [*written[1:], "</s>"], strict=True))
    table = {tokenizer.convert_tokens_to_ids(one): tokenizer.convert_tokens_to_ids(next_) for one, next_ in after.items()}
    folder = machines.machine(tmp_path / "m", tokenizer, table)
    host = Host(HostOptions("machine", [f"machine={folder}"]))
    door = HttpDoor(host, "127.0.0.1:0", HttpOptions())
    url = door.open()
    door.start()
    try:
        expected = "\u2028\x85\x0b\x1e so"
        prompt = "The capital of France is Paris"
        assert machines.load(folder, "torch").generate(prompt) == expected
        streamed = list(LMStudioRESTClient(url).generate_with_activations(prompt, hooks=[], stream=True))
        assert "".join(event["text"] for event in streamed) == expected

        async def asked() -> str:
            async with AsyncLMStudioRESTClient(url) as client:
                events = await client.generate_with_activations(prompt, hooks=[], stream=True)
                return "".join([event["text"] async for event in events])

        assert asyncio.run(asked()) == expected
    finally:
        door.close()
        host.close()


def _bytes(character: str) -> list[str]:
    """The entries of a byte-level vocabulary that a character is made of."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(character)
    return list(split[0][0])


def test_lines_of_a_stream_end_at_line_feeds_wherever_it_is_cut() -> None:
    text = 'data: {"a": "\u2028é"}\r\n\ndata: [DONE]\n'
    for size in (1, 2, 3, 100):
        lines, data = Lines(), text.encode()
        found = [line for at in range(0, len(data), size) for line in lines.take(data[at : at + size])]
        assert found == ['data: {"a": "\u2028é"}', "", "data: [DONE]"]


def test_errors_say_what_the_server_said(client: LMStudioRESTClient) -> None:
    with pytest.raises(RemoteError, match="Layers run from 0 to 2") as caught:
        client.generate_with_activations(MESSAGES, hooks=[{"layer_name": "7"}])
    assert caught.value.code == "site"
    with pytest.raises(RemoteError, match="Layers run"):
        list(client.generate_with_activations(MESSAGES, hooks=[{"layer_name": "7"}], stream=True))
    with pytest.raises(RemoteError, match="--alias /path/to/model="):
        client.load_model("/path/to/model")
    with pytest.raises(ServerGoneError, match="neuroscope serve"):
        LMStudioRESTClient("http://127.0.0.1:9").models()


def test_the_seed_of_a_run_reaches_the_server(client: LMStudioRESTClient, url: str) -> None:
    """By every way to generate; one that is given goes before it."""

    def written(**seed: int) -> tuple[int, str, str]:
        whole = client.generate_with_activations(MESSAGES, max_tokens=12, temperature=1.0, **seed)
        stream = client.generate_with_activations(MESSAGES, max_tokens=12, temperature=1.0, stream=True, **seed)
        chat = client.chat(MESSAGES, max_tokens=12, temperature=1.0, **seed)
        text = whole["choices"][0]["message"]["content"]
        assert "".join(event["text"] for event in stream) == text
        return whole["seed"], text, chat

    with settings.defaults(seed=7):
        first, again, other = written(), written(), written(seed=8)
        analysis = client.analyze("creative_writing", "w5 w6 w7")
        assert analysis["result"]["provenance"]["seed"] == 7

        async def asked() -> Any:
            async with AsyncLMStudioRESTClient(url) as one:
                return await one.generate_with_activations(MESSAGES, max_tokens=12, temperature=1.0)

        assert asyncio.run(asked())["seed"] == 7
    assert first == again
    assert (first[0], other[0]) == (7, 8)
    assert first[1] == first[2] != other[1] == other[2]


def test_a_runs_aliases_hold_for_its_client(serve: Serve, chatty: Path, speechless: Path) -> None:
    client = LMStudioRESTClient(serve())
    with aliases.in_force([f"gpt2-medium={speechless}", "mine=gpt2-medium"]):
        for name in ("gpt2-medium", "mine"):
            loaded = client.load_model(name)
            assert (loaded["ran"], loaded["asked_for"]) == (str(speechless), name)
            written = client.generate_with_activations("w5 w6", max_tokens=2)
            assert (written["ran"], written["asked_for"]) == (str(speechless), name)
            assert client.analyze("logit_lens", "w5 w6")["asked_for"] == name
            events = list(client.generate_with_activations("w5 w6", max_tokens=2, stream=True))
            assert [event["asked_for"] for event in events] == [name, name]
            assert asyncio.run(_asked_for(client.url, name)) == [name] * 5
    # The server's own alias is meant where the run gave none, and standard names are for the server to follow.
    assert target("chatty", client.url) == "chatty"
    assert target("gpt2", client.url) == "gpt2"
    loaded = client.load_model("chatty")
    assert loaded["ran"] == str(chatty)
    assert "asked_for" not in loaded
    with aliases.in_force(embedded=True):
        assert target("gpt2-medium", client.url) == "bundled:gpt2-medium"
        assert target("gpt2-medium", "http://elsewhere.example:50111") == "bundled:gpt2-medium"


async def _asked_for(url: str, name: str) -> list[str]:
    """What each answer of the client for asyncio was asked for as."""
    async with AsyncLMStudioRESTClient(url) as client:
        whole = [
            await client.load_model(name),
            await client.generate_with_activations("w5 w6", max_tokens=2),
            await client.analyze("logit_lens", "w5 w6"),
        ]
        stream = await client.generate_with_activations("w5 w6", max_tokens=2, stream=True)
        return [one["asked_for"] for one in whole] + [event["asked_for"] async for event in stream]


def test_both_clients_understand_the_same() -> None:
    def operations(cls: type) -> dict[str, list[str]]:
        own = {name: member for name, member in vars(cls).items() if not name.startswith("_") and inspect.isfunction(member)}
        return {name: list(inspect.signature(member).parameters) for name, member in own.items()}

    assert operations(AsyncLMStudioRESTClient) == {
        name: parameters for name, parameters in operations(LMStudioRESTClient).items() if name != "print_string"
    }


def test_a_model_is_loaded_in_the_type_that_was_asked_for(serve: Serve, chatty: Path) -> None:
    client = LMStudioRESTClient(serve())
    assert client.load_model("chatty")["precision"] == "float32"
    for dtype in ("bfloat16", "float16", "float32"):
        assert client.load_model("chatty", dtype=getattr(torch, dtype))["precision"] == dtype
        assert client.load_model("chatty")["precision"] == dtype
        assert client.analyze("logit_lens", "w5 w6")["result"]["provenance"]["dtype"] == dtype
        assert asyncio.run(_precision(client.url, dtype)) == dtype
    with pytest.raises(RemoteError, match="float32, bfloat16, float16"):
        client.load_model("chatty", dtype="int8")


async def _precision(url: str, dtype: str) -> Any:
    async with AsyncLMStudioRESTClient(url) as client:
        return (await client.load_model("chatty", dtype))["precision"]


def test_without_a_server_default_takes_the_one_that_is_offered(url: str) -> None:
    with served_by(lambda: url):
        client = LMStudioRESTClient.default()
        assert "chatty" in client.models()
        assert client.url == url
        with pytest.raises(ServerGoneError):  # one that was named is meant
            LMStudioRESTClient("http://127.0.0.1:9").models()


def test_a_script_speaks_the_same_class(url: str) -> None:
    with served_by(lambda: url):
        texts = Workspace().run(
            "client := LMStudioRESTClient default. client loadModel: 'chatty'.\n"
            "messages := Array with: (Dictionary new at: #role put: 'user'; at: #content put: 'w5 w6 w7'; yourself).\n"
            "hooks := Array with: (Dictionary new at: #layer_name put: '1'; yourself).\n"
            "all := OrderedCollection new.\n"
            "(client generateWithActivations: messages hooks: hooks maxTokens: 4 stream: true) do: [:event |\n"
            "    all add: (((event at: #activations) at: '1.residual') at: #data) shape].\n"
            "all"
        )
    assert list(texts) == [(4, 32), (1, 32), (1, 32), (1, 32)]


def test_asyncio(url: str) -> None:
    async def work() -> tuple[Any, list[Any]]:
        async with AsyncLMStudioRESTClient(url) as client:
            assert (await client.health())["status"] == "ok"
            await client.load_model("chatty")
            assert await client.models() == ["chatty"]
            hooks = client.create_circuit_analysis_hooks(1)
            whole = await client.generate_with_activations(MESSAGES, hooks=hooks, max_tokens=5)
            stream = await client.generate_with_activations(MESSAGES, hooks=hooks, max_tokens=5, stream=True)
            found = [event async for event in stream]
            with pytest.raises(RemoteError):
                await client.generate_with_activations(MESSAGES, hooks=["nobody"])
            return whole, found

    whole, found = asyncio.run(work())
    parts = np.concatenate([event["activations"]["layer_0_mlp"]["data"] for event in found])
    np.testing.assert_allclose(parts, whole["activations"]["layer_0_mlp"]["data"], rtol=1e-4, atol=1e-6)
