"""Linear maps between two residual streams, and how good they are on texts that fitted nothing.

h_target ≈ (h_source − mean) A + mean, by ridge regression on tokens that end at the same character, in double precision. The penalty is
the one with the largest R² on texts of other templates, and the figures are from texts of yet others:

    raw            1 − ‖residual‖² / ‖h − mean‖²; a few massive directions can decide it
    standardised   the same with every dimension divided by its standard deviation
    round trip     share of the target's behaviour that is left when its stream goes to the source's space and back,
                   1 − KL(target ‖ changed) / KL(target ‖ stream replaced by its mean)
    substituted    the same with the source's own stream, mapped, in place of the target's: the strictest of the four

Sources: ridge regression (Hoerl & Kennard 1970); affine maps between streams (Bansal et al. 2021, "Revisiting Model Stitching").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.engines.protocol import Array, Edit, EditScope
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError
from neuroscope.features.texts import Text
from neuroscope.models.model import TransformerModel
from neuroscope.results import Result
from neuroscope.tasks.statistics import Estimate, ratio_of
from neuroscope.transfer.alignment import behind, spelled
from neuroscope.vocabulary import public, python_only

Numbers = NDArray[np.float64]

#: Penalties tried, as shares of the source's mean eigenvalue.
_PENALTIES = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_ROWS = 32
#: The group of texts that only ever fit.
FITS_ONLY = ""


@dataclass(frozen=True)
class Affine:
    """x → (x − entry) @ matrix + exit. matrix: (width of x, width of y)."""

    matrix: Numbers
    entry: Numbers
    exit: Numbers
    penalty: float

    def __call__(self, x: Numbers) -> Numbers:
        return np.asarray((x - self.entry) @ self.matrix + self.exit)


@public
@dataclass(frozen=True, kw_only=True)
class StreamMap(Result):
    """A map from the source's residual stream behind one layer to the target's, with held-out figures (see the module).

    penalty: the ridge, as a share of the mean eigenvalue. tokens: how many fitted it; aligned: the share of the target's tokens that end
    where one of the source's does. templates: how many groups of texts fitted, chose and judged.
    """

    source: str
    target: str
    source_layer: int
    target_layer: int
    raw: Estimate
    standardised: Estimate
    round_trip: Estimate
    substituted: Estimate
    penalty: float
    tokens: int
    aligned: float
    templates: list[int]
    _there: Affine = field(repr=False)
    _back: Affine = field(repr=False)

    @property
    @python_only
    def there(self) -> Affine:
        return self._there

    @property
    @python_only
    def back(self) -> Affine:
        return self._back

    def print_string(self) -> str:
        return f"a StreamMap({self.source} layer {self.source_layer} → {self.target} layer {self.target_layer}, R² {self.raw.value:.3f})"

    def summary(self) -> str:
        return "\n".join(
            [
                f"Map from {self.source} behind layer {self.source_layer} to {self.target} behind layer {self.target_layer}",
                f"  R²            {self.raw}; standardised {self.standardised}",
                f"  behaviour     round trip {self.round_trip}; the source's stream in place of the target's {self.substituted}",
                f"  fitted on     {self.tokens} tokens, ridge {self.penalty:g}; {self.aligned:.1%} of the target's tokens are aligned",
            ]
        )


@dataclass(frozen=True)
class Streams:
    """Both streams along texts. source, target: (tokens, width) of exactly aligned tokens, `owner` says of which text."""

    source: Numbers
    target: Numbers
    owner: NDArray[np.int64]
    tokens: int  # of the target, all

    def of(self, texts: NDArray[np.int64]) -> tuple[Numbers, Numbers]:
        rows = np.isin(self.owner, texts)
        return self.source[rows], self.target[rows]


def ridge(x: Numbers, y: Numbers, held_x: Numbers, held_y: Numbers) -> Affine:
    """The affine map with the penalty whose R² on the held tokens is largest."""
    entry, out = x.mean(0), y.mean(0)
    values, vectors = np.linalg.eigh((x - entry).T @ (x - entry))
    crossed = vectors.T @ ((x - entry).T @ (y - out))
    scale = float(values.mean()) or 1.0
    found = [
        Affine(vectors @ (crossed / (np.maximum(values, 0) + penalty * scale)[:, None]), entry, out, penalty)
        for penalty in _PENALTIES
    ]
    return min(found, key=lambda one: float(((held_y - one(held_x)) ** 2).sum()))


def fit(
    source: TransformerModel, target: TransformerModel, source_layer: int, target_layer: int, texts: Sequence[Text], seed: int
) -> StreamMap:
    """Fit and judge a map. Texts are divided by group: 60 % fit, 20 % choose the penalty, 20 % judge.

    Raises `ArgumentError` for texts of fewer than five groups, and where too few tokens are aligned.
    """
    fits, chooses, judges, templates = _divided(texts, seed)
    streams = read(source, target, source_layer, target_layer, [text.text for text in texts])
    (x, y), (cx, cy), (jx, jy) = (streams.of(part) for part in (fits, chooses, judges))
    least = 2 * max(x.shape[1], y.shape[1])
    if min(len(x), 5 * len(cx), 5 * len(jx)) < least:
        raise ArgumentError(
            f"Only {len(streams.source)} tokens of {source.title} and {target.title} end at the same characters of the texts; a map between "
            f"streams of widths {x.shape[1]} and {y.shape[1]} needs at least {least} that fit it.",
            remedy="Give more or longer texts that both tokenizers can write: CircuitTransfer from:to:texts:",
        )
    there, back = ridge(x, y, cx, cy), ridge(y, x, cy, cx)
    owners = streams.owner[np.isin(streams.owner, judges)]
    groups = [frozenset({f"template:{texts[text].group}"}) for text in np.unique(owners)]
    residual, spread = jy - there(jx), jy - jy.mean(0)
    deviation = np.where(spread.std(0) > 0, spread.std(0), 1.0)
    raw, standardised = (_share(residual / by, spread / by, owners, groups) for by in (np.ones(len(deviation)), deviation))
    trip, substituted = _functional(source, target, source_layer, target_layer, there, back, [texts[text] for text in judges])
    return StreamMap(
        source=source.title,
        target=target.title,
        source_layer=source_layer,
        target_layer=target_layer,
        raw=raw,
        standardised=standardised,
        round_trip=trip,
        substituted=substituted,
        penalty=there.penalty,
        tokens=len(x),
        aligned=len(streams.source) / max(streams.tokens, 1),
        templates=templates,
        _there=there,
        _back=back,
    )


def read(
    source: TransformerModel, target: TransformerModel, source_layer: int, target_layer: int, texts: Sequence[str]
) -> Streams:
    """Both streams at exactly aligned tokens, each text's first token left out."""
    parts: list[tuple[Numbers, Numbers, NDArray[np.int64]]] = []
    tokens = 0
    with events.progress("reading both streams", total=len(texts), unit="texts") as job:
        for first in range(0, len(texts), _ROWS):
            chunk = list(texts[first : first + _ROWS])
            mine, theirs = streams(source, source_layer, chunk), streams(target, target_layer, chunk)
            for at, text in enumerate(chunk):
                here = spelled(target, text)
                there, exact = behind(here, spelled(source, text))
                tokens += len(exact) - 1
                parts.append((mine[at][there[exact]], theirs[at][exact], np.full(int(exact.sum()), first + at)))
            job.advance(len(chunk))
    x, y, owner = (np.concatenate([part[k] for part in parts]) for k in range(3))
    return Streams(x, y, owner, tokens)


def streams(model: TransformerModel, layer: int, texts: Sequence[str]) -> list[Numbers]:
    """(tokens, width) of each text: the bare model's stream behind a layer."""
    batch, site = model.encode(list(texts)), Site(layer, Component.RESIDUAL)
    run = model.engine.forward(batch, capture=[site], stop=layer + 1, logits=None)
    found = model.engine.ops.to_numpy(run[site]).astype(np.float64)
    return [row[real] for row, real in zip(found, batch.real, strict=True)]


def _divided(texts: Sequence[Text], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], list[int]]:
    groups = sorted({text.group for text in texts} - {FITS_ONLY})
    if len(groups) < 5:
        raise ArgumentError(
            f"The texts fall into {len(groups)} groups, too few to hold any out.", remedy="Give at least five different texts."
        )
    order = np.random.default_rng([seed, 9]).permutation(len(groups))
    fifth = max(1, len(groups) // 5)
    parts = [order[2 * fifth :], order[:fifth], order[fifth : 2 * fifth]]
    chosen = [{groups[at] for at in part} for part in parts]
    chosen[0].add(FITS_ONLY)
    found = [np.array([at for at, text in enumerate(texts) if text.group in part], dtype=np.int64) for part in chosen]
    return found[0], found[1], found[2], [len(part) for part in parts]


def _share(residual: Numbers, spread: Numbers, owners: NDArray[np.int64], groups: list[frozenset[str]]) -> Estimate:
    """1 − ‖residual‖² / ‖spread‖² with its interval over texts that share templates."""
    texts = np.unique(owners)
    left, whole = (np.array([(part[owners == text] ** 2).sum() for text in texts]) for part in (residual, spread))
    return _complement(ratio_of(left, whole, groups))


def _complement(found: Estimate) -> Estimate:
    return Estimate(1 - found.value, 1 - found.high, 1 - found.low, found.n)


def _functional(
    source: TransformerModel,
    target: TransformerModel,
    source_layer: int,
    target_layer: int,
    there: Affine,
    back: Affine,
    texts: Sequence[Text],
) -> tuple[Estimate, Estimate]:
    """The round trip and the substitution, each by what KL they leave of the KL of the mean stream."""
    totals: dict[str, list[float]] = {"trip": [], "mean": [], "substituted": []}
    for first in range(0, len(texts), _ROWS):
        chunk = [text.text for text in texts[first : first + _ROWS]]
        own, others = streams(target, target_layer, chunk), streams(source, source_layer, chunk)
        where, swaps = [], []
        for text, mine, other in zip(chunk, own, others, strict=True):
            at, exact = behind(spelled(target, text), spelled(source, text))
            where.append(exact)
            swaps.append(
                {"trip": there(back(mine)), "mean": np.tile(there.exit, (len(mine), 1)), "substituted": there(other[at])}
            )
        for name, found in totals.items():
            found += replaced(target, target_layer, chunk, [swap[name] for swap in swaps], where)
    groups = [frozenset({f"template:{text.group}"}) for text in texts]
    return tuple(_complement(ratio_of(totals[name], totals["mean"], groups)) for name in ("trip", "substituted"))  # type: ignore[return-value]


def replaced(
    model: TransformerModel,
    layer: int,
    texts: Sequence[str],
    values: Sequence[Numbers],
    where: Sequence[NDArray[np.bool_]],
) -> list[float]:
    """KL(model ‖ model with its stream replaced) of each text, summed over its tokens. values: (tokens, width) of each text."""
    batch, ops = model.encode(list(texts)), model.engine.ops
    new = np.zeros((batch.rows, batch.positions, model.architecture.d_model))
    mask = np.zeros((batch.rows, batch.positions, 1), dtype=np.bool_)
    for row, (real, value, at) in enumerate(zip(batch.real, values, where, strict=True)):
        new[row, real], mask[row, real, 0] = value, at

    def apply(array: Array, _: EditScope) -> Array:
        return ops.asarray(np.where(mask, new, ops.to_numpy(array)).astype(np.float32))

    bare = model.engine.forward(batch).logits
    changed = model.engine.forward(batch, edits=[Edit(Site(layer, Component.RESIDUAL), apply)]).logits
    return divergences(model, bare, changed, batch.real)


def divergences(model: TransformerModel, bare: Array, changed: Array, real: NDArray[np.bool_]) -> list[float]:
    """KL(bare ‖ changed) in nats of each row, summed over its real tokens."""
    ops = model.engine.ops
    p, q = (ops.to_numpy(ops.log_softmax(logits)).astype(np.float64) for logits in (bare, changed))
    return [float(each[row].sum()) for each, row in zip(list((np.exp(p) * (p - q)).sum(2)), real, strict=True)]
