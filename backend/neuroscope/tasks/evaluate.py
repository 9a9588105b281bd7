"""Evaluation of a model on tasks, with items held out from the training of the bundled models.

accuracy    share of items answered right: the answer is the most likely next token, or the model's continuation passes the
            task's judge (`tasks.judges`)
preference  share of items whose right answer is more likely than the wrong one
share       mean of P(right) / (P(right) + P(wrong)), with its interval over the items' entities
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neuroscope import events, settings
from neuroscope.engines.protocol import LogitRequest
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.results import Result, titled
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.registry import Task
from neuroscope.tasks.statistics import Estimate, mean_over_groups, wilson
from neuroscope.vocabulary import public

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel


@public
@dataclass(frozen=True)
class TaskScore:
    """The figures of one task, or in `note` why there are none: the tokenizer cannot express it, or has no chat template."""

    task: str
    accuracy: Estimate | None = None
    preference: Estimate | None = None
    share: Estimate | None = None
    by_label: Mapping[str, Estimate] = field(default_factory=dict)
    note: str | None = None

    def print_string(self) -> str:
        return f"a TaskScore({self.task}, {self.note or self.accuracy})"


@public
@dataclass(frozen=True)
class Evaluation(Result):
    """The scores of a model on tasks."""

    model: str
    weights_hash: str
    seed: int
    scores: list[TaskScore]
    asked_for: str | None = None
    dtype: str | None = None
    engine: str | None = None
    device: str | None = None

    def __getitem__(self, task: str) -> TaskScore:
        """The score of a task, by any of its names. Raises `TaskNotFoundError`, or `ArgumentError` if it was not measured."""
        name = registry.get(task).name
        for score in self.scores:
            if score.task == name:
                return score
        raise ArgumentError(f"{name} was not measured.", remedy=f"Measured: {', '.join(s.task for s in self.scores)}.")

    def print_string(self) -> str:
        return f"an Evaluation({titled(self.model, self.asked_for)}, {len(self.scores)} tasks)"

    def summary(self) -> str:
        lines = [
            f"{titled(self.model, self.asked_for)} on items held out from every bundled model (seed {self.seed}; 95 % intervals)"
        ]
        lines.append(f"{'task':<32}{'accuracy':<24}{'right above wrong':<24}{'P(right) share':<24}n")
        for score in self.scores:
            if score.accuracy is None:
                lines.append(f"{score.task:<32}not measured: {score.note}")
                continue
            figures = f"{score.accuracy!s:<24}{score.preference!s:<24}{score.share!s:<24}{score.accuracy.n}"
            lines.append(f"{score.task:<32}{figures}")
            lines += [f"  {label:<30}{figure!s:<24}{'':<48}{figure.n}" for label, figure in score.by_label.items()]
        return "\n".join(lines)


class _Item(NamedTuple):
    right: bool
    preferred: bool
    share: float


def evaluate(model: TransformerModel, tasks: Sequence[str] | None = None, n: int = 200, seed: int | None = None) -> Evaluation:
    """Evaluate tasks (by default all) on `n` held-out items each, with the model's hooks.

    Raises `TaskNotFoundError` for an unknown name. A task that the tokenizer cannot express, or that needs a missing chat
    template, is reported as not measured, with the reason.
    """
    if n < 2:
        raise ArgumentError(f"{n} items are too few to evaluate a task.", remedy="Ask for at least 2.")
    chosen = [registry.get(name) for name in tasks] if tasks is not None else list(registry.TASKS)
    seed = settings.seed(seed)
    scores = []
    with events.progress(f"evaluating {model.title}", total=len(chosen), unit="tasks") as job:
        for task in chosen:
            scores.append(_score(model, task, n, seed))
            job.advance()
    return Evaluation(
        model.ran,
        model.weights_hash,
        seed,
        scores,
        asked_for=None if model.name == model.ran else model.name,
        dtype=model.precision,
        engine=model.engine.name,
        device=model.device,
    )


def _score(model: TransformerModel, task: Task, n: int, seed: int) -> TaskScore:
    if task.chat and not model.has_chat_template:
        return TaskScore(task.name, note=f"{model.title} has no chat template.")
    try:
        examples = list(task.dataset(n, seed=seed).for_model(model))
    except DatasetError as error:
        return TaskScore(task.name, note=error.message)
    items: list[_Item] = []
    size = model.engine.rows_that_fit(64)
    for first in range(0, len(examples), size):
        items += _items(model, task, examples[first : first + size])
    labels = sorted({example.label for example in examples if example.label is not None})
    labels = labels if len(labels) > 1 else []
    return TaskScore(
        task.name,
        wilson(sum(item.right for item in items), len(items)),
        wilson(sum(item.preferred for item in items), len(items)),
        mean_over_groups([item.share for item in items], [example.meta.get("entities") for example in examples]),
        {
            label: wilson(sum(item.right for item in mine), len(mine))
            for label in labels
            for mine in [[item for item, example in zip(items, examples, strict=True) if example.label == label]]
        },
    )


def _items(model: TransformerModel, task: Task, examples: Sequence[Example]) -> list[_Item]:
    prompts = [model.chat_prompt(example.clean) if task.chat else example.clean for example in examples]
    batch = model.encode(prompts, side="left")
    logits = model.engine.ops.to_numpy(model.run(batch, logits=LogitRequest.last(batch)).logits).astype(np.float64)
    rows = np.arange(len(examples))
    answers = [
        [model.answer_token(p, str(text)) for text in (e.answer, e.wrong)] for p, e in zip(prompts, examples, strict=True)
    ]
    right, wrong = np.array(answers).T
    margin = logits[rows, right] - logits[rows, wrong]
    if task.judge is None:
        hits = [bool(hit) for hit in logits.argmax(1) == right]
    else:
        texts = model.continuations(prompts, task.reply)
        hits = [task.judge(example, text) for example, text in zip(examples, texts, strict=True)]
    return [_Item(hit, bool(m > 0), float(1 / (1 + np.exp(-m)))) for hit, m in zip(hits, margin, strict=True)]
