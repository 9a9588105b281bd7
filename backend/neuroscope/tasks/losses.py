"""How well a model foretells texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuroscope.engines.protocol import TokenBatch
from neuroscope.errors import DatasetError

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

#: Tokens of a pass, whose logits are over the whole vocabulary.
_TOKENS = 512


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
    ops, losses = model.engine.ops, np.zeros(batch.rows)
    order = np.argsort(batch.lengths, kind="stable")
    at = 0
    while at < len(order):  # texts of about one length together: the logits of padding are the most that there is to compute
        width = int(batch.lengths[order[at]])
        some = order[at : at + max(1, _TOKENS // width)]
        part = batch.take(some)
        width = int(part.lengths.max())
        part = TokenBatch(part.ids[:, :width], part.real[:, :width])
        logs = ops.to_numpy(ops.log_softmax(model.run(part).logits))
        picked = -np.take_along_axis(logs[:, :-1], part.ids[:, 1:, None], 2)[..., 0].astype(np.float64)
        losses[some] = (picked * part.real[:, 1:]).sum(1)
        at += len(some)
    return losses.tolist(), [int(length) - 1 for length in batch.lengths]
