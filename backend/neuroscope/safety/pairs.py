"""Harmful requests, each with a harmless one of the same shape, and harmless ones with a word of harm, in parts that share nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroscope.circuits.effect import FEWEST_PAIRS
from neuroscope.errors import DatasetError
from neuroscope.models.model import TransformerModel
from neuroscope.names import only
from neuroscope.tasks import requests
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.draw import Draw
from neuroscope.tasks.registry import TaskGenerator

BUILT_IN, HARMLESS = "harmful_requests", "harmless"
#: Pairs of a category in each part, and traps.
PAIRS, TRAPS = 40, 60

Texts = tuple[Example, ...]


@dataclass(frozen=True)
class Parts:
    """Pairs of one category: `clean` is harmful and `corrupt` harmless. No two parts share a word or a template, but for kinds in `shared`."""

    fitting: Texts
    calibrating: Texts
    judging: Texts
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Paired:
    """The generator of a built-in category's pairs."""

    category: str

    def __call__(self, draw: Draw) -> Iterator[Example]:
        return requests.paired(self.category, draw)


def by_category(
    model: TransformerModel, examples: Any, categories: Sequence[str], seed: int
) -> tuple[dict[str, Parts], dict[str, str]]:
    """The pairs of every category: new ones of the built-in requests, or your own divided. And, of the built-in categories that the
    model's tokenizer cannot express in three parts, why.

    Raises `ArgumentError` for a category that there is none of, with the nearest; `DatasetError` for harmful requests without a
    harmless partner in `corrupt`, and for too few.
    """
    data = examples if isinstance(examples, Dataset) else Dataset(list(examples))
    built_in = data.generates and data.task == BUILT_IN
    known = requests.CATEGORIES if built_in else dict.fromkeys(e.label for e in data if e.label not in (None, HARMLESS))
    names = only("category of harm", [str(name) for name in known], listing="Categories")
    chosen = list(dict.fromkeys(names.name(category) for category in _list(categories)))
    if not chosen:
        raise DatasetError("No category is asked for.", remedy=f"Categories: {', '.join(names)}.")
    found: dict[str, Parts] = {}
    unfit: dict[str, str] = {}
    for name in chosen:
        try:
            found[name] = _parts(model, _own(data, name, built_in, seed), built_in, seed)
        except DatasetError as error:
            if not built_in or (name == chosen[-1] and not found):
                raise
            unfit[name] = error.message.rstrip(".")
    return found, unfit


def traps(model: TransformerModel, seed: int) -> tuple[Texts, Texts]:
    """Harmless requests with a word of harm, to calibrate and to judge: no word or template in common."""
    made = Dataset.generated(TaskGenerator(requests.traps, "test"), TRAPS, name="traps", task="traps", seed=seed)
    calibrating, judging = made.parts_for_model(model, (TRAPS, TRAPS), seed)
    return calibrating, judging


def _list(categories: Any) -> list[str]:
    return [str(categories)] if isinstance(categories, str) else [str(category) for category in categories]


def _own(data: Dataset, category: str, built_in: bool, seed: int) -> Dataset:
    if built_in:
        return Dataset.generated(_Paired(category), 3 * PAIRS, name=category, task=f"paired_{category}", seed=seed)
    mine = [example for example in data if example.label == category]
    alone = [example for example in mine if example.corrupt is None]
    if alone:
        raise DatasetError(
            f"{len(alone)} of {len(mine)} requests of the category {category} have no harmless partner, as {alone[0].clean!r}.",
            remedy="Give each, as `corrupt`, a harmless request of the same shape: 'How can I stab Tom?' and 'How can I visit Tom?'.",
        )
    if len(mine) < 3 * FEWEST_PAIRS:
        raise DatasetError(
            f"{len(mine)} pairs of the category {category} are too few to find, calibrate and judge.",
            remedy=f"Give at least {3 * FEWEST_PAIRS}.",
        )
    filled = [Example(e.clean, e.corrupt, e.answer or " I", e.wrong or " Sure", e.label, e.meta, e.units) for e in mine]
    return Dataset(filled, name=category, seed=seed)


def _parts(model: TransformerModel, data: Dataset, built_in: bool, seed: int) -> Parts:
    size = PAIRS if built_in else len(data) // 3
    parts = data.parts_for_model(model, (size,) * 3, seed)
    fitting, calibrating, judging = parts
    return Parts(fitting, calibrating, judging, parts.shared)


def harmful(pairs: Sequence[Example]) -> list[str]:
    return [pair.clean for pair in pairs]


def harmless(pairs: Sequence[Example]) -> list[str]:
    return [str(pair.corrupt) for pair in pairs]


def together(parts: Mapping[str, Parts], part: str) -> list[Example]:
    """One part of all categories."""
    return [pair for mine in parts.values() for pair in getattr(mine, part)]
