"""How well a model foretells texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuroscope.errors import DatasetError

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel


def text_losses(model: TransformerModel, texts: Sequence[str]) -> tuple[list[float], list[int]]:
    """The loss of each text in nats, summed over its tokens but the first, and over how many.

    Raises `DatasetError` for a text of one token, and for one that is longer than the model's context.
    """
    batch = model.encode(list(texts))
    context = model.architecture.context
    for text, length in zip(texts, batch.lengths, strict=True):
        if length < 2 or (context and length > context):
            wrong = "one token" if length < 2 else f"{length} tokens, and its context holds {context}"
            raise DatasetError(f"The text {text[:60]!r} has {wrong} for {model.title}.", remedy="Give texts that fit.")
    ops = model.engine.ops
    logs = ops.to_numpy(ops.log_softmax(model.run(batch).logits)).astype(np.float64)
    picked = -np.take_along_axis(logs[:, :-1], batch.ids[:, 1:, None], 2)[..., 0]
    counted = batch.real[:, 1:]
    return (picked * counted).sum(1).tolist(), [int(count) for count in counted.sum(1)]
