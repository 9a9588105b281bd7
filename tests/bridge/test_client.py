"""A notebook's view: the vocabulary of a server through Python objects."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from neuroscope import events
from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.errors import ArgumentError
from neuroscope.hooks.hook import ActivationHook
from neuroscope_bridge.client import Client, RemoteClass, RemoteObject, block, connect
from neuroscope_bridge.wire.errors import RemoteError
from neuroscope_dsl.runtime.values import Symbol
from tests import tiny

PROMPT = "w5 w6 w7 w8"


@pytest.fixture(scope="module")
def here() -> Any:
    return tiny.model("gpt2")


@pytest.fixture
def model(client: Client) -> Any:
    return client.TransformerModel.from_hugging_face("tiny")


def test_values_of_every_kind_come_and_go(client: Client) -> None:
    for value in (None, True, 7, 1 << 90, -2.5, "é", b"\x01", Fraction(1, 3), Symbol("foo"), [1, [2, "x"]], {"a": 1}):
        assert client.send(value, "yourself") == value
    assert client.evaluate("#(1 $a 'x' #foo)")[0] == 1
    assert client.evaluate("(1 to: 3) collect: [:e | e / 3]") == [Fraction(1, 3), Fraction(2, 3), 1]
    assert client.send(torch.bfloat16, "yourself") == "bfloat16"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(client.send(array, "yourself"), array)


def test_a_session_remembers_its_variables_and_others_do_not_see_them(client: Client, server: str) -> None:
    client.evaluate("x := 41")
    assert client.evaluate("x + y", y=1) == 42
    with connect(server) as other, pytest.raises(RemoteError, match="x"):
        other.evaluate("x + 1")


def test_a_model_gives_the_numbers_that_it_gives_here(model: Any, here: Any) -> None:
    assert model.name == "tiny"
    assert model.architecture.layers == tiny.LAYERS
    assert np.allclose(model.logits(PROMPT).numpy(), here.logits(PROMPT).numpy(), atol=1e-6)
    assert model.generate(PROMPT, max_tokens=5) == here.generate(PROMPT, max_tokens=5)


def test_patching_over_the_bridge_takes_a_block_as_metric(client: Client, model: Any, here: Any) -> None:
    pair = ("w5 w9 w12 w7", "w5 w9 w40 w7", "w8", "w22")
    wanted = ActivationPatcher(here).patch(pair, "heads@*", direction="noising", method="attribution")
    patcher = client.ActivationPatcher(model)
    difference = block(
        "[:logits :prompt | ((logits at: prompt answerToken) - (logits at: prompt wrongToken)) at: prompt size - 1]"
    )
    for metric in ("logit_difference", difference):
        for method in ("exact", "attribution"):
            found = patcher.patch([list(pair)], sites="heads@*", direction="noising", metric=metric, method=method)
            other = wanted if method == "attribution" else ActivationPatcher(here).patch(pair, "heads@*", direction="noising")
            assert list(found.values) == pytest.approx(other.values, rel=1e-3, abs=1e-5)


def test_only_the_slice_that_is_asked_for_crosses(client: Client, model: Any, here: Any) -> None:
    cache = model.run_with_caching(PROMPT)
    whole = here.run_with_caching(PROMPT)["1.residual"].numpy()
    remote = cache["1.residual"]
    assert np.allclose(remote.numpy(slice=[0, -1, [0, 3]]), whole[0, -1, 0:3], atol=1e-6)
    assert np.asarray(remote).shape == whole.shape
    summary = client.send_later(remote, "yourself", wanted={"form": "summary", "slice": [0]}).result()
    assert summary["shape"] == list(whole[0].shape)
    assert summary["mean"] == pytest.approx(float(whole[0].mean()), abs=1e-6)
    with pytest.raises(RemoteError, match="does not fit"):
        remote.numpy(slice=[0, 99])


def test_arithmetic_on_activations_stays_on_the_server(model: Any) -> None:
    tensor = model.run_with_caching(PROMPT)["0.residual"]
    assert isinstance(tensor + tensor, RemoteObject)
    assert np.allclose((tensor + tensor).numpy(), 2 * tensor.numpy())


def test_a_hook_given_as_a_block_does_what_a_python_hook_does(client: Client, model: Any, here: Any) -> None:
    hook = client.ActivationHook(layer=1, component="residual", action=block("[:a | a * k]", k=3))
    model.hook_manager.add_hook(hook)
    with here.hook_manager.temporarily(ActivationHook(1, "residual", lambda a: a * 3)):
        assert model.generate(PROMPT, max_tokens=20) == here.generate(PROMPT, max_tokens=20)
    assert model.generate(PROMPT, max_tokens=20) != here.generate(PROMPT, max_tokens=20)


def test_a_python_function_is_called_back_and_may_ask_the_server_meanwhile(client: Client, model: Any, here: Any) -> None:
    seen: list[float] = []

    def double(activations: Any) -> Any:
        seen.append(activations.norm())
        return activations * 2

    model.hook_manager.add_hook(client.ActivationHook(layer=0, component="residual", action=double))
    with here.hook_manager.temporarily(ActivationHook(0, "residual", lambda a: a * 2)):
        assert model.generate(PROMPT, max_tokens=4) == here.generate(PROMPT, max_tokens=4)
    assert len(seen) == 4
    assert all(norm > 0 for norm in seen)


def test_a_function_that_fails_fails_the_request_and_nothing_else(client: Client) -> None:
    def bad(x: Any) -> Any:
        raise ValueError("not today")

    with pytest.raises(RemoteError, match="not today"):
        client.send([1, 2], "collect:", bad)
    assert client.send([1, 2], "collect:", lambda x: x * 10) == [10, 20]


def test_hooks_of_one_session_do_not_touch_another(client: Client, model: Any, server: str, here: Any) -> None:
    model.hook_manager.add_hook(client.ActivationHook(layer=1, component="residual", action=block("[:a | a * 9]")))
    with connect(server) as other:
        assert other.TransformerModel.from_hugging_face("tiny").generate(PROMPT, max_tokens=8) == here.generate(
            PROMPT, max_tokens=8
        )


def test_errors_carry_what_the_server_suggests(client: Client, model: Any) -> None:
    with pytest.raises(RemoteError) as caught:
        client.send(model, "generat:", "x")
    assert caught.value.code == "message-not-understood"
    assert "generate:" in caught.value.details["nearest"]  # type: ignore[operator]
    assert caught.value.details["receiverClass"] == "TransformerModel"
    with pytest.raises(AttributeError, match="generate"):
        model.generat("x")
    with pytest.raises(AttributeError, match="CircuitFinder"):
        client.CircuitFindr  # noqa: B018
    with pytest.raises(ArgumentError, match="max_tokens"):
        model.generate(PROMPT, max_token=3)
    with pytest.raises(RemoteError) as located:
        client.evaluate("a := 1.\nb := a foo")
    assert located.value.details["position"]["line"] == 2  # type: ignore[index]


def test_completion_and_documentation_come_from_the_server(client: Client, model: Any) -> None:
    assert "TransformerModel" in dir(client)
    assert "generate" in dir(model)
    assert "load_ioi_examples" in dir(client.Dataset)
    assert "continuation" in model.generate.__doc__
    assert isinstance(client.Dataset, RemoteClass)


def test_progress_and_transcript_are_told(client: Client, model: Any) -> None:
    heard: list[events.Event] = []
    shown: list[str] = []
    client.transcript = shown.append
    with events.listen(heard.append):
        model.generate(PROMPT, max_tokens=3)
        client.evaluate("Transcript show: 'hello'; cr")
    assert [e.job for e in heard if isinstance(e, events.Progress)][:1] == ["generating"]
    assert any(e.finished for e in heard if isinstance(e, events.Progress))
    assert "".join(shown) == "hello\n"


def test_futures_and_cancelling(client: Client) -> None:
    first = client.evaluate_later("[true] whileTrue: [3 + 4]")
    second = client.evaluate_later("3 + 4")
    with pytest.raises(TimeoutError):
        first.result(0.3)
    assert first.cancel()
    start = time.monotonic()
    with pytest.raises(RemoteError) as caught:
        first.result(10)
    assert caught.value.code == "cancelled"
    assert second.result(10) == 7
    assert time.monotonic() - start < 5


def test_a_generation_can_be_cancelled(client: Client, model: Any) -> None:
    model.hook_manager.add_hook(
        client.ActivationHook(layer=0, component="residual", action=block("[:a | 1 to: 1000000 do: [:i | i + 1]. a]"))
    )
    running = model.generate.future(PROMPT, max_tokens=20)
    with pytest.raises(TimeoutError):
        running.result(0.2)
    running.cancel()
    with pytest.raises(RemoteError) as caught:
        running.result(10)
    assert caught.value.code == "cancelled"


def test_threads_share_a_client(client: Client) -> None:
    found: dict[int, list[int]] = {}

    def work(number: int) -> None:
        found[number] = [client.send(number, "+", index) for index in range(50)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {number: [number + index for index in range(50)] for number in range(8)}


def test_objects_that_python_forgets_are_freed_on_the_server(client: Client) -> None:
    for _ in range(30):
        client.evaluate("OrderedCollection new -> (1 to: 5) asBag")
        client.evaluate("Set new")
    last = client.evaluate("Set new")
    assert isinstance(last, RemoteObject)
    stale = type(last._handle)(last._handle.id - 1, "Set", "a Set")
    client.evaluate("nil")
    with pytest.raises(RemoteError) as caught:
        client.send_later(RemoteObject(client, stale), "size").result()
    assert caught.value.code == "stale-handle"


def test_scripts_run_from_a_file(client: Client, tmp_path: Any) -> None:
    path = tmp_path / "script.st"
    path.write_text(
        "Object subclass: #Twice instanceVariableNames: '' classVariableNames: '' package: 'X'.\n"
        "Twice >> of: n\n    ^n * 2\n\nTwice new of: 21\n"
    )
    assert client.run(path) == 42
    path.write_text("x := 3.\ny := )")
    with pytest.raises(RemoteError) as caught:
        client.run(path)
    assert caught.value.code == "syntax"


def test_an_address_that_cannot_be_is_refused() -> None:
    with pytest.raises(ArgumentError, match="not an address"):
        connect("nonsense")
