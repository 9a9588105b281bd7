"""CircuitAwareTrainer: fine-tuning that changes a circuit's weights alone (documented script 18).

1. The examples are divided into independent parts: to train, to stop early, to test.
2. On a copy of the model AdamW descends the weighted objectives (`objectives`). Its steps, not only the gradients, are masked to the
   circuit's weights. The weights with the lowest held-out sum are kept.
3. What changed becomes a `WeightEdit`, which a second copy gets: the model that `train:` answers. The source keeps every bit.
4. The same is done with a random circuit of as many heads and MLPs, and with all weights, as controls.

Sources: circuit-tuning (Li et al. 2025, arXiv:2502.06106) masks updates likewise; that a circuit's nodes stay while its edges change is
Wang et al. 2025 (arXiv:2502.11812).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from neuroscope import events
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.estimates import normalised
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.editing import transactions
from neuroscope.editing.edit import WeightEdit
from neuroscope.engines.protocol import Engine
from neuroscope.engines.tuning import StepSettings, no_adapters
from neuroscope.engines.weights import WeightSite
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.names import only
from neuroscope.provenance import provenance
from neuroscope.remedies import Remedy
from neuroscope.results import plain
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.pairs import PairBatch, make_pairs
from neuroscope.tasks.statistics import Estimate
from neuroscope.tuning import parts
from neuroscope.tuning.course import FILES, Aim, Course, Objective, Schedule, Together, descend
from neuroscope.tuning.measures import Yardstick
from neuroscope.tuning.objectives import COHERENCE, OBJECTIVES, PRESERVATION, TASK, Coherence, Preservation, TaskItems, own_text
from neuroscope.tuning.results import CircuitFaithfulness, CircuitTraining, TrainedWeights
from neuroscope.vocabulary import public

CONTROLS = only("control", (Yardstick.RANDOM, Yardstick.ALL, Yardstick.LORA), listing="Controls")
_PAIRS = (32, 16, 32)
_TEXTS, _TOKENS = (64, 16, 48), 32


@public
class CircuitAwareTrainer(Instrument):
    """Trains a circuit of a model on a task, and answers a new model.

    target_circuits: a CircuitFinder (its last circuit), Circuits or NeuronSets. steps, batch, every, patience: see `course.Schedule`;
    learning_rate, weight_decay: of AdamW. items: examples to train with, to stop early by, and to test on. controls: what else is
    trained: true for a random circuit, all weights and, where peft is installed, LoRA of the circuit's size, or one of these names, or false. keeping: the other tasks on which is measured what was kept, by default all of them.
    """

    def __init__(
        self,
        model: TransformerModel,
        target_circuits: Any,
        *,
        steps: int = 150,
        batch: int = 16,
        every: int = 10,
        patience: int = 5,
        learning_rate: float = 3e-4,
        weight_decay: float = 0.01,
        items: Sequence[int] = (160, 60, 100),
        controls: bool | str | Sequence[str] = True,
        keeping: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, seed)
        if len(items) != 3:
            raise ArgumentError(f"items are three numbers, to train, to stop and to test, not {list(items)!r}.")
        self._circuits, self._neurons = parts.targets(target_circuits, model)
        self._schedule = Schedule(steps, batch, every, patience)
        self._settings = StepSettings(float(learning_rate), float(weight_decay))
        self._items = tuple(items)
        asked = CONTROLS if controls is True else controls or ()
        self._controls = [CONTROLS.name(one) for one in ([asked] if isinstance(asked, str) else asked)]
        self._keeping = None if keeping is None else [registry.get(name).name for name in keeping]
        self._objectives: dict[str, float] = {}
        self._trainings: list[CircuitTraining] = []
        self._notes: list[str] = []
        with model.engine.differentiable(False):  # raises where the engine does not train
            pass
        missing = no_adapters(model.engine.name)
        if Yardstick.LORA in self._controls and missing is not None:
            if controls is not True:
                raise missing
            self._controls.remove(Yardstick.LORA)
            self._notes.append(f"no LoRA: {missing}")

    @property
    def objectives(self) -> dict[str, float]:
        """The weight of each objective by name."""
        return dict(self._objectives)

    @property
    def training(self) -> CircuitTraining:
        """What the last `train:` did. Raises `ArgumentError` before the first."""
        if not self._trainings:
            raise ArgumentError("This trainer has trained nothing yet.", remedy="Send train: first.")
        return self._trainings[-1]

    def add_objective(self, objective: str, weight: float) -> CircuitAwareTrainer:
        """Train for an objective: taskPerformance, circuitCoherence or generalCapabilityPreservation, with a weight above 0.

        An objective that is there already gets the new weight. Raises `ArgumentError` for an unknown one, with the nearest, for a weight
        that is not a positive number, and for the coherence of neurons, which have no edges.
        """
        name = OBJECTIVES.name(objective)
        try:
            number = float(weight)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < number < math.inf:
            raise ArgumentError(
                f"The weight of {name} must be a number above 0, not {weight!r}.", remedy="Leave it out, or give 0.5."
            )
        if name == COHERENCE and not self._circuits:
            raise ArgumentError(
                "Neurons have no edges, so nothing is coherent.", remedy="Give a Circuit, or leave circuitCoherence out."
            )
        self._objectives[name] = number
        return self

    def train(self, dataset: Dataset, checkpoint: str | None = None) -> TransformerModel:
        """Train on a dataset with answers, and answer a new model; `training` says what it did. The hooks of the model stay with it.

        checkpoint: a file that keeps the training; if it ends early, the same call goes on from there with the same bits. Raises
        `ArgumentError` without objectives, `DatasetError` for examples without answers and for too few independent ones.
        """
        aims_of = self._checked(dataset)
        with self.model.hook_manager.edits() as hooks:
            if hooks:
                events.notice("The model's hooks take no part in the training.", "warning")
        divided = dataset.parts_for_model(self.model, self._items, seed=self.seed)
        aims = self._aims(divided.parts, aims_of)
        nodes = [site for circuit in self._circuits for site in circuit.nodes]
        nodes = list(dict.fromkeys(nodes))
        trained = parts.weights_of(self.model, nodes, self._neurons)
        yard = Yardstick(
            self.model,
            dataset.task,
            divided.parts[2],
            own_text(self.model, _TEXTS[2], _TOKENS, self.seed + 2),
            self._keeping,
            self.seed,
        )
        title = f"training {', '.join(self._titles)} for {dataset.name}"
        of = self._fingerprint(dataset, trained.names)
        path = None if checkpoint is None else FILES.path(checkpoint)
        engine, course = self._descended(trained.sites, aims, title, path, of)
        edit = self._edit(engine, trained.sites, title, dataset)
        new = self._model_with(edit)
        outcome = yard.measured(new.engine, "circuit", trained.numbers, 1.0, course.best_step)
        controls = self._control_runs(nodes, trained, aims, yard) if self._controls else []
        random = next((one for one in controls if one.weights == yard.RANDOM), None)
        total = engine.tuner(None, self._settings).numbers
        self._trainings.append(
            CircuitTraining(
                task=dataset.name,
                circuits=self._titles,
                objectives=dict(aims_of),
                parameters=trained.names,
                fraction_of_model=trained.numbers / total,
                curves=course.points,
                stopped_early=course.stopped_early,
                before=yard.before,
                others_before=yard.others_before,
                circuit=outcome,
                controls=controls,
                over_random=None if random is None else yard.between("circuit", yard.RANDOM),
                faithfulness=[self._faithfulness(circuit, new.engine) for circuit in self._circuits],
                edit=edit,
                shared=list(divided.shared),
                notes=[*trained.notes, *self._notes],
                provenance=provenance(
                    self.model,
                    dataset.task or dataset.name,
                    self.seed,
                    training=len(divided.parts[0]),
                    stopping=len(divided.parts[1]),
                    held_out=len(divided.parts[2]),
                    steps=course.points[-1].step,
                ),
            )
        )
        return new

    # --- inside -----------------------------------------------------------------------------------------------------------

    @property
    def _titles(self) -> list[str]:
        return [
            *(f"the circuit for {circuit.task}" for circuit in self._circuits),
            *(f"the neurons for {neurons.concept}" for neurons in self._neurons),
        ]

    def _checked(self, dataset: Dataset) -> dict[str, float]:
        """The objectives; what is wrong with the call is raised before anything runs."""
        if not isinstance(dataset, Dataset):
            raise ArgumentError(
                f"train: takes a Dataset, not {dataset!r}.",
                remedy=Remedy("Dataset.from_file(path) loads your own.", smalltalk="`Dataset fromFile: path` loads your own."),
            )
        if not self._objectives:
            raise ArgumentError(
                "There is no objective to train for.",
                remedy=Remedy(
                    f"add_objective(name, weight) with one of {', '.join(OBJECTIVES)}.",
                    smalltalk=f"addObjective:weight: with one of {', '.join(OBJECTIVES)}.",
                ),
            )
        for circuit in self._circuits:
            circuit.check(self.model)
        unanswered = [number for number, example in enumerate(dataset) if example.answer is None]
        if unanswered:
            raise DatasetError(
                f"{len(unanswered)} of {len(dataset)} examples of {dataset.name} have no answer; the first is example {unanswered[0]}: "
                f"{dataset[unanswered[0]].clean!r}.",
                remedy="Give each how it goes on, as `answer`.",
            )
        total = sum(self._objectives.values())
        if not math.isclose(total, 1.0, rel_tol=1e-6):
            events.notice(f"The weights of the objectives sum to {total:g}, not to 1; they are used as they are.")
        return dict(self._objectives)

    def _aims(self, divided: Sequence[Any], weights: dict[str, float]) -> list[Aim]:
        engine, seed = self.model.engine, self.seed
        made: dict[str, tuple[Objective, Objective]] = {}
        if TASK in weights:
            made[TASK] = TaskItems(self.model, divided[0]), TaskItems(self.model, divided[1])
        if COHERENCE in weights:
            pairs = [self._pairs(circuit)[0] for circuit in self._circuits]
            train, held = (
                Together([Coherence(engine, circuit, mine[at]) for circuit, mine in zip(self._circuits, pairs, strict=True)])
                for at in (0, 1)
            )
            made[COHERENCE] = train, held
        if PRESERVATION in weights:
            texts = [own_text(self.model, count, _TOKENS, seed + at) for at, count in enumerate(_TEXTS[:2])]
            made[PRESERVATION] = Preservation(engine, texts[0]), Preservation(engine, texts[1])
        return [Aim(name, weight, *made[name], share=1.0 if name == TASK else 0.5) for name, weight in weights.items()]

    def _pairs(self, circuit: Circuit) -> tuple[list[PairBatch], bool]:
        """Pairs of a circuit's task to train with, to stop by and to judge with; whether they are independent of each other.

        Those of a task of one's own are the circuit's held-out pairs, three times.
        """
        if circuit.task not in {task.name for task in (*registry.TASKS, *registry.VARIANTS)}:
            return [circuit.pairs] * 3, False
        divided = registry.get(circuit.task).dataset(seed=self.seed).parts_for_model(self.model, _PAIRS, seed=self.seed)
        return [make_pairs(self.model, part, circuit.pairs.metric.asked) for part in divided], True

    def _descended(
        self, sites: Sequence[WeightSite] | None, aims: Sequence[Aim], title: str, checkpoint: Path | None = None, of: str = ""
    ) -> tuple[Engine, Course]:
        engine = self.model.engine.copy()
        tuner = engine.tuner(sites, self._settings)
        return engine, descend(engine, tuner, aims, self._schedule, title=title, seed=self.seed, checkpoint=checkpoint, of=of)

    def _edit(self, engine: Engine, sites: Sequence[WeightSite], title: str, dataset: Dataset) -> WeightEdit:
        deltas = {}
        for site in dict.fromkeys(site.whole for site in sites):
            after, before = engine.weights(site).read(), self.model.weights(site).read()
            deltas[str(site)] = after.astype(np.float64) - before.astype(np.float64)
        return WeightEdit.planned(
            self.model, deltas, title=title, method="circuit-aware training", task=dataset.task, seed=self.seed
        )

    def _model_with(self, edit: WeightEdit) -> TransformerModel:
        model = self.model
        new = TransformerModel(model.engine.copy(), model.tokenizer, model.name, model.loaded_hash, model.ran)
        new.task_type = model.task_type
        transactions.apply(new, edit)
        return new

    def _control_runs(
        self, nodes: Sequence[Any], trained: parts.CircuitWeights, aims: Sequence[Aim], yard: Yardstick
    ) -> list[TrainedWeights]:
        found = []
        drawn = parts.random_nodes(self.model, nodes, self.seed) if nodes and not self._neurons else None
        if Yardstick.RANDOM not in self._controls:
            pass
        elif drawn is None:
            events.notice(
                "There is no random circuit of this size to compare with: the circuit holds every head and MLP, or neurons.",
                "warning",
            )
        else:
            weights = parts.weights_of(self.model, drawn)
            engine, course = self._descended(weights.sites, aims, "training a random circuit")
            mine = set(trained.sites)
            shared = sum(parts.size(self.model, site) for site in weights.sites if site in mine)
            found.append(yard.measured(engine, yard.RANDOM, weights.numbers, shared / weights.numbers, course.best_step))
        if Yardstick.ALL in self._controls:
            engine, course = self._descended(None, aims, "training all weights")
            numbers = engine.tuner(None, self._settings).numbers
            found.append(yard.measured(engine, yard.ALL, numbers, trained.numbers / numbers, course.best_step))
        if Yardstick.LORA in self._controls:
            engine = self.model.engine.copy()
            tuner = engine.adapters(trained.numbers, self._settings, seed=self.seed)
            course = descend(engine, tuner, aims, self._schedule, title="training LoRA", seed=self.seed)
            found.append(yard.measured(engine, yard.LORA, tuner.numbers, 0.0, course.best_step))
        return found

    def _faithfulness(self, circuit: Circuit, engine: Engine) -> CircuitFaithfulness:
        pairs, apart = self._pairs(circuit)

        def of(which: Engine) -> Estimate:
            runs = CircuitEvaluation(which, pairs[2], ablation=circuit.ablation, seed=self.seed)
            return normalised(runs.metric(circuit.mask), runs.empty, runs.clean, units=pairs[2].units)

        return CircuitFaithfulness(circuit.task, of(self.model.engine), of(engine), apart)

    def _fingerprint(self, dataset: Dataset, names: Sequence[str]) -> str:
        data = [
            self.model.weights_hash, self.model.engine.name, self.model.precision, names, plain(list(dataset)), self._objectives, asdict(self._schedule), asdict(self._settings),
            self._items, self.seed, [circuit.mask.tobytes().hex() for circuit in self._circuits],
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(plain(data), sort_keys=True).encode()).hexdigest()
