"""How a trained engine does on items, texts and tasks that trained nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuroscope import events
from neuroscope.engines.protocol import Engine, TokenBatch
from neuroscope.errors import DatasetError
from neuroscope.models.model import TransformerModel
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.evaluate import answered
from neuroscope.tasks.registry import Task
from neuroscope.tasks.statistics import Estimate, mean_of, rate
from neuroscope.tuning.objectives import Preservation
from neuroscope.tuning.results import TrainedWeights
from neuroscope.validation.differences import Difference, paired_rates

_OTHERS, _MARGIN = 12, 0.05


class Yardstick:
    """Measures trainings of one model on the same items; the model without hooks is measured first.

    task: the dataset's task, if it has one; test: its test items. texts: what the model wrote, for the divergence.
    keeping: the other tasks, by default all.
    """

    RANDOM, ALL, LORA = "random circuit", "all weights", "LoRA"

    def __init__(
        self,
        model: TransformerModel,
        task: str | None,
        test: Sequence[Example],
        texts: TokenBatch,
        keeping: Sequence[str] | None,
        seed: int,
    ) -> None:
        self._model, self._test, self._texts = model, list(test), texts
        self._preserved = Preservation(model.engine, texts)
        self._units = [example.independent_units for example in self._test]
        self._others = list(_other_tasks(model, task, keeping, seed))
        self._right: dict[str, list[bool]] = {}
        self._before = self._answers(model.engine)
        self.before: Estimate = rate(self._before[0], self._units)
        self.others_before: Estimate | None = rate(self._before[1], self._other_units) if self._others else None

    @property
    def _other_units(self) -> list[frozenset[str]]:
        return [frozenset(f"{task.name}/{u}" for u in e.independent_units) for task, items in self._others for e in items]

    def measured(self, engine: Engine, weights: str, numbers: int, overlap: float, best_step: int) -> TrainedWeights:
        """The figures of a training. weights: what was trained; the name under which `between` knows it."""
        with events.progress(f"measuring the training of {weights}", total=2) as job:
            right, others = self._answers(engine)
            job.advance()
            rows = np.arange(len(self._preserved))
            size = max(1, engine.rows_that_fit(self._texts.positions) // 2)
            chunks = [rows[first : first + size] for first in range(0, len(rows), size)]
            kl = np.concatenate([engine.ops.to_numpy(self._preserved.by_text(engine, chunk)) for chunk in chunks])
            job.advance()
        self._right[weights] = right
        strata = [task.name for task, items in self._others for _ in items]
        return TrainedWeights(
            weights,
            numbers,
            overlap,
            rate(right, self._units),
            self._difference(right, self._before[0], self.before),
            mean_of(kl),
            None if self.others_before is None else rate(others, self._other_units),
            None
            if self.others_before is None
            else paired_rates(others, self._before[1], strata, self._other_units, margin=_MARGIN, baseline=self.others_before),
            best_step,
        )

    def between(self, one: str, other: str) -> Difference:
        """How much better one measured training does the task than another, item by item."""
        return self._difference(self._right[one], self._right[other], rate(self._right[other], self._units))

    def _difference(self, new: Sequence[bool], old: Sequence[bool], baseline: Estimate) -> Difference:
        return paired_rates(new, old, [""] * len(new), self._units, margin=_MARGIN, baseline=baseline)

    def _answers(self, engine: Engine) -> tuple[list[bool], list[bool]]:
        """Whether each test item, and each item of the other tasks, is answered right."""
        model = TransformerModel(engine, self._model.tokenizer, self._model.name, self._model.loaded_hash, self._model.ran)
        mine = [one.right for one in answered(model, self._test)]
        return mine, [one.right for task, items in self._others for one in answered(model, items, task)]


def _other_tasks(
    model: TransformerModel, task: str | None, keeping: Sequence[str] | None, seed: int
) -> Sequence[tuple[Task, list[Example]]]:
    family = None if task is None else registry.get(task).family
    found = []
    for other in registry.TASKS if keeping is None else map(registry.get, keeping):
        if other.family == family or (other.chat and not model.has_chat_template):
            continue
        try:
            with events.quietly():
                found.append((other, list(other.dataset(_OTHERS, seed=seed).for_model(model))))
        except DatasetError:
            continue  # the tokenizer cannot express it
    return found
