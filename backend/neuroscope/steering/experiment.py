"""Steering experiments: what adding a vector does to what a model writes.

1. The model goes on from openings that could go either way, greedily, with s · v added at the vector's site, for every
   strength s at once (rows of one batch), in four ways:

   one_token          at the last token of the opening only
   all_tokens         at every token, of the opening and of what is written
   growing            at what is written, from nothing at its first token to s · v at its last
   random_direction   as all_tokens, with a random direction of the same length: the control

2. The model without any steering reads what was written. Effect: a probe's score (`steering.probe`), 0 as texts without the
   quality read, 1 as texts with it. Fluency: perplexity given the opening; higher is worse.

3. The steered model is asked which wording of held-out pairs it would rather write after the opening. Preference: nats a token
   by which the wording with the quality is likelier. It moves before greedy text does, and where text cannot move any more.

Sources: Turner et al. 2023; Rimsky et al. 2023 (strength sweeps with capability beside); Tan et al. 2024 (dose–response).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuroscope import events
from neuroscope.circuits.estimates import mean
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.instrument import Instrument
from neuroscope.models.engines.protocol import Array, Edit, EditScope, GenerationSettings, Phase, TokenBatch
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.steering.probe import Probe, fitted
from neuroscope.steering.vectors import SteeringVector, SteeringVectors
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public

MODES = ("one_token", "all_tokens", "growing", "random_direction")
_TITLES = {
    "one_token": "one token",
    "all_tokens": "all tokens",
    "growing": "growing",
    "random_direction": "random direction",
}
_READ_AT_ONCE = 8
#: How many held-out pairs the steered model is asked about.
_PAIRS = 8

Numbers = NDArray[np.float64]
#: Estimates by strength, the strength as it prints.
Doses = Mapping[str, Estimate]


@dataclass(frozen=True)
class PositionDensity:
    """How densely texts show the quality at one token position: mean probe score with its interval over texts."""

    position: int
    score: Estimate


@public
@dataclass(frozen=True)
class SteeringResults(Result):
    """What steering did, by mode (oneToken, allTokens, growing, randomDirection) and strength.

    effect: probe score of what was written. fluency: its perplexity under the unsteered model. preference: nats a token for the
    held-out wordings with the quality. dose_response: Spearman's correlation of strength and preference, each pair against its
    own mean; effect_response: of strength and effect, each opening against its own mean. density: by position, in held-out texts that have the quality.
    written: the first opening's continuation. probe_auroc: of the probe, on the held-out texts.
    """

    vector: str
    layer: int | None
    component: str
    method: str
    probe_auroc: float
    strengths: list[float]
    effect: Mapping[str, Doses]
    fluency: Mapping[str, Doses]
    preference: Mapping[str, Doses]
    dose_response: Mapping[str, float]
    effect_response: Mapping[str, float]
    density: list[PositionDensity]
    written: Mapping[str, Mapping[str, str]]
    provenance: Provenance

    @property
    def densest_position(self) -> int:
        """The token position at which the quality shows most."""
        return max(self.density, key=lambda each: each.score.value).position

    def print_string(self) -> str:
        best = self.dose_response["all_tokens"]
        return f"a SteeringResults({self.vector} at {self.layer}.{self.component}, dose–response {best:.2f})"

    def summary(self) -> str:
        lines = [
            f"{self.vector} at {self.layer}.{self.component} of {self.provenance.model} ({self.method})",
            f"  measured by a probe with AUROC {self.probe_auroc:.3f} on held-out texts: 0 without the quality, 1 with it",
            f"  {'steered at':<18}{'strength':>8}  {'effect':<26}{'perplexity':<26}preference",
        ]
        for mode in self.effect:
            for strength, effect in self.effect[mode].items():
                fluency, preference = self.fluency[mode][strength], self.preference[mode][strength]
                lines.append(f"  {_TITLES[mode]:<18}{strength:>8}  {effect!s:<26}{fluency!s:<26}{preference}")
            responses = f"{self.effect_response[mode]:<26.2f}{'':<26}{self.dose_response[mode]:.2f}"
            lines.append(f"  {'dose–response':>26}  {responses}")
        lines.append(f"  densest at token {self.densest_position}")
        lines += [f"  {strength:>6}: {text!r}" for strength, text in self.written["all_tokens"].items()]
        return "\n".join(lines)


@public
@dataclass(frozen=True)
class HookEffect(Result):
    """What the model's hooks did in runs of one task type. identical: whether every logit and token was as without hooks."""

    task_type: str | None
    effect: Estimate
    fluency: Estimate
    identical: bool
    written: str

    def print_string(self) -> str:
        return f"a HookEffect({self.task_type}: {'identical' if self.identical else self.effect})"


@public
@dataclass(frozen=True)
class HookComparison(Result):
    """What the model writes with its hooks, by task type, beside what it writes without (effect, fluency)."""

    contrast: str
    probe_auroc: float
    effect: Estimate
    fluency: Estimate
    runs: list[HookEffect]
    provenance: Provenance

    def __getitem__(self, task_type: str) -> HookEffect:
        for run in self.runs:
            if run.task_type == task_type:
                return run
        raise ArgumentError(f"No run had the task type {task_type!r}.", remedy=f"Measured: {[r.task_type for r in self.runs]}.")

    def print_string(self) -> str:
        return f"a HookComparison({self.contrast}, {len(self.runs)} task types)"

    def summary(self) -> str:
        lines = [
            f"{self.contrast} of what {self.provenance.model} writes (probe AUROC {self.probe_auroc:.3f})",
            f"  {'task type':<22}{'effect':<26}{'perplexity':<26}logits",
            f"  {'(no hooks)':<22}{self.effect!s:<26}{self.fluency!s:<26}",
        ]
        for run in self.runs:
            state = "as without hooks, bit for bit" if run.identical else "changed"
            lines.append(f"  {run.task_type!s:<22}{run.effect!s:<26}{run.fluency!s:<26}{state}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Written:
    """What was written: token ids a row, without what follows an end token; and the logits of every step."""

    rows: list[list[int]]
    logits: list[Array] = field(repr=False)


@public
class SteeringExperiment(Instrument):
    """Steers one model by one vector and measures what it writes.

    vector: a `SteeringVector`, or a name that `SteeringVectors` knows. openings: texts to go on from; by default the
    contrast's own. max_tokens: how many tokens are written.
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
        seed: int | None = None,
    ) -> None:
        super().__init__(model, seed)
        if not isinstance(vector, SteeringVector):
            vector = SteeringVectors(model).vector(str(vector), layer, component)
        width = model.architecture.width(vector.site.checked(model.architecture).component)
        if vector.shape != (width,):
            raise ArgumentError(f"{vector.name} is {len(vector)} wide, and {vector.site} of {model.name} {width}.")
        self._vector = vector
        self.openings: list[str] = [str(text) for text in (openings or vector.pairs.openings)]
        if len(self.openings) < 2:
            raise DatasetError(
                f"The contrast {vector.name} has no openings to write on from.", remedy="Give openings: at least two texts."
            )
        self.strengths: list[float] = [float(value) for value in strengths]
        self.max_tokens: int = int(max_tokens)
        self._probe: Probe | None = None

    @property
    def vector(self) -> SteeringVector:
        return self._vector

    def run(self) -> SteeringResults:
        """Write with every mode and strength, and measure. The model's own hooks rest meanwhile."""
        if len(set(self.strengths)) < 2:
            raise ArgumentError(f"Strengths {self.strengths} make no sweep.", remedy="Give at least two different ones.")
        probe, batch = self._measure(), self._batch()
        names = [f"{strength:g}" for strength in self.strengths]
        effect: dict[str, Doses] = {}
        fluency: dict[str, Doses] = {}
        preference: dict[str, Doses] = {}
        responses: dict[str, tuple[float, float]] = {}
        written: dict[str, dict[str, str]] = {}
        with events.progress("steering", total=3 * len(MODES), unit="passes") as job:
            for mode in MODES:
                texts = self._write(batch.repeat(len(names)), [self._steering(mode, batch.rows)])
                job.advance()
                scores, losses = (
                    values.reshape(len(names), batch.rows) for values in self._read(batch.repeat(len(names)), texts.rows, probe)
                )
                job.advance()
                preferred = self._prefer(mode)
                job.advance()
                effect[mode] = {name: self._mean(row) for name, row in zip(names, scores, strict=True)}
                fluency[mode] = {name: self._perplexity(row) for name, row in zip(names, losses, strict=True)}
                preference[mode] = {name: self._mean(row) for name, row in zip(names, preferred, strict=True)}
                responses[mode] = self._response(preferred), self._response(scores)
                written[mode] = {name: self._model.decode(texts.rows[at * batch.rows]) for at, name in enumerate(names)}
        vector = self._vector
        return SteeringResults(
            vector=vector.name,
            layer=vector.layer,
            component=vector.component,
            method=vector.method,
            probe_auroc=probe.auroc,
            strengths=self.strengths,
            effect=effect,
            fluency=fluency,
            preference=preference,
            dose_response={mode: both[0] for mode, both in responses.items()},
            effect_response={mode: both[1] for mode, both in responses.items()},
            density=self.density_by_position(),
            written=written,
            provenance=self._provenance(),
        )

    def measure_hooks(self, task_types: Sequence[str | None] = (None,)) -> HookComparison:
        """Write with the model's own hooks under each task type (None: the model's), and without any.

        The vector itself is not added.
        """
        probe, batch = self._measure(), self._batch()
        bare = self._write(batch, [])
        scores, losses = self._read(batch, bare.rows, probe)
        runs = []
        for task_type in task_types:
            with self._model.hook_manager.edits(task_type=task_type or self._model.task_type) as edits:
                hooked = self._write(batch, edits)
            own_scores, own_losses = self._read(batch, hooked.rows, probe)
            runs.append(
                HookEffect(
                    task_type=task_type,
                    effect=self._mean(own_scores),
                    fluency=self._perplexity(own_losses),
                    identical=self._identical(bare, hooked),
                    written=self._model.decode(hooked.rows[0]),
                )
            )
        return HookComparison(
            contrast=self._vector.name,
            probe_auroc=probe.auroc,
            effect=self._mean(scores),
            fluency=self._perplexity(losses),
            runs=runs,
            provenance=self._provenance(),
        )

    def density(self, text: str) -> list[float]:
        """The probe's score at every token of a text."""
        scores = self._token_scores([text])[0]
        return [float(score) for score in scores]

    def density_by_position(self, texts: Sequence[str] | None = None) -> list[PositionDensity]:
        """Mean score at every token position that at least two texts reach; by default of the held-out texts with the quality.

        The first token is left out: attention parks there, and no probe reads it.
        """
        texts = self._vector.pairs.split()[1].positive if texts is None else [str(text) for text in texts]
        rows = self._token_scores(texts)
        found = []
        for position in range(1, max(len(row) for row in rows)):
            here = np.array([row[position] for row in rows if len(row) > position])
            if len(here) >= 2:
                found.append(PositionDensity(position, mean(here, seed=self.seed)))
        if not found:
            raise DatasetError("No two texts have a second token.", remedy="Give longer texts.")
        return found

    def score(self, text: str) -> float:
        """The mean score of a text's tokens, the first left out."""
        scores = self._token_scores([text])[0]
        return float(np.mean(scores[1:] if len(scores) > 1 else scores))

    def _measure(self) -> Probe:
        if self._probe is None:
            self._probe = fitted(self._model, self._vector.pairs, self._vector.site)
        return self._probe

    def _batch(self) -> TokenBatch:
        return self._model.encode(self.openings, side="left")

    def _steering(self, mode: str, rows: int) -> Edit:
        """Steers a generation of `rows` openings, once for each strength."""
        strengths = np.repeat(self.strengths, rows)[:, None]

        def scales(columns: int, scope: EditScope) -> Numbers:
            weights = np.ones(columns)
            if mode == "one_token":
                weights[:] = 0
                weights[-1] = scope.phase is Phase.PREFILL
            elif mode == "growing":
                step = scope.first_position - scope.batch.positions + 1
                weights[:] = 0 if scope.phase is Phase.PREFILL else step / max(self.max_tokens - 1, 1)
            return strengths * weights

        return self._edit(mode, scales)

    def _edit(self, mode: str, scales: Callable[[int, EditScope], Numbers]) -> Edit:
        """Adds the mode's direction, by `scales` (rows, columns) of a pass."""
        ops = self._model.engine.ops
        vector = self._vector.array
        if mode == "random_direction":
            drawn = np.random.default_rng(self.seed).normal(size=len(self._vector))
            vector = ops.asarray((drawn / np.linalg.norm(drawn) * self._vector.norm()).astype(np.float32))

        def apply(value: Array, scope: EditScope) -> Array:
            return value + ops.asarray(scales(value.shape[1], scope)[..., None].astype(np.float32)) * vector

        return Edit(self._vector.site, apply)

    def _prefer(self, mode: str) -> Numbers:
        """(strengths, pairs): nats a token by which the steered model would rather write the wording with the quality."""
        held_out = self._vector.pairs.split()[1]
        openings = [self.openings[index % len(self.openings)] for index in range(_PAIRS)]
        sides = []
        for texts in (held_out.positive[:_PAIRS], held_out.negative[:_PAIRS]):
            starts = [self._model.encode(opening).positions for opening in openings]
            batch = self._model.encode([f"{opening} {text}" for opening, text in zip(openings, texts, strict=False)])
            sides.append(self._losses(mode, batch, starts[: batch.rows]))
        return sides[1] - sides[0]

    def _losses(self, mode: str, batch: TokenBatch, starts: Sequence[int]) -> Numbers:
        """(strengths, rows): mean loss in nats of the tokens from `starts` on, while the model is steered."""
        engine = self._model.engine
        first, last = np.array(starts)[:, None], batch.lengths[:, None] - 1
        columns = np.arange(batch.positions)[None]
        weights = np.ones((batch.rows, batch.positions))
        if mode == "one_token":
            weights = (columns == first - 1).astype(np.float64)
        elif mode == "growing":
            weights = np.clip((columns - first + 1) / np.maximum(last - first + 1, 1), 0, 1)
        found = []
        for strength in self.strengths:
            edit = self._edit(mode, lambda columns, scope, strength=strength: strength * weights)  # type: ignore[misc]
            logs = engine.ops.to_numpy(engine.ops.log_softmax(engine.forward(batch, edits=[edit]).logits))
            losses = -np.take_along_axis(logs[:, :-1], batch.ids[:, 1:, None], axis=2)[..., 0]
            counted = (columns[:, 1:] >= first) & (columns[:, 1:] <= last)
            found.append((losses * counted).sum(1) / counted.sum(1))
        return np.stack(found)

    def _response(self, values: Numbers) -> float:
        """Spearman's correlation of strength and value (strengths, items), each item against its own mean."""
        own = values - np.nanmean(values, axis=0)
        doses = np.repeat(self.strengths, values.shape[1])
        counted = np.isfinite(own.ravel())
        varies = np.ptp(own.ravel()[counted]) > 1e-9
        return float(stats.spearmanr(doses[counted], own.ravel()[counted]).statistic) if varies else 0.0

    def _write(self, batch: TokenBatch, edits: Sequence[Edit]) -> _Written:
        engine = self._model.engine
        ends = {-1, *self._model.end_tokens}
        options = GenerationSettings(max_tokens=self.max_tokens, end_tokens=self._model.end_tokens)
        rows: list[list[int]] = [[] for _ in range(batch.rows)]
        done = [False] * batch.rows
        logits = []
        for step in engine.generate(batch, options, edits=edits):
            events.check_cancelled()
            logits.append(step.logits)
            for index, token in enumerate(step.tokens.tolist()):
                done[index] = done[index] or token in ends
                if not done[index]:
                    rows[index].append(token)
        return _Written(rows, logits)

    def _read(self, batch: TokenBatch, written: Sequence[Sequence[int]], probe: Probe) -> tuple[Numbers, Numbers]:
        """Mean probe score and mean loss in nats of what was written (rows,); NaN for a row that ended at once."""
        engine, site = self._model.engine, self._vector.site
        openings = [ids[real].tolist() for ids, real in zip(batch.ids, batch.real, strict=True)]
        scores, losses = np.full(batch.rows, np.nan), np.full(batch.rows, np.nan)
        wanted = [row for row in range(batch.rows) if written[row]]
        for first in range(0, len(wanted), _READ_AT_ONCE):
            part = wanted[first : first + _READ_AT_ONCE]
            run = engine.forward(TokenBatch.of([[*openings[row], *written[row]] for row in part]), capture=[site])
            activations = engine.ops.to_numpy(run[site])
            logs = engine.ops.to_numpy(engine.ops.log_softmax(run.logits))
            for index, row in enumerate(part):
                start, stop = len(openings[row]), len(openings[row]) + len(written[row])
                scores[row] = probe.score(activations[index, start:stop]).mean()
                losses[row] = -logs[index, np.arange(start - 1, stop - 1), written[row]].mean()
        return scores, losses

    def _token_scores(self, texts: Sequence[str]) -> list[Numbers]:
        probe, engine, site = self._measure(), self._model.engine, self._vector.site
        found: list[Numbers] = []
        for first in range(0, len(texts), 2 * _READ_AT_ONCE):
            batch = self._model.encode(list(texts[first : first + 2 * _READ_AT_ONCE]))
            assert site.layer is not None
            run = engine.forward(batch, capture=[site], logits=None, stop=site.layer + 1)
            scores = probe.score(engine.ops.to_numpy(run[site]))
            found += [row[real] for row, real in zip(scores, batch.real, strict=True)]
        return found

    def _identical(self, one: _Written, other: _Written) -> bool:
        equal = self._model.engine.ops.equal
        same = one.rows == other.rows and len(one.logits) == len(other.logits)
        return same and all(equal(a, b) for a, b in zip(one.logits, other.logits, strict=True))

    def _mean(self, values: Numbers) -> Estimate:
        counted = values[np.isfinite(values)]
        if not len(counted):
            raise DatasetError("Every continuation ended at its first token.", remedy="Give other openings.")
        return mean(counted, seed=self.seed)

    def _perplexity(self, losses: Numbers) -> Estimate:
        loss = self._mean(losses)
        return Estimate(float(np.exp(loss.value)), float(np.exp(loss.low)), float(np.exp(loss.high)), loss.n)

    def _provenance(self) -> Provenance:
        return provenance(
            self._model, None, self.seed, openings=len(self.openings), tokens=self.max_tokens, pairs=len(self._vector.pairs)
        )

    def print_string(self) -> str:
        return f"a SteeringExperiment({self._vector.name} at {self._vector.site} of {self._model.name})"
