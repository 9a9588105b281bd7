"""Data of the Lens page: a few kilobytes for each generated token.

logit lens   each layer's residual stream through the final norm and the unembedding (nostalgebraist 2020): its most likely next
             tokens
norms        Euclidean norm of the residual stream before layer 0 and after each layer
attention    every head's row of the pattern, in steps of 1/255, layer by layer and head by head
neurons      of each layer the units with the largest |activation|
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError
from neuroscope.lenses.logit_lens import read_out
from neuroscope_bridge.rest.generation import GeneratedToken, GenerationRequest, likeliest, token_text
from neuroscope_bridge.rest.probes import Along, Watch

if TYPE_CHECKING:
    from neuroscope.engines.protocol import Step
    from neuroscope.models.model import TransformerModel

#: Most tokens of prompt and answer together: attention grows with their square.
MOST_TOKENS = 512

#: Bytes of logits at a time.
_LOGIT_BYTES = 64 << 20


class Lens:
    """Turns a generation's steps into the page's events."""

    def __init__(
        self, model: TransformerModel, asked: GenerationRequest, top: int, neurons: int, watch: Watch | None = None
    ) -> None:
        tokens = len(asked.prompt_ids) + asked.settings.max_tokens
        if tokens > MOST_TOKENS:
            raise ArgumentError(
                f"The Lens shows at most {MOST_TOKENS} tokens, not {tokens}.",
                remedy="Shorten the prompt or ask for fewer tokens.",
            )
        self._model, self._asked, self._top, self._neurons = model, asked, top, neurons
        layers = range(model.architecture.layers)
        self._streams = [Site(0, Component.RESIDUAL_PRE), *(Site(layer, Component.RESIDUAL) for layer in layers)]
        self._patterns = [Site(layer, Component.ATTENTION_PATTERN) for layer in layers]
        self._mlps = [Site(layer, Component.MLP) for layer in layers]
        self._along = None if watch is None else Along(watch, asked.prompt_ids)

    @property
    def sites(self) -> list[Site]:
        watched = [] if self._along is None else [self._along.watch.site]
        return list(dict.fromkeys([*self._streams, *self._patterns, *self._mlps, *watched]))

    def opening(self) -> dict[str, Any]:
        """The first event: the model's sizes and the prompt's tokens."""
        anatomy = self._model.architecture
        ids = self._asked.prompt_ids
        return {
            "model": self._model.title,
            "layers": anatomy.layers,
            "heads": anatomy.heads,
            "neurons": anatomy.neurons,
            "seed": self._asked.settings.seed,
            "prompt": [{"id": id_, "text": token_text(self._model, id_)} for id_ in ids],
            "probe": None if self._along is None else self._along.watch.opening(),
        }

    def event(self, piece: GeneratedToken) -> dict[str, Any]:
        """One step: activations at the positions that ran, and the chosen token."""
        step = piece.step
        assert piece.token is not None
        lens, norms = self._lens(step)
        first = 0 if step.index == 0 else len(self._asked.prompt_ids) + step.index - 1
        return {
            "index": step.index,
            "first": first,
            "lens": lens,
            "norms": norms,
            "attention": self._attention(step),
            "neurons": self._largest(step),
            "token": {
                "id": piece.id,
                "text": piece.token.text,
                "p": float(np.exp(piece.token.logprob)),
                "top": [[one.text, float(np.exp(one.logprob))] for one in piece.top],
            },
            "text": piece.text,
            "finish": piece.finish,
            "probe": None if self._along is None else self._along.add(piece),
        }

    def _lens(self, step: Step) -> tuple[Any, Any]:
        """For each position and stream, the most likely tokens and the norm."""
        engine = self._model.engine
        ops = engine.ops
        streams = ops.concatenate([step.activations[site] for site in self._streams], 0)  # (layers + 1, positions, d_model)
        depth, positions = int(streams.shape[0]), int(streams.shape[1])
        norms = np.linalg.norm(ops.to_numpy(streams).astype(np.float32), axis=-1)
        at_a_time = max(1, _LOGIT_BYTES // (4 * depth * self._model.architecture.vocabulary))
        told: list[Any] = []
        for start in range(0, positions, at_a_time):
            logs = read_out(engine, streams[:, start : start + at_a_time])
            best = likeliest(logs, self._top)
            chances = np.exp(np.take_along_axis(logs, best, -1))
            for position in range(logs.shape[1]):
                told.append([self._named(best[row, position], chances[row, position]) for row in range(depth)])
        return told, np.ascontiguousarray(np.round(norms.T, 3))

    def _named(self, ids: Any, chances: Any) -> list[list[Any]]:
        return [[self._text(int(id_)), round(float(p), 4)] for id_, p in zip(ids, chances, strict=True)]

    def _text(self, id_: int) -> str:
        return token_text(self._model, id_)

    def _attention(self, step: Step) -> dict[str, Any]:
        ops = self._model.engine.ops
        whole = np.stack([ops.to_numpy(step.activations[site])[0] for site in self._patterns])
        small = np.round(whole * 255).astype(np.uint8)
        return {"shape": list(small.shape), "data": base64.b64encode(small.tobytes()).decode("ascii")}

    def _largest(self, step: Step) -> list[Any]:
        """For each position and layer, the units with the largest |activation|, as [unit, activation]."""
        ops = self._model.engine.ops
        found = []
        for site in self._mlps:
            values = ops.to_numpy(step.activations[site])[0]  # (positions, neurons)
            best = likeliest(np.abs(values), self._neurons)
            found.append((best, np.take_along_axis(values, best, -1)))
        return [list(self._units(found, position)) for position in range(len(found[0][0]))]

    @staticmethod
    def _units(found: list[tuple[Any, Any]], position: int) -> Iterator[list[list[Any]]]:
        for units, values in found:
            pairs = zip(units[position], values[position], strict=True)
            yield [[int(unit), round(float(value), 4)] for unit, value in pairs]
