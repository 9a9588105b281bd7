"""Checkpoints on MLX, as mlx-lm's model modules.

mlx-lm reads most checkpoints of transformers unchanged. The exceptions are handled here:

- gpt-oss saved by transformers interleaves gate and up, as (in, out): they are split and transposed;
- GPT-2 saved by transformers prefixes its names; GPT-2 and GPT-NeoX may have MLPs of any width;
- GPT-NeoX uses the exact GELU if its configuration says so, not the approximation;
- YaRN's range of blended dimensions is rounded only if the configuration says so (gpt-oss does not);
- if the configuration does not say whether the unembedding is tied, the weights do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from neuroscope.engines.architectures import Architecture, find
from neuroscope.engines.checkpoint import Checkpoint, damaged, unfilled
from neuroscope.engines.devices import AUTO, Devices
from neuroscope.engines.folder import text_name
from neuroscope.engines.layout import get_module
from neuroscope.engines.mlx.config import activation_of, of_mlx, translated, yarn
from neuroscope.engines.mlx.engine import MlxEngine
from neuroscope.engines.mlx.library import models_module
from neuroscope.engines.mlx.saving import Origin
from neuroscope.engines.mlx.slots import ACTIVATIONS
from neuroscope.engines.tokenizers import load_tokenizer
from neuroscope.engines.weight_files import INDEX, SINGLE
from neuroscope.errors import ArgumentError, ModelLoadError, UnsupportedArchitectureError, joined
from neuroscope.remedies import TORCH

_Config = dict[str, Any]
_Weights = dict[str, mx.array]


class MlxLoader:
    """`Loader` for MLX: mlx-lm's models, and tokenizers without transformers."""

    name = "mlx"
    dtypes = ("float32", "bfloat16", "float16")

    def tokenizer(self, folder: Path) -> Any:
        return load_tokenizer(folder)

    def join(self, tp: int) -> None:
        raise ArgumentError(
            f"MLX runs a model in one process, not {tp}.", remedy="For tensor parallelism load it with engine: 'torch'."
        )

    def engine(self, checkpoint: Checkpoint, dtype: str, devices: Devices) -> MlxEngine:
        if devices.several or devices.limits:
            raise ArgumentError(
                "MLX runs a model on one device: a Mac's memory is one.",
                remedy=joined("For several devices load it with", TORCH),
            )
        device = None if devices.device == AUTO else devices.device
        architecture = find(checkpoint.config["model_type"], "mlx")
        config = translated(checkpoint.config, architecture)
        with mx.stream(device_of(device)):
            weights = _of_text(_read(checkpoint), architecture) if checkpoint.part else _read(checkpoint)
            model = _model(config, architecture, weights, checkpoint.folder)
            model.set_dtype(getattr(mx, dtype))
            if architecture.moe and device_of(device) == mx.Device(mx.cpu):
                _widen_experts(model, architecture)
            mx.eval(model.parameters())
        folder = checkpoint.folder
        files = [folder / "config.json", *folder.glob("generation_config.json")]
        if checkpoint.weights != [folder / SINGLE]:
            files.append(folder / INDEX)

        def translate(arrays: _Weights) -> _Weights:
            arrays = _of_text(arrays, architecture) if checkpoint.part else arrays
            return _arranged(arrays, _empty(config, architecture, folder), architecture)

        origin = Origin([*files, *checkpoint.weights], translate)
        return MlxEngine(model, config, architecture, device_of(device), origin)


def device_of(name: str | None) -> mx.Device:
    """MLX's device of a name. Raises `ArgumentError` if there is none."""
    if name is None:
        return mx.default_device()
    if name not in ("cpu", "gpu", "metal", "cuda") or (name != "cpu" and not mx.is_available(mx.gpu)):
        raise ArgumentError(f"The device {name!r} cannot be used by MLX here.", remedy="Devices: cpu, and gpu if there is one.")
    return mx.Device(mx.cpu if name == "cpu" else mx.gpu)


def _read(checkpoint: Checkpoint) -> _Weights:
    weights: _Weights = {}
    for path in checkpoint.weights:
        if path.suffix != ".safetensors":
            raise ModelLoadError(
                f"The engine mlx does not read pickles such as {path.name}.", remedy="Convert it to safetensors, or use torch."
            )
        try:
            found = mx.load(str(path))
        except (RuntimeError, ValueError) as error:
            if "unsupported dtype" in str(error):
                raise ModelLoadError(
                    f"The weights in {checkpoint.folder} have a type that MLX does not read: {error}",
                    remedy="Save the model in float32 or bfloat16, or use the engine torch.",
                ) from error
            raise damaged(checkpoint.folder, error) from error
        assert isinstance(found, dict)
        weights.update(found)
    return weights


def _of_text(weights: _Weights, architecture: Architecture) -> _Weights:
    """The language model's arrays of a multimodal model, renamed as in a language model alone."""
    named = ((text_name(name, architecture), value) for name, value in weights.items())
    return {name: value for name, value in named if name is not None}


def _model(config: _Config, architecture: Architecture, weights: _Weights, folder: Path) -> nn.Module:
    if "tie_word_embeddings" not in config:
        config["tie_word_embeddings"] = not any(name.endswith(("lm_head.weight", "embed_out.weight")) for name in weights)
    model = _empty(config, architecture, folder)
    _correct(model, config, architecture)
    weights = _arranged(weights, model, architecture)
    _quantise(model, config, weights, folder)
    expected: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    missing = sorted(name for name in expected if name not in weights or weights[name].shape != expected[name].shape)
    if missing:
        raise unfilled(folder, missing)
    unknown = sorted(set(weights) - set(expected))
    if unknown:
        raise UnsupportedArchitectureError(
            f"The weights in {folder} hold {len(unknown)} parameters that mlx-lm's {config['model_type']} does not have, "
            f"the first {unknown[0]}.",
            remedy="Load it with the engine torch.",
        )
    model.load_weights(list(weights.items()))
    return model.eval()


def _empty(config: _Config, architecture: Architecture, folder: Path) -> Any:
    """mlx-lm's model without its weights; nothing is allocated."""
    mlx = of_mlx(architecture)
    library = models_module(mlx.module)
    config = config if mlx.windows else {**config, "layer_types": None}
    try:
        return library.Model(library.ModelArgs.from_dict(config))
    except TypeError as error:
        raise ModelLoadError(f"{folder / 'config.json'} lacks a setting: {error}", remedy="Save the model again.") from error


def _arranged(weights: _Weights, model: Any, architecture: Architecture) -> _Weights:
    """A checkpoint's arrays as parameters of mlx-lm's model, which may be changed to fit them."""
    weights = _renamed(weights, of_mlx(architecture).module)
    return model.sanitize(weights) if hasattr(model, "sanitize") else weights


def _renamed(weights: _Weights, kind: str) -> _Weights:
    """Names and layouts as mlx-lm's `sanitize` expects or returns them."""
    found: _Weights = {}
    for name, value in weights.items():
        if kind == "gpt2":
            if name == "lm_head.weight" or name.endswith((".attn.masked_bias", ".attn.bias")):
                continue
            found[name.removeprefix("transformer.")] = value
        elif kind == "gpt_oss" and name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            found[f"{stem}gate_proj.weight"] = value[..., ::2].swapaxes(-1, -2)
            found[f"{stem}up_proj.weight"] = value[..., 1::2].swapaxes(-1, -2)
        elif kind == "gpt_oss" and name.endswith("experts.gate_up_proj_bias"):
            stem = name.removesuffix("gate_up_proj_bias")
            found[f"{stem}gate_proj.bias"], found[f"{stem}up_proj.bias"] = value[..., ::2], value[..., 1::2]
        elif kind == "gpt_oss" and name.endswith("experts.down_proj"):
            found[f"{name}.weight"] = value.swapaxes(-1, -2)
        elif kind == "gpt_oss" and name.endswith("experts.down_proj_bias"):
            found[name.removesuffix("_bias") + ".bias"] = value
        else:
            found[name] = value
    if kind == "gpt_oss" and "lm_head.weight" not in found:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    return found


def _correct(model: nn.Module, config: _Config, architecture: Architecture) -> None:
    """Correct mlx-lm's modules before weights are loaded."""
    kind, where = of_mlx(architecture).module, architecture.in_mlx()
    scaling = config.get("rope_scaling")
    width = config.get("intermediate_size") or 4 * config["hidden_size"]
    for layer in get_module(model, where.path("layers")):
        attention = get_module(layer, where.attention)
        if scaling is not None and scaling["rope_type"] == "yarn" and not getattr(attention, "is_sliding", False):
            rope = attention.rope
            frequencies, rope.mscale = yarn(config["head_dim"], config["rope_theta"], scaling)
            rope._freqs = mx.array(frequencies)
        if kind == "gpt2":
            layer.mlp.c_fc, layer.mlp.c_proj = nn.Linear(config["hidden_size"], width), nn.Linear(width, config["hidden_size"])
        if kind == "gpt_neox" and config.get("attention_bias") is False:
            attention.query_key_value = nn.Linear(config["hidden_size"], 3 * config["hidden_size"], bias=False)
            attention.dense = nn.Linear(config["hidden_size"], config["hidden_size"], bias=False)
        if kind == "gpt_neox":
            layer.mlp = _PlainMlp(config["hidden_size"], width, activation_of(config, of_mlx(architecture)))
        if kind == "gpt_oss":
            experts = layer.mlp.experts
            experts.activation = type(experts.activation)(config.get("swiglu_alpha", 1.702), config.get("swiglu_limit", 7.0))


def _widen_experts(model: nn.Module, architecture: Architecture) -> None:
    """Compute the experts' products in float32, since MLX gathers half precision only on a GPU. The weights are unchanged."""
    plain = models_module("switch_layers").SwitchLinear

    class Widened(plain):  # type: ignore[misc, valid-type]
        def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
            matrix = self.weight.astype(mx.float32).swapaxes(-1, -2)
            found = mx.gather_mm(x.astype(mx.float32), matrix, rhs_indices=indices, sorted_indices=sorted_indices)
            found = found + self.bias[indices][..., None, :] if "bias" in self else found
            return found.astype(x.dtype)

    for layer in get_module(model, architecture.in_mlx().path("layers")):
        experts = layer.mlp.experts
        for projection in (experts.gate_proj, experts.up_proj, experts.down_proj):
            if type(projection) is plain and projection.weight.dtype != mx.float32:
                projection.__class__ = Widened


class _PlainMlp(nn.Module):  # type: ignore[misc]  # mlx's classes are untyped
    """GPT-NeoX's MLP of any width and nonlinearity, with the parameter names of mlx-lm's."""

    def __init__(self, d_model: int, width: int, activation: str) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(d_model, width)
        self.dense_4h_to_h = nn.Linear(width, d_model)
        self._activation = ACTIVATIONS[activation]

    def __call__(self, x: mx.array) -> mx.array:
        return self.dense_4h_to_h(self._activation(self.dense_h_to_4h(x)))


def _quantise(model: nn.Module, config: _Config, weights: _Weights, folder: Path) -> None:
    """Replace modules whose weights are packed by quantised ones: mlx-lm's packing, and gpt-oss's MXFP4."""
    given = config.get("quantization")
    foreign = config.get("quantization_config")
    if given is None and foreign and "quant_method" in foreign:
        if foreign["quant_method"] != "mxfp4":
            raise UnsupportedArchitectureError(
                f"{folder.name} is quantised by {foreign['quant_method']!r}, which the engine mlx does not read.",
                remedy="It reads models quantised by mlx-lm, and MXFP4. Convert it with mlx_lm.convert.",
            )
        given = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    if given is None:
        return

    def packed(path: str, module: nn.Module) -> Any:
        if f"{path}.scales" not in weights or not hasattr(module, "to_quantized"):
            return False
        return given.get(path, True)

    mode = given.get("mode", "affine")
    nn.quantize(model, given["group_size"], given["bits"], mode=mode, class_predicate=packed)
