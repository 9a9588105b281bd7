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
from neuroscope.engines.protocol import IntArray, LogitRequest, TokenBatch
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.models.text import Texts
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


class _Item(NamedTuple):
    right: bool
    preferred: bool
    share: float


def evaluate(model: TransformerModel, tasks: Sequence[str] | None = None, n: int = 200, seed: int | None = None) -> Evaluation:
    """Measure tasks (by default all) on `n` held-out items each, with the model's hooks.

    Raises `TaskNotFoundError` for an unknown name. A task that the model's tokenizer cannot express, or one that needs a
    chat template where there is none, is reported as not measured, with the reason.
    """
    return evaluate_alike([model], tasks, n, seed)[0]


def evaluate_alike(
    models: Sequence[TransformerModel], tasks: Sequence[str] | None = None, n: int = 200, seed: int | None = None
) -> list[Evaluation]:
    """`evaluate` for several models that have one tokenizer: the same items, which are made and tokenised once."""
    if n < 2:
        raise ArgumentError(f"{n} items measure nothing.", remedy="Ask for at least 2.")
    if any(model.tokenizer is not models[0].tokenizer for model in models):
        raise ArgumentError("The models have different tokenizers.", remedy="Evaluate them one by one.")
    chosen = [registry.get(name) for name in tasks] if tasks is not None else list(registry.TASKS)
    seed = settings.seed(seed)
    scores: list[list[TaskScore]] = []
    with events.progress(f"evaluating {', '.join(model.title for model in models)}", total=len(chosen), unit="tasks") as job:
        for task in chosen:
            asked = _Asked.of(models[0], task, n, seed)
            scores.append([asked if isinstance(asked, TaskScore) else _score(model, task, asked) for model in models])
            job.advance()
    return [
        Evaluation(
            model.ran,
            model.weights_hash,
            seed,
            list(mine),
            asked_for=None if model.name == model.ran else model.name,
            dtype=model.precision,
            engine=model.engine.name,
            device=model.device,
        )
        for model, mine in zip(models, zip(*scores, strict=True) if scores else [[]] * len(models), strict=True)
    ]


@dataclass(frozen=True)
class _Asked:
    """A task's items as a tokenizer reads them. answers: the right and the wrong token of each (rows, 2)."""

    examples: list[Example]
    prompts: list[str]
    batch: TokenBatch
    answers: IntArray

    @classmethod
    def of(cls, model: TransformerModel, task: Task, n: int, seed: int) -> _Asked | TaskScore:
        """The items, or the score that says why there are none."""
        if task.chat and not model.has_chat_template:
            return TaskScore(task.name, note=f"{model.title} has no chat template.")
        try:
            examples = list(task.dataset(n, seed=seed).for_model(model))
        except DatasetError as error:
            return TaskScore(task.name, note=error.message)
        prompts: list[str] = [model.chat_prompt(e.clean) if task.chat else e.clean for e in examples]
        texts = Texts(model.tokenizer)
        if not task.chat:
            texts.read(f"{p}{text}" for p, e in zip(prompts, examples, strict=True) for text in ("", e.answer, e.wrong))
        answers = [
            [texts.answer_token(p, str(text)) for text in (e.answer, e.wrong)] for p, e in zip(prompts, examples, strict=True)
        ]
        return cls(examples, prompts, model.encode(prompts, side="left"), np.array(answers))


def _score(model: TransformerModel, task: Task, asked: _Asked) -> TaskScore:
    items: list[_Item] = []
    size = model.engine.rows_that_fit(asked.batch.positions + task.reply)
    for first in range(0, asked.batch.rows, size):
        items += _items(model, task, asked, slice(first, first + size))
    examples = asked.examples
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


def _items(model: TransformerModel, task: Task, asked: _Asked, rows: slice) -> list[_Item]:
    batch, (right, wrong) = asked.batch.take(rows), asked.answers[rows].T
    logits = model.engine.ops.to_numpy(model.run(batch, logits=LogitRequest.last(batch)).logits).astype(np.float64)
    margin = logits[np.arange(batch.rows), right] - logits[np.arange(batch.rows), wrong]
    if task.judge is None:
        hits = [bool(hit) for hit in logits.argmax(1) == right]
    else:
        texts = model.continuations(asked.prompts[rows], task.reply)
        hits = [task.judge(example, text) for example, text in zip(asked.examples[rows], texts, strict=True)]
    return [_Item(hit, bool(m > 0), float(1 / (1 + np.exp(-m)))) for hit, m in zip(hits, margin, strict=True)]
