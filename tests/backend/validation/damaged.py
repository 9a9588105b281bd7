"""The bundled model, whole, and with noise in one weight, as much as costs a task a known share of its items."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from neuroscope.models.model import TransformerModel
from neuroscope.tasks import registry
from neuroscope.tasks.evaluate import answered

TASK = "indirect_object_identification"
_WEIGHT = "8.attn.W_O"


def loaded() -> TransformerModel:
    """A model of its own, whose weights no other one shares."""
    return TransformerModel.from_hugging_face("bundled:gpt2-medium")


def accuracy(model: TransformerModel, n: int = 400, seed: int = 1000) -> float:
    """The share of right answers on items that no test uses."""
    task = registry.get(TASK)
    return float(np.mean([one.right for one in answered(model, list(task.dataset(n, seed=seed)), task)]))


@contextmanager
def damaged(model: TransformerModel, least: float = 0.2, most: float = 0.3) -> Iterator[float]:
    """The model with noise in one weight that costs the task between `least` and `most` of its items; answers what it costs."""
    weight = model.weights(_WEIGHT)
    whole, kept = weight.snapshot(), weight.read()
    noise = np.random.default_rng(0).normal(0, kept.std(), kept.shape)
    before, low, high = accuracy(model), 0.0, 16.0
    try:
        for _ in range(16):
            scale = (low + high) / 2
            weight.write(kept + scale * noise)
            lost = before - accuracy(model)
            if least <= lost <= most:
                break
            low, high = (scale, high) if lost < least else (low, scale)
        else:
            raise AssertionError(f"no noise in {_WEIGHT} costs {TASK} between {least} and {most} of its items")
        yield lost
    finally:
        weight.restore(whole)
