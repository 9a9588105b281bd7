"""Steering experiments: the effect of adding a vector on a model's output.

1. The model continues neutral openings greedily, with s · v added at the vector's site, for all strengths s at once (rows of
   one batch), in four modes:

   one_token          at the last token of the opening only
   all_tokens         at every token of the opening and the continuation
   growing            in the continuation, from 0 at its first token to s · v at its last
   random_direction   the control: as all_tokens, with random directions of the same length, at the smallest and the largest
                      strength

2. The unsteered model reads the continuations. Effect: a probe's score (`steering.probe`), 0 for texts without the quality, 1
   for texts with it. Fluency: perplexity given the opening; higher is worse.

3. The steered model scores the wordings of held-out pairs after the opening. Preference: nats per token by which the wording
   with the quality is more likely. It changes before greedy text does, and when text no longer can.

The vector has an effect only if preference grows with strength over held-out pairs, and more than with random directions.
Held-out pairs and openings share neither content nor slot word with the pairs of the vector.

Sources: Turner et al. 2023; Rimsky et al. 2023 (strength sweeps with capability); Tan et al. 2024 (dose–response).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope import events
from neuroscope.engines.protocol import Edit
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.results import Provenance
from neuroscope.steering.doses import Numbers, dose_responses, growths, p_beyond, random_directions
from neuroscope.steering.probe import Probe, fitted
from neuroscope.steering.results import MODES, Doses, HookComparison, HookEffect, PositionDensity, SteeringResults
from neuroscope.steering.steered import SteeredRuns, Sweep, Written
from neuroscope.steering.vectors import SteeringVector, SteeringVectors
from neuroscope.tasks.dependence import Units
from neuroscope.tasks.statistics import Estimate, Test, difference_test, mean_of
from neuroscope.vocabulary import public

#: Number of held-out pairs that the steered model scores, and of these and the openings that random directions get.
_PAIRS = 8
_CONTROL_ITEMS = 4
_LEVEL = 0.05


@dataclass(frozen=True)
class _Mode:
    """One mode of steering: values (strengths, items); items are openings, held-out pairs, or random directions."""

    strengths: list[float]
    scores: Numbers
    losses: Numbers
    preference: Numbers
    texts: list[str]
    opening_units: Units | None = None
    pair_units: Units | None = None

    @property
    def names(self) -> list[str]:
        return [f"{strength:g}" for strength in self.strengths]

    def doses(self, values: Numbers, units: Units | None) -> Doses:
        return {name: _mean(row, units) for name, row in zip(self.names, values, strict=True)}

    def growth(self) -> Estimate:
        return _mean(growths(self.strengths, self.preference), self.pair_units)

    def effect_growth(self) -> Estimate:
        return _mean(growths(self.strengths, self.scores), self.opening_units)

    def dose_response(self) -> Estimate:
        return _correlation(dose_responses(self.strengths, self.preference), self.pair_units)

    def effect_response(self) -> Estimate:
        return _correlation(dose_responses(self.strengths, self.scores), self.opening_units)


@public
class SteeringExperiment(Instrument):
    """Steers one model with one vector and measures its output.

    vector: a `SteeringVector`, or a name in `SteeringVectors`. openings: texts to continue, which must not contain a text that
    the vector was computed from; by default the contrast's. max_tokens: length of a continuation. directions: number of random
    directions.
    """

    def __init__(
        self,
        model: TransformerModel,
        vector: SteeringVector | str = "formal_style",
        layer: int | None = None,
        component: str = "residual",
        *,
        openings: Sequence[str] | None = None,
        strengths: Sequence[float] = (-2.0, -1.0, 0.0, 1.0, 2.0),
        max_tokens: int = 24,
        directions: int = 20,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, seed)
        if not isinstance(vector, SteeringVector):
            vector = SteeringVectors(model).vector(str(vector), layer, component)
        width = model.architecture.width(vector.site.checked(model.architecture).component)
        if vector.shape != (width,):
            raise ArgumentError(f"{vector.name} is {len(vector)} wide, but {vector.site} of {model.title} is {width} wide.")
        vector.check(model)
        self._vector = vector
        self._fit, self._held_out = vector.pairs.split()
        self.openings: list[str] = [str(text) for text in (openings or vector.pairs.openings)]
        if len(self.openings) < 2:
            raise DatasetError(
                f"The contrast {vector.name} has no openings to continue.", remedy="Give openings: at least two texts."
            )
        known = [frozenset([f"text:{text}"]) for text in self.openings] if openings else vector.pairs.opening_units
        self._opening_units: list[frozenset[str]] = [frozenset(f"opening {unit}" for unit in units) for units in known]
        self._check_openings()
        self.strengths: list[float] = [float(value) for value in strengths]
        self.max_tokens: int = int(max_tokens)
        self.directions: int = int(directions)
        if self.directions < 1:
            raise ArgumentError(f"{directions} random directions are too few for a control.", remedy="Give at least 20.")
        self._probe: Probe | None = None

    def _check_openings(self) -> None:
        for opening in self.openings:
            for text in (*self._fit.positive, *self._fit.negative):
                if text in opening:
                    raise DatasetError(
                        f"The opening {opening!r} contains {text!r}, from which {self._vector.name} was computed.",
                        remedy="Give openings with other contents than the contrast pairs.",
                    )

    @property
    def vector(self) -> SteeringVector:
        return self._vector

    def run(self) -> SteeringResults:
        """Run every mode and strength, and measure. The model's hooks are disabled meanwhile."""
        if len(set(self.strengths)) < 2:
            raise ArgumentError(f"Strengths {self.strengths} are too few.", remedy="Give at least two different ones.")
        probe, modes = self._measure(), {}
        with events.progress("steering", total=len(MODES), unit="modes") as job:
            for mode in MODES:
                modes[mode] = self._control(probe) if mode == "random_direction" else self._steered(mode, probe)
                job.advance()
        steered, control = modes["all_tokens"], modes["random_direction"]
        if not np.isfinite(steered.losses).any():
            raise DatasetError("Every continuation ended at its first token.", remedy="Give other openings.")
        test = difference_test(growths(steered.strengths, steered.preference), steered.pair_units)
        random = _growths_of_ends(control, control.preference)
        random_effect = _growths_of_ends(control, control.scores)
        p_random = p_beyond(self._growth_as_control(steered, steered.preference), random)
        reason = self._reason(probe, test, p_random)
        readable = probe.complaint is None
        vector = self._vector
        return SteeringResults(
            vector=vector.name,
            layer=vector.layer,
            component=vector.component,
            method=vector.method,
            exists=reason is None,
            reason=reason,
            probe_auroc=probe.auroc,
            probe_chance=probe.chance,
            probe_p_value=probe.p_value,
            strengths=self.strengths,
            effect={name: mode.doses(mode.scores, mode.opening_units) for name, mode in modes.items()} if readable else {},
            fluency={name: _perplexities(mode.doses(mode.losses, mode.opening_units)) for name, mode in modes.items()},
            preference={name: mode.doses(mode.preference, mode.pair_units) for name, mode in modes.items()},
            growth={name: mode.growth() for name, mode in modes.items()},
            effect_growth={name: mode.effect_growth() for name, mode in modes.items()} if readable else {},
            dose_response={name: mode.dose_response() for name, mode in modes.items()},
            effect_response={name: mode.effect_response() for name, mode in modes.items()} if readable else {},
            growth_p_value=test.p_value,
            random_growth=random.tolist(),
            random_effect_growth=random_effect.tolist() if readable else [],
            random_p_value=p_random,
            random_effect_p_value=(
                p_beyond(self._growth_as_control(steered, steered.scores), random_effect) if readable else 1.0
            ),
            density=self.density_by_position() if readable else [],
            written={name: dict(zip(mode.names, mode.texts, strict=True)) for name, mode in modes.items()},
            provenance=self._provenance(),
        )

    def measure_hooks(self, task_types: Sequence[str | None] = (None,)) -> HookComparison:
        """Continue with the model's hooks under each task type (None: the model's), and without hooks.

        The vector is not added. Raises `DatasetError` if no probe reads the quality.
        """
        probe, runs = self._measure().checked(), self._runs()
        batch, units = runs.openings(self.openings), self._opening_units
        bare = runs.written(batch, [], keep_logits=True)
        scores, losses = runs.read(batch, bare.rows, probe)
        preference, pair_units = self._preference_under([]), self._pair_units()
        found = []
        for task_type in task_types:
            with self._model.hook_manager.edits(task_type=task_type or self._model.task_type) as edits:
                hooked = runs.written(batch, edits, keep_logits=True)
                own_preference = self._preference_under(edits)
            own_scores, own_losses = runs.read(batch, hooked.rows, probe)
            found.append(
                HookEffect(
                    task_type=task_type,
                    effect=_mean(own_scores, units),
                    change=_mean(own_scores - scores, units),
                    fluency=_perplexity(_mean(own_losses, units)),
                    preference=_mean(own_preference, pair_units),
                    preference_change=_mean(own_preference - preference, pair_units),
                    identical=self._identical(bare, hooked),
                    written=self._model.decode(hooked.rows[0], after=batch.ids[0][batch.real[0]]),
                )
            )
        return HookComparison(
            contrast=self._vector.name,
            probe_auroc=probe.auroc,
            effect=_mean(scores, units),
            fluency=_perplexity(_mean(losses, units)),
            preference=_mean(preference, pair_units),
            runs=found,
            provenance=self._provenance(),
        )

    def density(self, text: str) -> list[float]:
        """The probe's score at every token of a text. Raises `DatasetError` if no probe reads the quality."""
        scores = self._runs().token_scores([text], self._measure().checked())[0]
        return [float(score) for score in scores]

    def density_by_position(self, texts: Sequence[str] | None = None) -> list[PositionDensity]:
        """Mean score at every token position that at least two texts have; by default over held-out texts with the quality.

        The first token is excluded as an attention sink. Raises `DatasetError` if no probe reads the quality, and for texts
        that are too short.
        """
        units = self._held_out.units if texts is None else None
        texts = self._held_out.positive if texts is None else [str(text) for text in texts]
        rows = self._runs().token_scores(texts, self._measure().checked())
        found = []
        for position in range(1, max(len(row) for row in rows)):
            here = [index for index, row in enumerate(rows) if len(row) > position]
            if len(here) >= 2:
                shared = None if units is None else [units[index] for index in here]
                found.append(PositionDensity(position, mean_of([rows[index][position] for index in here], shared)))
        if not found:
            raise DatasetError("No two texts have a second token.", remedy="Give longer texts.")
        return found

    def score(self, text: str) -> float:
        """The mean score of a text's tokens except the first."""
        scores = self.density(text)
        return float(np.mean(scores[1:] if len(scores) > 1 else scores))

    def _measure(self) -> Probe:
        if self._probe is None:
            self._probe = fitted(self._model, self._vector.pairs, self._vector.site, seed=self.seed)
        return self._probe

    def _runs(self) -> SteeredRuns:
        return SteeredRuns(self._model, self._vector.site, self.max_tokens)

    def _steered(self, mode: str, probe: Probe) -> _Mode:
        directions = np.tile(self._vector.numpy(), (len(self.strengths), 1))
        sweep = Sweep(mode, np.array(self.strengths), directions)
        scores, losses, texts = self._written(sweep, self.openings, probe)
        preference = self._preference(sweep, _PAIRS)
        return _Mode(self.strengths, scores, losses, preference, texts, self._opening_units, self._pair_units(_PAIRS))

    def _control(self, probe: Probe) -> _Mode:
        """Random directions as items, each with its mean over some openings and pairs."""
        ends = [min(self.strengths), max(self.strengths)]
        directions = random_directions(self.directions, len(self._vector), self._vector.norm(), self.seed)
        sweep = Sweep("all_tokens", np.repeat(ends, self.directions), np.tile(directions, (2, 1)))
        scores, losses, texts = self._written(sweep, self.openings[:_CONTROL_ITEMS], probe)
        preference = self._preference(sweep, _CONTROL_ITEMS)
        scores, losses, preference = (
            _item_means(values).reshape(2, self.directions) for values in (scores, losses, preference)
        )
        return _Mode(ends, scores, losses, preference, texts[:: self.directions])

    def _written(self, sweep: Sweep, openings: Sequence[str], probe: Probe) -> tuple[Numbers, Numbers, list[str]]:
        """Probe scores and losses (blocks, openings) of the continuations, and each block's first text."""
        runs = self._runs()
        batch = runs.openings(openings)
        rows = runs.steered(batch, sweep).rows
        scores, losses = (values.reshape(len(sweep), batch.rows) for values in runs.read(batch.repeat(len(sweep)), rows, probe))
        opening = batch.ids[0][batch.real[0]]
        return scores, losses, [self._model.decode(row, after=opening) for row in rows[:: batch.rows]]

    def _preference(self, sweep: Sweep, most: int) -> Numbers:
        """(blocks, pairs): nats per token by which the wording with the quality is more likely in the steered model."""
        openings, positive, negative = self._wordings(most)
        runs = self._runs()
        return runs.losses(openings, negative, sweep) - runs.losses(openings, positive, sweep)

    def _preference_under(self, edits: Sequence[Edit]) -> Numbers:
        """(pairs,): the same under edits, for every held-out pair."""
        openings, positive, negative = self._wordings()
        runs = self._runs()
        return runs.losses_under(openings, negative, edits) - runs.losses_under(openings, positive, edits)

    def _wordings(self, most: int | None = None) -> tuple[list[str], Sequence[str], Sequence[str]]:
        """Openings, at most `most`, with a held-out wording that has the quality and one without it."""
        positive, negative = (texts[:most] for texts in (self._held_out.positive, self._held_out.negative))
        return [self.openings[item % len(self.openings)] for item in range(len(positive))], positive, negative

    def _pair_units(self, most: int | None = None) -> list[frozenset[str]]:
        units = self._held_out.units[:most]
        return [unit | self._opening_units[item % len(self.openings)] for item, unit in enumerate(units)]

    def _growth_as_control(self, steered: _Mode, values: Numbers) -> float:
        """The vector's growth, measured as for a random direction: at both ends, on the same items."""
        ends = [min(self.strengths), max(self.strengths)]
        rows = [self.strengths.index(end) for end in ends]
        return float(growths(ends, _item_means(values[rows, :_CONTROL_ITEMS])[:, None])[0])

    def _reason(self, probe: Probe, test: Test, p_random: float) -> str | None:
        """Why there is no effect, or None."""
        moves = f"preference grows by {test.estimate} nats per token and unit of strength"
        if probe.complaint is not None:
            return probe.complaint
        if test.p_value >= _LEVEL or not np.isfinite(test.estimate.low):
            return f"{moves} over held-out pairs, which does not differ significantly from 0 (p = {test.p_value:.3f})"
        if test.estimate.value < 0:
            return f"{moves}, against the quality"
        if p_random > _LEVEL:
            return f"{moves}, no more than with random directions of its length (p = {p_random:.3f})"
        return None

    def _identical(self, one: Written, other: Written) -> bool:
        equal = self._model.engine.ops.equal
        same = one.rows == other.rows and len(one.logits) == len(other.logits)
        return same and all(equal(a, b) for a, b in zip(one.logits, other.logits, strict=True))

    def _provenance(self) -> Provenance:
        return provenance(
            self._model,
            None,
            self.seed,
            openings=len(self.openings),
            tokens=self.max_tokens,
            pairs=len(self._vector.pairs),
            directions=self.directions,
        )

    def print_string(self) -> str:
        return f"a SteeringExperiment({self._vector.name} at {self._vector.site} of {self._model.title})"


def _growths_of_ends(control: _Mode, values: Numbers) -> Numbers:
    """The growth of each random direction with a continuation (directions,)."""
    found = growths(control.strengths, values)
    return found[np.isfinite(found)]


def _item_means(values: Numbers) -> Numbers:
    """Means over items with finite values (blocks,)."""
    counted = np.isfinite(values)
    sums = np.where(counted, values, 0.0).sum(1)
    return np.where(counted.any(1), sums / np.maximum(counted.sum(1), 1), np.nan)


def _mean(values: Numbers, units: Units | None) -> Estimate:
    """The mean of the finite values; NaN without any."""
    counted = np.isfinite(values)
    if not counted.any():
        return Estimate(float("nan"), -np.inf, np.inf, 0)
    return mean_of(values[counted], None if units is None else [own for own, here in zip(units, counted, strict=True) if here])


def _correlation(values: Numbers, units: Units | None) -> Estimate:
    """A mean of correlations, with its interval limited to −1 … 1."""
    found = _mean(values, units)
    return Estimate(found.value, max(found.low, -1.0), min(found.high, 1.0), found.n)


def _perplexities(losses: Doses) -> Doses:
    return {name: _perplexity(loss) for name, loss in losses.items()}


def _perplexity(loss: Estimate) -> Estimate:
    return Estimate(float(np.exp(loss.value)), float(np.exp(loss.low)), float(np.exp(loss.high)), loss.n)
