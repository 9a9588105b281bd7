"""What a circuit writes in its own model, mapped into another model's stream while that one reads the same text.

For each token of the target the source reads the text so far through the circuit alone (everything else mean-ablated, `circuits.compiled`),
and what the circuit has written behind its last layer, less what the mean-ablated model has there, is mapped. Where the tokenizers differ,
a token of the target gets what the source has at its last token that ends no later. Nothing is read that is still to be written, but a
source's tokens may be divided otherwise once more text follows within a word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np

from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.compiled import CircuitEngine, mean_ablated
from neuroscope.engines.protocol import BoolArray, EditScope, Engine, Phase, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.hooks.hook import ActivationHook, current_context
from neuroscope.models.model import TransformerModel
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.transfer.alignment import Spelled, behind, of_ids, spelled
from neuroscope.transfer.maps import Numbers

#: Texts whose writes are kept: an installation reads the same prompts under every gate.
_KEPT = 1024


class Writer(Protocol):
    """Adds to a stream of the target: for each row of token ids, what is added at each token (tokens, width)."""

    def added(self, rows: Sequence[Sequence[int]]) -> list[Numbers]: ...


class Carrier:
    """`Writer` of a circuit. matrix: (source's width, target's width), applied to what the circuit has written behind `layer`."""

    def __init__(self, circuit: Circuit, mask: BoolArray, target: TransformerModel, layer: int, matrix: Numbers) -> None:
        self._source, self._target, self._layer, self._matrix = circuit.model, target, layer, matrix
        probe = circuit.pairs.clean.take(slice(0, 2))
        self.engine = cast(Engine, CircuitEngine(circuit.model.engine, mask, circuit.means, probe))
        ops = circuit.model.engine.ops
        resting = mean_ablated(circuit.model.engine, circuit.means, probe).streams[layer + 1]
        self._resting: Numbers = ops.to_numpy(resting).astype(np.float64).reshape(-1)
        self._kept: OrderedDict[tuple[int, ...], Numbers] = OrderedDict()

    def added(self, rows: Sequence[Sequence[int]]) -> list[Numbers]:
        """See `Writer`."""
        keys = [tuple(int(token) for token in row) for row in rows]
        new = [key for key in dict.fromkeys(keys) if key not in self._kept]
        found = dict(zip(new, self._written([of_ids(self._target, key) for key in new]), strict=True)) if new else {}
        answer = [found[key] if key in found else self._kept[key] for key in keys]
        self._kept |= found
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return answer

    def _written(self, texts: Sequence[Spelled]) -> list[Numbers]:
        others = [spelled(self._source, text.text) for text in texts]
        found = [np.zeros((len(text.ids), self._matrix.shape[1])) for text in texts]
        some = [at for at, other in enumerate(others) if other.ids]
        site, ops = Site(self._layer, Component.RESIDUAL), self._source.engine.ops
        size = self.engine.rows_that_fit(max((len(others[at].ids) for at in some), default=1))
        for first in range(0, len(some), size):
            part = some[first : first + size]
            batch = TokenBatch.of([others[at].ids for at in part])
            run = self.engine.forward(batch, capture=[site], stop=self._layer + 1, logits=None)
            streams = ops.to_numpy(run[site]).astype(np.float64)
            for row, at in enumerate(part):
                where, _ = behind(texts[at], others[at])
                written = (streams[row][batch.real[row]] - self._resting) @ self._matrix
                found[at][where >= 0] = written[where[where >= 0]]
        return found


class Constant:
    """`Writer` of one vector at every token but the first: the control that knows nothing of the text."""

    def __init__(self, vector: Numbers) -> None:
        self._vector = vector

    def added(self, rows: Sequence[Sequence[int]]) -> list[Numbers]:
        """See `Writer`."""
        return [np.where(np.arange(len(row))[:, None] > 0, self._vector, 0.0) for row in rows]


def writing(writer: Writer, layer: int, gate: float, name: str) -> ActivationHook:
    """The hook that adds a writer's additions, times the gate, behind a layer. With gate 0 it returns the very activations."""
    return ActivationHook(layer, "residual", _action(writer, gate), name=name)


def _action(writer: Writer, gate: float) -> Callable[[ActivationTensor], Any]:
    def action(activations: ActivationTensor) -> Any:
        context = current_context()
        if gate == 0 or context is None:
            return activations
        scope, ops = context.now.scope, context.model.engine.ops
        array = ops.to_numpy(context.now.array).astype(np.float64)
        rows = _so_far(context.now.memory.setdefault(id(writer), []), scope)
        for row, added in enumerate(writer.added(rows)):
            if scope.phase is Phase.DECODE:
                assert scope.tokens is not None
                if scope.tokens[row, 0] >= 0:
                    array[row, 0] += gate * added[-1]
                continue
            columns = np.flatnonzero(scope.batch.real[row])
            here = (columns >= scope.first_position) & (columns < scope.first_position + array.shape[1])
            array[row, columns[here] - scope.first_position] += gate * added[here]
        return array.astype(np.float32)

    return action


def _so_far(rows: list[list[int]], scope: EditScope) -> list[list[int]]:
    """The tokens of each row up to this pass, kept along a generation."""
    if scope.phase is not Phase.DECODE:
        rows[:] = [ids[real].tolist() for ids, real in zip(scope.batch.ids, scope.batch.real, strict=True)]
    else:
        assert scope.tokens is not None
        for row, token in zip(rows, scope.tokens[:, 0], strict=True):
            if token >= 0:
                row.append(int(token))
    return rows
