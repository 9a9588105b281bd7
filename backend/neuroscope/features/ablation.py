"""Ablation of neurons, compared with random neurons of the same layer and with another task.

`zero`      the neurons are silent
`mean`      they have their mean over the dataset's tokens (the mildest: keeps their average)
`resample`  at each token they have their value at a random token of the dataset (removes information, keeps magnitude)

The first token of a prompt is excluded, and only `zero` changes it (`features.ablated`).

Damage is the decrease of the answer's log-odds, log P − log(1 − P), per item, in nats; items about one entity count as
dependent, wordings do not. (Not the margin over a wrong answer of the same kind: neurons for countries raise every capital
equally. Not log P: it hardly changes in a confident model.) If there are more items than needed, those with the most confident
answers are used: an ablation can only remove what is there, and a model's knowledge depends on the wording.

The random sets are matched in firing rate and norm (`features.matched`). There is an effect if for one mode the damage is above
0 and larger than theirs, at 5 % over all three (Bonferroni): with 99 sets p can be .01.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.features.ablated import AblatedRuns, Scores, surest
from neuroscope.features.concepts import example_units
from neuroscope.features.matched import Loudness, matched_sets
from neuroscope.features.neurons import NeuronSet
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.parallel.executors import Executor
from neuroscope.parallel.team import Team
from neuroscope.provenance import provenance, tell_precision
from neuroscope.remedies import Remedy
from neuroscope.results import Provenance, Result
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.statistics import Estimate, mean_of, rate
from neuroscope.vocabulary import public

MODES = ("zero", "mean", "resample")
_LEVEL = 0.05
_FEWEST = 4
_OFF_TARGET = ("subject_verb_agreement", "greater_than", "indirect_object_identification", "capital_of_country")


@public
@dataclass(frozen=True)
class ModeResult(Result):
    """One mode of ablation. damage: decrease of the answer's log-odds on the dataset; random_damage: of each matched random
    set.

    accuracy: share of items whose answer remains more likely than the wrong one.

    p_value: share of random sets with at least as much damage, counting the set itself.
    """

    mode: str
    ablated: Estimate
    accuracy: Estimate
    damage: Estimate
    random_damage: list[float]
    p_value: float
    off_target_damage: Estimate

    def print_string(self) -> str:
        return f"a ModeResult({self.mode}: damage {self.damage}, p = {self.p_value:.3f})"


@public
@dataclass(frozen=True)
class AblationResults(Result):
    """Effects of ablating a neuron set. baseline, and every mode's `ablated`: the mean log-odds of the answer, in nats.

    exists: whether the set does more damage than random sets; reason: why not. firing_rate, norm: means over the set, and over
    the random sets (`features.matched`).
    """

    concept: str
    layer: int
    neurons: list[int]
    task: str
    off_target: str
    baseline: Estimate
    baseline_accuracy: Estimate
    modes: list[ModeResult]
    firing_rate: tuple[float, float]
    norm: tuple[float, float]
    exists: bool
    reason: str | None
    provenance: Provenance
    _neurons: NeuronSet = field(repr=False)

    def print_string(self) -> str:
        return f"an AblationResults({self.concept} on {self.task}: {len(self.neurons)} neurons of layer {self.layer})"

    def summary(self) -> str:
        lines = [] if self.exists else [f"No effect of {self.concept} on {self.task} in {self.provenance.title}: {self.reason}"]
        lines += [
            f"{self.concept}: {len(self.neurons)} neurons of layer {self.layer} of {self.provenance.title}, on {self.task}",
            f"  whole model       log-odds {self.baseline}, right above wrong {self.baseline_accuracy}",
            f"  random sets       {self.provenance.sizes['controls']} of the layer: they fire at {self.firing_rate[1]:.0%} of the tokens "
            f"(these {self.firing_rate[0]:.0%}) and write {self.norm[1]:.3g} (these {self.norm[0]:.3g})",
            f"  {'ablated by':<18}{'damage':<26}{'random sets':<14}{'p':<8}{'right above wrong':<26}damage to {self.off_target}",
        ]
        for mode in self.modes:
            random = float(np.mean(mode.random_damage))
            lines.append(
                f"  {mode.mode:<18}{mode.damage!s:<26}{random:<14.3f}{mode.p_value:<8.3f}{mode.accuracy!s:<26}"
                f"{mode.off_target_damage}"
            )
        return "\n".join(lines)


def _right(scores: Scores, units: list[frozenset[str]] | None) -> Estimate:
    """The share of items whose right answer is likelier than the wrong one; items that share a unit are not independent."""
    return rate(scores[:, 1] > 0, units)


def _both(values: NDArray[np.float64], ids: list[int], controls: list[list[int]]) -> tuple[float, float]:
    """The mean over the set, and over all random sets."""
    return float(values[ids].mean()), float(values[controls].mean())


def _entities(dataset: Dataset) -> list[frozenset[str]] | None:
    """The entities of each item; None if unknown."""
    units = [frozenset(unit for unit in example_units(each) if not unit.startswith("template:")) for each in dataset]
    return units if any(units) else None


def _unused(on: Dataset, neurons: NeuronSet) -> Dataset:
    """The items without a unit in common with those that chose or judged the neurons."""
    used = set(neurons.used_units)
    if not used or not isinstance(on, Dataset):
        return on
    left = [example for example in on if not used & example.independent_units]
    if len(left) < _FEWEST:
        raise DatasetError(
            f"{len(left)} of {len(on)} items of {on.name} share no entity, template or prompt with those that chose the neurons for {neurons.concept}: too few for a test.",
            remedy=Remedy(
                "Ablate them on their own held-out items: test_ablation(neurons, on=neurons.held_out).",
                smalltalk="Ablate them on their own held-out items: testAblation: neurons on: neurons heldOut.",
            ),
        )
    if len(left) < len(on):
        events.notice(
            f"{on.name}: {len(on) - len(left)} of {len(on)} items are left out, because they share something with those that chose"
        )
    return Dataset(left, name=on.name, task=on.task, seed=on.seed)


def _no_effect(modes: list[ModeResult], accuracy: Estimate) -> str | None:
    """Why the ablation shows no effect, or None."""
    if any(mode.damage.low > 0 and len(modes) * mode.p_value <= _LEVEL for mode in modes):
        return None
    if accuracy.low <= 0.5:
        return f"the whole model does not distinguish right from wrong answers (right above wrong {accuracy})."
    if all(mode.damage.low <= 0 for mode in modes):
        return "ablating them does no damage that differs significantly from 0, in any mode."
    least = min(mode.p_value for mode in modes)
    return (
        f"ablating them does no more damage than ablating random neurons of the layer with similar firing rate and norm "
        f"(smallest p = {least:.3f}; one of {len(modes)} modes needs {_LEVEL / len(modes):.3f})."
    )


@public
class NeuronAblator(Instrument):
    """Ablates neurons of one model. controls: number of random sets; n: number of items, those with the whole model's most
    confident answers. executor: who computes the random sets, if not this thread (`parallel`).
    """

    def __init__(
        self,
        model: TransformerModel,
        *,
        controls: int = 99,
        n: int = 24,
        seed: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        super().__init__(model, seed)
        self._executor = executor
        if controls < 1 or n < 2:
            raise ArgumentError("An ablation needs at least 1 control and 2 items.")
        self.controls: int = controls
        self.n: int = n

    def test_ablation(self, neurons: NeuronSet, on: Dataset, off_target: Dataset | str | None = None) -> AblationResults:
        """Ablate a set and random sets of its layer in every mode, on a dataset and on a task that should not be affected.

        Items that share a unit with those that chose or judged the neurons by effect are left out, with a notice. Raises
        `ArgumentError` for an empty set or one of another model, `DatasetError` for items without a wrong answer and if fewer
        than four are left.
        """
        if not isinstance(neurons, NeuronSet):
            raise ArgumentError(
                f"Only a NeuronSet can be ablated, not {neurons!r}.",
                remedy=Remedy("find_neurons_for makes one.", smalltalk="findNeuronsFor: makes one."),
            )
        if not len(neurons):
            raise ArgumentError(f"No neuron was found for {neurons.concept}, so there is none to ablate.")
        if neurons.provenance.weights_hash != self._model.weights_hash:
            raise ArgumentError(
                f"The neurons for {neurons.concept} were found on {neurons.provenance.title} with other weights than {self._model.title} "
                "has now.",
                remedy="Find them again on this model, or take the edit back that was made since.",
            )
        tell_precision(f"The set for {neurons.concept}", neurons.provenance, self._model)
        items = self._items(_unused(on, neurons))
        other = self._items(self._off_target(on, off_target))
        random = np.random.default_rng(self.seed)
        outside = np.setdiff1d(np.arange(self._model.architecture.neurons), neurons.ids)
        if len(outside) < len(neurons):
            raise ArgumentError(f"Layer {neurons.layer} has too few other neurons for a random set of {len(neurons)}.")
        runs, other_runs = (
            AblatedRuns(self._model, neurons.layer, dataset.examples, seed=self.seed) for dataset in (items, other)
        )
        loudness = Loudness.of(self._model, neurons.layer, runs.activations)
        controls = matched_sets(loudness, neurons.ids, self.controls, random)
        units, other_units = (_entities(dataset) for dataset in (items, other))
        total = len(MODES) * ((1 + len(controls)) * len(items) + len(other))
        modes = []
        with events.progress("ablating neurons", total=total, unit="items") as job:
            for mode in MODES:
                scores = runs.scores(mode, [neurons.ids, *controls], job, Team.of(self._model, self._executor))
                (elsewhere,) = other_runs.scores(mode, [neurons.ids], job)
                fallen = (runs.whole - scores)[..., 0]
                damage = mean_of(fallen[0], units)
                damages = fallen[1:].mean(1).tolist()
                modes.append(
                    ModeResult(
                        mode=mode,
                        ablated=mean_of(scores[0, :, 0], units),
                        accuracy=_right(scores[0], units),
                        damage=damage,
                        random_damage=damages,
                        p_value=(1 + sum(value >= damage.value for value in damages)) / (1 + len(damages)),
                        off_target_damage=mean_of((other_runs.whole - elsewhere)[:, 0], other_units),
                    )
                )
        baseline_accuracy = _right(runs.whole, units)
        reason = _no_effect(modes, baseline_accuracy)
        return AblationResults(
            concept=neurons.concept,
            layer=neurons.layer,
            neurons=neurons.ids,
            task=items.task or items.name,
            off_target=other.task or other.name,
            baseline=mean_of(runs.whole[:, 0], units),
            baseline_accuracy=baseline_accuracy,
            modes=modes,
            firing_rate=_both(loudness.rate, neurons.ids, controls),
            norm=_both(loudness.norm, neurons.ids, controls),
            exists=reason is None,
            reason=reason,
            provenance=provenance(
                self._model, items.task, self.seed, found=neurons.provenance, items=len(items), controls=len(controls)
            ),
            _neurons=neurons,
        )

    def _items(self, dataset: Dataset) -> Dataset:
        if not isinstance(dataset, Dataset):
            raise ArgumentError(f"An ablation needs a Dataset, not {dataset!r}.", remedy="Dataset loadGeographyTest")
        fitted = dataset.for_model(self._model)
        if any(example.answer is None or example.wrong is None for example in fitted):
            raise DatasetError(f"{dataset.name} has items without an answer or a wrong answer.")
        return fitted.with_examples(surest(self._model, list(fitted), self.n)) if len(fitted) > self.n else fitted

    def _off_target(self, on: Dataset, given: Dataset | str | None) -> Dataset:
        """The given task, or the first other task that the tokenizer can express."""
        if isinstance(given, Dataset):
            return given
        names = [given] if given is not None else [name for name in _OFF_TARGET if name != on.task]
        for name in names:
            dataset = registry.get(name).dataset(self.n, seed=self.seed)
            try:
                return dataset.for_model(self._model)
            except DatasetError:
                if given is not None:
                    raise
        raise DatasetError(
            f"None of {', '.join(names)} fits the tokenizer of {self._model.title}.",
            remedy=Remedy("Give a dataset: off_target=dataset.", smalltalk="Give a dataset: offTarget: dataset."),
        )
