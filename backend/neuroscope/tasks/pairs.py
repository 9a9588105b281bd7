"""Tokenised prompt pairs: clean and corrupt tokens, and a metric."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.engines.protocol import IntArray, TokenBatch
from neuroscope.errors import ArgumentError, DatasetError, Remedy, at_door
from neuroscope.models.text import Texts
from neuroscope.tasks.metrics import Metric, PromptMetric, checked_metric, metric_name, prompts_of

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel


#: For each row, its units.
Units = tuple[frozenset[str], ...]


@dataclass(frozen=True)
class PairBatch:
    """Rows of clean and corrupt prompts of equal length, aligned token by token, padded on the right.

    units: the units of each row (`Example.units`); rows without a common unit are independent. If empty, all rows count as
    independent.
    """

    clean: TokenBatch
    corrupt: TokenBatch
    metric: PromptMetric
    units: Units = ()

    @property
    def rows(self) -> int:
        return self.clean.rows

    @property
    def shared_columns(self) -> int:
        """Number of leading columns that clean and corrupt prompts share in every row, without the last token.

        0 for a metric that is a function, since it reads the logits of all tokens.
        """
        if self.metric.function is not None:
            return 0
        differ = (self.clean.ids != self.corrupt.ids).any(0)
        first = int(differ.argmax()) if bool(differ.any()) else self.clean.positions
        return min(first, int(self.clean.lengths.min()) - 1)

    def take(self, rows: IntArray | slice) -> PairBatch:
        """Some rows, without unnecessary padding."""
        clean, corrupt = self.clean.take(rows), self.corrupt.take(rows)
        width = int(clean.lengths.max())
        return PairBatch(
            TokenBatch(clean.ids[:, :width], clean.real[:, :width]),
            TokenBatch(corrupt.ids[:, :width], corrupt.real[:, :width]),
            self.metric.take(rows),
            tuple(self.units[index] for index in np.arange(self.rows)[rows]) if self.units else (),
        )

    def padded_alike(self, rows: slice) -> PairBatch:
        """Some rows, with the padding that all rows have."""
        return PairBatch(self.clean.take(rows), self.corrupt.take(rows), self.metric.take(rows), self.units[rows])

    def without_reference(self) -> PairBatch:
        """The pairs without the clean run's distribution, which a run of them computes again: they can leave the process."""
        return replace(self, metric=replace(self.metric, reference=None))

    @property
    def digest(self) -> str:
        """A hash of prompts, answers and metric, of pairs whose metric has a name."""
        metric = self.metric
        arrays = self.clean.ids, self.clean.real, self.corrupt.ids, metric.answers, metric.wrongs
        told = f"{metric.name} {self.clean.ids.shape} ".encode()
        return hashlib.sha256(told + b"".join(array.tobytes() for array in arrays)).hexdigest()

    def chunks(self, size: int) -> list[PairBatch]:
        """Of at most `size` rows each, and of at least one."""
        size = max(1, size)
        return [self.take(slice(first, first + size)) for first in range(0, self.rows, size)]


def make_pairs(model: TransformerModel, examples: Sequence[Any], metric: Metric = "logit_difference") -> PairBatch:
    """Tokenise examples that have `clean`, `corrupt`, `answer` and `wrong` texts.

    The metric `kl` and a function need no answers. Raises `DatasetError`, with the example, for a missing corrupt prompt, prompts of
    different token length, an answer that is missing or that the tokenizer splits, or pairs that do not differ.
    """
    if not examples:
        raise DatasetError("There are no examples.", remedy="Give at least one clean/corrupt pair.")
    asked = checked_metric(metric)
    name, function = metric_name(asked), None if isinstance(asked, str) else asked
    texts = Texts(model.tokenizer)
    texts.read(_texts_of(examples))
    cleans, corrupts, answers, wrongs = [], [], [], []
    for number, example in enumerate(examples):
        if example.corrupt is None:
            raise DatasetError(
                f"Example {number} has no corrupt prompt: {example.clean!r}.",
                remedy="Give each a prompt of the same length for which the answer no longer holds, as `corrupt`.",
            )
        clean, corrupt = _ids(texts, example.clean), _ids(texts, example.corrupt)
        if len(clean) != len(corrupt):
            raise DatasetError(
                f"Example {number}: the clean prompt has {len(clean)} tokens and the corrupt one {len(corrupt)}:\n"
                f"    {example.clean!r}\n    {example.corrupt!r}",
                remedy="Make them equally long, token by token; `dataset.for_model(model)` keeps only such pairs.",
            )
        cleans.append(clean)
        corrupts.append(corrupt)
        if example.answer is None and name in ("logit_difference", "probability"):
            raise DatasetError(
                f"Example {number} has no answer, which the metric {name} needs: {example.clean!r}.",
                remedy="Give the token that the clean prompt calls for as `answer`; or use the metric kl, or a function.",
            )
        answers.append(-1 if example.answer is None else _single(texts, example, example.answer, number))
        wrongs.append(answers[-1] if example.wrong is None else _single(texts, example, example.wrong, number))
    if function is None and name == "logit_difference" and answers == wrongs:
        raise DatasetError(
            "No example names a wrong answer, which the metric logit_difference needs.",
            remedy="Use metric probability.",
        )
    if cleans == corrupts:
        raise DatasetError("Every clean prompt equals its corrupt prompt, so there is nothing to trace.")
    pad = int(model.tokenizer.pad_token_id or 0)
    right, other = np.array(answers, dtype=np.int64), np.array(wrongs, dtype=np.int64)
    prompts = () if function is None else prompts_of(examples, right, other, cleans)
    return PairBatch(
        TokenBatch.of(cleans, pad=pad),
        TokenBatch.of(corrupts, pad=pad),
        PromptMetric(name, right, other, function=function, prompts=prompts),
        tuple(_units(example) for example in examples),
    )


def _units(example: Any) -> frozenset[str]:
    """The example's units, or its prompts."""
    return frozenset(example.independent_units)


def _texts_of(examples: Sequence[Any]) -> Iterator[str]:
    """The prompts of examples, and each with its answers behind it: all texts that a batch of pairs is made of."""
    for example in examples:
        for prompt in (example.clean, example.corrupt):
            if isinstance(prompt, str):
                yield prompt
                yield from (f"{prompt}{answer}" for answer in (example.answer, example.wrong) if isinstance(answer, str))


def _ids(texts: Texts, text: str) -> list[int]:
    found = texts.prompt(text)
    if not found:
        raise ArgumentError(f"The text {text!r} has no tokens.", remedy="Give at least one token.")
    return found


def _single(texts: Texts, example: Any, text: str, number: int) -> int:
    """The token of an answer after the example's prompts."""
    try:
        return texts.example_token(example.clean, example.corrupt, text)
    except ArgumentError as error:
        raise DatasetError(
            f"Example {number}: {error.message}",
            remedy=Remedy(
                f"{at_door(error.advice, 'python')} dataset.for_model(model) keeps only examples that fit.",
                smalltalk=f"{at_door(error.advice, 'smalltalk')} `dataset forModel: model` keeps only examples that fit.",
            ),
        ) from error
