"""Keys and values of an MLP: its output matrix as a linear memory (Geva et al. 2021), and the moments of its keys on text.

A token's key is what the layer's output matrix multiplies: the neurons behind the nonlinearity, in a mixture of experts those of each
routed expert times the expert's weight. With it the MLP writes key @ W_out (+ biases), whatever the architecture, so that an edit of
W_out adds key @ Δ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroscope import events, places
from neuroscope.engines.protocol import GenerationSettings, Run, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, EditError
from neuroscope.models.cache import cache_folder
from neuroscope.models.model import TransformerModel
from neuroscope.models.text import prompt_ids
from neuroscope.sealed import SealedFiles

Numbers = NDArray[np.float64]

_FILES = SealedFiles("moments", ".moments", "1", EditError)
#: The text on which moments are taken when none is given: what the model writes by itself.
_TEXTS, _TOKENS, _ROWS = 256, 64, 32


@dataclass(frozen=True)
class Memory:
    """The output matrix of a layer's MLP, or of some of its experts, as one matrix (keys, d_model).

    experts: which, in a mixture; empty for a dense layer.
    """

    layer: int
    width: int
    experts: tuple[int, ...] = ()

    @property
    def sites(self) -> tuple[Site, ...]:
        """What a run captures so that `keys` can be read from it."""
        neurons = Site(self.layer, Component.MLP)
        return (neurons, Site(self.layer, Component.ROUTER)) if self.experts else (neurons,)

    @property
    def names(self) -> list[str]:
        """The weights that it is made of."""
        if not self.experts:
            return [f"{self.layer}.mlp.W_out"]
        return [f"{self.layer}.mlp.experts[{expert}].W_out" for expert in self.experts]

    def keys(self, model: TransformerModel, run: Run) -> Numbers:
        """(rows, positions, keys) of a run that captured `sites`."""
        to_numpy = model.engine.ops.to_numpy
        neurons = to_numpy(run[self.sites[0]]).astype(np.float64)
        if not self.experts:
            return neurons
        routed = to_numpy(run[self.sites[1]]).astype(np.float64)
        of_expert = neurons.reshape(*neurons.shape[:2], -1, self.width)
        return np.concatenate([of_expert[:, :, e] * routed[:, :, e, None] for e in self.experts], axis=2)

    def deltas(self, change: Numbers) -> Mapping[str, Numbers]:
        """A change (keys, d_model) by the weights that it is of."""
        return dict(zip(self.names, np.split(change, max(len(self.experts), 1)), strict=True))


def memory(model: TransformerModel, layer: int, batch: TokenBatch, columns: Sequence[int] | NDArray[np.int64]) -> Memory:
    """The memory that the layer uses at those tokens: in a mixture, of the experts that any of them is routed to.

    columns: for each row of the batch the column of its token. Raises `SiteError` for a layer that the model does not have.
    """
    anatomy = model.architecture
    layer = anatomy.checked_layer(layer)
    if not anatomy.experts:
        return Memory(layer, anatomy.d_mlp)
    site = Site(layer, Component.ROUTER)
    run = model.engine.forward(batch, capture=[site], stop=layer + 1, logits=None)
    weights = model.engine.ops.to_numpy(run[site])[np.arange(batch.rows), np.asarray(columns)]
    return Memory(layer, anatomy.d_mlp, tuple(int(e) for e in np.flatnonzero((weights != 0).any(0))))


def keys_at(model: TransformerModel, memory: Memory, texts: Sequence[str], columns: Sequence[int]) -> Numbers:
    """(texts, keys) at one token of each text."""
    batch = model.encode(list(texts))
    run = model.engine.forward(batch, capture=memory.sites, stop=memory.layer + 1, logits=None)
    return memory.keys(model, run)[np.arange(batch.rows), np.asarray(columns)]


def moments(model: TransformerModel, memory: Memory, *, seed: int = 0, texts: Sequence[str] | None = None) -> Numbers:
    """E[kᵀk] (keys, keys) over the tokens of a text, each text's first token left out because it is an attention sink.

    texts: by default what the model itself writes, 256 texts of 64 tokens. They are kept in the user's cache, under the weights'
    hash and the precision: the loaded weights' own where edits lie above them and nothing is kept for the edited ones.
    """
    precision = "" if model.precision == "float32" else f" in {model.precision}"
    kept = [
        _place(f"{hash_}{precision}", memory, seed, texts) for hash_ in dict.fromkeys((model.weights_hash, model.loaded_hash))
    ]
    for path in kept:
        if path.is_file():
            with places.own():
                return np.asarray(_FILES.read(path, absent="")[2]["moment"], dtype=np.float64)
    batches = [model.encode(list(texts))] if texts is not None else list(_written(model, seed))
    found, count = np.zeros((1, 1)), 0
    with events.progress(f"moments of layer {memory.layer}", total=len(batches), unit="batches") as job:
        for batch in batches:
            run = model.engine.forward(batch, capture=memory.sites, stop=memory.layer + 1, logits=None)
            counted = batch.real.copy()
            counted[np.arange(batch.rows), batch.offsets] = False
            rows = memory.keys(model, run)[counted]
            found, count = found + rows.T @ rows, count + len(rows)
            job.advance()
    if not count:
        raise ArgumentError("The texts for the moments have no second token.", remedy="Give longer texts.")
    moment = found / count
    events.notice(
        f"Second moments of layer {memory.layer} over {count:,} tokens: {moment.nbytes / 2**20:.1f} MiB, kept in {kept[0].parent}."
    )
    header = {"model": model.ran, "weightsHash": model.weights_hash, "memory": memory.names, "tokens": count, "seed": seed}
    try:
        with places.own():
            _FILES.write(kept[0], header, {"moment": moment.astype(np.float32)})
    except EditError as error:
        events.notice(f"The moments could not be kept: {error.brief}", "warning")
    return moment.astype(np.float32).astype(np.float64)  # as it will be read next time


def _place(weights: str, memory: Memory, seed: int, texts: Sequence[str] | None) -> Path:
    text = "|".join([weights, *memory.names, str(seed), *(texts or ())])
    return cache_folder() / "moments" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.moments"


def _written(model: TransformerModel, seed: int) -> Iterator[TokenBatch]:
    """Texts that the model writes by itself, from the token that begins a text."""
    tokenizer = model.tokenizer
    first = prompt_ids(tokenizer, "a")[:1] if len(prompt_ids(tokenizer, "a")) > 1 else [tokenizer.eos_token_id]
    if first[0] is None:
        raise EditError(
            f"The tokenizer of {model.title} has no token that begins or ends a text, so the model cannot write by itself.",
            remedy="Give texts for the moments.",
        )
    batch = TokenBatch.of([first] * _ROWS)
    with events.progress("writing text", total=_TEXTS * _TOKENS, unit="tokens") as job:
        for round_ in range(_TEXTS // _ROWS):
            settings = GenerationSettings(max_tokens=_TOKENS, temperature=1.0, seed=seed + round_)
            steps = []
            for step in model.engine.generate(batch, settings):
                steps.append(step.tokens)
                job.advance(_ROWS)
            ids = np.concatenate([batch.ids, np.stack(steps, axis=1)], axis=1)
            yield TokenBatch(ids, np.ones_like(ids, dtype=np.bool_))
