"""GPT-2 with weights set by hand.

The stream is a set of named parts. Two more dimensions hold ±`CONSTANT` everywhere, so large that the norm's scale hardly
depends on anything else, and the norm's weight undoes that scale; a last one, `balance`, takes minus the sum of
every write, so that there is no mean to subtract. Every component therefore reads the stream itself, but for some millionths.

MLPs use ReLU: a gate that is saturated is flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GPT2Config, GPT2LMHeadModel

from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.models.model import TransformerModel
from tests.planted.circuit import words

Matrix = NDArray[np.float64]
CONSTANT = 600.0
#: How many dimensions the distractors write to, and neurons of a layer's MLP.
NOISE, NEURONS = 8, 48


class HandSet:
    """A GPT-2 in the making. Whatever is not set by hand becomes a distractor when it is finished."""

    def __init__(
        self,
        vocabulary: list[str],
        *,
        positions: int,
        parts: Mapping[str, int],
        layers: int = 3,
        heads: int = 4,
        d_head: int = 1,
    ) -> None:
        self.vocabulary, self.layers, self.heads = vocabulary, layers, heads
        self.places: dict[str, slice] = {}
        used = 0
        for name, size in {**parts, "noise": NOISE}.items():
            self.places[name] = slice(used, used + size)
            used += size
        self.d_head = max(d_head, -(-(used + 3) // heads))
        self.width = self.d_head * heads
        self.balance, self.constants = self.width - 3, slice(self.width - 2, self.width)
        config = GPT2Config(
            vocab_size=len(vocabulary), n_positions=positions, n_embd=self.width, n_layer=layers, n_head=heads,
            n_inner=NEURONS, tie_word_embeddings=False, activation_function="relu", bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        self.model: Any = GPT2LMHeadModel(config).double()
        self._set: set[tuple[int, int | None]] = set()
        scale = CONSTANT * np.sqrt(2 / self.width)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.zero_()
            for norm in [one for block in self.model.transformer.h for one in (block.ln_1, block.ln_2)]:
                norm.weight.fill_(scale)
            self.model.transformer.ln_f.weight.fill_(scale)
            self.model.transformer.wpe.weight[:, self.constants] = torch.tensor([CONSTANT, -CONSTANT]).double()

    def write(self, part: str, matrix: Matrix) -> Matrix:
        """(n, size of the part) as (n, d_model), balanced."""
        found = np.zeros((len(matrix), self.width))
        found[:, self.places[part]] = matrix
        found[:, self.balance] = -matrix.sum(1)
        return found

    def read(self, parts: Mapping[str, Matrix]) -> Matrix:
        """For each part (size of the part, n), all added up as (d_model, n)."""
        found = np.zeros((self.width, next(iter(parts.values())).shape[1]))
        for part, matrix in parts.items():
            found[self.places[part]] += matrix
        return found

    def embed(self, part: str, tokens: Matrix) -> None:
        """What each token (vocabulary, size of the part) puts into a part."""
        self._add(self.model.transformer.wte.weight, slice(None), slice(None), self.write(part, tokens))

    def embed_positions(self, part: str, positions: Matrix) -> None:
        """What each position (positions, size of the part) puts into a part."""
        self._add(self.model.transformer.wpe.weight, slice(None), slice(None), self.write(part, positions))

    def head(
        self,
        layer: int,
        head: int,
        *,
        query: Mapping[str, Matrix],
        key: Mapping[str, Matrix],
        value: Mapping[str, Matrix],
        writes: str,
        query_bias: Matrix | None = None,
        gain: float = 1.0,
    ) -> None:
        """Attention scores are (query · read + bias) · (key · read) as they stand; the values go to the part `writes`."""
        attention, first = self.model.transformer.h[layer].attn, head * self.d_head
        for index, parts in enumerate((query, key, value)):
            matrix = self.read(parts) * (np.sqrt(self.d_head) if index == 0 else 1)
            assert matrix.shape[1] <= self.d_head, "the head is too narrow"
            columns = slice(index * self.width + first, index * self.width + first + matrix.shape[1])
            self._add(attention.c_attn.weight, slice(None), columns, matrix)
        if query_bias is not None:
            with torch.no_grad():
                attention.c_attn.bias[first : first + len(query_bias)] = torch.tensor(query_bias * np.sqrt(self.d_head))
        size = self.places[writes].stop - self.places[writes].start
        self._add(attention.c_proj.weight, slice(first, first + size), slice(None), self.write(writes, gain * np.eye(size)))
        self._set.add((layer, head))

    def neurons(self, layer: int, *, read: Mapping[str, Matrix], bias: Matrix, writes: str, out: Matrix) -> None:
        """ReLU(read · stream + bias) times `out` (neurons, size of the part)."""
        mlp, matrix = self.model.transformer.h[layer].mlp, self.read(read)
        count = matrix.shape[1]
        self._add(mlp.c_fc.weight, slice(None), slice(0, count), matrix)
        with torch.no_grad():
            mlp.c_fc.bias[:count] = torch.tensor(bias)
        self._add(mlp.c_proj.weight, slice(0, count), slice(None), self.write(writes, out))
        self._set.add((layer, None))

    def answers(self, part: str, matrix: Matrix) -> None:
        """The logits (vocabulary) that a part (size of the part, vocabulary) stands for."""
        self._add(self.model.lm_head.weight, slice(None), slice(None), self.read({part: matrix}).T)

    def finished(self, name: str, *, seed: int = 0) -> TransformerModel:
        """Distractors in every place that is left, then the model with its tokenizer."""
        random = np.random.default_rng(seed)
        dims = np.r_[0 : self.balance]
        for layer in range(self.layers):
            for head in range(self.heads):
                if (layer, head) not in self._set:
                    self._distract(random, layer, head, dims)
            if (layer, None) not in self._set:
                mlp = self.model.transformer.h[layer].mlp
                self._add(mlp.c_fc.weight, dims, slice(None), random.normal(0, 0.4, (len(dims), NEURONS)))
                out = self.write("noise", random.normal(0, 1 / np.sqrt(NEURONS), (NEURONS, NOISE)))
                self._add(mlp.c_proj.weight, slice(None), slice(None), out)
        return TransformerModel(TorchEngine(self.model.eval()), words(self.vocabulary), name, f"planted {name}")

    def _distract(self, random: np.random.Generator, layer: int, head: int, dims: NDArray[np.int64]) -> None:
        attention, first = self.model.transformer.h[layer].attn, head * self.d_head
        for index in range(3):
            columns = slice(index * self.width + first, index * self.width + first + self.d_head)
            matrix = random.normal(0, 0.5, (len(dims), self.d_head))
            self._add(attention.c_attn.weight, dims, columns, matrix)
        out = self.write("noise", random.normal(0, 1 / np.sqrt(self.d_head), (self.d_head, NOISE)))
        self._add(attention.c_proj.weight, slice(first, first + self.d_head), slice(None), out)

    @staticmethod
    def _add(weight: Any, rows: Any, columns: Any, matrix: Matrix) -> None:
        with torch.no_grad():
            weight[rows, columns] += torch.tensor(matrix)


def draw(random: np.random.Generator, from_: list[str], count: int) -> list[str]:
    """Different words."""
    return [from_[index] for index in random.permutation(len(from_))[:count]]
