"""Models that read images too: their language model runs, on every engine, as transformers runs it on text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from neuroscope import events
from neuroscope.errors import ModelLoadError
from neuroscope.models.model import TransformerModel
from tests import tiny

TEXT = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "sliding_window": 5,
    "max_position_embeddings": 128,
    "eos_token_id": 2,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    },
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
PROMPT = "w5 w17 w40 w8 w9 w23 w60 w11 w12"


@pytest.fixture(scope="module")
def whole() -> Any:
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=TEXT, vision_config=VISION, mm_tokens_per_image=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def as_on_the_hub(name: str) -> str:
    return name


def nested(name: str) -> str:
    """The names that versions 4.52 and on wrote."""
    if name.startswith("language_model.lm_head"):
        return name.removeprefix("language_model.")
    return "model." + name.replace("language_model.model.", "language_model.")


@pytest.fixture(params=[as_on_the_hub, nested])
def folder(request: pytest.FixtureRequest, whole: Any, tmp_path: Path) -> Path:
    """A folder with the names of one version, and a configuration that is silent where Gemma 3's own are."""
    rename: Callable[[str], str] = request.param
    target = tmp_path / "gemma"
    whole.save_pretrained(target)
    tiny.tokenizer().save_pretrained(target)
    weights = load_file(target / "model.safetensors")
    assert any(name.startswith("vision_tower.") for name in weights)
    save_file({rename(name): value for name, value in weights.items()}, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    text = {name: value for name, value in TEXT.items() if name not in ("num_attention_heads", "num_key_value_heads")}
    del text["rope_parameters"]
    text |= {"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    (target / "config.json").write_text(json.dumps({**config, "text_config": text}))
    return target


def loaded(folder: Path, framework: str) -> tuple[TransformerModel, list[str]]:
    told: list[str] = []
    with events.listen(lambda event: told.append(event.message) if isinstance(event, events.Notice) else None):
        return TransformerModel.from_hugging_face(str(folder), engine=framework), told


def expected(whole: Any, model: TransformerModel) -> Any:
    with torch.no_grad():
        return whole(input_ids=torch.as_tensor(model.encode(PROMPT).ids)).logits.numpy()


def test_its_language_model_runs_as_the_whole_does_on_text(whole: Any, folder: Path, framework: str) -> None:
    model, told = loaded(folder, framework)
    assert told == [f"{folder} is multimodal; only its language model is loaded."]
    assert model.architecture.architecture == "gemma3_text"
    assert model.architecture.sliding_windows == (5, 5, 5, 5, 5, None)
    np.testing.assert_allclose(model.logits(PROMPT).numpy(), expected(whole, model), rtol=1e-3, atol=1e-4)
    assert model.verify().passed
    assert model.end_tokens == (2,)


def test_what_was_changed_is_saved(whole: Any, folder: Path, framework: str, tmp_path: Path) -> None:
    model, _ = loaded(folder, framework)
    view = model.weights("2.mlp.W_gate")
    view.write(view.read() * 0.5)
    changed = model.logits(PROMPT).numpy()
    assert abs(changed - expected(whole, model)).max() > 0.01
    model.save(str(tmp_path / "again"))
    for engine in {framework, "torch"}:
        again, _ = loaded(tmp_path / "again", engine)
        np.testing.assert_allclose(again.logits(PROMPT).numpy(), changed, rtol=1e-3, atol=1e-4)


def test_one_without_a_text_part_is_refused(folder: Path, framework: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["text_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="no text_config"):
        loaded(folder, framework)
