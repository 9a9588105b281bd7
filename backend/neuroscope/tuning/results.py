"""What a training did, beside its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from neuroscope.editing.edit import WeightEdit
from neuroscope.results import Provenance, Result
from neuroscope.tasks.statistics import Estimate
from neuroscope.tuning.course import TrainingPoint
from neuroscope.validation.differences import Difference
from neuroscope.vocabulary import public


@public
@dataclass(frozen=True)
class TrainedWeights:
    """A training of some weights, and what it did to the task and to everything else. All on data held out from it.

    weights: "circuit", "random circuit", "all weights" or "LoRA". numbers: how many it could change. overlap: the share of them that are the
    circuit's (LoRA has numbers of its own).
    accuracy: the answer's token is the likeliest next one. gain: over the model before, item by item. divergence: KL(original ‖
    trained) in nats per token of text that the original wrote. others: accuracy on every other task that the tokenizer can express (None
    where it can express none), and others_change: item by item. best_step: whose weights were kept.
    """

    weights: str
    numbers: int
    overlap: float
    accuracy: Estimate
    gain: Difference
    divergence: Estimate
    others: Estimate | None
    others_change: Difference | None
    best_step: int


@public
@dataclass(frozen=True)
class CircuitFaithfulness:
    """Faithfulness of a circuit before and after a training, its edges the same; held_out: on pairs that did not train it."""

    task: str
    before: Estimate
    after: Estimate
    held_out: bool


@public
@dataclass(frozen=True, kw_only=True)
class CircuitTraining(Result):
    """A training of a circuit's weights on a task.

    objectives: weight of each by name. parameters: the weights it could change. curves: the objectives on the way. before: accuracy of
    the model without it. circuit: what it did; controls: the same with a random circuit of as many heads and MLPs, with all
    weights, and with low-rank adapters of as many numbers. over_random: how much better the circuit is than the random one, item by item; None without that control. edit: the training as
    a change of the model's weights. shared: kinds of unit that training and test items could not be kept apart in. notes: which trained
    weights serve more than the circuit, and which control was left out.
    """

    task: str
    circuits: list[str]
    objectives: Mapping[str, float]
    parameters: list[str]
    fraction_of_model: float
    curves: list[TrainingPoint]
    stopped_early: bool
    before: Estimate
    others_before: Estimate | None
    circuit: TrainedWeights
    controls: list[TrainedWeights] = field(default_factory=list)
    over_random: Difference | None = None
    faithfulness: list[CircuitFaithfulness] = field(default_factory=list)
    edit: WeightEdit
    shared: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    provenance: Provenance

    @property
    def improved(self) -> bool:
        """Whether the gain on held-out items excludes 0."""
        return self.circuit.gain.estimate.low > 0

    def print_string(self) -> str:
        """One line."""
        return f"a CircuitTraining({self.task}: accuracy {self.before} → {self.circuit.accuracy}, {self.circuit.numbers:,} numbers)"

    def summary(self) -> str:
        """What was trained, what it did, and the controls."""
        weights = ", ".join(f"{name.replace('_', ' ')} {weight:g}" for name, weight in self.objectives.items())
        lines = [
            f"{self.task} trained into {', '.join(self.circuits)} of {self.provenance.title}",
            f"  objectives       {weights}",
            f"  numbers trained  {self.circuit.numbers:,} ({self.fraction_of_model:.1%} of the model)",
            f"  steps            best {self.circuit.best_step}, last {self.curves[-1].step}"
            + (", stopped early" if self.stopped_early else ""),
            f"  {'':<17}{'numbers':<12}{'task accuracy':<24}{'KL per token':<24}other tasks",
            f"  {'before':<17}{'':<12}{self.before!s:<24}{'':<24}{self.others_before or ''}",
        ]
        for one in (self.circuit, *self.controls):
            lines.append(f"  {one.weights:<17}{one.numbers:<12,}{one.accuracy!s:<24}{one.divergence!s:<24}{one.others or ''}")
        if self.over_random is not None:
            lines.append(f"  better than the random circuit by {self.over_random.estimate}")
        for each in self.faithfulness:
            data = "held out" if each.held_out else "on the pairs that train it"
            lines.append(f"  faithfulness of {each.task}: {each.before} before, {each.after} after ({data})")
        if self.shared:
            lines.append(f"  not held out     {', '.join(self.shared)}: the task has too few")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])
