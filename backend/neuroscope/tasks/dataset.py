"""Datasets: examples of a task, filtered for a model's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope import events, places, settings
from neuroscope.errors import ArgumentError, DatasetError, did_you_mean
from neuroscope.kinds import at_least
from neuroscope.results import plain
from neuroscope.tasks.draw import Draw
from neuroscope.tasks.files import check_whole, read_rows
from neuroscope.tasks.fitting import Fit
from neuroscope.vocabulary import public, python_only

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel
    from neuroscope.tasks.independence import Parts

#: A task's generator: makes endless examples from random choices.
Generator = Callable[[Draw], Iterator["Example"]]

_FIELDS = ("clean", "corrupt", "answer", "wrong", "label")
#: Number of generated examples per requested one before the filter gives up.
_PATIENCE = 500
#: Examples tokenised at once.
_CHUNK = 128


@public
@dataclass(frozen=True)
class Example:
    """One item: a prompt and its continuation.

    clean: the prompt. answer: its true continuation, with its leading space. corrupt: a prompt of the same length for which the
    answer no longer holds. wrong: the answer to compare with. label: a class, for probes. meta: template and entities, to
    recognise held-out items. units: what the example depends on, as "kind:value" ("name:Mary", "place:shop", "template:When {A}
    …"); examples without a common unit are independent.
    """

    clean: str
    corrupt: str | None = None
    answer: str | None = None
    wrong: str | None = None
    label: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    units: tuple[str, ...] = ()

    @property
    def independent_units(self) -> frozenset[str]:
        """The units, or the prompts if there are none."""
        prompts = [self.clean] if self.corrupt is None else [self.clean, self.corrupt]
        return frozenset(self.units or [f"prompt:{text}" for text in prompts])

    def print_string(self) -> str:
        return f"an Example({self.clean!r} → {self.answer!r})"

    def as_dictionary(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS} | {"meta": dict(self.meta), "units": list(self.units)}


#: Most examples that a task makes at once.
MOST_GENERATED = 1_000_000


@public
class Dataset:
    """A named sequence of examples; one from a task can generate more."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        name: str = "examples",
        task: str | None = None,
        seed: int = 0,
        generator: Generator | None = None,
    ) -> None:
        wrong = next((item for item in _listed(examples) if not isinstance(item, Example)), None)
        if wrong is not None:
            raise DatasetError(
                f"A Dataset holds Examples, not {wrong!r:.60}.",
                remedy="Dataset.from_examples takes dictionaries with clean, corrupt, answer.",
            )
        self._examples = list(examples)
        self._generator = generator
        self.name: str = name
        self.task: str | None = task
        self.seed: int = seed

    @classmethod
    @python_only
    def generated(cls, generator: Generator, n: int, *, name: str, task: str, seed: int) -> Dataset:
        """The first `n` different examples that a task's generator makes with this seed."""
        if at_least(1, "n", n) > MOST_GENERATED:
            raise ArgumentError(f"{name} cannot make {n:,} examples.", remedy=f"At most {MOST_GENERATED:,} at a time.")
        made = cls([], name=name, task=task, seed=settings.seed(seed), generator=generator)
        made._examples = made._distinct(int(n), lambda example: True, [])[0]
        return made

    @classmethod
    def load_ioi_examples(cls, n: int = 100, seed: int = 0, corruption: str = "third_person") -> Dataset:
        """Indirect object identification: 'When Mary and John went to the shop, John gave a drink to' → ' Mary'.

        `corruption`: third_person, abc, s2_io_flip or random_names (`tasks.ioi`). Raises `ArgumentError` for any other.
        """
        from neuroscope.tasks import ioi

        return cls.load(ioi.task_name(corruption), n=n, seed=seed)

    @classmethod
    def load_geography_test(cls, n: int = 100, seed: int = 0) -> Dataset:
        """Capitals of countries: 'The capital of France is' → ' Paris'."""
        return cls.load("capital_of_country", n=n, seed=seed)

    @classmethod
    def load_gender_bias_examples(cls, n: int = 100, seed: int = 0) -> Dataset:
        """Occupations with a stereotypical pronoun: 'The nurse said that' → ' she'."""
        return cls.load("gender_pronoun_bias", n=n, seed=seed)

    @classmethod
    def load_harmful_prompts(cls, n: int = 100, seed: int = 0) -> Dataset:
        """Requests labelled violence, misinformation or toxicity, and as many harmless ones of the same shape."""
        return cls.load("harmful_requests", n=n, seed=seed)

    @classmethod
    def load(cls, task: str, n: int = 100, seed: int = 0) -> Dataset:
        """The examples of a task that `neuroscope tasks` lists. Raises `TaskNotFoundError` with the nearest names."""
        from neuroscope.tasks import registry

        return registry.get(task).dataset(n=n, seed=seed)

    @classmethod
    def from_examples(cls, examples: Sequence[Mapping[str, Any]], name: str = "examples") -> Dataset:
        """Examples from dictionaries with `clean` and, optionally, `corrupt`, `answer`, `wrong`, `label`, `units`.

        Raises `DatasetError` that names the example and the field, and for one that is given twice.
        """
        found = [_example(item, f"example {number}") for number, item in enumerate(_listed(examples))]
        seen: dict[tuple[str | None, ...], int] = {}
        for number, example in enumerate(found):
            first = seen.setdefault(tuple(getattr(example, name) for name in _FIELDS), number)
            if first != number:
                raise DatasetError(
                    f"Examples {first} and {number} are the same: {example.clean!r}.",
                    remedy="Leave one out: an example that counts twice makes intervals too narrow.",
                )
        return cls(found, name=name)

    @classmethod
    def from_file(cls, path: str) -> Dataset:
        """Your own examples from a JSONL or CSV file, or facts of CounterFact, zsRE or RippleEdits (`tasks.records`) from JSON or JSONL.

        Raises `DatasetError` with the line, or the record, and the field.
        """
        from neuroscope.tasks import records

        file = places.to_read(path, "dataset")
        unit = "record" if file.suffix.lower() == ".json" else "line"
        rows = [(f"{file}, {unit} {number}", item) for number, item in read_rows(file)]
        examples: Sequence[Example] = records.facts(rows) or [_example(item, where) for where, item in rows]
        if not examples:
            raise DatasetError(f"{file} holds no examples.")
        return cls(examples, name=file.stem)

    @property
    def examples(self) -> list[Example]:
        return list(self._examples)

    @property
    @python_only
    def generates(self) -> bool:
        """Whether it can generate more examples."""
        return self._generator is not None

    @property
    @python_only
    def generator(self) -> Generator | None:
        """What makes more examples, for a task's dataset."""
        return self._generator

    def take(self, n: int) -> Dataset:
        """The first `n` examples. Raises `ArgumentError` for fewer than none."""
        if n < 0:
            raise ArgumentError(f"There are no {n} examples to take.", remedy="Give a whole number from zero.")
        return self.with_examples(self._examples[: int(n)])

    def shuffled(self, seed: int | None = None) -> Dataset:
        order = np.random.default_rng(self.seed if seed is None else seed).permutation(len(self._examples))
        return self.with_examples([self._examples[index] for index in order])

    def for_model(self, model: TransformerModel, n: int | None = None) -> Dataset:
        """The examples that the model's tokenizer can express: answers of one token, pairs of equal length.

        A task's dataset generates more until there are `n` (by default as many as it has); a notice reports dropped examples.
        Raises `DatasetError`, with an example and the reason, if none of your own fit, or fewer than two of a task's (one, if
        `n` is 1).
        """
        return self.for_models([model], n)

    def for_models(self, models: Sequence[TransformerModel], n: int | None = None) -> Dataset:
        """The examples that every one of the models can express, as in `for_model`."""
        wanted = len(self._examples) if n is None else int(n)
        complaints: list[str] = []
        readers = [(model, self._fit(model)) for model in models]

        def fits(example: Example) -> bool:
            for model, fit in readers:
                complaint = fit.complaint(example)
                if complaint is not None:
                    complaints.append(f"{complaint} ({model.name})" if len(models) > 1 else complaint)
                    return False
            return True

        if self._generator is not None:
            kept, offered = self._distinct(wanted, fits, [fit for _, fit in readers])
        else:
            offered = len(self._examples)
            kept = [example for example in self._examples if fits(example)][:wanted]
        names = " and ".join(model.name for model in models)
        if len(kept) < (1 if self._generator is None else max(1, min(2, wanted))):
            reason = f" {complaints[0]}" if complaints else ""
            raise DatasetError(
                f"Only {len(kept)} of {offered} examples of {self.name} fit the tokenizer of {names}.{reason}",
                remedy="Use prompts of equal token length and answers of one token.",
            )
        if complaints and self._generator is None:
            events.notice(
                f"{self.name}: {len(complaints)} of {offered} examples do not fit {names}; the first: {complaints[0]}"
            )
        return self.with_examples(kept)

    def parts_for_model(self, model: TransformerModel, sizes: Sequence[int], seed: int = 0) -> Parts:
        """Independent lists of examples that fit the model's tokenizer, one for each size.

        No two parts share a clean or corrupt prompt or a unit, except for the kinds in `Parts.shared`. A task's dataset
        generates new examples; your own are divided. A part may be smaller than requested, with a notice. Raises
        `ArgumentError` for sizes below 1 and `DatasetError` if a part would be too small.
        """
        return self.parts_for_models([model], sizes, seed)

    def parts_for_models(self, models: Sequence[TransformerModel], sizes: Sequence[int], seed: int = 0) -> Parts:
        """As `parts_for_model`, for examples that every one of the models can express."""
        from neuroscope.tasks.independence import checked_sizes, divided, generated_parts

        sizes, fits = checked_sizes(sizes), [self._fit(model) for model in models]
        if self._generator is not None:
            parts = generated_parts(self._generator, fits, sizes, seed, self.name)
        else:
            parts = divided(self.for_models(models).examples, fits, sizes, seed, self.name, events.notice)
        if parts.sizes != tuple(sizes):
            found, asked = (", ".join(map(str, numbers)) for numbers in (parts.sizes, sizes))
            events.notice(f"{self.name}: independent parts of {found} examples, instead of {asked} as requested")
        return parts

    def _fit(self, model: TransformerModel) -> Fit:
        """The fit of these examples to a model's tokenizer, in its chat template if their task uses one."""
        from neuroscope.tasks import registry

        chat = model.has_chat_template if self.task in {task.name for task in registry.TASKS if task.chat} else False
        return Fit(model.tokenizer, model.chat_prompt if chat else None)

    def _distinct(self, n: int, fits: Callable[[Example], bool], readers: Sequence[Fit]) -> tuple[list[Example], int]:
        assert self._generator is not None
        kept: dict[tuple[str, str | None], Example] = {}
        offered = 0
        stream = self._generator(Draw(np.random.default_rng(self.seed)))
        while len(kept) < n and offered < _PATIENCE * max(n, 10):
            new: dict[tuple[str, str | None], Example] = {}
            for example in islice(stream, min(max(n - len(kept), 10), _CHUNK)):
                offered += 1
                new.setdefault((example.clean, example.corrupt), example)
            for reader in readers:
                reader.read(example for key, example in new.items() if key not in kept)
            kept |= {key: example for key, example in new.items() if key not in kept and fits(example)}
            if not new:
                break
        return list(kept.values())[:n], offered

    @python_only
    def with_examples(self, examples: Sequence[Example]) -> Dataset:
        """These examples under the same name, task and seed."""
        return Dataset(examples, name=self.name, task=self.task, seed=self.seed, generator=self._generator)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]

    def print_string(self) -> str:
        return f"a Dataset({self.name}, {len(self)} examples)"

    def __repr__(self) -> str:
        return self.print_string()

    def as_dictionary(self) -> dict[str, Any]:
        return {"name": self.name, "task": self.task, "seed": self.seed, "examples": plain(self._examples)}


def _listed(examples: Any) -> Sequence[Any]:
    """Raises `DatasetError` for what is no list: one dictionary, a text."""
    if isinstance(examples, (str, bytes, Mapping)):
        raise DatasetError(f"{examples!r:.60} is not a list of examples.", remedy="Give a list, of one if need be.")
    return list(examples)


def _example(item: Mapping[str, Any], where: str) -> Example:
    if not isinstance(item, Mapping):
        raise DatasetError(f"{where}: an example must be an object with the field clean, not {item!r}.")
    unknown = [name for name in item if name not in (*_FIELDS, "meta", "units")]
    if unknown:
        raise DatasetError(
            f"{where}: there is no field {unknown[0]!r}.",
            remedy=did_you_mean(str(unknown[0]), [*_FIELDS, "units"], listing="Fields"),
        )
    if item.get("clean") in (None, ""):
        raise DatasetError(f"{where}: the field clean is missing.", remedy="Every example needs a prompt in `clean`.")
    values = {name: None if item.get(name) == "" else item.get(name) for name in _FIELDS}
    wrong_kind = [name for name, value in values.items() if value is not None and not isinstance(value, str)]
    if wrong_kind:
        raise DatasetError(f"{where}: the field {wrong_kind[0]} must be text, not {values[wrong_kind[0]]!r}.")
    given = {} if item.get("meta") in (None, "") else item["meta"]
    if not isinstance(given, Mapping):
        raise DatasetError(f"{where}: the field meta must be an object, not {given!r}.")
    check_whole(item, where)
    meta = dict(given)
    units = _units(meta.pop("units", None) if item.get("units") in (None, "", [], ()) else item["units"], where)
    return Example(**values, meta=meta, units=units)  # type: ignore[arg-type]


def _units(given: Any, where: str) -> tuple[str, ...]:
    """Units from a list, or from text with semicolons: "name:Mary; place:shop"."""
    if given in (None, ""):
        return ()
    found = given.split(";") if isinstance(given, str) else list(given) if isinstance(given, Sequence) else [given]
    for unit in found:
        kind, colon, value = unit.partition(":") if isinstance(unit, str) else ("", "", "")
        if not (kind.strip() and colon and value.strip()):
            raise DatasetError(
                f"{where}: {unit!r} is not a unit.", remedy='Write kind:value, for example ["name:Mary", "place:shop"].'
            )
    return tuple(unit.strip() for unit in found)
