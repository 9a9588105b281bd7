"""Results of steering experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuroscope.errors import ArgumentError
from neuroscope.results import Provenance, Result
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public

#: Modes of steering, in order.
MODES = ("one_token", "all_tokens", "growing", "random_direction")
_TITLES = {
    "one_token": "one token",
    "all_tokens": "all tokens",
    "growing": "growing",
    "random_direction": "random directions",
}

#: Strength as text → estimate.
Doses = Mapping[str, Estimate]


@dataclass(frozen=True)
class PositionDensity:
    """The quality at one token position: mean probe score with its interval over texts."""

    position: int
    score: Estimate


@public
@dataclass(frozen=True)
class SteeringResults(Result):
    """Effects of steering, by mode (oneToken, allTokens, growing, randomDirection) and strength.

    exists: whether preference for held-out wordings with the quality grows with the strength of the vector at all tokens
    (two-sided, p < .05), and more than with random directions (p ≤ .05). reason: why not.

    preference: nats per token for the held-out wordings with the quality. effect: probe score of the continuations. fluency:
    their perplexity under the unsteered model. Those of random_direction are means over directions, with intervals over
    directions, at the smallest and the largest strength.

    growth, effect_growth: increase of preference and effect per unit of strength. dose_response, effect_response: Spearman's
    correlation of strength with them. Both over items, or over directions. growth_p_value: of no change in preference.
    random_growth, random_effect_growth: of each random direction; random_p_value, random_effect_p_value: that a random
    direction has as much effect, on the items common to all.

    density: by position, in held-out texts with the quality. written: the first opening's continuation. probe_auroc: of the
    probe, on the held-out texts; probe_chance: of probes with shuffled labels; probe_p_value: that held-out pairs do not differ
    in its score. Without a valid probe there are no effects and no density.
    """

    vector: str
    layer: int | None
    component: str
    method: str
    exists: bool
    reason: str | None
    probe_auroc: float
    probe_chance: Estimate
    probe_p_value: float
    strengths: list[float]
    effect: Mapping[str, Doses]
    fluency: Mapping[str, Doses]
    preference: Mapping[str, Doses]
    growth: Mapping[str, Estimate]
    effect_growth: Mapping[str, Estimate]
    dose_response: Mapping[str, Estimate]
    effect_response: Mapping[str, Estimate]
    growth_p_value: float
    random_growth: list[float]
    random_effect_growth: list[float]
    random_p_value: float
    random_effect_p_value: float
    density: list[PositionDensity]
    written: Mapping[str, Mapping[str, str]]
    provenance: Provenance

    @property
    def densest_position(self) -> int | None:
        """The token position with the highest score; None without a valid probe."""
        return max(self.density, key=lambda each: each.score.value).position if self.density else None

    def print_string(self) -> str:
        found = f"{self.growth['all_tokens']} nats per token and unit of strength" if self.exists else "no effect"
        return f"a SteeringResults({self.vector} at {self.layer}.{self.component}: {found})"

    def summary(self) -> str:
        place = f"{self.vector} at {self.layer}.{self.component} of {self.provenance.title}"
        lines = [
            f"{place} ({self.method})" if self.exists else f"No effect of {place} ({self.method}): {self.reason}",
            f"  probe            AUROC {self.probe_auroc:.3f} on held-out texts (p = {self.probe_p_value:.3f}), "
            f"with shuffled labels {self.probe_chance}",
            "  effect           probe score of the continuation: 0 for texts without the quality, 1 for texts with it",
            "  preference       nats per token for held-out wordings with the quality",
            f"  {'steered at':<18}{'strength':>8}  {'effect':<26}{'perplexity':<26}preference",
        ]
        for mode, doses in self.preference.items():
            for strength, preference in doses.items():
                effect = self.effect[mode][strength] if self.effect else "unreadable"
                lines.append(
                    f"  {_TITLES[mode]:<18}{strength:>8}  {effect!s:<26}{self.fluency[mode][strength]!s:<26}{preference}"
                )
            for title, of_text, asked in (
                ("growth a unit", self.effect_growth, self.growth),
                ("dose–response", self.effect_response, self.dose_response),
            ):
                text = of_text[mode] if of_text else "unreadable"
                lines.append(f"  {title:>26}  {text!s:<26}{'':<26}{asked[mode]}")
        lines.append(
            f"  compared with {len(self.random_growth)} random directions of its length: preference p = {self.random_p_value:.3f}, "
            + (f"effect p = {self.random_effect_p_value:.3f}" if self.effect else "effect unreadable")
        )
        if self.density:
            densest = max(self.density, key=lambda each: each.score.value)
            lines.append(f"  densest at token {densest.position}: {densest.score}")
        lines += [f"  {strength:>6}: {text!r}" for strength, text in self.written["all_tokens"].items()]
        return "\n".join(lines)


@public
@dataclass(frozen=True)
class HookEffect(Result):
    """Effects of the model's hooks in runs of one task type.

    change: effect with hooks minus effect without, per opening. preference: nats per token for held-out wordings with the
    quality; preference_change: the same minus that without hooks, per pair of wordings. identical: whether every logit and token equals that without
    hooks.
    """

    task_type: str | None
    effect: Estimate
    change: Estimate
    fluency: Estimate
    preference: Estimate
    preference_change: Estimate
    identical: bool
    written: str

    def print_string(self) -> str:
        return f"a HookEffect({self.task_type}: {'identical' if self.identical else self.change})"


@public
@dataclass(frozen=True)
class HookComparison(Result):
    """The model's output with its hooks, by task type, and without (effect, fluency, preference)."""

    contrast: str
    probe_auroc: float
    effect: Estimate
    fluency: Estimate
    preference: Estimate
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
            f"{self.contrast} of what {self.provenance.title} writes (probe AUROC {self.probe_auroc:.3f})",
            f"  {'task type':<22}{'effect':<26}{'change':<26}{'perplexity':<26}{'change of preference':<26}logits",
            f"  {'(no hooks)':<22}{self.effect!s:<26}{'':<26}{self.fluency!s:<26}",
        ]
        for run in self.runs:
            state = "identical to the run without hooks" if run.identical else "changed"
            lines.append(
                f"  {run.task_type!s:<22}{run.effect!s:<26}{run.change!s:<26}{run.fluency!s:<26}{run.preference_change!s:<26}{state}"
            )
        return "\n".join(lines)
