"""What steering experiments answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuroscope.errors import ArgumentError
from neuroscope.results import Provenance, Result
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public

#: Ways to steer, as they are measured and printed.
MODES = ("one_token", "all_tokens", "growing", "random_direction")
_TITLES = {
    "one_token": "one token",
    "all_tokens": "all tokens",
    "growing": "growing",
    "random_direction": "random directions",
}

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

    exists: whether the vector, added to all tokens, makes the model prefer held-out wordings with the quality the more the
    stronger it is (two-sided, p < .05), and further than random directions do (p ≤ .05). reason: why not.

    preference: nats a token for the held-out wordings with the quality. effect: probe score of what was written. fluency: its
    perplexity under the unsteered model. Those of random_direction are means over directions, with intervals over directions,
    at the weakest and the strongest dose.

    growth, effect_growth: by how much preference and effect rise a unit of strength. dose_response, effect_response:
    Spearman's correlation of strength with them. Both over items, or over directions. growth_p_value: that preference does not
    change. random_growth, random_effect_growth: of each random direction; random_p_value, random_effect_p_value: that a
    random direction moves as far, on the items that all were measured on.

    density: by position, in held-out texts that have the quality. written: the first opening's continuation. probe_auroc: of
    the probe, on the held-out texts; probe_chance: of probes with shuffled labels; probe_p_value: that held-out pairs do not
    differ in its score. Without a probe that reads the quality
    there are no effects and no density.
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
        """The token position at which the quality shows most; None where no probe reads it."""
        return max(self.density, key=lambda each: each.score.value).position if self.density else None

    def print_string(self) -> str:
        found = f"{self.growth['all_tokens']} nats a token a unit of strength" if self.exists else "no effect"
        return f"a SteeringResults({self.vector} at {self.layer}.{self.component}: {found})"

    def summary(self) -> str:
        place = f"{self.vector} at {self.layer}.{self.component} of {self.provenance.title}"
        lines = [
            f"{place} ({self.method})" if self.exists else f"No effect of {place} ({self.method}): {self.reason}",
            f"  probe            AUROC {self.probe_auroc:.3f} on held-out texts (p = {self.probe_p_value:.3f}), "
            f"with shuffled labels {self.probe_chance}",
            "  effect           probe score of what is written: 0 as texts without the quality, 1 as texts with it",
            "  preference       nats a token for held-out wordings with the quality",
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
            f"  beyond {len(self.random_growth)} random directions of its length: preference p = {self.random_p_value:.3f}, "
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
    """What the model's hooks did in runs of one task type.

    change: effect with hooks less effect without, opening by opening. identical: whether every logit and token was as without.
    """

    task_type: str | None
    effect: Estimate
    change: Estimate
    fluency: Estimate
    identical: bool
    written: str

    def print_string(self) -> str:
        return f"a HookEffect({self.task_type}: {'identical' if self.identical else self.change})"


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
            f"{self.contrast} of what {self.provenance.title} writes (probe AUROC {self.probe_auroc:.3f})",
            f"  {'task type':<22}{'effect':<26}{'change':<26}{'perplexity':<26}logits",
            f"  {'(no hooks)':<22}{self.effect!s:<26}{'':<26}{self.fluency!s:<26}",
        ]
        for run in self.runs:
            state = "as without hooks, bit for bit" if run.identical else "changed"
            lines.append(f"  {run.task_type!s:<22}{run.effect!s:<26}{run.change!s:<26}{run.fluency!s:<26}{state}")
        return "\n".join(lines)
