"""Quantised models on MLX: they compute, and differentiate, as the model does whose weights they unpack to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GptOssConfig

from neuroscope.engines.protocol import Edit, LogitRequest, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.weights import Weight
from neuroscope.errors import UnsupportedArchitectureError, WeightError
from neuroscope.models.model import TransformerModel
from neuroscope.models.verify import every_site
from tests import tiny

pytestmark = tiny.needs_mlx

PROMPT = [5, 17, 40, 8, 77, 23]


def difference(a: Any, b: Any) -> float:
    """The largest, relative to the spread."""
    a, b = np.asarray(a), np.asarray(b)
    return float(abs(a - b).max() / (a.std() + 1e-12))


def eight_bits(folder: Path) -> Any:
    """A tiny Llama as mlx-lm saves it at eight bits; answers the Hugging Face model that it was."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    engine: Any = tiny.engine_on("mlx", "llama")
    nn.quantize(
        engine.model,
        group_size=32,
        bits=8,
        class_predicate=lambda _, m: hasattr(m, "to_quantized") and m.weight.shape[-1] == 32,
    )
    shutil.copytree(tiny.saved("llama"), folder)
    configure(folder, {"quantization": {"group_size": 32, "bits": 8}})
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(engine.model.parameters())))
    return tiny.hf_model("llama")


def mxfp4(folder: Path) -> Any:
    """A tiny gpt-oss with its experts in MXFP4, in the form in which gpt-oss-20b is published."""
    import mlx.core as mx

    torch.manual_seed(0)
    given = tiny.CONFIGS["gpt_oss"]().to_dict() | {"intermediate_size": 64}
    model = AutoModelForCausalLM.from_config(GptOssConfig(**given))
    arrays = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.2)
            if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                arrays[name] = parameter.clone()
                continue
            packed, scales = mx.quantize(mx.array(parameter.mT.contiguous().numpy()), group_size=32, bits=4, mode="mxfp4")
            blocks = np.array(packed).view(np.uint8)
            arrays[f"{name}_blocks"] = torch.from_numpy(blocks.reshape(*blocks.shape[:2], -1, 16).copy())
            arrays[f"{name}_scales"] = torch.from_numpy(np.array(scales))
    model.config.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    plain = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    configure(folder, {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": plain}})
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    return model


def configure(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.fixture(params=[eight_bits, mxfp4], ids=["eight bits", "MXFP4"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[TransformerModel, TransformerModel]:
    """A quantised model, and a plain one with the weights that it unpacks to."""
    original = request.param(tmp_path / "model")
    quantised = TransformerModel.from_hugging_face(str(tmp_path / "model"), engine="mlx")
    plain = TransformerModel(tiny.engine_of("mlx", original), quantised.tokenizer, "plain", "plain")
    names = [str(weight) for weight in Weight if weight.value.startswith(("attn.W", "mlp.W_g", "mlp.W_i", "mlp.W_o"))]
    packed = [f"{layer}.{name}" for layer in range(tiny.LAYERS) for name in names] + ["embed.W_E", "unembed.W_U"]
    for name in packed:
        view = quantised.weights(name)
        assert difference(plain.weights(name).read(), view.read()) < (1 if view.dtype == "quantised" else 1e-9)
        plain.weights(name).write(view.read())
    assert any(quantised.weights(name).dtype == "quantised" for name in packed)
    return quantised, plain


def test_activations_edits_and_gradients_are_those_of_the_unpacked_model(both: tuple[TransformerModel, ...]) -> None:
    quantised, plain = (model.engine for model in both)
    batch = TokenBatch.of([PROMPT])
    assert both[0].verify().passed
    doubled = Edit(Site(1, Component.HEAD_OUTPUT, head=1), lambda value, _: value * 2)
    for edits in ([], [doubled]):
        a, b = (engine.forward(batch, edits=edits).logits for engine in (plain, quantised))
        assert difference(a, b) < 1e-4
    sites = [site for site in every_site(quantised) if site.component is not Component.LOGITS]
    request = LogitRequest.last(batch, np.array([[3, 8]]))
    found = [e.gradients(batch, lambda x: x[:, 0] - x[:, 1], sites, logits=request).gradients for e in (plain, quantised)]
    for site in sites:
        assert difference(found[0][site], found[1][site]) < 1e-3, site


def test_mxfp4_means_on_mlx_what_it_means_on_torch(tmp_path: Path) -> None:
    mxfp4(tmp_path / "model")
    found = []
    for name in ("torch", "mlx"):
        model = TransformerModel.from_hugging_face(str(tmp_path / "model"), engine=name, device="cpu")
        found.append((model.logits("w5 w17 w40 w8").numpy(), model.weights("1.mlp.W_in").read()))
    assert (found[0][1] == found[1][1]).all()
    assert difference(found[0][0], found[1][0]) < 1e-4


def test_a_quantised_weight_is_read_and_not_written(both: tuple[TransformerModel, ...], tmp_path: Path) -> None:
    quantised = both[0]
    for name in ("1.mlp.W_in", "1.mlp.W_gate[7]"):
        view = quantised.weights(name)
        assert view.dtype == "quantised"
        for act in (lambda view=view: view.write(view.read()), view.snapshot):
            with pytest.raises(WeightError, match="is quantised") as caught:
                act()
            assert name in str(caught.value)
            assert "mlx_lm.convert --dequantize" in str(caught.value)
    gain = quantised.weights("1.ln1.w")  # what is not packed can be written, and is saved beside what is
    gain.write(gain.read() * 2)
    quantised.save(str(tmp_path / "kept"))
    again = TransformerModel.from_hugging_face(str(tmp_path / "kept"), engine="mlx")
    assert (again.logits("w5 w17 w40").numpy() == quantised.logits("w5 w17 w40").numpy()).all()


def test_foreign_packings_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny.saved("llama"), folder)
    configure(folder, {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    with pytest.raises(UnsupportedArchitectureError, match="'gptq'"):
        TransformerModel.from_hugging_face(str(folder), engine="mlx")
