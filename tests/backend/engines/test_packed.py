"""Packed weights on torch: they compute, differentiate and steer as the weights that they unpack to, and are edited by consent."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GptOssConfig, LlamaConfig

from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.graph import Graph
from neuroscope.engines.protocol import Edit, LogitRequest, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.torch.packed import unpacked
from neuroscope.engines.weights import Weight
from neuroscope.errors import ArgumentError, ModelLoadError, SiteError, WeightError
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope.models.verify import every_site
from tests import pretend, tiny
from tests.backend.circuits.pairs import random_pairs

PROMPT = [5, 17, 40, 8, 77, 23]


def saved_mxfp4(folder: Path) -> Path:
    """A tiny gpt-oss with random experts in MXFP4, in the form in which gpt-oss-20b is published."""
    random, generator = torch.manual_seed(0), torch.Generator().manual_seed(1)
    config = GptOssConfig(**tiny.CONFIGS["gpt_oss"]().to_dict() | {"intermediate_size": 64})
    arrays = {}
    for name, parameter in AutoModelForCausalLM.from_config(config).named_parameters():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            arrays[name] = torch.randn(parameter.shape, generator=random) * 0.2
            continue
        count, inside, out = parameter.shape
        arrays[f"{name}_blocks"] = torch.randint(256, (count, out, inside // 32, 16), generator=generator, dtype=torch.uint8)
        arrays[f"{name}_scales"] = torch.randint(121, 125, (count, out, inside // 32), generator=generator, dtype=torch.uint8)
    config.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    plain = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    settings = json.loads((folder / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": plain}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def saved_torchao(folder: Path) -> Path:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return _quantised(folder, TorchAoConfig(Int8WeightOnlyConfig(version=2)))


def saved_eight_bits(folder: Path) -> Path:
    from transformers import BitsAndBytesConfig

    return _quantised(folder, BitsAndBytesConfig(load_in_8bit=True))


def saved_four_bits(folder: Path) -> Path:
    from transformers import BitsAndBytesConfig

    return _quantised(folder, BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32))


def _quantised(folder: Path, how: Any) -> Path:
    """A tiny Llama in multiples of 32 and 64, as bitsandbytes' kernels for four bits need on a CPU."""
    torch.manual_seed(0)
    shape = tiny.CONFIGS["llama"]().to_dict() | {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    plain = folder.parent / f"{folder.name}-plain"
    model.save_pretrained(plain)
    AutoModelForCausalLM.from_pretrained(plain, quantization_config=how, dtype=torch.float32).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def needs(package: str) -> Any:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


#: How it is made, and the largest difference that its kernels may make, relative to the spread: bitsandbytes' eight bits round what the
#: matrices read, too.
KINDS = [
    pytest.param((saved_mxfp4, 1e-4), id="MXFP4"),
    pytest.param((saved_torchao, 1e-4), id="torchao", marks=needs("torchao")),
    pytest.param((saved_four_bits, 1e-4), id="bitsandbytes-4", marks=needs("bitsandbytes")),
    pytest.param((saved_eight_bits, 0.5), id="bitsandbytes-8", marks=needs("bitsandbytes")),
]


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    make, tolerance = request.param
    return make(tmp_path_factory.mktemp("packed") / "model"), tolerance


def loaded(folder: Path) -> TransformerModel:
    config = json.loads((folder / "config.json").read_text())
    packed = config["quantization_config"]["quant_method"] == "mxfp4"
    return TransformerModel.from_hugging_face(str(folder), engine="torch", device="cpu", packed=packed)


def packed_weights(model: TransformerModel) -> list[str]:
    names = [str(weight) for weight in Weight if weight.layered]
    names = [f"{layer}.{name}" for layer in range(tiny.LAYERS) for name in names]
    found = []
    for name in names:
        try:
            view = model.weights(name)
        except SiteError:  # this model has no such weight
            continue
        found += [name] if view.dtype == "quantised" else []
    return found


def unpacked_model(folder: Path) -> TransformerModel:
    """The same model with every packed weight dequantised: plain matrices in plain kernels."""
    model = loaded(folder)
    for name in packed_weights(model):
        model.weights(name).dequantise()
    assert not packed_weights(model)
    return model


def difference(a: Any, b: Any) -> float:
    """The largest, relative to the spread."""
    a, b = np.asarray(a), np.asarray(b)
    return float(abs(a - b).max() / (a.std() + 1e-12))


def test_activations_edits_gradients_and_scores_are_those_of_the_unpacked_weights(folder: tuple[Path, float]) -> None:
    place, tolerance = folder
    packed, plain = loaded(place), unpacked_model(place)
    assert len(packed_weights(packed)) >= 2 * tiny.LAYERS
    batch = TokenBatch.of([PROMPT])
    sites = [site for site in every_site(packed.engine) if site.component is not Component.LOGITS]
    doubled = Edit(Site(1, Component.HEAD_OUTPUT, head=1), lambda value, _: value * 2)
    expected, found = (model.engine.forward(batch, capture=sites, edits=[doubled]) for model in (plain, packed))
    for site in sites:
        assert difference(expected[site], found[site]) < tolerance, site
    request = LogitRequest.last(batch, np.array([[3, 8]]))
    expected, found = (
        model.engine.gradients(batch, lambda x: x[:, 0] - x[:, 1], sites, logits=request).gradients for model in (plain, packed)
    )
    for site in sites:
        assert difference(expected[site], found[site]) < 2 * tolerance, site
    there = Graph.of(packed.architecture).valid
    expected, found = (edge_scores(model.engine, random_pairs(), method="eap_ig", steps=2)[there] for model in (plain, packed))
    assert difference(expected, found) < 2 * tolerance
    assert packed.weights_hash == plain.weights_hash
    if tolerance < 0.01:
        assert packed.verify().passed


def test_a_packed_model_is_steered_and_an_edit_needs_consent(folder: tuple[Path, float]) -> None:
    model = loaded(folder[0])
    before = model.logits("w5 w17 w40").numpy()
    hook = model.hook_manager.add_hook(ActivationHook(1, "residual", lambda a, p: a * 1.5))
    assert difference(before, model.logits("w5 w17 w40").numpy()) > 0.1
    model.hook_manager.remove_hook(hook)
    view = model.weights(packed_weights(model)[0])
    values, digest = view.read(), model.weights_hash
    for act in (lambda: view.write(values * 2), view.snapshot):
        with pytest.raises(WeightError, match=r"is quantised.*(?s:.)*dequantise\(\)"):
            act()
    assert model.weights_hash == digest
    assert (model.logits("w5 w17 w40").numpy() == before).all()
    view.write(values * 2, dequantise=True)
    assert view.dtype == "float32"
    assert model.weights_hash != digest
    assert difference(view.read(), values * 2) == 0
    assert difference(before, model.logits("w5 w17 w40").numpy()) > 1e-3
    view.write(values)
    assert model.weights_hash == digest  # the numbers are those that were loaded
    with pytest.raises(WeightError, match="cannot be saved"):
        model.save(str(folder[0].parent / "mixed"))


def test_mxfp4_is_what_transformers_unpacks_and_is_saved_as_it_was(tmp_path: Path) -> None:
    place = saved_mxfp4(tmp_path / "model")
    packed = loaded(place)
    dequantised = TransformerModel.from_hugging_face(str(place), engine="torch", device="cpu")
    for name in ("1.mlp.W_in", "2.mlp.W_gate[7]", "0.mlp.W_out"):
        assert (packed.weights(name).read() == dequantised.weights(name).read()).all()
        assert (packed.weights(name).dtype, dequantised.weights(name).dtype) == ("quantised", "float32")
    held = sum(tensor.numel() * tensor.element_size() for tensor in packed.engine.layers[0].mlp.experts.parameters())
    plain = sum(tensor.numel() * tensor.element_size() for tensor in dequantised.engine.layers[0].mlp.experts.parameters())
    assert held < plain / 6
    gain = packed.weights("1.ln1.w")
    gain.write(gain.read() * 2)
    packed.save(str(tmp_path / "saved"))
    again = loaded(tmp_path / "saved")
    assert (again.logits("w5 w17 w40").numpy() == packed.logits("w5 w17 w40").numpy()).all()
    half = TransformerModel.from_hugging_face(str(place), engine="torch", device="cpu", dtype="bfloat16", packed=True)
    assert (half.weights("1.mlp.W_in").read() == packed.weights("1.mlp.W_in").read()).all()
    assert difference(half.logits("w5 w17 w40").numpy(), dequantised.logits("w5 w17 w40").numpy()) < 0.2


def test_a_packed_layer_visits_a_device_and_differentiates_there(tmp_path: Path) -> None:
    place = saved_mxfp4(tmp_path / "model")
    expected = loaded(place).engine
    batch = TokenBatch.of([PROMPT])
    request = LogitRequest.last(batch, np.array([[3, 8]]))
    site = Site(0, Component.MLP)
    wanted = expected.gradients(batch, lambda x: x[:, 0] - x[:, 1], [site], logits=request).gradients[site]
    with pretend.devices():
        found = pretend.engine(loaded(place).engine.model, resting=(1,))
        got = found.gradients(batch, lambda x: x[:, 0] - x[:, 1], [site], logits=request).gradients[site]
    assert difference(wanted, got.cpu()) < 1e-4


def test_an_experts_matrix_is_not_kept_for_its_gradient(tmp_path: Path) -> None:
    engine = loaded(saved_mxfp4(tmp_path / "model")).engine
    experts = engine.layers[0].mlp.experts
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        x = torch.randn(5, 32, requires_grad=True)
        experts(x, torch.tensor([[0, 1]] * 5), torch.full((5, 2), 0.5)).sum().backward()
    assert x.grad is not None
    assert max(kept) < np.prod(experts.gate_up_proj.shape[1:])


def test_only_mxfp4_is_kept_packed_on_request() -> None:
    with pytest.raises(ArgumentError, match=r"no MXFP4 weights.*plain ones(?s:.)*Leave packed out"):
        TransformerModel.from_hugging_face(str(tiny.saved("llama")), engine="torch", packed=True)


def test_bytes_hold_two_numbers_that_share_an_exponent() -> None:
    blocks = torch.zeros(1, 1, 16, dtype=torch.uint8)
    blocks[0, 0, 0] = 0x2 | (0xF << 4)  # 1, then -6
    found = unpacked(blocks, torch.tensor([[128]], dtype=torch.uint8), torch.float32)
    assert found.shape == (32, 1)
    assert found[:3, 0].tolist() == [2.0, -12.0, 0.0]


def test_what_a_library_cannot_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: Any) -> Any:
        raise NotImplementedError("no kernel for the CPU")

    place = saved_mxfp4(tmp_path / "model")
    monkeypatch.setattr("neuroscope.engines.torch.packed.unpacked", cannot)
    with pytest.raises(
        ModelLoadError, match=r"quantised by mxfp4, do not run on cpu: no kernel for the CPU(?s:.)*not quantised"
    ):
        loaded(place)
