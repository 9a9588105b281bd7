"""`Tuner` on MLX.

MLX differentiates functions of arrays, so within a step the tuned weights are arguments: `Engine.differentiable` puts the traced
arrays into the model, and where it is off the plain ones, which are constants. mlx's AdamW then steps whole arrays; as on torch
their gradients are masked, and every number outside the mask keeps its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx.optimizers import AdamW
from numpy.typing import NDArray

from neuroscope.engines.mlx.ops import wide
from neuroscope.engines.tuning import StepSettings, not_finite, untunable
from neuroscope.engines.weights import WeightSite

if TYPE_CHECKING:
    from neuroscope.engines.mlx.engine import MlxEngine

_VALUE, _STATE, _STEP = "value/", "state/", "step"
Arrays = dict[str, mx.array]


class MlxTuner:
    """See `Tuner`. sites: the weights to tune; None: every array of the model."""

    def __init__(self, engine: MlxEngine, sites: Sequence[WeightSite] | None, settings: StepSettings) -> None:
        self._engine = engine
        arrays = engine.parameters.arrays()
        #: By name: where an array is tuned; None: everywhere.
        self._masks: dict[str, mx.array | None] = dict.fromkeys(arrays) if sites is None else self._masked(arrays, sites)
        for name in self._masks:
            _check(name, arrays[name])
        self._optimiser = AdamW(
            settings.learning_rate, list(settings.betas), weight_decay=settings.weight_decay, bias_correction=True
        )
        with engine.exclusive():
            self._optimiser.init(self._arrays())
            self._settled()

    def _masked(self, arrays: Arrays, sites: Sequence[WeightSite]) -> dict[str, mx.array | None]:
        parameters, masks = self._engine.parameters, dict[str, NDArray[np.bool_]]()
        for site in sites:
            checked = self._engine.weights(site).checked_site
            name = parameters.name(checked)
            _check(name, arrays[name])
            mask = masks.setdefault(name, np.zeros(arrays[name].shape, dtype=np.bool_))
            parameters.stored(checked).view(mask, np.transpose)[checked.index(self._engine.anatomy)] = True
        return {name: None if mask.all() else mx.array(mask) for name, mask in masks.items()}

    def _arrays(self) -> Arrays:
        arrays = self._engine.parameters.arrays()
        return {name: arrays[name] for name in self._masks}

    @property
    def numbers(self) -> int:
        """See `Tuner.numbers`."""
        arrays = self._arrays()
        return sum(arrays[name].size if mask is None else int(np.array(mask).sum()) for name, mask in self._masks.items())

    def step(self, losses: Callable[[], Sequence[mx.array]], weights: Sequence[float]) -> list[float]:
        """See `Tuner.step`."""
        with self._engine.exclusive():
            found, gradients = self._backward(losses, weights)
            before = self._arrays()
            after: Arrays = self._optimiser.apply_gradients(gradients, before)
            for name, mask in self._masks.items():
                if mask is not None:
                    after[name] = mx.where(mask, after[name], before[name])
            self._engine.parameters.replace(after)
            self._settled()
        return found

    def gradients(self, losses: Callable[[], Sequence[mx.array]], weights: Sequence[float]) -> dict[str, NDArray[Any]]:
        """See `Tuner.gradients`."""
        with self._engine.exclusive():
            return {name: np.array(wide(array)) for name, array in self._backward(losses, weights)[1].items()}

    def values(self) -> dict[str, NDArray[Any]]:
        """See `Tuner.values`."""
        return {f"{_VALUE}{name}": np.array(wide(array)) for name, array in self._arrays().items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """See `Tuner.state`."""
        found = self.values()
        for name in self._masks:
            for key, array in self._optimiser.state[name].items():
                found[f"{_STATE}{name}/{key}"] = np.array(wide(array))
        return {**found, f"{_STATE}{_STEP}": np.array(self._optimiser.state[_STEP])}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """See `Tuner.restore`."""
        with self._engine.exclusive():
            held = self._arrays()
            self._engine.parameters.replace({n: mx.array(arrays[f"{_VALUE}{n}"]).astype(a.dtype) for n, a in held.items()})
            if f"{_STATE}{_STEP}" in arrays:
                for name, array in held.items():
                    mine = self._optimiser.state[name]
                    mine.update({key: mx.array(arrays[f"{_STATE}{name}/{key}"]).astype(array.dtype) for key in mine})
                self._optimiser.state[_STEP] = mx.array(arrays[f"{_STATE}{_STEP}"])
            self._settled()

    def _settled(self) -> None:
        """Compute what is pending: another thread could not."""
        mx.eval(self._arrays(), self._optimiser.state)

    def _backward(self, losses: Callable[[], Sequence[mx.array]], weights: Sequence[float]) -> tuple[list[float], Arrays]:
        engine, plain = self._engine, self._arrays()

        def total(traced: Arrays) -> tuple[mx.array, list[mx.array]]:
            engine.place = lambda on: engine.parameters.replace(traced if on else plain)
            try:
                with engine.differentiable():
                    parts = [wide(part) for part in losses()]
            finally:
                engine.place = lambda _: None
            return sum((weight * part for part, weight in zip(parts, weights, strict=True)), mx.array(0.0)), parts

        (sum_, parts), gradients = mx.value_and_grad(total)(dict(plain))  # it fills the dictionary it gets with traced arrays
        gradients = {
            name: gradient if self._masks[name] is None else gradient * self._masks[name]
            for name, gradient in gradients.items()
        }
        mx.eval(sum_, parts, gradients)
        if not all(bool(mx.isfinite(array).all()) for array in (sum_, *gradients.values())):
            raise not_finite()
        return [float(np.array(part)) for part in parts], gradients


def _check(name: str, array: mx.array) -> None:
    if not mx.issubdtype(array.dtype, mx.floating):
        raise untunable(name)
