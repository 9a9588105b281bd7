"""Inputs of analyses: a text, or pairs of prompts.

A text has at least two tokens. Pairs are a task's name, a `Dataset`, an `Example` or a list of examples or dictionaries. A
single prompt is paired with copies that have another country, city or number of the same token length; the answer is the
model's prediction.

Pairs are divided into independent parts: one tests whether clean and corrupt prompts differ, the other is analysed. Exchanged
words of a prompt need no test: they are chosen because the prediction changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroscope.circuits.effect import FEWEST_PAIRS, Effect, paired_effect
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.engines.protocol import LogitRequest
from neuroscope.errors import ArgumentError, DatasetError, TaskNotFoundError, joined
from neuroscope.models.model import TransformerModel
from neuroscope.remedies import Name, Remedy, call
from neuroscope.tasks import registry as tasks
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.lexicon import CITIES, COUNTRIES, NAMES
from neuroscope.tasks.own import own_pairs
from neuroscope.tasks.pairs import make_pairs
from neuroscope.tasks.statistics import Estimate

_LEAST_TOKENS = 2
#: Number of pairs for the test of the effect.
_TESTED = 12
_MOST_SWAPS = 16
_KINDS: tuple[tuple[str, ...], ...] = (
    tuple(country.name for country in COUNTRIES),
    (*(country.capital for country in COUNTRIES), *CITIES),
    tuple(dict.fromkeys(country.language for country in COUNTRIES)),
    tuple(NAMES),
)
#: What HTTP's requests may give as `on`.
_ON = '"on": "The capital of France is", a task\'s name, or a list of pairs {"clean": …, "corrupt": …, "answer": …, "wrong": …}'
_WORD = re.compile(r"[A-Za-z]+")
_NUMBER = re.compile(r"(?<![A-Za-z\d])\d+")


def text_of(model: TransformerModel, on: Any, default: str, *, most: int | None = None) -> str:
    """The text to analyse. Raises `ArgumentError` for anything else, and for a text that is too short or longer than `most`
    tokens.
    """
    if on is None:
        on = default
    if isinstance(on, Example):
        on = on.clean
    if not isinstance(on, str):
        raise ArgumentError(
            f"This analysis works on a text, not {_named(on)}.",
            remedy=call("model", "analyze", Name("name"), on="The capital of France is", http=_ON),
        )
    if not on.strip():
        raise ArgumentError("The text is empty.", remedy=f"Give at least {_LEAST_TOKENS} tokens, for example {default!r}.")
    count = model.encode(on).positions
    if count < _LEAST_TOKENS:
        raise ArgumentError(
            f"The text {on!r} is too short: {count} token for {model.title}.",
            remedy=f"Give at least {_LEAST_TOKENS} tokens, for example {default!r}.",
        )
    most = min(most or model.architecture.context or count, model.architecture.context or count)
    if count > most:
        raise ArgumentError(
            f"The text has {count} tokens for {model.title}; this analysis takes at most {most}.", remedy="Shorten it."
        )
    return on


@dataclass(frozen=True)
class Pairs:
    """looked_at: the pairs to analyse. tested: others, only for the test of the effect; None if the pairs are chosen to have
    one. complaint: why there are too few pairs for a test, or None.
    """

    looked_at: Dataset
    tested: list[Example] | None
    complaint: str | None = None

    def effect(self, model: TransformerModel) -> Effect | None:
        """The test of whether clean and corrupt prompts differ, on separate pairs; None if not needed."""
        if self.complaint is not None:
            return Effect(Estimate(float("nan"), float("-inf"), float("inf"), 0), 1.0, False, self.complaint)
        if self.tested is None:
            return None
        pairs = make_pairs(model, self.tested)
        runs = PairRuns(model.engine, pairs)
        return paired_effect(runs.clean.metric, runs.corrupt.metric, pairs.units)


def divided_pairs(model: TransformerModel, on: Any, task: str, n: int, seed: int) -> Pairs:
    """At most `n` pairs to analyse that fit the model's tokenizer, and independent ones for the test.

    Raises as `pairs_of` does.
    """
    dataset = _source(model, on, task, n)
    if dataset is None:
        return Pairs(swapped(model, text_of(model, on, on)), None)
    if dataset.generates:
        sizes = [_TESTED, n]
    else:
        fitted = dataset.for_model(model)
        if len(fitted) <= FEWEST_PAIRS:
            complaint = f"{len(fitted)} pairs are too few to test an effect on {FEWEST_PAIRS} and analyse it on others; give {2 * FEWEST_PAIRS}"
            return Pairs(fitted, None, complaint)
        tested = min(_TESTED, max(FEWEST_PAIRS, len(fitted) // 2))
        dataset, sizes = fitted, [tested, min(n, len(fitted) - tested)]
    for_test, looked_at = dataset.parts_for_model(model, sizes, seed)
    return Pairs(dataset.with_examples(list(looked_at)), list(for_test))


def pairs_of(model: TransformerModel, on: Any, task: str, n: int) -> Dataset:
    """The pairs to analyse that fit the model's tokenizer; at most `n`.

    Raises `ArgumentError` for an unsuitable `on`, and `DatasetError` if fewer than two pairs fit the model.
    """
    dataset = _source(model, on, task, n)
    return swapped(model, text_of(model, on, on)) if dataset is None else dataset.for_model(model, n)


def _source(model: TransformerModel, on: Any, task: str, n: int) -> Dataset | None:
    """The unfiltered dataset; None for a prompt."""
    if on is None:
        return tasks.get(task).dataset(4 * n)
    if isinstance(on, str):
        return _of_name(on, n)
    if isinstance(on, (Example, Mapping)):
        on = [on]
    if isinstance(on, Dataset):
        return on
    if isinstance(on, Sequence) and on and all(isinstance(item, (Example, tuple)) for item in on):
        return Dataset(own_pairs(on), name="own examples")
    if isinstance(on, Sequence) and on and all(isinstance(item, Mapping) for item in on):
        return Dataset.from_examples(on)
    raise ArgumentError(
        f"This analysis works on a prompt, a task, a Dataset or examples, not {_named(on)}.",
        remedy=Remedy(
            "on='The capital of France is', on='capital_of_country', or on=Dataset.from_file('mine.jsonl')",
            smalltalk="on: 'The capital of France is', on: #capitalOfCountry, or on: (Dataset fromFile: 'mine.jsonl')",
            shell="--on 'The capital of France is', --on capital_of_country, or --file mine.jsonl",
            http=_ON,
        ),
    )


def _of_name(text: str, n: int) -> Dataset | None:
    try:
        task = tasks.get(text)
    except TaskNotFoundError as error:
        if " " not in text.strip() and not _NUMBER.search(text):
            raise ArgumentError(
                f"{text!r} is neither a task nor a prompt.",
                remedy=joined("", error.advice or "", "A prompt has several words."),
            ) from error
        return None
    if not task.paired:
        raise ArgumentError(
            f"The task {task.name} has no pairs of prompts.",
            remedy=f"These have: {', '.join(one.name for one in tasks.TASKS if one.paired)}.",
        )
    return task.dataset(4 * n)


def swapped(model: TransformerModel, prompt: str) -> Dataset:
    """Pairs of a prompt and copies with another word of a known kind that changes the model's prediction.

    Raises `DatasetError` if the prompt has no such word, or none changes the prediction.
    """
    length = model.encode(prompt).positions
    others = [other for other in _others(prompt) if model.encode(other).positions == length]
    if not others:
        raise DatasetError(
            f"{prompt!r} has no country, city, language, name or number to exchange for one of the same length.",
            remedy="Give the pair yourself: an Example with clean, corrupt, answer and wrong.",
        )
    batch = model.encode([prompt, *others])
    logits = model.engine.forward(batch, logits=LogitRequest.last(batch)).logits
    found = model.engine.ops.to_numpy(logits).argmax(-1)
    answer = model.token_text(found[0])
    examples = [
        Example(prompt, corrupt=other, answer=answer, wrong=model.token_text(token))
        for other, token in zip(others, found[1:], strict=True)
        if token != found[0]
    ]
    if not examples:
        raise DatasetError(
            f"With any word exchanged, {model.title} continues {prompt!r} with {answer!r}, so there is nothing to trace.",
            remedy="Give the pair yourself: an Example with clean, corrupt, answer and wrong.",
        )
    return Dataset(examples[:_MOST_SWAPS], name=f"{prompt!r} with another word").for_model(model)


def _others(prompt: str) -> Iterator[str]:
    """The prompt with its last exchangeable word, or else number, exchanged."""
    random = np.random.default_rng(0)
    for match in reversed(list(_WORD.finditer(prompt))):
        for kind in _KINDS:
            if match[0] in kind:
                for word in random.permutation([other for other in kind if other != match[0]])[: 4 * _MOST_SWAPS]:
                    yield prompt[: match.start()] + str(word) + prompt[match.end() :]
                return
    for match in reversed(list(_NUMBER.finditer(prompt))):
        low, high = (10 ** (len(match[0]) - 1) if len(match[0]) > 1 else 0), 10 ** len(match[0])
        numbers = random.permutation(np.arange(low, min(high, low + 9000)))[: 4 * _MOST_SWAPS]
        for number in numbers:
            if str(number) != match[0]:
                yield prompt[: match.start()] + str(number) + prompt[match.end() :]
        return


def _named(value: object) -> str:
    printed = getattr(value, "print_string", None)
    return str(printed()) if callable(printed) else repr(value)[:80]
