"""Low-rank adapters (LoRA; Hu et al. 2022) by peft, on the matrices of a model's layers.

peft's layers add to what a matrix gives. Circuits read the matrices themselves (`Engine.project`, `Engine.head_writes`), so here an
adapted layer's `weight` is the matrix with the adapter in it.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuroscope.engines.torch.tuning import TorchTuner
from neuroscope.engines.tuning import StepSettings, no_adapters
from neuroscope.errors import WeightError

if TYPE_CHECKING:
    from neuroscope.engines.torch.engine import TorchEngine

_ADAPTER = "default"


def adapters(engine: TorchEngine, numbers: int, settings: StepSettings, seed: int) -> TorchTuner:
    """See `Engine.adapters`."""
    missing = no_adapters(engine.name)
    if missing is not None:
        raise missing
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import Linear
    from transformers.pytorch_utils import Conv1D

    class Adapted(Linear):  # type: ignore[misc]
        """A layer of peft whose matrix has the adapter in it."""

        @property
        def weight(self) -> Tensor:
            found: Tensor = self.base_layer.weight + self.get_delta_weight(_ADAPTER)
            return found

    inside = {id(module) for layer in engine.layers for module in layer.modules()}
    there = {n: m for n, m in engine.model.named_modules() if id(m) in inside and isinstance(m, (nn.Linear, Conv1D))}
    if not there:
        raise WeightError("The model's layers have no plain matrices for LoRA.")
    ends = sum(sum(module.weight.shape) for module in there.values())
    rank = max(1, round(numbers / ends))
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(there), fan_in_fan_out=_stored_in_by_out(there))
    config._register_custom_module({nn.Linear: Adapted, Conv1D: Adapted})
    devices = sorted({parameter.device.index for parameter in engine.model.parameters() if parameter.is_cuda})
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        inject_adapter_in_model(config, engine.model, adapter_name=_ADAPTER)
    trained: dict[str, Any] = {name: value for name, value in engine.model.named_parameters() if ".lora_" in name}
    return TorchTuner(engine, trained, settings)


def _stored_in_by_out(modules: dict[str, nn.Module]) -> bool:
    return not any(isinstance(module, nn.Linear) for module in modules.values())
