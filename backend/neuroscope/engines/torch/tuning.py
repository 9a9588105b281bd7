"""`Tuner` on torch.

torch's AdamW runs on the whole arrays that hold tuned weights. Masking their gradients is not enough: decay moves every number, and
momentum goes on moving those that once had a gradient. So the gradients are masked, which keeps the optimiser's state zero outside
the mask, and after each step every number outside gets its old bits back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroscope.engines.layout import find_module
from neuroscope.engines.tuning import StepSettings, not_finite, untunable
from neuroscope.engines.weights import WeightSite
from neuroscope.errors import WeightError

if TYPE_CHECKING:
    from neuroscope.engines.torch.engine import TorchEngine

_VALUE, _STATE = "value/", "state/"


class TorchTuner:
    """See `Tuner`. sites: the weights to tune, or parameters by name; None: every parameter of the model."""

    def __init__(
        self, engine: TorchEngine, sites: Sequence[WeightSite] | Mapping[str, Tensor] | None, settings: StepSettings
    ) -> None:
        self._engine = engine
        #: By name: a stored array, and where it is tuned; None: everywhere.
        self._tuned: dict[str, tuple[Tensor, Tensor | None]] = {}
        if sites is None:
            sites = dict(engine.model.named_parameters())
        if isinstance(sites, Mapping):
            self._tuned = {name: (parameter, None) for name, parameter in sites.items()}
        else:
            self._mask(sites)
        for name, (parameter, _) in self._tuned.items():
            if not parameter.is_floating_point() or parameter.element_size() == 1:
                raise untunable(name)
            parameter.requires_grad_(True)
        self._optimiser = torch.optim.AdamW(
            [parameter for parameter, _ in self._tuned.values()],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=settings.betas,
        )

    def _mask(self, sites: Sequence[WeightSite]) -> None:
        engine, names = self._engine, {id(parameter): name for name, parameter in self._engine.model.named_parameters()}
        masks: dict[str, Tensor] = {}
        for site in sites:
            checked = engine.weights(site).checked_site
            stored = engine.parameters.stored(checked)
            parameter = find_module(engine.model if checked.layer is None else engine.layers[checked.layer], stored.path)
            if id(parameter) not in names:
                raise WeightError(f"{checked} is not a parameter and cannot be trained.", site=checked)
            name = names[id(parameter)]
            mask = masks.setdefault(name, torch.zeros(parameter.shape, dtype=torch.bool, device=parameter.device))
            stored.view(mask, torch.permute)[checked.index(engine.anatomy)] = True
            self._tuned[name] = parameter, mask
        self._tuned = {
            name: (held, None if mask is None or bool(mask.all()) else mask) for name, (held, mask) in self._tuned.items()
        }

    @property
    def numbers(self) -> int:
        """See `Tuner.numbers`."""
        return sum(held.numel() if mask is None else int(mask.sum()) for held, mask in self._tuned.values())

    def step(self, losses: Callable[[], Sequence[Tensor]], weights: Sequence[float]) -> list[float]:
        """See `Tuner.step`."""
        found = self._backward(losses, weights)
        before = {name: held.detach().clone() for name, (held, mask) in self._tuned.items() if mask is not None}
        self._optimiser.step()
        with torch.no_grad():
            for name, (held, mask) in self._tuned.items():
                if mask is not None:
                    held.copy_(torch.where(mask, held, before[name]))
        return found

    def gradients(self, losses: Callable[[], Sequence[Tensor]], weights: Sequence[float]) -> dict[str, NDArray[Any]]:
        """See `Tuner.gradients`."""
        self._backward(losses, weights)
        return {name: _numpy(held.grad) for name, (held, _) in self._tuned.items() if held.grad is not None}

    def values(self) -> dict[str, NDArray[Any]]:
        """See `Tuner.values`."""
        return {f"{_VALUE}{name}": _numpy(held) for name, (held, _) in self._tuned.items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """See `Tuner.state`."""
        found = self.values()
        for name, (held, _) in self._tuned.items():
            for key, value in self._optimiser.state[held].items():
                found[f"{_STATE}{name}/{key}"] = _numpy(torch.as_tensor(value))
        return found

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """See `Tuner.restore`."""
        with torch.no_grad():
            for name, (held, _) in self._tuned.items():
                held.copy_(_tensor(arrays[f"{_VALUE}{name}"], held))
                mine = {key.rpartition("/")[2]: arrays[key] for key in arrays if key.rpartition("/")[0] == f"{_STATE}{name}"}
                if mine:
                    state = self._optimiser.state[held]
                    state.update({key: torch.tensor(v.item()) if v.ndim == 0 else _tensor(v, held) for key, v in mine.items()})

    def _backward(self, losses: Callable[[], Sequence[Tensor]], weights: Sequence[float]) -> list[float]:
        for held, _ in self._tuned.values():
            held.grad = None
        with self._engine.exclusive(), self._engine.differentiable(), torch.enable_grad():
            parts = losses()
            total = torch.stack([weight * part for part, weight in zip(parts, weights, strict=True)]).sum()
            total.backward()
        finite = bool(torch.isfinite(total))
        for held, mask in self._tuned.values():
            if held.grad is None:
                held.grad = torch.zeros_like(held)
            if mask is not None:
                held.grad.mul_(mask)
            finite &= bool(torch.isfinite(held.grad).all())  # weights may lie on several devices
        if not finite:
            raise not_finite()
        return [float(part.detach()) for part in parts]


def _numpy(tensor: Tensor) -> NDArray[Any]:
    """A copy of the same bits; bfloat16 as float32, which holds it exactly."""
    kept = tensor.detach().cpu()
    return (kept.float() if kept.dtype is torch.bfloat16 else kept).numpy().copy()


def _tensor(array: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device, like.dtype)
