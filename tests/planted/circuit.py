"""A planted circuit: a model, examples, and the edges that the answer travels along."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from neuroscope.circuits.graph import Graph
from neuroscope.engines.protocol import BoolArray
from neuroscope.engines.sites import Site
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.pairs import PairBatch, make_pairs


@dataclass(frozen=True)
class Planted:
    """edges: (source, receiver), as sites. blind: the scoring methods that cannot find it, for the reason that its module tells.

    redundant: a part of the edges does the whole task, because other edges stand in for the rest.
    """

    name: str
    model: TransformerModel
    examples: list[Example]
    edges: frozenset[tuple[str, str]]
    blind: frozenset[str] = frozenset()
    redundant: bool = False

    @cached_property
    def graph(self) -> Graph:
        return Graph.of(self.model.engine.anatomy)

    @cached_property
    def truth(self) -> BoolArray:
        """(receivers, sources)"""
        mask = np.zeros_like(self.graph.valid)
        for source, receiver in self.edges:
            mask[self.graph.receiver_of(Site.parse(receiver)), self.graph.source_of(Site.parse(source))] = True
        assert (self.graph.pruned(mask) == mask).all(), "an edge lies on no path"
        return mask

    @cached_property
    def pairs(self) -> PairBatch:
        return make_pairs(self.model, self.examples)


def words(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of words apart by spaces; the first word pads."""
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokens = Tokenizer(models.WordLevel(numbers, unk_token=vocabulary[0]))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token=vocabulary[0])
