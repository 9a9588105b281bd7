"""Optimiser steps on chosen weights of an engine's model."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import ArgumentError, MissingExtraError, NeuroScopeError, NonFiniteActivationError, WeightError

Array = Any


@dataclass(frozen=True)
class StepSettings:
    """Settings of AdamW (Loshchilov & Hutter 2019)."""

    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < float("inf"):
            raise ArgumentError(
                f"The learning rate must be above 0, not {self.learning_rate!r}.", remedy="0.0003 is a usual one."
            )
        if not 0 <= self.weight_decay < 1:
            raise ArgumentError(
                f"Weight decay must be between 0 and 1, not {self.weight_decay!r}.", remedy="0.01 is a usual one."
            )


class Tuner(Protocol):
    """Steps of AdamW on some weights. Every other number of the model keeps its bits, whatever decay and momentum would do."""

    @property
    def numbers(self) -> int:
        """How many numbers are tuned."""
        ...

    def step(self, losses: Callable[[], Sequence[Array]], weights: Sequence[float]) -> list[float]:
        """One step down the weighted sum of losses (each one number). Answers them as they were before it.

        Raises `NonFiniteActivationError`, and changes nothing, for a loss or a gradient that is NaN or infinite.
        """
        ...

    def gradients(self, losses: Callable[[], Sequence[Array]], weights: Sequence[float]) -> Mapping[str, NDArray[Any]]:
        """The gradient of the weighted sum by stored array, zero outside the tuned weights. Changes nothing."""
        ...

    def values(self) -> dict[str, NDArray[Any]]:
        """The stored arrays that hold tuned weights, copied."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """`values` with all that the optimiser remembers: enough to go on with the same bits."""
        ...

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over what `values` or `state` gave."""
        ...


def untunable(name: str) -> WeightError:
    """The error for an array whose numbers share scales."""
    return WeightError(f"{name} is quantised and cannot be trained.", remedy="Load a checkpoint that is not quantised.")


def not_finite() -> NonFiniteActivationError:
    """The error for a step that has no direction."""
    return NonFiniteActivationError(
        "A loss or its gradient is NaN or infinite.", remedy="Lower the learning rate, or train the model in float32."
    )


def no_adapters(engine: str) -> NeuroScopeError | None:
    """Why an engine cannot train low-rank adapters here, or None."""
    if engine != "torch":
        return ArgumentError("LoRA is trained by peft, on torch.", remedy="Load the model with engine: 'torch'.")
    if importlib.util.find_spec("peft") is None:
        return MissingExtraError("LoRA needs peft.", remedy="pip install 'neuroscope-interp[lora]'")
    return None
