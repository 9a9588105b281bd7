"""The lenses as analyses, with a default text or prompt."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroscope.analyses.inputs import divided_pairs, text_of
from neuroscope.engines.protocol import LogitRequest
from neuroscope.lenses.attention import MOST_TOKENS, AttentionPatterns, attention_patterns
from neuroscope.lenses.attribution import LogitAttribution, attribute_logits
from neuroscope.lenses.logit_lens import LogitLens, logit_lens
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.pairs import make_pairs

#: A text with repeated names, for duplicate-token, induction and name-mover heads.
STORY = "When Mary and John went to the store, John gave a drink to Mary. Then John went to the park."
PROMPT = "When Mary and John went to the store, John gave a drink to"
_PAIRS = 24


def attention(model: TransformerModel, on: Any, seed: int) -> AttentionPatterns:
    """Attention patterns on a text, and the kind of each head."""
    return attention_patterns(model, text_of(model, on, STORY, most=MOST_TOKENS), seed=seed)


def lens(model: TransformerModel, on: Any, seed: int) -> LogitLens:
    """The logit lens on a text."""
    return logit_lens(model, text_of(model, on, PROMPT, most=4 * MOST_TOKENS))


def attribution(model: TransformerModel, on: Any, seed: int) -> LogitAttribution:
    """For a text, the most likely next token against the second; for pairs, the answer against the wrong one.

    For pairs, separate ones first test whether the answer's lead is larger on clean prompts than on corrupt ones.
    """
    if isinstance(on, str) and " " in on.strip():
        text = text_of(model, on, PROMPT)
        batch = model.encode(text)
        logits = model.engine.forward(batch, logits=LogitRequest.last(batch)).logits
        best = np.argsort(-model.engine.ops.to_numpy(logits), axis=-1)[:, :2].astype(np.int64)
        return attribute_logits(model, [text], best[:, 0], best[:, 1], seed=seed)
    given = divided_pairs(model, on, "indirect_object_identification", _PAIRS, seed)
    effect = given.effect(model)
    pairs = make_pairs(model, given.looked_at.examples)
    prompts = [example.clean for example in given.looked_at]
    return attribute_logits(
        model,
        prompts,
        pairs.metric.answers,
        pairs.metric.wrongs,
        batch=pairs.clean,
        task=given.looked_at.task,
        units=pairs.units or None,
        reason=None if effect is None else effect.reason,
        seed=seed,
    )
