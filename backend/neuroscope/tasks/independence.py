"""Parts of a dataset that share nothing: no prompt, no name, no country, no template.

What an example depends on is its `units` ("name:Mary", "place:shop"). Parts are independent when no unit, and no prompt as
the tokenizer reads it, stands in two of them; only then does a figure measured on one part say something about what was
chosen on another.

A task's generator is asked for more: every kind's values are dealt out to the parts in proportion to their sizes, and each
part is generated from its own. The user's own examples are dealt out by connected components, where components suffice,
and otherwise by values, leaving out the examples whose units fell to different parts.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.tasks.dataset import Example, Generator
from neuroscope.tasks.draw import Draw
from neuroscope.tasks.fitting import Fit, Ids
from neuroscope.vocabulary import public

#: Fewer examples than this in a part support no statement.
_FEWEST = 4
_SURVEY, _SURVEY_OFFERS = 300, 3000
_CHUNK = 128
#: Examples that may be offered for each one wanted.
_PATIENCE = 250
_DEALS, _DEALS_OF_A_TASK = 40, 5
#: Examples made for each that is kept, so that every template of the part is among them.
_VARIETY = 3
#: A part's values allow no more examples when so many chunks in a row bring none.
_IDLE = 3
TEMPLATE = "template"


@public
@dataclass(frozen=True)
class Parts:
    """Lists of examples, independent of each other, in the order of the sizes asked for.

    shared: the kinds of unit that all parts have in common, because there are fewer values of the kind than parts.
    """

    parts: tuple[tuple[Example, ...], ...]
    shared: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[Example, ...]]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> tuple[Example, ...]:
        return self.parts[index]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(part) for part in self.parts)

    def print_string(self) -> str:
        shared = f", sharing {' and '.join(self.shared)}" if self.shared else ""
        return f"a Parts({', '.join(map(str, self.sizes))} examples{shared})"


#: So many parts are kept: those of the tasks that one experiment asks for.
_KEPT = 16
_made: OrderedDict[tuple[Generator, tuple[str | None, ...], tuple[int, ...], int], Parts] = OrderedDict()
_lock = threading.Lock()


def checked_sizes(sizes: Sequence[int]) -> list[int]:
    """The sizes as integers; `ArgumentError` unless each is at least 1."""
    found = [int(size) for size in sizes]
    if not found or min(found) < 1:
        raise ArgumentError(f"{list(sizes)} are no sizes of parts.", remedy="Give a whole number above 0 for each part.")
    return found


def generated_parts(generator: Generator, fits: Sequence[Fit], sizes: Sequence[int], seed: int, name: str) -> Parts:
    """Parts of a task's examples, each from its own values; a part may stay smaller than asked.

    The last few that were made are kept: they serve every model with the same tokenizer. Raises `DatasetError` when a kind has
    fewer values than parts, or a part finds too few examples.
    """
    sizes = checked_sizes(sizes)
    prints = tuple(fit.fingerprint for fit in fits)
    if None in prints:
        return _generated(generator, fits, sizes, seed, name)
    key = generator, prints, tuple(sizes), seed
    with _lock:
        if key in _made:
            _made.move_to_end(key)
            return _made[key]
    parts = _generated(generator, fits, sizes, seed, name)
    with _lock:
        _made[key] = parts
        while len(_made) > _KEPT:
            _made.popitem(last=False)
    return parts


def _generated(generator: Generator, fits: Sequence[Fit], sizes: Sequence[int], seed: int, name: str) -> Parts:
    survey = Draw(np.random.default_rng([seed, 0]))
    seen: Counter[str] = Counter()
    offered = fitting = 0
    stream = generator(survey)
    while fitting < _SURVEY and offered < _SURVEY_OFFERS:
        chunk = survey.taken(stream, _CHUNK)
        if not chunk:
            break
        kept = _fitting(chunk, fits)
        offered += len(chunk)
        fitting += len(kept)
        seen.update(unit for example in kept for unit in example.units)
    values: dict[str, dict[str, int]] = {}
    for unit, count in sorted(seen.items()):
        kind, _, value = unit.partition(":")
        values.setdefault(kind, {})[value] = count
    shared = tuple(kind for kind, known in values.items() if _is_shared(kind, len(known), len(sizes)))
    lists: dict[str, list[tuple[Sequence[str], int]]] = {}
    for kind, known in values.items():
        if kind in shared:
            continue
        lists[kind] = [
            ([text for text in asked.texts if text in known], asked.most) for asked in survey.asked if asked.kind == kind
        ] or [(list(known), 1)]
        for texts, most in lists[kind]:
            if len(texts) < most * len(sizes):
                raise DatasetError(
                    f"{name} has {len(texts)} values of {kind} that fit the tokenizer, too few for {len(sizes)} parts.",
                    remedy="Ask for fewer parts, or use a model that reads more of the words as single tokens.",
                )
    best: list[list[Example]] = []
    for attempt in range(_DEALS_OF_A_TASK):
        random = np.random.default_rng([seed, 1, attempt])
        # Templates are dealt by number: some occur more often, and a part would otherwise hang on a single one.
        pools = {
            kind: _dealt(mine, dict.fromkeys(values[kind], 1) if kind == TEMPLATE else values[kind], sizes, random)
            for kind, mine in lists.items()
        }
        taken: dict[Ids, int] = {}
        parts = [
            _filled(Draw(np.random.default_rng([seed, 2 + part, attempt]), pools, part), generator, fits, size, part, taken)
            for part, size in enumerate(sizes)
        ]
        best = max(best, parts, key=lambda one: min((len(p) / size for p, size in zip(one, sizes, strict=False)), default=-1.0))
        if all(len(part) == size for part, size in zip(best, sizes, strict=True)):
            break
    smallest = min(range(len(sizes)), key=lambda part: len(best[part]) / sizes[part])
    if len(best[smallest]) < min(sizes[smallest], _FEWEST):
        raise DatasetError(
            f"{name}: {len(best[smallest])} examples that share nothing with the other parts, of {sizes[smallest]} asked for.",
            remedy="Ask for fewer or smaller parts.",
        )
    return Parts(tuple(tuple(part) for part in best), shared)


def _is_shared(kind: str, values: int, parts: int) -> bool:
    """Whether a kind cannot be kept apart: it has one value, or is the wording and has fewer than there are parts."""
    return values == 1 or (kind == TEMPLATE and values < parts)


def _dealt(
    lists: Sequence[tuple[Sequence[str], int]], weights: Mapping[str, int], sizes: Sequence[float], random: np.random.Generator
) -> dict[str, int]:
    """The values of a kind by the part they fall to: weights in proportion to the sizes, the weightiest dealt first.

    lists: values that are chosen from together, with how many of them every part needs. Each list is dealt in proportion as
    well as all lists together.
    """
    pool: dict[str, int] = {}
    shares = np.array(sizes) / sum(sizes)
    have = np.zeros(len(sizes))
    whole = sum(weights[text] for text in {text for texts, _ in lists for text in texts})
    for texts, least in sorted(lists, key=lambda one: len(one[0])):
        count = np.bincount([pool[text] for text in texts if text in pool], minlength=len(sizes))
        here = np.bincount([pool[t] for t in texts if t in pool], [weights[t] for t in texts if t in pool], len(sizes))
        listed = sum(weights[text] for text in texts)
        order = [text for text in texts if text not in pool]
        rank = {text: -weights[text] * random.uniform(0.7, 1.3) for text in order}
        for index, text in enumerate(sorted(order, key=rank.__getitem__)):
            lacking = np.maximum(least - count, 0)
            gap = 2 * shares - have / whole - here / listed
            if len(order) - index <= lacking.sum():
                gap = np.where(lacking > 0, gap, -np.inf)
            part = int(gap.argmax())
            pool[text] = part
            have[part] += weights[text]
            here[part] += weights[text]
            count[part] += 1
    return pool


def _fitting(examples: Sequence[Example], fits: Sequence[Fit]) -> list[Example]:
    for fit in fits:
        fit.read(examples)
    return [example for example in examples if all(fit.complaint(example) is None for fit in fits)]


def _tokens(example: Example, fits: Sequence[Fit]) -> list[Ids]:
    """The example's prompts as every tokenizer reads them, each marked with its tokenizer."""
    prompts = [example.clean] if example.corrupt is None else [example.clean, example.corrupt]
    return [(which, *fit.prompt(text)) for which, fit in enumerate(fits) for text in prompts]


def _filled(
    draw: Draw, generator: Generator, fits: Sequence[Fit], size: int, part: int, taken: dict[Ids, int]
) -> list[Example]:
    """Different examples whose prompts no other part has taken; those with a clean prompt of their own come first."""
    kept: list[Example] = []
    spare: list[Example] = []
    pairs: set[tuple[Ids, ...]] = set()
    cleans: set[Ids] = set()
    stream = generator(draw)
    idle = 0
    for _ in range(max(1, _PATIENCE * max(size, 8) // _CHUNK)):
        found = draw.taken(stream, _CHUNK)
        idle += 1
        if not found or idle > _IDLE:
            break
        for example in _fitting(found, fits):
            tokens = _tokens(example, fits)
            if tuple(tokens) in pairs or any(taken.get(ids, part) != part for ids in tokens):
                continue
            pairs.add(tuple(tokens))
            idle = 0
            (spare if tokens[0] in cleans else kept).append(example)
            cleans.add(tokens[0])
        if len(kept) >= _VARIETY * size:
            break
    kept = _varied([*kept, *spare])[:size]
    taken.update((ids, part) for example in kept for ids in _tokens(example, fits))
    return kept


def _varied(examples: Sequence[Example]) -> list[Example]:
    """The examples with their templates in turn, so that a rare template is not drowned by a frequent one."""
    turns: Counter[str] = Counter()
    order = []
    for example in examples:
        template = next((unit for unit in example.units if unit.startswith(f"{TEMPLATE}:")), "")
        order.append(turns[template])
        turns[template] += 1
    return [examples[index] for index in np.argsort(order, kind="stable")]


def divided(
    examples: Sequence[Example], fits: Sequence[Fit], sizes: Sequence[int], seed: int, name: str, tell: Callable[[str], object]
) -> Parts:
    """Parts of examples that cannot be had more of; smaller in proportion when there are fewer than the sizes ask for.

    Raises `DatasetError` that names the kind which ties the examples together when a part would be too small.
    """
    sizes = checked_sizes(sizes)
    random = np.random.default_rng([seed, 1])
    examples = [examples[int(index)] for index in random.permutation(len(examples))]
    wanted = [size * min(1.0, len(examples) / sum(sizes)) for size in sizes]
    units = [{*example.independent_units, *(f"prompt:{ids}" for ids in _tokens(example, fits))} for example in examples]
    values: dict[str, set[str]] = {}
    for unit in set().union(*units):
        values.setdefault(unit.partition(":")[0], set()).add(unit)
    shared = sorted(kind for kind, mine in values.items() if kind != "prompt" and _is_shared(kind, len(mine), len(sizes)))
    units = [{unit for unit in mine if unit.partition(":")[0] not in shared} for mine in units]
    chosen = _by_components(units, wanted)
    if not _enough(chosen, wanted):
        deals = [_by_values(units, wanted, random) for _ in range(_DEALS)]
        chosen = max([chosen, *deals], key=lambda parts: min(len(p) / w for p, w in zip(parts, wanted, strict=True)))
    chosen = [part[:size] for part, size in zip(chosen, sizes, strict=True)]
    if any(len(part) < min(_FEWEST, size) for part, size in zip(chosen, sizes, strict=True)):
        kind, value, count = _tie(units)
        raise DatasetError(
            f"{name}: {len(examples)} examples cannot be divided into {len(sizes)} parts that share nothing: "
            f"the kind {kind} ties them together ({value!r} stands in {count} of them).",
            remedy=f"Give more examples, with other values of {kind}; each part needs at least {_FEWEST}.",
        )
    left = min(len(examples), sum(sizes)) - sum(len(part) for part in chosen)
    if left > 0:
        tell(f"{name}: {left} of {len(examples)} examples are left out, so that the parts share nothing")
    return Parts(tuple(tuple(examples[index] for index in part) for part in chosen), tuple(shared))


def _enough(parts: Sequence[Sequence[int]], wanted: Sequence[float]) -> bool:
    return all(len(part) >= 0.75 * want for part, want in zip(parts, wanted, strict=True))


def components(units: Sequence[set[str]]) -> list[list[int]]:
    """Indices of examples that units connect, directly or through others; the largest first."""
    owner = list(range(len(units)))

    def root(index: int) -> int:
        while owner[index] != index:
            owner[index] = owner[owner[index]]
            index = owner[index]
        return index

    first: dict[str, int] = {}
    for index, mine in enumerate(units):
        for unit in mine:
            owner[root(index)] = root(first.setdefault(unit, index))
    found: dict[int, list[int]] = {}
    for index in range(len(units)):
        found.setdefault(root(index), []).append(index)
    return sorted(found.values(), key=len, reverse=True)


def _by_components(units: Sequence[set[str]], wanted: Sequence[float]) -> list[list[int]]:
    parts: list[list[int]] = [[] for _ in wanted]
    for component in components(units):
        gaps = [want - len(part) for part, want in zip(parts, wanted, strict=True)]
        parts[int(np.argmax(gaps))] += component
    return parts


def _by_values(units: Sequence[set[str]], wanted: Sequence[float], random: np.random.Generator) -> list[list[int]]:
    """Deal out values of all kinds; an example whose values fell to different parts is left out."""
    seen = Counter(unit for mine in units for unit in mine if not unit.startswith("prompt:"))
    pool: dict[str, int] = {}
    for kind in sorted({unit.partition(":")[0] for unit in seen}):
        texts = sorted(unit for unit in seen if unit.partition(":")[0] == kind)
        pool |= _dealt([(texts, 1)], seen, wanted, random)
    parts: list[list[int]] = [[] for _ in wanted]
    taken: dict[str, int] = {}
    for index, mine in enumerate(units):
        homes = {pool[unit] for unit in mine if unit in pool}
        homes |= {taken[unit] for unit in mine if unit in taken}
        if len(homes) > 1:
            continue
        home = homes.pop() if homes else int(np.argmax([w - len(p) for w, p in zip(wanted, parts, strict=True)]))
        parts[home].append(index)
        taken.update((unit, home) for unit in mine if unit not in pool)
    return parts


def _tie(units: Sequence[set[str]]) -> tuple[str, str, int]:
    """The kind without which the largest component would shrink the most, with its commonest value."""
    kinds = sorted({unit.partition(":")[0] for mine in units for unit in mine})
    largest = {
        kind: len(components([{unit for unit in mine if unit.partition(":")[0] != kind} for mine in units])[0])
        for kind in kinds
    }
    kind = min(kinds, key=lambda one: (largest[one], one == "prompt"))
    unit, count = Counter(u for mine in units for u in mine if u.partition(":")[0] == kind).most_common(1)[0]
    return kind, unit.partition(":")[2], count
