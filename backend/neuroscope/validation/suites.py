"""Suites: what a model is asked, as a value. Three are built in and need no network; others come from your own data.

performance   the tasks given, or every built-in task that the model's tokenizer can express
safety        harmful requests, harmless ones of the same shapes, and harmless ones with a word of harm ("How can I kill the
              process?", after XSTest, Röttger et al. 2024)
general       the built-in tasks, and the loss on general text: stories, mathematics and programs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope import settings
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.features.texts import DOMAINS, Text, several
from neuroscope.names import Names
from neuroscope.tasks import domains, registry, requests
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.registry import Task
from neuroscope.validation import packages
from neuroscope.vocabulary import public, python_only

#: Items of each part of the safety suite, and of each task where there are several.
ITEMS, ITEMS_PER_TASK, TEXTS_PER_DOMAIN = 100, 40, 48
PERFORMANCE, SAFETY, GENERAL = "performance", "safety", "general"
_REFUSALS = "harmful_requests"
HARMLESS = "harmless"
_GENERAL = {"literature": domains.PROSE, "mathematics": domains.MATHEMATICS, "programming": domains.PROGRAMS}


@dataclass(frozen=True)
class Answers:
    """Items whose answers are right or wrong. task: how they are asked and judged; None for the likeliest next token."""

    name: str
    dataset: Dataset
    task: Task | None


@dataclass(frozen=True)
class Replies:
    """Requests of which is asked whether they are refused. measure: refusals, answers or trap_answers."""

    name: str
    measure: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Texts:
    """Texts of one domain, each with the template that it shares with others."""

    name: str
    texts: tuple[tuple[str, str], ...]


Part = Answers | Replies | Texts


@public
class ValidationSuite:
    """What a `ComprehensiveValidator` asks. suite: performance, safety or general."""

    def __init__(self, suite: str, parts: Sequence[Part], *, name: str, seed: int = 0) -> None:
        self.suite: str = suite
        self.name: str = name
        self.seed: int = seed
        self._parts = tuple(parts)

    @classmethod
    def performance(cls, dataset: Any = None, n: int | None = None, seed: int | None = None) -> ValidationSuite:
        """The tasks of a model: a `Dataset`, a task's name, examples, or a list of these; every built-in task without.

        n: items of each (100 of a single task, 40 of each of several, all of a dataset). Raises `TaskNotFoundError` for an
        unknown name, and `ArgumentError` for what is no dataset.
        """
        seed = settings.seed(seed)
        parts, name = _answers(dataset, n, seed)
        return cls(PERFORMANCE, parts, name=name, seed=seed)

    @classmethod
    def safety(cls, requests: Any = None, n: int = ITEMS, seed: int | None = None) -> ValidationSuite:
        """Whether harmful requests are refused and harmless ones answered: those built in, or your own.

        requests: a `Dataset` or examples whose `label` is "harmless" or says what harm; or the name of a suite that a package
        brings (`ValidationSuite packaged`). n: items of each kind. Raises `DatasetError` for examples without a label.
        """
        seed = settings.seed(seed)
        if requests is None or (isinstance(requests, str) and str(requests) in ("safety", "refusals")):
            return cls(SAFETY, _built_in_requests(n, seed), name="built-in requests", seed=seed)
        if isinstance(requests, str):
            found = packages.requests(requests)
            return cls(SAFETY, _of_requests(found, n), name=str(requests), seed=seed)
        examples = _examples(requests, "requests")
        return cls(SAFETY, _of_requests(_labelled(examples), n), name=getattr(requests, "name", "requests"), seed=seed)

    @classmethod
    def general(cls, dataset: Any = None, n: int | None = None, seed: int | None = None) -> ValidationSuite:
        """What a model should be able to do besides: tasks (as in `performance`), and the loss on general text.

        n: items of each task. Of every domain 48 texts are read.
        """
        seed = settings.seed(seed)
        parts, name = _answers(dataset, n, seed)
        return cls(GENERAL, [*parts, *_domains(seed)], name=f"{name} and general text", seed=seed)

    @classmethod
    def texts(cls, texts: Sequence[str] | Mapping[str, Sequence[str]]) -> ValidationSuite:
        """The loss on your own texts, or on those of several domains by name. Raises `ArgumentError` without any."""
        domains = texts if isinstance(texts, Mapping) else {"texts": texts}
        parts = []
        for name, mine in domains.items():
            if isinstance(mine, str) or not mine or not all(isinstance(text, str) and text.strip() for text in mine):
                raise ArgumentError(
                    f"The texts {str(name)!r} are no list of texts.", remedy="Give one or more texts that are not empty."
                )
            parts.append(Texts(str(name), tuple((str(text), f"text {number}") for number, text in enumerate(mine))))
        return cls(GENERAL, parts, name=", ".join(map(str, domains)))

    @classmethod
    def named(cls, name: str, n: int | None = None, seed: int | None = None) -> ValidationSuite:
        """A built-in suite: performance, safety or general. `ArgumentError` names the nearest."""
        made: Callable[..., ValidationSuite] = getattr(cls, _NAMES.name(name))
        return made(seed=seed) if n is None else made(n=n, seed=seed)

    @classmethod
    def packaged(cls) -> dict[str, str]:
        """The suites of harmful and harmless requests that packages bring: name → package."""
        return {name: source.package for name, source in packages.SOURCES.items()}

    @property
    @python_only
    def parts(self) -> tuple[Part, ...]:
        return self._parts

    def print_string(self) -> str:
        return f"a ValidationSuite({self.suite}: {self.name})"

    def __repr__(self) -> str:
        return self.print_string()

    def as_dictionary(self) -> dict[str, Any]:
        return {"suite": self.suite, "name": self.name, "seed": self.seed, "parts": [part.name for part in self._parts]}


_NAMES = Names("suite", {name: name for name in (PERFORMANCE, SAFETY, GENERAL)}, listing="Suites", aliases={
    "original_performance": PERFORMANCE, "refusals": SAFETY, "general_capabilities": GENERAL,
})  # fmt: skip


def suite_of(suite: str, given: Any, *, items: int | None, seed: int) -> ValidationSuite:
    """The suite of that kind that was given: as it is, or made of data. Raises `ArgumentError` for one of another kind."""
    if isinstance(given, ValidationSuite):
        if given.suite != suite and not (suite == PERFORMANCE and given.suite == GENERAL):
            raise ArgumentError(f"{given.print_string()} is no suite of {suite}.", remedy=f"Make one: ValidationSuite {suite}.")
        return given
    made: Callable[..., ValidationSuite] = getattr(ValidationSuite, suite)
    if isinstance(given, str) and given in _NAMES and _NAMES.name(given) == suite:
        given = None
    return made(given, seed=seed) if items is None else made(given, n=items, seed=seed)


def _answers(given: Any, n: int | None, seed: int) -> tuple[list[Part], str]:
    """Parts of answers, and what they are called together."""
    if n is not None and n < 2:
        raise ArgumentError(f"{n} items measure nothing.", remedy="Ask for at least 2.")
    if given is None:
        chosen = [task.name for task in registry.TASKS if task.name != _REFUSALS]
        return [_part(name, n or ITEMS_PER_TASK, seed) for name in chosen], "built-in tasks"
    if isinstance(given, (str, Dataset)):
        part = _part(given, n, seed)
        return [part], part.name
    items = list(given) if isinstance(given, Sequence) else []
    if not items:
        raise ArgumentError(f"{given!r} is no dataset.", remedy="Give a Dataset, a task's name, examples, or a list of these.")
    if all(isinstance(item, (str, Dataset)) for item in items):
        parts = [_part(item, n or (ITEMS_PER_TASK if isinstance(item, str) else None), seed) for item in items]
        return [*parts], ", ".join(dict.fromkeys(part.name for part in parts))
    part = _part(Dataset(_examples(items, "examples")), n, seed)
    return [part], part.name


def _part(given: str | Dataset, n: int | None, seed: int) -> Answers:
    if isinstance(given, str):
        task = registry.get(given)
        return Answers(task.name, task.dataset(n or ITEMS, seed=seed), task)
    known = {task.name: task for task in (*registry.TASKS, *registry.VARIANTS)}
    task_of = None if given.task is None else known.get(given.task)
    if not len(given):
        raise DatasetError(f"{given.print_string()} holds no examples.")
    return Answers(given.task or given.name, given if n is None else given.take(n), task_of)


def _examples(given: Any, what: str) -> list[Example]:
    if isinstance(given, Dataset):
        return given.examples
    items = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if items and all(isinstance(item, Mapping) for item in items):
        return Dataset.from_examples(items).examples
    if not items or not all(isinstance(item, Example) for item in items):
        raise ArgumentError(f"{given!r} holds no {what}.", remedy="Give a Dataset, or a list of examples.")
    return items


def _labelled(examples: Sequence[Example]) -> list[tuple[str, Example]]:
    for number, example in enumerate(examples):
        if example.label is None:
            raise DatasetError(
                f"Request {number} has no label: {example.clean!r}.",
                remedy='Label harmless requests "harmless", and the others by their harm.',
            )
    return [("answers" if example.label == HARMLESS else "refusals", example) for example in examples]


def _of_requests(found: Sequence[tuple[str, Example]], n: int) -> list[Part]:
    if n < 2:
        raise ArgumentError(f"{n} requests measure nothing.", remedy="Ask for at least 2.")
    parts: list[Part] = []
    for measure in ("refusals", "answers", "trap_answers"):
        mine = [example for kind, example in found if kind == measure]
        if mine:
            parts.append(Replies(measure, measure, tuple(mine[:n])))
    if not parts:
        raise DatasetError("There are no requests.", remedy="Give at least one.")
    return parts


def _built_in_requests(n: int, seed: int) -> list[Part]:
    """Harmful requests and harmless ones as often, and harmless ones with a word of harm; none that a bundled model was trained on."""
    if n < 2:
        raise ArgumentError(f"{n} requests measure nothing.", remedy="Ask for at least 2.")
    found = []
    for measure, wanted in (("refusals", True), ("answers", False)):
        made = Dataset.generated(
            lambda draw, wanted=wanted: (  # type: ignore[misc]
                example for example in requests.examples(draw) if (example.label != HARMLESS) == wanted
            ),
            n,
            name=measure,
            task=_REFUSALS,
            seed=seed,
        )
        found += [(measure, example) for example in made]
    traps = Dataset.generated(requests.traps, n, name="trap_answers", task=_REFUSALS, seed=seed)
    return _of_requests([*found, *(("trap_answers", example) for example in traps)], n)


def _domains(seed: int) -> list[Texts]:
    """Texts of the three domains that the bundled models have read about, each from a stream of random choices of its own.

    Of further templates these models know nothing, and their loss there would measure nothing.
    """
    found = []
    for number, (name, templates) in enumerate(_GENERAL.items()):

        def make(random: np.random.Generator, name: str = name, templates: tuple[str, ...] = templates) -> Text:
            while True:
                text = DOMAINS[name](random)
                if text.group in templates:
                    return text

        drawn = several(make, TEXTS_PER_DOMAIN, np.random.default_rng([seed, number]))
        found.append(Texts(name, tuple((text.text, text.group) for text in drawn)))
    return found
