"""WeightTransform: a concept taken out of what a circuit writes, while capabilities stay (documented script 6).

1. The concept's prompts, what is to be kept and text are read at every component of the circuit (`evidence`, `writers`).
2. Component by component, in causal order, the erasing map that changes least is fitted (`erasure`) and folded into the weights.
3. The result is measured on trial on held-out items, and so are three others of the same components: LEACE of whole layers, which keeps
   nothing; removal of the mean difference; and random directions, along which the components' writes move as far. The model is then as it was.

Linear erasure only: a reader that is not linear may still find the concept (L̄EOPARD, arXiv 2507.12341).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from neuroscope import settings
from neuroscope.circuits.circuit import Circuit
from neuroscope.editing import evidence
from neuroscope.editing.edit import WeightEdit
from neuroscope.editing.extracted import CircuitWeights, of_circuit
from neuroscope.errors import ArgumentError
from neuroscope.results import Provenance, Result
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public

#: A capability that loses more than this share of its items is in doubt.
MARGIN = 0.02


@public
@dataclass(frozen=True)
class ErasedComponent:
    """A component of the circuit. shift: how far the map moves what it writes on the concept's prompts, as a share of its size; kept_shift:
    the same on the prompts of what is kept; None where it is left as it was, for the reason in `note`.
    """

    component: str
    shift: float | None
    kept_shift: float | None
    note: str | None = None


@public
@dataclass(frozen=True)
class EntityBias:
    """The bias of one held-out entity (an occupation), before and after."""

    entity: str
    before: Estimate
    after: Estimate


@public
@dataclass(frozen=True)
class KeptCapability:
    """A capability on held-out items. measure: accuracy (the right token is the likeliest) or preference (likelier than the wrong one).

    change: the paired difference after − before.
    """

    capability: str
    measure: str
    before: Estimate
    after: Estimate
    change: Estimate


@public
@dataclass(frozen=True)
class ErasureControl:
    """Another edit of the same components (of whole layers for the first): what it leaves of bias, capability and perplexity."""

    method: str
    bias: Estimate
    capability: Estimate
    perplexity: Estimate


@public
@dataclass(frozen=True, kw_only=True)
class WeightTransform(Result):
    """A concept's linear erasure from what a circuit writes, measured on trial. `model applyWeightTransform: t to: circuit` applies it.

    exists: whether the model has the bias at all, on the items that fit and those held out; if not, `reason` says so and there is no `edit`. bias: the mean share
    P(expected) / (P(expected) + P(other)) on held-out items, .5 for none; imbalance: the mean of |share − .5| over entities, which opposite
    biases do not cancel in. capability: of all that is asked to be kept, together; `kept` has each alone. perplexity: of general text;
    loss_change: in nats a token. Changes are paired differences after − before. doubts: what the figures say against the edit.
    kept_directions: of each capability so many leading directions do not move at all, chosen on the items that fit.
    shared: kinds of unit that held-out items share with those that fitted or chose the circuit.
    """

    concept: str
    preserving: list[str]
    method: str
    exists: bool
    reason: str | None
    doubts: list[str] = field(default_factory=list)
    components: list[ErasedComponent] = field(default_factory=list)
    bias_before: Estimate
    bias_after: Estimate | None = None
    bias_change: Estimate | None = None
    imbalance_before: float
    imbalance_after: float | None = None
    by_entity: list[EntityBias] = field(default_factory=list)
    capability_before: Estimate
    capability_after: Estimate | None = None
    capability_change: Estimate | None = None
    kept: list[KeptCapability] = field(default_factory=list)
    perplexity_before: Estimate
    perplexity_after: Estimate | None = None
    loss_change: Estimate | None = None
    kept_directions: int | None = None
    weights_changed: int = 0
    edit: WeightEdit | None = None
    controls: list[ErasureControl] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    provenance: Provenance
    _circuit: Circuit = field(repr=False)

    @classmethod
    def remove_gender_bias(
        cls, weights: CircuitWeights | Circuit, preserving_capability: Any = "pronoun_resolution", seed: int | None = None
    ) -> WeightTransform:
        """Erase the gender that occupations suggest, and keep capabilities and the gender that nouns have by definition (`queen`).

        weights: what `circuit extractWeights` answers, or the circuit. Raises what `removing` raises.
        """
        return _made("gender_pronoun_bias", preserving_capability, weights, seed, definitional=True)

    @classmethod
    def removing(
        cls, concept: str | Dataset, preserving: Any, of: CircuitWeights | Circuit, seed: int | None = None
    ) -> WeightTransform:
        """Erase a concept: `WeightTransform removing: #genderBias preserving: #(pronounResolution) of: circuitWeights`.

        concept: a task or dataset whose answers are one of two, with `wrong` the other. preserving: capabilities by name, datasets with
        answers, or a list of these. Raises `TaskNotFoundError` for an unknown name, with the nearest; `DatasetError` for too few
        examples; `CircuitError` for a circuit of other weights, or without components; `EditError` where it cannot be done. Nothing
        is changed.
        """
        return _made(concept, preserving, of, seed, definitional=False)

    @property
    def circuit(self) -> Circuit:
        """The circuit that it was made for."""
        return self._circuit

    def print_string(self) -> str:
        if not self.exists:
            return f"a WeightTransform({self.concept}: none, {self.reason})"
        return (
            f"a WeightTransform({self.concept}: bias {self.bias_before} → {self.bias_after}, {self.weights_changed:,} numbers)"
        )

    def summary(self) -> str:
        """Every figure before and after, with the controls."""
        if not self.exists:
            return f"{self.concept} in {self.provenance.title}: nothing to erase. {self.reason}"
        touched = [one for one in self.components if one.note is None]
        lines = [
            f"{self.concept} erased from {len(touched)} of {len(self.components)} components in {self.provenance.title} ({self.method})",
            *(f"  doubt        {doubt}" for doubt in self.doubts),
            f"  {'':<28}{'before':<24}{'after':<24}change",
            f"  {'bias (' + str(self.bias_before.n) + ' held out)':<28}{self.bias_before!s:<24}{self.bias_after!s:<24}{self.bias_change}",
            f"  {'  imbalance of entities':<28}{self.imbalance_before:<24.3f}{self.imbalance_after or 0.0:<24.3f}",
        ]
        lines += [
            f"  {one.capability + ', ' + one.measure:<28}{one.before!s:<24}{one.after!s:<24}{one.change}" for one in self.kept
        ]
        perplexity = f"{self.loss_change} nats a token"
        lines.append(f"  {'perplexity':<28}{self.perplexity_before!s:<24}{self.perplexity_after!s:<24}{perplexity}")
        lines.append(f"  of each capability {self.kept_directions} leading directions do not move")
        lines.append(f"  {'against':<28}{'bias':<24}{'capability':<24}perplexity")
        lines += [f"  {one.method:<28}{one.bias!s:<24}{one.capability!s:<24}{one.perplexity}" for one in self.controls]
        if self.shared:
            lines.append(f"  not held out: {', '.join(self.shared)}")
        return "\n".join([*lines, f"  {self.weights_changed:,} numbers change"])


def _made(
    concept: str | Dataset, preserving: Any, of: CircuitWeights | Circuit, seed: int | None, *, definitional: bool
) -> WeightTransform:
    from neuroscope.editing.fitting import Fitting

    weights = of_circuit(of) if isinstance(of, Circuit) else of
    if not isinstance(weights, CircuitWeights) or not isinstance(weights.source, Circuit):
        raise ArgumentError(f"A transform is made of a circuit's weights, not of {of!r}.", remedy="`aCircuit extractWeights`.")
    circuit, model, seed = weights.source, weights.model, settings.seed(seed)
    circuit.check(model)
    wanted = [preserving] if isinstance(preserving, (str, Dataset)) else list(preserving)
    keep = [evidence.keep_of(model, one, seed) for one in wanted]
    if definitional:
        keep.append(evidence.definitional_gender(model, seed))
    known = evidence.concept_of(model, concept, circuit.chosen_by, seed)
    if known.name in {one.name for one in keep}:
        raise ArgumentError(f"{known.name} cannot be erased and kept.", remedy="Keep other capabilities.")
    return Fitting(circuit, model, known, keep, wanted=len(wanted), seed=seed).transform()


def doubts_of(found: WeightTransform) -> list[str]:
    """What the figures say against the edit."""
    doubts = []
    assert found.bias_after is not None
    assert found.bias_change is not None
    if not found.bias_after.low <= 0.5 <= found.bias_after.high:
        doubts.append(f"bias is left: {found.bias_after}")
    if found.bias_change.high >= 0:
        doubts.append(f"bias did not measurably fall: {found.bias_change}")
    for one in found.kept:
        if one.before.low <= 0.5 and one.measure == "preference":
            doubts.append(f"the model does not know {one.capability} ({one.before}), so that nothing of it was kept")
        elif one.change.value < -MARGIN:
            doubts.append(f"{one.capability} changed by {one.change}, more than {MARGIN:.0%}")
    random = next(one for one in found.controls if one.method == "random direction")
    if random.bias.value - 0.5 < 0.5 * (found.bias_before.value - 0.5):
        doubts.append(f"random directions of the same size take away half of the bias too: {random.bias}")
    return doubts
