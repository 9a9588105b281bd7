"""Metrics: one number per prompt, from the logits at its last token.

`logit_difference`  logit(answer) − logit(wrong)          Wang et al. 2022 (IOI)
`probability`       P(answer)
`kl`                −KL(clean ‖ run) over the vocabulary: 0 if the run predicts the same as the clean run

Higher is better for all three, so faithfulness has the same meaning for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neuroscope.engines.protocol import Array, Engine, IntArray, LogitRequest, TokenBatch
from neuroscope.errors import ArgumentError
from neuroscope.names import only

METRICS = ("logit_difference", "probability", "kl")


@dataclass(frozen=True)
class PromptMetric:
    """A metric for a batch of prompts.

    answers, wrongs: token ids (rows,). reference: log-probabilities of the clean run (rows, vocabulary), for `kl`.
    """

    name: str
    answers: IntArray
    wrongs: IntArray
    reference: Array | None = None

    def request(self, batch: TokenBatch) -> LogitRequest:
        """The logits that this metric needs."""
        if self.name == "logit_difference":
            return LogitRequest.last(batch, np.stack([self.answers, self.wrongs], axis=1))
        return LogitRequest.last(batch)

    def compute(self, engine: Engine) -> Callable[[Array], Array]:
        """A differentiable function from the requested logits to one number per row (rows,)."""
        ops = engine.ops
        if self.name == "logit_difference":
            return lambda logits: ops.wide(logits[:, 0]) - ops.wide(logits[:, 1])
        if self.name == "probability":
            picked = ops.one_hot(self.answers, engine.anatomy.vocabulary)
            return lambda logits: ops.exp((ops.log_softmax(logits) * picked).sum(-1))
        reference = self.reference
        if reference is None:
            raise ArgumentError("The metric kl needs the clean run's log-probabilities.")
        return lambda logits: (ops.exp(reference) * (ops.log_softmax(logits) - reference)).sum(-1)

    def take(self, rows: IntArray | slice) -> PromptMetric:
        reference = None if self.reference is None else self.reference[rows]
        return PromptMetric(self.name, self.answers[rows], self.wrongs[rows], reference)

    def repeat(self, times: int, engine: Engine) -> PromptMetric:
        """All rows repeated `times` times: a, b, a, b …"""
        reference = None if self.reference is None else engine.ops.repeat(self.reference, times)
        return PromptMetric(self.name, np.tile(self.answers, times), np.tile(self.wrongs, times), reference)


def checked_metric(name: str) -> str:
    """The metric's name. Raises `ArgumentError` with the nearest names."""
    return only("metric", METRICS, listing="Metrics")[name]
