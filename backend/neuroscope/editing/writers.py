"""What components write into the residual stream, and maps of it folded into their weights, in causal order.

A head writes headOutput @ W_O[h], an MLP its output with its bias, an attention block the sum of its heads with theirs. Maps are
fitted one layer after the other, each on the activations of a model that has the earlier ones: what a later component reads has
changed by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from neuroscope import events
from neuroscope.editing.erasure import Eraser
from neuroscope.editing.kernel import Matrix
from neuroscope.engines.protocol import Array, BoolArray, Run, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.weights import WeightSnapshot
from neuroscope.errors import EditError, SiteError
from neuroscope.models.model import TransformerModel


@dataclass(frozen=True)
class Writer:
    """A component that writes into the stream: where it is read, its output matrix, and the bias that takes a constant.

    bias: None where the architecture has none, or where experts share it out by weights that need not sum to one.
    """

    site: Site
    matrix: str
    bias: str | None

    @property
    def weights(self) -> list[str]:
        """Names of the weights that folding a map changes."""
        return [self.matrix, *([self.bias] if self.bias else [])]

    def rows(self, model: TransformerModel, run: Run, cells: BoolArray) -> Matrix:
        """(n, d_model) at the marked cells (rows, positions) of a run that captured `site`."""
        found = model.engine.ops.to_numpy(run[self.site]).astype(np.float64)[cells]
        if self.site.component is Component.HEAD_OUTPUT:
            return found.reshape(len(found), -1) @ model.weights(self.matrix).read().astype(np.float64)
        return found

    def deltas(self, model: TransformerModel, eraser: Eraser) -> dict[str, Matrix]:
        """What folding a map adds to each weight, float64."""
        found = {self.matrix: eraser.change(model.weights(self.matrix).read().astype(np.float64))}
        if self.bias is not None:
            bias = model.weights(self.bias).read().astype(np.float64)
            own = 0.0 if self.site.component is Component.HEAD_OUTPUT else eraser.change(bias)  # no head writes b_O
            found[self.bias] = own + eraser.constant
        elif model.architecture.experts and self.site.component is Component.MLP_OUTPUT:
            own_bias = f"{self.site.layer}.mlp.b_out"
            if _has(model, own_bias):
                found[own_bias] = eraser.change(model.weights(own_bias).read().astype(np.float64))
        return found


def writers(model: TransformerModel, sites: Iterable[Site]) -> list[Writer]:
    """The writers at heads, MLPs and attention blocks, in causal order.

    Raises `EditError` for an architecture that normalises what a layer writes (Gemma): a map of it is not a change of its weights.
    """
    anatomy = model.architecture
    if _has(model, "0.ln1_post.w"):
        raise EditError(
            f"{anatomy.architecture} normalises what its layers write, so a map of it cannot be folded into their weights.",
            remedy="Use an architecture without norms behind attention and MLP.",
        )
    found = []
    for site in sorted({str(one): one for one in sites}.values(), key=lambda one: (one.layer or 0, _late(one), one.head or 0)):
        if site.component is Component.MLP_OUTPUT:
            bias = None if anatomy.experts else f"{site.layer}.mlp.b_out"
            matrix = f"{site.layer}.mlp.W_out"
        elif site.component in (Component.HEAD_OUTPUT, Component.ATTENTION):
            bias = f"{site.layer}.attn.b_O"
            matrix = f"{site.layer}.attn.W_O" + ("" if site.head is None else f"[{site.head}]")
        else:
            raise EditError(f"{site} is not a component that writes.", site=site, remedy="Heads and MLPs do.")
        found.append(Writer(site, matrix, bias if bias and _has(model, bias) else None))
    return found


@dataclass(frozen=True)
class Prompts:
    """Batches of prompts, with the cells (rows, positions) of each that are read."""

    batches: Sequence[tuple[TokenBatch, BoolArray]]

    @classmethod
    def last(cls, model: TransformerModel, texts: Sequence[str]) -> Prompts:
        """Prompts that are read at their last token, where the model says what follows."""
        return cls(list(_batches(model, texts, last=True)))

    @classmethod
    def whole(cls, model: TransformerModel, texts: Sequence[str]) -> Prompts:
        """Texts that are read at every token but the first, which is an attention sink."""
        return cls(list(_batches(model, texts, last=False)))


def folded(
    model: TransformerModel,
    writing: Sequence[Writer],
    prompts: Mapping[str, Prompts],
    solve: Callable[[Writer, Mapping[str, Matrix]], Eraser | None],
) -> tuple[dict[str, Matrix], dict[Writer, Eraser]]:
    """Fit a map to each writer, in causal order, and fold it. Answers what is added to each weight, and the maps.

    solve: from what a writer writes on each kind of prompt (n, d_model) to its map, or None to leave it alone. The model is, bit for
    bit, what it was afterwards, whatever happens. Raises what `solve` raises, and `WeightError` for weights that cannot be written.
    """
    deltas: dict[str, Matrix] = {}
    found: dict[Writer, Eraser] = {}
    streams: dict[str, list[Array | None]] = {kind: [None] * len(one.batches) for kind, one in prompts.items()}
    last = max(writer.site.layer or 0 for writer in writing)
    names = (name for writer in writing for name in _written(model, writer))
    with scratch(model, names), events.progress("erasing", total=last + 1, unit="layers") as job:
        for layer in range(last + 1):
            for late in (False, True):
                mine = [one for one in writing if one.site.layer == layer and _late(one.site) == late]
                runs = _ran(model, layer, prompts, streams, [one.site for one in mine]) if mine else {}
                for writer in mine:
                    eraser = solve(writer, {kind: _rows(model, writer, runs[kind], prompts[kind]) for kind in prompts})
                    if eraser is None:
                        continue
                    found[writer] = eraser
                    for name, delta in writer.deltas(model, eraser).items():
                        view = model.weights(name)
                        view.write(view.read().astype(np.float64) + delta)
                        deltas[name] = deltas.get(name, 0.0) + delta
            if layer < last:
                runs = _ran(model, layer, prompts, streams, [])
                streams = {kind: [run.residual for run in mine] for kind, mine in runs.items()}
            job.advance()
    return deltas, found


def _ran(
    model: TransformerModel,
    layer: int,
    prompts: Mapping[str, Prompts],
    streams: Mapping[str, Sequence[Array | None]],
    capture: Sequence[Site],
) -> dict[str, list[Run]]:
    """One layer on every batch, from the streams before it."""
    return {
        kind: [
            model.engine.forward(batch, capture=capture, start=layer, residual=stream, stop=layer + 1, logits=None)
            for (batch, _), stream in zip(one.batches, streams[kind], strict=True)
        ]
        for kind, one in prompts.items()
    }


def _rows(model: TransformerModel, writer: Writer, runs: Sequence[Run], prompts: Prompts) -> Matrix:
    cells = [cells for _, cells in prompts.batches]
    return np.concatenate([writer.rows(model, run, mine) for run, mine in zip(runs, cells, strict=True)])


@contextmanager
def scratch(model: TransformerModel, names: Iterable[str]) -> Iterator[None]:
    """Weights that the block may write: afterwards they are, bit for bit, what they were. Others wait meanwhile.

    Raises `WeightError` for a weight that is quantised.
    """
    with model.engine.exclusive():
        before: dict[str, WeightSnapshot] = {name: model.weights(name).snapshot() for name in dict.fromkeys(names)}
        try:
            yield
        finally:
            for name, snapshot in before.items():
                if model.weights(name).snapshot().digest != snapshot.digest:
                    model.weights(name).restore(snapshot)


@contextmanager
def added(model: TransformerModel, deltas: Mapping[str, Matrix]) -> Iterator[None]:
    """The model with these added to its weights while the block runs; afterwards it is, bit for bit, what it was."""
    with scratch(model, deltas):
        for name, delta in deltas.items():
            view = model.weights(name)
            view.write(view.read().astype(np.float64) + delta)
        yield


def _written(model: TransformerModel, writer: Writer) -> list[str]:
    extra = f"{writer.site.layer}.mlp.b_out"
    late = model.architecture.experts and _late(writer.site) and _has(model, extra)
    return [*writer.weights, *([extra] if late else [])]


def _late(site: Site) -> bool:
    """Whether the component comes after attention in its layer."""
    return site.component is Component.MLP_OUTPUT


def _has(model: TransformerModel, name: str) -> bool:
    try:
        model.weights(name)
    except SiteError:
        return False
    return True


def _batches(model: TransformerModel, texts: Sequence[str], *, last: bool) -> Iterator[tuple[TokenBatch, BoolArray]]:
    size = max(1, model.engine.rows_that_fit(64))
    for first in range(0, len(texts), size):
        batch = model.encode(list(texts[first : first + size]))
        rows = np.arange(batch.rows)
        if last:
            cells = np.zeros_like(batch.real)
            cells[rows, batch.column(-1)] = True
        else:
            cells = batch.real.copy()
            cells[rows, batch.offsets] = False
        yield batch, cells
