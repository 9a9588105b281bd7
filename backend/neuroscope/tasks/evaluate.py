"""Measuring tasks on a model, on items that no bundled model was trained on.

accuracy    share of items answered right: the answer is the likeliest next token, or what the model goes on to write
            passes the task's own judge (`tasks.judges`)
preference  share of items whose right answer is likelier than the wrong one it is contrasted with
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
    """One task's figures, or in `note` why there are none: the model's tokenizer cannot express it, or it has no chat."""

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
    """The scores of a model on every task asked for."""

    model: str
    weights_hash: str
    seed: int
    scores: list[TaskScore]
    asked_for: str | None = None
    dtype: str | None = None
    engine: str | None = None
    device: str | None = None

    def __getitem__(self, task: str) -> TaskScore:
        """The score of a task by any of its names; `TaskNotFoundError` or `ArgumentError` when it was not measured."""
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


class Answered(NamedTuple):
    """How a model took one example.

    right: its answer is the likeliest next token or, where the task has a judge, what it wrote (`reply`) passes.
    preferred, share: whether the right answer is likelier than the wrong one, and P(right) / (P(right) + P(wrong)); None
    for an example without a wrong answer.
    """

    right: bool
    preferred: bool | None
    share: float | None
    reply: str | None = None


def evaluate(model: TransformerModel, tasks: Sequence[str] | None = None, n: int = 200, seed: int | None = None) -> Evaluation:
    """Measure tasks (by default all) on `n` held-out items each, with the model's hooks.

    Raises `TaskNotFoundError` for an unknown name. A task that the model's tokenizer cannot express, or one that needs a
    chat template where there is none, is reported as not measured, with the reason.
    """
    if n < 2:
        raise ArgumentError(f"{n} items measure nothing.", remedy="Ask for at least 2.")
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
    items = answered(model, examples, task)
    labels = sorted({example.label for example in examples if example.label is not None})
    labels = labels if len(labels) > 1 else []
    return TaskScore(
        task.name,
        wilson(sum(item.right for item in items), len(items)),
        wilson(sum(bool(item.preferred) for item in items), len(items)),
        mean_over_groups([item.share or 0.0 for item in items], [example.meta.get("entities") for example in examples]),
        {
            label: wilson(sum(item.right for item in mine), len(mine))
            for label in labels
            for mine in [[item for item, example in zip(items, examples, strict=True) if example.label == label]]
        },
    )


def answered(model: TransformerModel, examples: Sequence[Example], task: Task | None = None) -> list[Answered]:
    """How the model takes each example, in order, with its hooks; `task` says how it is asked and judged.

    Answers must be one token behind their prompts, as `Dataset.for_model` sees to. Raises `DatasetError` for an example without
    an answer.
    """
    for number, example in enumerate(examples):
        if example.answer is None:
            raise DatasetError(
                f"Example {number} has no answer: {example.clean!r}.", remedy="Give how it goes on, as `answer`."
            )
    size = model.engine.rows_that_fit(64)
    return [one for first in range(0, len(examples), size) for one in _batch(model, task, examples[first : first + size])]


def _batch(model: TransformerModel, task: Task | None, examples: Sequence[Example]) -> list[Answered]:
    chat = task is not None and task.chat
    prompts = [model.chat_prompt(example.clean) if chat else example.clean for example in examples]
    batch = model.encode(prompts, side="left")
    logits = model.engine.ops.to_numpy(model.run(batch, logits=LogitRequest.last(batch)).logits).astype(np.float64)
    asked = list(zip(prompts, examples, strict=True))
    right = [model.answer_token(prompt, str(example.answer)) for prompt, example in asked]
    wrong = [None if example.wrong is None else model.answer_token(prompt, example.wrong) for prompt, example in asked]
    replies: list[str | None] = [None] * len(examples)
    if task is None or task.judge is None:
        hits = [bool(best == token) for best, token in zip(logits.argmax(1), right, strict=True)]
    else:
        texts = model.continuations(prompts, task.reply)
        replies = [*texts]
        hits = [task.judge(example, text) for example, text in zip(examples, texts, strict=True)]
    margins = [None if w is None else float(row[r] - row[w]) for row, r, w in zip(logits, right, wrong, strict=True)]
    return [
        Answered(hit, None, None, reply)
        if margin is None
        else Answered(hit, margin > 0, float(1 / (1 + np.exp(-margin))), reply)
        for hit, margin, reply in zip(hits, margins, replies, strict=True)
    ]
