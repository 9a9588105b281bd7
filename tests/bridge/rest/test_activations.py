"""Activations over HTTP: the same numbers as a direct run, in every encoding, and interventions that act."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
from safetensors.numpy import load

from neuroscope import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope.steering.vectors import SteeringVectors
from tests.bridge.rest.conftest import Serve

MESSAGES = [{"role": "user", "content": "w5 w6 w7"}]
PATH = "/v1/chat/completions/with_activations"


def ask(http: httpx.Client, hooks: list[Any], accept: str = "application/json", **fields: Any) -> httpx.Response:
    body = {"messages": MESSAGES, "max_tokens": 5, "temperature": 0, "activation_hooks": hooks, **fields}
    answer = http.post(PATH, json=body, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    return answer


def refused(http: httpx.Client, hooks: list[Any], **fields: Any) -> dict[str, Any]:
    answer = http.post(PATH, json={"messages": MESSAGES, "max_tokens": 5, "activation_hooks": hooks, **fields})
    assert 400 <= answer.status_code < 500, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def whole_run(direct: TransformerModel, answer: dict[str, Any], site: str) -> Any:
    """The site's array from one forward pass over prompt and answer, but for the last token, which never ran."""
    text = " ".join(answer["tokens"][:-1])
    assert list(direct.encode(text).ids[0]) == answer["token_ids"][:-1]
    return direct.run_with_caching(text, [site])[site].numpy()[0]


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ({"layer_name": "transformer.h.1", "component": "residual"}, "1.residual"),
        ({"layer_name": "model.layers.2", "component": "attention"}, "2.attention"),
        ({"layer_name": "0", "component": "mlp"}, "0.mlp"),
        ({"layer_name": 1, "component": "mlp_output"}, "1.mlpOutput"),
        ({"layer_name": "1", "component": "headOutput", "head": 2}, "1.headOutput[2]"),
        ({"layer_name": "1", "component": "query"}, "1.query"),
        ({"layer_name": "2", "component": "attention_pattern"}, "2.attentionPattern"),
        ({"layer_name": "2", "component": "attentionPattern", "head": 1}, "2.attentionPattern[1]"),
        ({"layer_name": "0", "component": "mlp", "neuron": 7}, "0.mlp[7]"),
        ({"layer_name": "transformer.wte"}, "embedding"),
    ],
)
def test_they_equal_those_of_a_direct_run(
    http: httpx.Client, direct: TransformerModel, hook: dict[str, Any], site: str
) -> None:
    answer = ask(http, [{**hook, "hook_id": "it"}]).json()
    found = answer["activations"]["it"]
    assert found["site"] == site
    wanted = whole_run(direct, answer, site)
    assert found["shape"] == list(wanted.shape)
    np.testing.assert_allclose(np.array(found["data"]), wanted, rtol=1e-4, atol=1e-5)
    assert found["first_position"] == 0


def test_the_text_is_the_one_without_hooks(http: httpx.Client, direct: TransformerModel) -> None:
    answer = ask(http, [{"layer_name": "1"}]).json()
    assert answer["choices"][0]["message"]["content"] == direct.generate("w5 w6 w7 w3", max_tokens=5)
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}
    assert answer["activations"]["1.residual"]["shape"] == [8, 32]


def test_logits_begin_where_the_first_token_is_chosen(http: httpx.Client) -> None:
    answer = ask(http, [{"layer_name": "logits"}]).json()
    found = answer["activations"]["logits"]
    assert (found["shape"], found["first_position"]) == ([5, 97], 3)
    assert list(np.argmax(found["data"], axis=1)) == answer["token_ids"][4:]


def test_every_encoding_carries_the_same_numbers(http: httpx.Client) -> None:
    hooks = [{"layer_name": "1", "hook_id": "a"}, {"layer_name": "0", "component": "mlp", "dtype": "float16", "hook_id": "b"}]
    plain = ask(http, hooks).json()["activations"]
    wanted = {name: np.array(plain[name]["data"]) for name in ("a", "b")}

    npy = ask(http, hooks, encoding="npy").json()["activations"]
    packed = msgpack.unpackb(ask(http, hooks, "application/msgpack").content)
    safe = ask(http, hooks, "application/safetensors")
    tensors = load(safe.content)
    for name in ("a", "b"):
        array = np.load(io.BytesIO(base64.b64decode(npy[name]["data"])))
        assert str(array.dtype) == npy[name]["dtype"] == plain[name]["dtype"]
        np.testing.assert_array_equal(array.astype(np.float32), wanted[name].astype(np.float32))
        part = packed["activations"][name]
        np.testing.assert_array_equal(np.frombuffer(part["data"], part["dtype"]).reshape(part["shape"]), array)
        np.testing.assert_array_equal(tensors[name], array)
    assert packed["choices"][0]["message"]["content"]
    length = int.from_bytes(safe.content[:8], "little")
    document = json.loads(json.loads(safe.content[8 : 8 + length])["__metadata__"]["response"])
    assert document["usage"] == packed["usage"]


def test_slices_of_positions_and_features(http: httpx.Client) -> None:
    base = {"layer_name": "1"}
    kinds = {
        "all": (0, 8),
        "prompt": (0, 4),
        "generated": (4, 8),
        "last": (3, 4),
    }
    whole = np.array(ask(http, [base]).json()["activations"]["1.residual"]["data"])
    for positions, (start, stop) in kinds.items():
        found = ask(http, [{**base, "positions": positions}]).json()["activations"]["1.residual"]
        np.testing.assert_array_equal(found["data"], whole[start:stop])
        assert found["first_position"] == start
    found = ask(http, [{**base, "positions": [2, 6], "features": [5, 0]}]).json()["activations"]["1.residual"]
    np.testing.assert_array_equal(found["data"], whole[2:6, [5, 0]])
    assert ask(http, [{**base, "positions": [100, None]}]).json()["activations"]["1.residual"]["shape"] == [0]


def test_statistics_alone(http: httpx.Client) -> None:
    whole = np.array(ask(http, [{"layer_name": "1"}]).json()["activations"]["1.residual"]["data"])
    found = ask(http, [{"layer_name": "1", "statistics_only": True}]).json()["activations"]["1.residual"]
    assert "data" not in found
    assert found["shape"] == list(whole.shape)
    statistics = found["statistics"]
    for name, value in {
        "mean": whole.mean(),
        "std": whole.std(),
        "min": whole.min(),
        "max": whole.max(),
        "norm": np.linalg.norm(whole),
        "mean_norm": np.linalg.norm(whole, axis=1).mean(),
        "count": whole.size,
    }.items():
        assert statistics[name] == pytest.approx(value, rel=1e-5), name


def test_a_stream_brings_each_token_with_its_activations(http: httpx.Client) -> None:
    hooks = [{"layer_name": "1"}, {"layer_name": "2", "component": "attentionPattern", "head": 0}]
    whole = ask(http, hooks).json()
    chunks = events(ask(http, hooks, stream=True).text)[1:]  # the first one says who speaks
    assert [chunk["token"]["index"] for chunk in chunks] == list(range(5))
    assert [chunk["token"]["id"] for chunk in chunks] == whole["token_ids"][4:]
    parts = [np.array(chunk["activations"]["1.residual"]["data"]) for chunk in chunks]
    assert [part.shape for part in parts] == [(4, 32)] + [(1, 32)] * 4
    assert [chunk["activations"]["1.residual"]["first_position"] for chunk in chunks] == [0, 4, 5, 6, 7]
    np.testing.assert_allclose(np.concatenate(parts), whole["activations"]["1.residual"]["data"], rtol=1e-4, atol=1e-6)
    assert np.array(chunks[-1]["activations"]["2.attentionPattern[0]"]["data"]).shape == (1, 8)


def test_an_answer_that_would_be_too_large_is_refused_before_it_is_computed(serve: Serve) -> None:
    with httpx.Client(base_url=serve(answer=20_000), timeout=60) as http:
        error = refused(http, [{"layer_name": "1", "component": "mlp"}], max_tokens=100)
        assert error["code"] == "too_large"
        for way in ("positions", "statistics_only", "float16", "msgpack"):
            assert way in error["remedy"]
        ask(http, [{"layer_name": "1", "component": "mlp", "statistics_only": True}], max_tokens=100)
        ask(http, [{"layer_name": "1", "component": "mlp", "positions": "last"}], max_tokens=100)


@pytest.mark.parametrize(
    ("hook", "named"),
    [
        ({"layer_name": "transformer.h.9"}, "Layers run from 0 to 2"),
        ({"layer_name": "5; drop"}, "is not a layer"),
        ({"layer_name": "1", "component": "residul"}, "residual"),
        ({"layer_name": "1", "component": "residual", "head": 1}, "no heads"),
        ({"layer_name": "1", "component": "headOutput", "head": 11}, "Heads of headOutput run from 0 to 3"),
        ({"layer_name": "1", "features": [4000]}, "0 to 31"),
        ({"component": "mlp"}, "layer_name"),
        ({"layer_name": "1", "action": "steer"}, "vector"),
        ({"layer_name": "1", "action": "steer", "vector": [1.0, 2.0]}, "32 wide"),
        ({"layer_name": "1", "action": "scale"}, "factor"),
        ({"layer_name": "1", "action": "ablate", "strength": 3}, "steer"),
        ({"layer_name": "1", "positions": [3, 3]}, "positions"),
        ({"layer_name": "1", "layer": 1}, "layer_name"),
        ("nobody", "nobody"),
    ],
)
def test_a_hook_that_cannot_be_says_what_would_be_right(http: httpx.Client, hook: Any, named: str) -> None:
    assert named in refused(http, [hook])["message"]


def test_two_hooks_of_one_name_are_refused(http: httpx.Client) -> None:
    assert "1.residual" in refused(http, [{"layer_name": "1"}, {"layer_name": "1"}])["message"]


# --- interventions --------------------------------------------------------------------------------------------------------


def test_interventions_change_what_a_python_hook_would(http: httpx.Client, direct: TransformerModel) -> None:
    vector = np.random.default_rng(0).normal(size=32).astype(np.float32) * 3
    cases: list[tuple[dict[str, Any], ActivationHook]] = [
        (
            {"layer_name": "1", "action": "steer", "vector": vector.tolist(), "strength": 2},
            ActivationHook(1, "residual", lambda a: a + vector * 2),
        ),
        (
            {"layer_name": "0", "component": "headOutput", "head": 1, "action": "ablate"},
            ActivationHook(0, "headOutput", lambda a: a * 0, head=1),
        ),
        (
            {"layer_name": "1", "component": "mlpOutput", "action": "scale", "factor": -2.5},
            ActivationHook(1, "mlpOutput", lambda a: a * -2.5),
        ),
    ]
    watch = {"layer_name": "2", "hook_id": "seen"}
    plain = np.array(ask(http, [watch]).json()["activations"]["seen"]["data"])
    for spec, hook in cases:
        answer = ask(http, [spec, watch]).json()
        with direct.hook_manager.temporarily(hook):
            wanted = whole_run(direct, answer, "2.residual")
            assert answer["choices"][0]["message"]["content"] == direct.generate("w5 w6 w7 w3", max_tokens=5)
        np.testing.assert_allclose(answer["activations"]["seen"]["data"], wanted, rtol=1e-4, atol=1e-4)
        assert not np.allclose(plain[:4], wanted[:4])


def test_one_neuron_can_be_ablated(http: httpx.Client) -> None:
    watch = {"layer_name": "1", "component": "mlp"}
    plain = np.array(ask(http, [watch]).json()["activations"]["1.mlp"]["data"])
    found = ask(http, [watch, {"layer_name": "1", "component": "mlp", "neuron": 3, "action": "ablate"}]).json()
    after = np.array(found["activations"]["1.mlp"]["data"])
    assert np.all(after[:, 3] == 0)
    assert np.any(plain[:, 3] != 0)
    np.testing.assert_allclose(np.delete(after[:4], 3, 1), np.delete(plain[:4], 3, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 12])
def test_a_contrast_of_texts_steers_as_the_same_pairs_do_in_python(
    http: httpx.Client, direct: TransformerModel, count: int
) -> None:
    more, less = ([f"w{first + 3 * index} w{2 + index} w{30 + index}" for index in range(count)] for first in (8, 9))
    if count == 1:
        means = [direct.run_with_caching(text, ["1.residual"])["1.residual"].numpy()[0, 1:].mean(0) for text in (*more, *less)]
        direction = means[0] - means[1]
    else:
        direction = SteeringVectors(direct).define("mine", more, less, layer=1).numpy()
    contrast = {"layer_name": "1", "action": "steer", "contrast": {"more": more, "less": less}, "strength": 1.5}
    given = {"layer_name": "1", "action": "steer", "vector": direction.tolist(), "strength": 1.5}
    watch = {"layer_name": "2", "hook_id": "seen"}
    one, other = (np.array(ask(http, [spec, watch]).json()["activations"]["seen"]["data"]) for spec in (contrast, given))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# --- registered hooks ---------------------------------------------------------------------------------------------------------


def test_registered_hooks_act_where_they_are_named_and_nowhere_else(http: httpx.Client) -> None:
    hooks = [
        {"layer_name": "1", "hook_id": "watch"},
        {"layer_name": "0", "component": "attention", "action": "scale", "factor": 5, "hook_id": "loud"},
    ]
    try:
        assert http.post("/v1/activations/hooks", json={"hooks": hooks}).json()["registered"] == ["watch", "loud"]
        listed = http.get("/v1/activations/hooks").json()["data"]
        assert [one["hook_id"] for one in listed] == ["watch", "loud"]
        assert http.post("/v1/activations/hooks", json={"hooks": hooks[:1]}).status_code == 400

        plain = ask(http, ["watch"]).json()["activations"]["watch"]["data"]
        loud = ask(http, ["watch", "loud"]).json()["activations"]["watch"]["data"]
        assert not np.allclose(plain[:4], loud[:4])
        assert ask(http, []).json()["activations"] == {}

        asked = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0}
        quiet = http.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"]
        steered = http.post("/v1/chat/completions", json={**asked, "hooks": ["loud"]}).json()["choices"][0]
        assert steered["message"]["content"] != quiet
        refusal = http.post("/v1/chat/completions", json={**asked, "hooks": ["watch"]})
        assert "with_activations" in refusal.json()["error"]["message"]

        assert http.delete("/v1/activations/hooks/loud").json()["removed"] == ["loud"]
        assert http.delete("/v1/activations/hooks/loud").status_code == 404
        assert "loud" in refused(http, ["loud"])["message"]
    finally:
        http.delete("/v1/activations/hooks")
    assert http.get("/v1/activations/hooks").json()["data"] == []


def test_a_hook_without_an_id_gets_one(http: httpx.Client) -> None:
    (name,) = http.post("/v1/activations/hooks", json={"hooks": [{"layer_name": "1"}]}).json()["registered"]
    assert ask(http, [name]).json()["activations"][name]["shape"] == [8, 32]
    http.delete(f"/v1/activations/hooks/{name}")
    assert http.post("/v1/activations/hooks", json={"hooks": [{"layer_name": "77"}]}).status_code == 400
