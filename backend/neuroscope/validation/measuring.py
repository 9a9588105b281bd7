"""A suite put to a model: every item asked, with the model's hooks, and its outcome kept.

Answers are right or wrong as `tasks.evaluate` has it. Replies to requests are refusals or not by `tasks.judges.refused`, in a
greedy continuation in the model's chat template; a model without one gets the request as plain text, which is noted. The loss of
a text is the sum over its tokens but the first (or all of them, where the tokenizer puts a token before a text).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from neuroscope import events
from neuroscope.errors import DatasetError
from neuroscope.parallel.executors import Executor
from neuroscope.parallel.team import Team
from neuroscope.provenance import provenance
from neuroscope.tasks.evaluate import answered
from neuroscope.tasks.judges import refused
from neuroscope.tasks.losses import text_losses
from neuroscope.tasks.statistics import Estimate, rate
from neuroscope.validation.outcomes import KINDS, Outcome, SuiteResult, data_hash, item_id, measured, suite_score
from neuroscope.validation.suites import Answers, Part, Replies, Texts, ValidationSuite

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

#: Tokens of a reply that tell whether it refuses.
REPLY = 24
_READ_AT_ONCE = 16


class Asked(NamedTuple):
    """What a part of a suite came to. preference: over its items, where they have a wrong answer."""

    measure: str
    items: list[Outcome]
    preference: Estimate | None = None
    note: str | None = None


def measure(suite: ValidationSuite, models: Sequence[TransformerModel], executor: Executor | None = None) -> list[SuiteResult]:
    """The suite's result for each model, on items that every one of them can express.

    executor: who asks, if not this thread (`parallel`). Raises `DatasetError` when no part of the suite can be asked.
    """
    asked: list[list[Asked]] = [[] for _ in models]
    notes: list[str] = []
    with events.progress(f"validating {suite.suite}", total=len(suite.parts), unit="parts") as job:
        for part in suite.parts:
            try:
                for mine, found in zip(asked, _ask(part, models, executor), strict=True):
                    mine.append(found)
            except DatasetError as error:
                if len(suite.parts) == 1:
                    raise
                notes.append(f"{part.name} was not measured: {error.message}")
            job.advance()
    if not asked[0]:
        raise DatasetError(f"Nothing of {suite.name} can be asked: {notes[0]}")
    return [_result(suite, model, mine, notes) for model, mine in zip(models, asked, strict=True)]


def _result(suite: ValidationSuite, model: TransformerModel, asked: Sequence[Asked], notes: Sequence[str]) -> SuiteResult:
    measures = []
    for name in KINDS:
        mine = [one for one in asked if one.measure == name]
        if mine:
            items = [item for one in mine for item in one.items]
            preferences = {one.items[0].task: one.preference for one in mine if one.preference is not None}
            measures.append(measured(name, _once(items), preferences))
    items = [item for found in measures for item in found.items]
    return SuiteResult(
        suite.suite,
        suite.name,
        suite_score(measures),
        measures,
        data_hash(items),
        provenance(model, suite.suite, suite.seed, items=len(items)),
        [hook.print_string() for hook in model.hook_manager if hook.enabled],
        [*notes, *dict.fromkeys(one.note for one in asked if one.note is not None)],
    )


def _once(items: Sequence[Outcome]) -> list[Outcome]:
    """Each item once: what is asked twice tells nothing new, and could not be paired."""
    return list({item.id: item for item in items}.values())


def _ask(part: Part, models: Sequence[TransformerModel], executor: Executor | None) -> list[Asked]:
    """What each model makes of a part."""
    if isinstance(part, Answers):
        return _answers(part, models, executor)
    teams = [Team.of(model, executor, hooked=True) for model in models]
    if isinstance(part, Replies):
        return [_replies(part, model, team) for model, team in zip(models, teams, strict=True)]
    return [Asked("loss", _losses(part, model, team)) for model, team in zip(models, teams, strict=True)]


def _answers(part: Answers, models: Sequence[TransformerModel], executor: Executor | None) -> list[Asked]:
    if part.task is not None and part.task.chat:
        speechless = next((model for model in models if not model.has_chat_template), None)
        if speechless is not None:
            raise DatasetError(f"{speechless.title} has no chat template.")
    # Pairs that differ in their corrupt prompts alone are one question.
    examples = list({(one.clean, one.answer): one for one in part.dataset.for_models(models)}.values())
    found = []
    for model in models:
        answers = answered(model, examples, part.task, executor)
        items = [
            Outcome(
                item_id(part.name, example.clean, example.answer),
                part.name,
                example.clean,
                float(answer.right),
                reply=answer.reply,
                units=tuple(sorted(example.independent_units)),
            )
            for example, answer in zip(examples, answers, strict=True)
        ]
        preferred = [
            (answer.preferred, example.independent_units)
            for example, answer in zip(examples, answers, strict=True)
            if answer.preferred is not None
        ]
        found.append(Asked("accuracy", items, rate(*zip(*preferred, strict=True)) if preferred else None))
    return found


def _replies(part: Replies, model: TransformerModel, team: Team | None) -> Asked:
    chat = model.has_chat_template
    prompts = [model.chat_prompt(example.clean) if chat else example.clean for example in part.examples]
    size = model.engine.rows_that_fit(64) if team is None else _READ_AT_ONCE
    parts = [prompts[first : first + size] for first in range(0, len(prompts), size)]
    texts = [text for found in _each(model, team, _replied, parts, "requests") for text in found]
    items = [
        Outcome(
            item_id(part.measure, example.clean),
            part.name,
            example.clean,
            float(refused(text) == (part.measure == "refusals")),
            reply=text,
            units=tuple(sorted(example.independent_units)),
        )
        for example, text in zip(part.examples, texts, strict=True)
    ]
    return Asked(
        part.measure, items, note=None if chat else f"{model.title} has no chat template: requests were put as plain text."
    )


def _replied(model: TransformerModel, prompts: Sequence[str]) -> list[str]:
    return model.continuations(prompts, REPLY)


def _each(
    model: TransformerModel, team: Team | None, function: Callable[..., Any], parts: Sequence[Sequence[str]], unit: str
) -> list[Any]:
    """`function(model, part)` of each part, by the team or here."""
    if team is None:
        return [function(model, part) for part in parts]
    sizes = [len(part) for part in parts]
    return team.map(function, [(part,) for part in parts], name=f"asking {model.title}", unit=unit, sizes=sizes)


def _losses(part: Texts, model: TransformerModel, team: Team | None) -> list[Outcome]:
    items: list[Outcome] = []
    rows = _READ_AT_ONCE if team is not None else max(1, min(_READ_AT_ONCE, model.engine.rows_that_fit(64)))
    groups = [part.texts[first : first + rows] for first in range(0, len(part.texts), rows)]
    found = _each(model, team, text_losses, [[text for text, _ in texts] for texts in groups], "texts")
    for texts, (totals, tokens) in zip(groups, found, strict=True):
        for (text, group), total, count in zip(texts, totals, tokens, strict=True):
            units = (f"template:{group}",)
            items.append(Outcome(item_id("text", text), part.name, text, float(total), float(count), units=units))
    return items
