"""Probe: whether a text has a quality, read from one place in a model, token by token.

A logistic probe on standardised activations. Trained on pairs that are aligned token by token, it learns from what comes after they
differ: before, both are the same text. A text's score is the largest at the ends of its segments (`readings`), so that a long text
scores as its most suspicious part does (pooling over segments: Kantamneni et al. 2025), and `calibrate:` fixes how often a text without
the quality may pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from neuroscope import settings
from neuroscope.engines.protocol import BoolArray, IntArray
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.hooks.hook import HookContext
from neuroscope.models.model import TransformerModel
from neuroscope.names import only
from neuroscope.provenance import provenance, tell_precision
from neuroscope.results import Provenance, Result, plain
from neuroscope.safety.detection import Detection, calibrated, detection
from neuroscope.safety.readings import SEGMENTS, TOKENS, Numbers, Reading, divergence, opened, read, segment_ends
from neuroscope.sealed import SealedFiles
from neuroscope.tasks.statistics import Estimate, wilson
from neuroscope.vocabulary import public, python_only

FILES = SealedFiles("probe", ".probe", "1", DatasetError)
#: Texts of each kind that a probe needs.
FEWEST = 8
_REGULARISATION = 0.03
_SITES = (Component.RESIDUAL, Component.ATTENTION, Component.MLP_OUTPUT)
_READINGS = only("reading of a probe", (SEGMENTS, TOKENS), listing="Readings")


@public
@dataclass(frozen=True)
class TokenScores(Result):
    """A text's tokens with a probe's score at each, and the threshold above which a reading opens its gate."""

    probe: str
    tokens: list[str]
    scores: list[float]
    read: list[bool]
    threshold: float | None

    def __iter__(self) -> Iterator[float]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def print_string(self) -> str:
        return f"a TokenScores({self.probe}, {len(self)} tokens, at most {max(self.scores):.3g})"


@public
@dataclass(frozen=True, kw_only=True)
class Probe(Result):
    """A probe for a concept at one site of one model.

    reading: "segments" (at the ends of sentences, lines and turns) or "tokens" (at every one but the first). threshold: above it a text
    has the quality; None before `calibrate:`. false_positives: how many calibrating texts without the quality pass.
    """

    name: str
    layer: int
    component: str
    reading: str
    threshold: float | None = None
    false_positives: Estimate | None = None
    provenance: Provenance
    _weights: Numbers = field(repr=False)
    _bias: float = field(repr=False)

    @classmethod
    def train(
        cls,
        name: str,
        positive: Sequence[str],
        negative: Sequence[str],
        of: TransformerModel,
        layer: int,
        component: str = "residual",
        reading: str = SEGMENTS,
        seed: int | None = None,
    ) -> Self:
        """A probe on your own texts, with and without the quality; as many of both are taken for pairs.

        component: residual, attention or mlpOutput. Raises `DatasetError` for fewer than 8 texts of a kind, and for one without a
        segment's end where segments are read.
        """
        for what, texts in (("positive", positive), ("negative", negative)):
            if isinstance(texts, str) or len(texts) < FEWEST:
                given = "one text" if isinstance(texts, str) else f"{len(texts)} {what} texts"
                raise DatasetError(
                    f"{given} are too few to train the probe {name}.", remedy=f"Give at least {FEWEST} of each kind."
                )
        site = Site.at(layer, component).checked(of.architecture)
        if site.component not in _SITES:
            raise ArgumentError(f"No probe is read at {site}.", remedy=f"Components: {', '.join(_SITES)}.")
        how = _READINGS.name(reading)
        high, low = (read(of, texts, [site]) for texts in (positive, negative))
        values, labels = rows(high, low, 0, how)
        weights, bias = fitted(values, labels)
        made = provenance(of, None, settings.seed(seed), positive=len(high), negative=len(low))
        assert site.layer is not None
        return cls(
            name=str(name),
            layer=site.layer,
            component=str(site.component),
            reading=how,
            provenance=made,
            _weights=weights,
            _bias=bias,
        )

    @classmethod
    def load(cls, path: str) -> Self:
        """A probe that `save:` wrote. Raises `DatasetError` for a file that is absent, foreign, newer or changed."""
        source, header, tensors = FILES.read(path, absent="`aProbe save:` writes one.")
        with FILES.understood(source):
            rate = header["falsePositives"]
            return cls(
                **{name: header[name] for name in ("name", "layer", "component", "reading", "threshold")},
                false_positives=None if rate is None else Estimate.from_dictionary(rate),
                provenance=Provenance(**header["provenance"]),
                _weights=tensors["weights"],
                _bias=float(tensors["bias"][0]),
            )

    def save(self, path: str) -> str:
        """Write weights as safetensors and the rest as JSON into one sealed file. Return its path."""
        header = {name: getattr(self, name) for name in ("name", "layer", "component", "reading", "threshold")}
        header["falsePositives"] = None if self.false_positives is None else self.false_positives.as_dictionary()
        header["provenance"] = {name: plain(value) for name, value in vars(self.provenance).items()}
        return str(FILES.write(Path(path), header, {"weights": self._weights, "bias": np.array([self._bias])}))

    def calibrate(self, negative: Sequence[str], on: TransformerModel, false_positive_rate: float = 0.02) -> Probe:
        """The probe with a threshold that texts like these, which lack the quality, pass at most that often.

        Raises `ArgumentError` where they are too few for the rate.
        """
        return self.at_rate(self.scores(negative, on), false_positive_rate)

    @python_only
    def at_rate(self, negative: Sequence[float], rate: float) -> Probe:
        """The same from the scores of texts that did not train it."""
        if not 0 < rate < 1:
            raise ArgumentError(f"A rate of false positives lies between 0 and 1, not at {rate}.")
        threshold = calibrated(negative, rate)
        if threshold is None:
            raise ArgumentError(
                f"{len(negative)} texts are too few for a rate of {rate:g}.",
                remedy=f"Give at least {int(np.ceil(1 / rate)) - 1}.",
            )
        above = wilson(int((np.asarray(negative) > threshold).sum()), len(negative))
        return dataclasses.replace(self, threshold=threshold, false_positives=above)

    def evaluate(
        self, positive: Sequence[str], negative: Sequence[str], on: TransformerModel, held_out: str = "texts"
    ) -> Detection:
        """How it tells other texts apart, of another distribution as well. held_out: what they do not share with the training."""
        return detection(self.scores(positive, on), self.scores(negative, on), self.threshold, held_out)

    def score(self, text: str, on: TransformerModel) -> float:
        """A text's score: the largest among its readings."""
        return self.scores([text], on)[0]

    def scores(self, texts: Sequence[str], on: TransformerModel) -> list[float]:
        """The score of each text. Raises `DatasetError` for a model with other weights, and a text without a reading."""
        self.check(on)
        found = read(on, list(texts), [self.site])
        return [float(self.values(one.values[0])[_at(one, self.reading)].max()) for one in found]

    def token_scores(self, text: str, on: TransformerModel) -> TokenScores:
        """Every token with its score, and at which ones the probe is read."""
        self.check(on)
        one = read(on, [text], [self.site])[0]
        tokens = [on.token_text(int(token)) for token in one.ids]
        at = self.read_at(on, one.ids)
        return TokenScores(self.name, tokens, self.values(one.values[0]).tolist(), at.tolist(), self.threshold)

    def detects(self, context: HookContext) -> bool:
        """Whether a text of the running pass has passed the threshold: `condition: [:context | probe detects: context]`."""
        return bool(self.open_in(context).any())

    @python_only
    def open_in(self, context: HookContext) -> BoolArray:
        """(rows, columns): at which tokens of this pass the text so far has passed. Each row of a batch is judged alone.

        Raises `ArgumentError` before `calibrate:` and at another site than the probe's, `DatasetError` for another model.
        """
        if self.threshold is None:
            raise ArgumentError(f"The probe {self.name} has no threshold.", remedy="calibrate:on: sets one.")
        now = context.now
        if context.layer != self.layer or context.component != self.component or now.array.ndim != 3:
            raise ArgumentError(
                f"The probe {self.name} reads {self.site}, not {now.scope.site}.", remedy="Let the hook act there."
            )
        scope, state = now.scope, now.memory.setdefault(id(self), {})
        if not state:
            self.check(context.model)
        if state.get("pass") == scope.first_position:  # another hook at this site has asked
            return np.asarray(state["open"])
        assert scope.tokens is not None
        columns = now.array.shape[1]
        before = state["open"][:, -1] if "open" in state else None
        if (
            before is not None
            and columns == 1
            and self.reading == SEGMENTS
            and not segment_ends(context.model)[scope.tokens].any()
        ):
            state["pass"], state["open"] = scope.first_position, before[:, None]  # what most steps of a generation come to
            return np.asarray(state["open"])
        at = _at_tokens(self.reading, segment_ends(context.model), scope)
        if at.any() and not (before is not None and before.all()):
            scores = self.values(context.model.engine.ops.to_numpy(now.array).astype(np.float64))
            found = opened(scores, at, self.threshold, before)
        else:
            found = np.repeat(
                before[:, None] if before is not None else np.zeros((len(at), 1), dtype=np.bool_), columns, axis=1
            )
        state["pass"], state["open"] = scope.first_position, found
        return found

    @property
    @python_only
    def site(self) -> Site:
        return Site.at(self.layer, self.component)

    @property
    @python_only
    def weights(self) -> Numbers:
        """(width,)"""
        return self._weights

    @python_only
    def read_at(self, model: TransformerModel, ids: IntArray, first: int = 0) -> BoolArray:
        """Whether the probe is read at each of some tokens in a row, the first of them at position `first` of its text."""
        at = segment_ends(model)[ids] if self.reading == SEGMENTS else np.ones(len(ids), dtype=np.bool_)
        return np.asarray(at & (np.arange(first, first + len(ids)) > 0))

    @python_only
    def values(self, activations: Numbers) -> Numbers:
        """Scores (…) of activations (…, width)."""
        return np.asarray(activations @ self._weights + self._bias)

    @python_only
    def through(self, matrix: Numbers, shift: Numbers, model: TransformerModel, layer: int) -> Probe:
        """The probe of another model that scores x as this one scores x @ matrix + shift. It is not calibrated: the map is not exact.

        Raises `ArgumentError` where it does not read the residual stream.
        """
        if Component.parse(self.component) is not Component.RESIDUAL:
            raise ArgumentError(
                f"The probe {self.name} reads {self.site}, not the residual stream, which is what is mapped.",
                remedy="Train one at residual.",
            )
        return dataclasses.replace(
            self,
            layer=layer,
            threshold=None,
            false_positives=None,
            provenance=provenance(
                model, self.provenance.task, self.provenance.seed, found=self.provenance, **self.provenance.sizes
            ),
            _weights=matrix @ self._weights,
            _bias=float(self._bias + shift @ self._weights),
        )

    @python_only
    def check(self, model: TransformerModel) -> None:
        """Raise `DatasetError` unless the probe was trained on these weights."""
        if model.weights_hash != self.provenance.weights_hash:
            raise DatasetError(
                f"The probe {self.name} was trained on {self.provenance.title} (weights {self.provenance.weights_hash[:12]}…), not on "
                f"{model.title} (weights {model.weights_hash[:12]}…).",
                remedy="Train it on this model.",
            )
        tell_precision(f"The probe {self.name}", self.provenance, model)

    def print_string(self) -> str:
        limit = "not calibrated" if self.threshold is None else f"threshold {self.threshold:.3g}"
        return f"a Probe({self.name} at {self.site}, {limit})"


def _at(reading: Reading, how: str) -> BoolArray:
    at = reading.ends if how == SEGMENTS else np.arange(len(reading.ids)) > 0
    if not at.any():
        raise DatasetError(
            f"A text of {len(reading.ids)} tokens has no end of a segment to be read at.",
            remedy="End it with a full stop, or read at tokens.",
        )
    return np.asarray(at)


def _at_tokens(how: str, ends: BoolArray, scope: Any) -> BoolArray:
    """(rows, columns): which tokens of a pass are read."""
    if how == SEGMENTS and scope.phase.value == "decode":
        return np.asarray(ends[np.maximum(scope.tokens, 0)])
    columns = scope.first_position + np.arange(scope.tokens.shape[1])
    later = columns > scope.batch.offsets[:, None]  # neither padding on the left nor the first token
    if scope.phase.value != "decode":
        first = scope.first_position
        later = later & scope.batch.real[:, first : first + len(columns)]
    return np.asarray(later & ends[scope.tokens] if how == SEGMENTS else later)


def rows(
    high: Sequence[Reading], low: Sequence[Reading], site: int, how: str = SEGMENTS, further: Sequence[Reading] = ()
) -> tuple[Numbers, BoolArray]:
    """Activations (rows, width) to train on, and which have the quality. Of pairs, positive texts count from where they differ.

    further: more texts without the quality, which have no partner.
    """
    values, labels = [], []
    paired = len(high) == len(low)
    for number, one in enumerate(high):
        at = _at(one, how).copy()
        if paired:
            at[: divergence(one.ids, low[number].ids)] = False
        values.append(one.values[site][at])
        labels += [True] * int(at.sum())
    for one in (*low, *further):
        at = _at(one, how)
        values.append(one.values[site][at])
        labels += [False] * int(at.sum())
    if not any(labels):
        raise DatasetError("The positive texts say nothing that the negative ones do not.", remedy="Give texts that differ.")
    return np.concatenate(values), np.array(labels)


def fitted(values: Numbers, labels: BoolArray) -> tuple[Numbers, float]:
    """Weights (width,) and intercept for unstandardised values; both kinds count alike."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = values.mean(0), values.std(0) + 1e-6
    found = LogisticRegression(C=_REGULARISATION, max_iter=1000, class_weight="balanced").fit((values - mean) / scale, labels)
    weights = np.asarray(found.coef_[0], dtype=np.float64) / scale
    return weights, float(found.intercept_[0] - mean @ weights)
