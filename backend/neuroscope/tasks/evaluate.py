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
from neuroscope.engines.protocol import IntArray, LogitRequest, TokenBatch
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.models.text import Texts
from neuroscope.parallel.executors import Executor
from neuroscope.parallel.team import Team
from neuroscope.results import Result, titled
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.registry import Task
from neuroscope.tasks.statistics import Estimate, mean_over_groups, rate
from neuroscope.vocabulary import public

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

#: Items of a chunk, where workers share them.
_CHUNK = 16


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


def evaluate(
    model: TransformerModel,
    tasks: Sequence[str] | None = None,
    n: int = 200,
    seed: int | None = None,
    executor: Executor | None = None,
) -> Evaluation:
    """Evaluate tasks (by default all) on `n` held-out items each, with the model's hooks.

    executor: who asks, if not this thread (`parallel`); a model with hooks is asked here, since they do not travel.
    Raises `TaskNotFoundError` for an unknown name. A task that the tokenizer cannot express, or that needs a missing chat
    template, is reported as not measured, with the reason.
    """
    return evaluate_alike([model], tasks, n, seed, executor)[0]


def evaluate_alike(
    models: Sequence[TransformerModel],
    tasks: Sequence[str] | None = None,
    n: int = 200,
    seed: int | None = None,
    executor: Executor | None = None,
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
            scores.append([asked if isinstance(asked, TaskScore) else _score(model, task, asked, executor) for model in models])
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
    """Examples as a tokenizer reads them. answers: the right and the wrong token of each (rows, 2), -1 for a wrong one that is missing."""

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
        return cls.of_examples(model, task, examples)

    @classmethod
    def of_examples(cls, model: TransformerModel, task: Task | None, examples: Sequence[Example]) -> _Asked:
        """Examples whose answers are one token each; `task` says how they are asked."""
        chat = task is not None and task.chat
        prompts: list[str] = [model.chat_prompt(e.clean) if chat else e.clean for e in examples]
        texts = Texts(model.tokenizer)
        if not chat:
            texts.read(f"{p}{text or ''}" for p, e in zip(prompts, examples, strict=True) for text in ("", e.answer, e.wrong))
        answers = [
            [-1 if text is None else texts.answer_token(p, text) for text in (e.answer, e.wrong)]
            for p, e in zip(prompts, examples, strict=True)
        ]
        return cls(list(examples), prompts, model.encode(prompts, side="left"), np.array(answers))


def _score(model: TransformerModel, task: Task, asked: _Asked, executor: Executor | None = None) -> TaskScore:
    team = Team.of(model, executor, hooked=True)
    items, examples = _answered(model, task, asked) if team is None else _shared(team, task, asked.examples), asked.examples
    units = [example.independent_units for example in examples]
    by_label: dict[str, list[int]] = {}
    for at, example in enumerate(examples):
        if example.label is not None:
            by_label.setdefault(example.label, []).append(at)
    return TaskScore(
        task.name,
        rate([item.right for item in items], units),
        rate([bool(item.preferred) for item in items], units),
        mean_over_groups([item.share or 0.0 for item in items], [example.meta.get("entities") for example in examples]),
        {
            label: rate([items[at].right for at in mine], [units[at] for at in mine])
            for label, mine in sorted(by_label.items())
            if len(by_label) > 1
        },
    )


def answered(
    model: TransformerModel, examples: Sequence[Example], task: Task | None = None, executor: Executor | None = None
) -> list[Answered]:
    """How the model takes each example, in order, with its hooks; `task` says how it is asked and judged.

    executor: who asks, if not this thread (`parallel`). Answers must be one token behind their prompts, as `Dataset.for_model` sees to. Raises `DatasetError` for an example without
    an answer.
    """
    for number, example in enumerate(examples):
        if example.answer is None:
            raise DatasetError(
                f"Example {number} has no answer: {example.clean!r}.", remedy="Give how it goes on, as `answer`."
            )
    team = Team.of(model, executor, hooked=True)
    return (
        _shared(team, task, examples) if team is not None else _answered(model, task, _Asked.of_examples(model, task, examples))
    )


def _shared(team: Team, task: Task | None, examples: Sequence[Example]) -> list[Answered]:
    """The examples in chunks of a size that depends on nothing."""
    name = None if task is None else task.name
    work = [(name, list(examples[first : first + _CHUNK])) for first in range(0, len(examples), _CHUNK)]
    sizes = [len(part) for _, part in work]
    parts = team.map(_answered_part, work, name=f"asking {team.model.title}", unit="items", sizes=sizes)
    return [one for part in parts for one in part]


def _answered_part(model: TransformerModel, name: str | None, examples: Sequence[Example]) -> list[Answered]:
    task = None if name is None else registry.get(name)
    return _answered(model, task, _Asked.of_examples(model, task, examples))


def _answered(model: TransformerModel, task: Task | None, asked: _Asked) -> list[Answered]:
    size = model.engine.rows_that_fit(asked.batch.positions + (0 if task is None else task.reply))
    return [one for first in range(0, asked.batch.rows, size) for one in _items(model, task, asked, slice(first, first + size))]


def _items(model: TransformerModel, task: Task | None, asked: _Asked, rows: slice) -> list[Answered]:
    batch, (right, wrong) = asked.batch.take(rows), asked.answers[rows].T
    logits = model.engine.ops.to_numpy(model.run(batch, logits=LogitRequest.last(batch)).logits).astype(np.float64)
    replies: list[str | None] = [None] * batch.rows
    if task is None or task.judge is None:
        hits = [bool(hit) for hit in logits.argmax(1) == right]
    else:
        texts = model.continuations(asked.prompts[rows], task.reply)
        replies = [*texts]
        hits = [task.judge(example, text) for example, text in zip(asked.examples[rows], texts, strict=True)]
    margins = logits[np.arange(batch.rows), right] - logits[np.arange(batch.rows), wrong]
    return [
        Answered(hit, bool(margin > 0), float(1 / (1 + np.exp(-margin))), reply)
        if other >= 0
        else Answered(hit, None, None, reply)
        for hit, margin, other, reply in zip(hits, margins, wrong, replies, strict=True)
    ]
