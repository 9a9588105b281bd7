"""The experts of gpt-oss with their matrices in MXFP4, as they are stored, and how transformers reads them so."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from neuroscope.engines.torch.packed import GROUP, PackedMatrix, times

#: Our name, to transformers, of the method that leaves MXFP4 as it is stored.
METHOD = "neuroscope_mxfp4"
_MATRICES = ("gate_up_proj", "down_proj")


class PackedExperts(nn.Module):
    """`GptOssExperts` whose matrices are packed; `gate_up_proj` and `down_proj` are `PackedMatrix`es until they are unpacked for good."""

    def __init__(self, experts: GptOssExperts) -> None:
        super().__init__()
        self.num_experts, self.alpha, self.limit = experts.num_experts, experts.alpha, experts.limit
        for name in _MATRICES:
            count, inside, out = getattr(experts, name).shape
            shape = (count, out, inside // GROUP)
            for part, size in (("blocks", (*shape, GROUP // 2)), ("scales", shape)):
                empty = torch.empty(size, dtype=torch.uint8, device=experts.down_proj.device)
                self.register_parameter(f"{name}_{part}", nn.Parameter(empty, requires_grad=False))
            self.register_parameter(f"{name}_bias", getattr(experts, f"{name}_bias"))

    def __getattr__(self, name: str) -> Any:
        if name in _MATRICES and f"{name}_blocks" in self._parameters:
            return PackedMatrix(getattr(self, f"{name}_blocks"), getattr(self, f"{name}_scales"))
        return super().__getattr__(name)

    def unpack(self, name: str, dtype: torch.dtype) -> None:
        """Replace a packed matrix by its numbers."""
        whole = getattr(self, name).unpacked(dtype)
        for part in ("blocks", "scales"):
            delattr(self, f"{name}_{part}")
        self.register_parameter(name, nn.Parameter(whole, requires_grad=False))

    def _apply_gate(self, gate_up: Tensor) -> Tensor:
        return GptOssExperts._apply_gate(self, gate_up)

    def forward(self, x: Tensor, router_indices: Tensor, routing_weights: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for expert in range(self.num_experts):
            token, k = (router_indices == expert).nonzero(as_tuple=True)
            if not len(token):
                continue
            inner = self._apply_gate(times(x[token], self.gate_up_proj, expert) + self.gate_up_proj_bias[expert])
            written = times(inner, self.down_proj, expert) + self.down_proj_bias[expert]
            out = out.index_add(0, token, (written * routing_weights[token, k, None]).to(x.dtype))
        return out


@register_quantization_config(METHOD)
class _Config(QuantizationConfigMixin):  # type: ignore[misc]
    def __init__(self, **_: Any) -> None:
        self.quant_method = METHOD


@register_quantizer(METHOD)
class _Quantizer(HfQuantizer):  # type: ignore[misc]
    """Lets transformers read the checkpoint's own arrays into `PackedExperts`."""

    requires_calibration = False

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        for path, module in list(model.named_modules()):
            if isinstance(module, GptOssExperts):
                model.set_submodule(path, PackedExperts(module))

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


def kept(config: Any) -> Any:
    """A configuration of MXFP4 by which the weights stay as they are stored."""
    found = copy.deepcopy(config)
    found.quantization_config = {"quant_method": METHOD}
    return found


def settled(model: Any, config: Any) -> None:
    """Give a model that was loaded by `kept` its own configuration back, with which it is saved."""
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.quantization_config = config.quantization_config
