"""Sharing loaded models: one engine, hooks of one's own."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope.models.registry import ModelRegistry, sharing
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.hf_model("gpt2").save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def test_one_engine_serves_models_with_hooks_of_their_own(folder: Path) -> None:
    with sharing(ModelRegistry()) as _:
        first, second = (TransformerModel.from_hugging_face(str(folder)) for _ in range(2))
    assert first.engine is second.engine
    assert first is not second
    first.hook_manager.add_hook(ActivationHook(0, "residual", lambda a: a * 2))
    assert len(second.hook_manager) == 0
    assert TransformerModel.from_hugging_face(str(folder)).engine is not first.engine


def test_models_of_different_settings_are_different(folder: Path) -> None:
    with sharing(ModelRegistry()):
        first = TransformerModel.from_hugging_face(str(folder))
        second = TransformerModel.from_hugging_face(str(folder), dtype="bfloat16")
    assert first.engine is not second.engine


def test_two_threads_load_a_model_once() -> None:
    registry = ModelRegistry()
    loaded: list[int] = []
    ready = threading.Barrier(4)

    def load() -> TransformerModel:
        loaded.append(1)
        return tiny.model()

    def ask() -> None:
        ready.wait()
        registry.get("key", load)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1
    assert registry.names() == ["tiny gpt2"]


def test_a_load_that_fails_is_tried_again() -> None:
    registry = ModelRegistry()

    def fail() -> TransformerModel:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        registry.get("key", fail)
    model = tiny.model()
    assert registry.get("key", lambda: model) is model
