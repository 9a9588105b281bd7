"""The table of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from neuroscope.errors import TaskNotFoundError
from neuroscope.names import Names
from neuroscope.remedies import Remedy
from neuroscope.tasks import (
    agreement,
    arithmetic,
    countries,
    formality,
    induction,
    ioi,
    judges,
    pronouns,
    requests,
    sentiment,
    synonyms,
)
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.draw import Draw
from neuroscope.tasks.judges import Judge
from neuroscope.tasks.split import Split

Examples = Callable[[Draw, Split], Iterator[Example]]


@dataclass(frozen=True)
class TaskGenerator:
    """Makes a task's examples of one split; two of the same task and split are equal."""

    examples: Examples
    split: Split

    def __call__(self, draw: Draw) -> Iterator[Example]:
        return self.examples(draw, self.split)


@dataclass(frozen=True)
class Task:
    """A capability with a name, a description and a generator of examples.

    paired: whether every example has a corrupt prompt, as circuit work needs.
    chat: whether prompts are requests to an assistant, to be put into the model's chat template.
    phrasings: other wordings of an item, for models that fail on the plain one.
    judge: decides whether a greedy continuation of `reply` tokens is right, if one token is not enough.
    variant_of: the task of which this is a variant with other corrupt prompts.
    """

    name: str
    title: str
    examples: Examples
    paired: bool = True
    chat: bool = False
    judge: Judge | None = None
    reply: int = 4
    phrasings: Mapping[str, Callable[[Example], Example]] = field(default_factory=dict)
    variant_of: str | None = None

    @property
    def aliases(self) -> list[str]:
        """Its other names; those of a variant begin with the short name of its task."""
        return list(synonyms.of(self.name)) or [self.name.replace(ioi.TASK, "ioi")] * (self.variant_of is not None)

    @property
    def family(self) -> str:
        """The task's name, or that of the task it is a variant of."""
        return self.variant_of or self.name

    def dataset(self, n: int = 100, seed: int = 0, split: Split = "test") -> Dataset:
        """`n` different examples, the same for the same seed; "test" holds none that a bundled model was trained on."""
        return Dataset.generated(TaskGenerator(self.examples, split), n, name=self.title, task=self.name, seed=seed)


TASKS: tuple[Task, ...] = (
    Task("indirect_object_identification", "indirect object identification", ioi.examples),
    Task(
        "capital_of_country",
        "capitals of countries",
        countries.relation("capital"),
    ),
    Task("language_of_country", "languages of countries", countries.relation("language")),
    Task("continent_of_country", "continents of countries", countries.relation("continent")),
    Task("currency_of_country", "currencies of countries", countries.relation("currency")),
    Task(
        "subject_verb_agreement",
        "subject–verb agreement",
        agreement.examples,
        judge=judges.agrees_in_number,
        reply=2,
    ),
    Task("pronoun_resolution", "pronoun resolution", pronouns.resolution),
    Task("gender_pronoun_bias", "occupational pronoun bias", pronouns.bias),
    Task(
        "addition",
        "addition up to two digits",
        arithmetic.addition,
        judge=judges.whole_result,
        phrasings={"after shown sums": arithmetic.after_shown_sums},
    ),
    Task("subtraction", "subtraction up to two digits", arithmetic.subtraction, judge=judges.whole_result),
    Task("larger_number", "the larger of two numbers", arithmetic.larger, judge=judges.whole_result),
    Task("greater_than", "later years", arithmetic.greater_than, judge=judges.later_year),
    Task("sentiment_analysis", "sentiment of reviews", sentiment.examples),
    Task("emotion_detection", "emotion in exclamations", sentiment.exclamations),
    Task("register", "formal and informal register", formality.examples, paired=False),
    Task("induction", "repeated random sequences", induction.examples),
    Task(
        "harmful_requests",
        "harmful and harmless requests",
        requests.examples,
        paired=False,
        chat=True,
        judge=judges.refuses_harm,
        reply=24,
    ),
)

#: Variants of a task above, with other corrupt prompts.
VARIANTS: tuple[Task, ...] = tuple(
    Task(
        ioi.task_name(corruption),
        f"indirect object identification ({corruption.replace('_', ' ')})",
        ioi.corrupted(corruption),
        variant_of=ioi.TASK,
    )
    for corruption in ioi.CORRUPTIONS[1:]
)

_BY_NAME = Names(
    "task",
    {task.name: task for task in (*TASKS, *VARIANTS)},
    aliases={alias: task.name for task in (*TASKS, *VARIANTS) for alias in task.aliases},
    listing="Tasks",
    error=TaskNotFoundError,
    more=Remedy(
        "Your own examples come from Dataset.from_file(path).",
        smalltalk="Your own examples come from `Dataset fromFile: path`.",
        shell="`neuroscope tasks` lists them.",
        http='`"on"` takes your own pairs too.',
    ),
)


def get(name: str) -> Task:
    """The task of a name, in any spelling. Raises `TaskNotFoundError` with the nearest names."""
    return _BY_NAME[name]
