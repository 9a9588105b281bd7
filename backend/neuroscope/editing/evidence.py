"""On what an erasure is fitted and judged: a concept's prompts, what is to be kept, and general text.

A concept is a dataset whose answers are one of two (she, he). Its bias is the mean share P(expected) / (P(expected) + P(other)), .5 where
the model prefers neither. Items that judge share no prompt, entity, word or template with those that fitted, nor with those that chose
the circuit, apart from the kinds in `shared`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuroscope.editing import measures
from neuroscope.editing.keys import Numbers
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.models.model import TransformerModel
from neuroscope.tasks import pronouns, registry
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.domains import DOMAINS
from neuroscope.tasks.draw import Draw, remaining
from neuroscope.tasks.evaluate import answered
from neuroscope.tasks.registry import Task, TaskGenerator

#: Items that fit and that judge; and texts.
FITTED, JUDGED, TEXTS = 400, 160, 120
#: What gender by definition is called among what is kept.
DEFINITIONAL = "definitional_gender"
#: Fewer than these prompts of a class, or held-out items, are too few.
FEWEST = 8


@dataclass(frozen=True)
class Concept:
    """Prompts with their class (0 or 1), the examples they are of, and held-out examples. name: the task's or the dataset's."""

    name: str
    prompts: list[str]
    labels: Numbers
    fitting: list[Example]
    held_out: list[Example]
    shared: list[str]


@dataclass(frozen=True)
class Keep:
    """A capability: its prompts and examples that fit, and held-out examples that share nothing with them.

    accuracy: judged by the likeliest token, else by preference.

    room: whether the erasure leaves room for it, or it is only measured.
    """

    name: str
    prompts: list[str]
    fitting: list[Example]
    held_out: list[Example]
    task: Task | None
    accuracy: bool = True
    room: bool = True


@dataclass(frozen=True)
class Readings:
    """What a model makes of the evidence. shares: of the concept's held-out items; kept: of each capability's, right or not (n,)."""

    shares: Numbers
    kept: dict[str, Numbers]
    losses: Numbers
    tokens: Numbers


def concept_of(model: TransformerModel, given: str | Dataset, used: frozenset[str], seed: int) -> Concept:
    """A concept's prompts. used: units that its held-out examples must not share.

    Raises `TaskNotFoundError` for an unknown name, `ArgumentError` for answers that are not one of two, and `DatasetError` for too few.
    """
    dataset = given if isinstance(given, Dataset) else Dataset.load(str(given), n=FITTED, seed=seed)
    name = dataset.task or dataset.name
    generator = dataset.generator
    if generator is None:
        parts = dataset.parts_for_model(model, [2 * len(dataset), len(dataset)], seed)
        fitted, held, shared = list(parts.parts[0]), list(parts.parts[1]), list(parts.shared)
    else:
        held = _drawn(model, generator, used, JUDGED, [seed, 21], name, dataset.task)
        taken = frozenset(unit for one in held for unit in one.units)
        prompts = {one.clean for one in held}
        drawn = _drawn(model, generator, taken, FITTED, [seed, 22], name, dataset.task)
        fitted = [one for one in drawn if one.clean not in prompts]
        ours = {unit for one in fitted for unit in one.units} | used
        shared = sorted({unit.partition(":")[0] for unit in taken & ours})
    answers = sorted({str(text) for one in (*fitted, *held) for text in (one.answer, one.wrong)})
    if len(answers) != 2:
        some = ", ".join(map(repr, answers[:4]))
        raise ArgumentError(
            f"A concept to erase has one of two answers; {name} has {len(answers)}: {some}.",
            remedy="Give examples with `answer` and `wrong`, the two the same throughout: ' she' and ' he'.",
        )
    classes = {answers[0]: 0.0, answers[1]: 1.0}
    rows = [(one.clean, classes[str(one.answer)]) for one in fitted]
    rows += [(one.corrupt, classes[str(one.wrong)]) for one in fitted if one.corrupt is not None]
    rows = list(dict(rows).items())
    counts = [sum(label == which for _, label in rows) for which in (0.0, 1.0)]
    if min(counts) < FEWEST or len(held) < FEWEST:
        raise DatasetError(
            f"{name} has {counts[0]} and {counts[1]} prompts of its two classes to fit on and {len(held)} held out; {FEWEST} of "
            "each are needed.",
            remedy="Give more examples, or examples that share fewer units.",
        )
    return Concept(name, [text for text, _ in rows], np.array([label for _, label in rows]), fitted, held, shared)


def keep_of(model: TransformerModel, given: str | Dataset, seed: int, *, accuracy: bool = True) -> Keep:
    """A capability to keep: a task's name, or a dataset with answers. Raises `TaskNotFoundError` with the nearest names."""
    if isinstance(given, Dataset):
        dataset, task = given, registry.get(given.task) if given.task is not None else None
    else:
        task = registry.get(str(given))
        dataset = task.dataset(FITTED, seed)
    size = [JUDGED, JUDGED] if dataset.generates else [len(dataset), len(dataset)]
    parts = dataset.parts_for_model(model, size, seed)
    fitted, held = map(list, parts)
    if min(len(fitted), len(held)) < FEWEST:
        raise DatasetError(
            f"{dataset.name} has too few independent examples to keep it: {len(fitted)} and {len(held)}.",
            remedy=f"Give at least {2 * FEWEST} that share no units.",
        )
    chat = task is not None and task.chat and model.has_chat_template
    prompts = [str(model.chat_prompt(one.clean)) if chat else one.clean for one in fitted]
    return Keep(dataset.task or dataset.name, prompts, fitted, held, task, accuracy)


def definitional_gender(model: TransformerModel, seed: int) -> Keep:
    """*She = the queen*: nouns that have a gender by definition, half of them to keep and half to judge, by preference.

    Nouns, not stereotypes; knowledge of the two is known to be entangled.
    """
    made = Dataset.generated(
        TaskGenerator(pronouns.definitional, "test"), FITTED, name=DEFINITIONAL, task=DEFINITIONAL, seed=seed
    )
    dataset = Dataset(made.examples, name=DEFINITIONAL, seed=seed, generator=made.generator)
    return keep_of(model, dataset, seed, accuracy=False)


def general_texts(seed: int) -> list[str]:
    """Prose, mathematics and programs: what an erasure should leave as it is."""
    random = np.random.default_rng([seed, 23])
    return [make(random) for make in DOMAINS.values() for _ in range(TEXTS // len(DOMAINS))]


def readings(model: TransformerModel, concept: Concept, keep: Sequence[Keep], seed: int) -> Readings:
    """The evidence put to the model as it is, with its hooks. General text is other than `general_texts`."""
    shares = expected(model, concept.held_out)
    kept = {one.name: right(model, one, one.held_out) for one in keep}
    losses, tokens = measures.general_loss(model, seed)
    return Readings(shares, kept, losses, tokens)


def expected(model: TransformerModel, examples: Sequence[Example]) -> Numbers:
    """(n,): P(expected) / (P(expected) + P(other)) of each example."""
    return np.array([one.share for one in answered(model, examples)], dtype=np.float64)


def right(model: TransformerModel, keep: Keep, examples: Sequence[Example]) -> Numbers:
    """(n,): whether each example of a capability is answered right, 1 or 0."""
    answers = answered(model, examples, keep.task)
    return np.array([float(a.right if keep.accuracy or a.preferred is None else a.preferred) for a in answers])


def _alone(example: Example) -> Example:
    """A generated example without its corrupt prompt, and with the units of its own prompt alone."""
    own = [unit for unit in example.units if unit.startswith("template:") or unit.partition(":")[2] in example.clean]
    return replace(example, corrupt=None, units=tuple(own))


def _drawn(
    model: TransformerModel, generator: object, used: frozenset[str], n: int, seed: list[int], name: str, task: str | None
) -> list[Example]:
    """Different examples that fit the model's tokenizer, made from values without the units `used`, as far as there are enough."""
    assert isinstance(generator, TaskGenerator)
    draw = Draw(np.random.default_rng(seed), remaining(generator, used))
    made = list({one.clean: _alone(one) for one in draw.taken(generator(draw), 3 * n)}.values())
    return list(Dataset(made, name=name, task=task).for_model(model))[:n]
