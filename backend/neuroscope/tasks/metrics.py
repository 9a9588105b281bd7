"""Metrics: one number per prompt, from its logits.

`logit_difference`  logit(answer) − logit(wrong)          Wang et al. 2022 (IOI)
`probability`       P(answer)
`kl`                −KL(clean ‖ run) over the vocabulary: 0 if the run predicts the same as the clean run

These read the logits at the last token; higher is better for all three, so faithfulness has the same meaning for each.

Wherever a metric's name may stand, so may a function of one prompt's logits, an `ActivationTensor` (1, positions, vocabulary), and
if it takes two arguments of the prompt (`MetricPrompt`). It answers one number:

    lambda logits, prompt: logits[0, -1, prompt.answer_token] - logits[0, -1, prompt.wrong_token]
    [:logits :prompt | ((logits at: prompt answerToken) - (logits at: prompt wrongToken)) at: prompt size - 1]
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neuroscope.engines.protocol import ALL_LOGITS, Array, Engine, IntArray, LogitRequest, TokenBatch
from neuroscope.errors import ArgumentError, NeuroScopeError
from neuroscope.names import only
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import public

METRICS = ("logit_difference", "probability", "kl")

#: A metric: a name of `METRICS`, or a function of a prompt's logits, and of the prompt if it takes two arguments.
Metric = str | Callable[[Any], Any] | Callable[[Any, Any], Any]


@public
@dataclass(frozen=True)
class MetricPrompt:
    """The prompt of one row, for a metric that is a function.

    index: number of the pair. answer_token, wrong_token: ids, None where the pair names none. tokens: ids of the clean prompt.
    """

    index: int
    clean: str
    corrupt: str | None
    answer: str | None
    wrong: str | None
    answer_token: int | None
    wrong_token: int | None
    tokens: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    def print_string(self) -> str:
        return f"a MetricPrompt({self.clean!r})"


@dataclass(frozen=True)
class PromptMetric:
    """A metric for a batch of prompts.

    answers, wrongs: token ids (rows,), −1 where there is none. reference: log-probabilities of the clean run (rows, vocabulary), for
    `kl`. function, prompts: for a metric that is a function, with one prompt a row.
    """

    name: str
    answers: IntArray
    wrongs: IntArray
    reference: Array | None = None
    function: Callable[..., Any] | None = None
    prompts: tuple[MetricPrompt, ...] = ()

    @property
    def asked(self) -> Metric:
        """The metric as it was given: its name, or the function."""
        return self.name if self.function is None else self.function

    def request(self, batch: TokenBatch) -> LogitRequest:
        """The logits that this metric needs."""
        if self.function is not None:
            return ALL_LOGITS
        if self.name == "logit_difference":
            return LogitRequest.last(batch, np.stack([self.answers, self.wrongs], axis=1))
        return LogitRequest.last(batch)

    def compute(self, engine: Engine, *, traced: bool = False) -> Callable[[Array], Array]:
        """A differentiable function from the requested logits to one number per row (rows,).

        traced: whether it will be differentiated. A function that answers plain numbers then raises `ArgumentError`.
        """
        ops = engine.ops
        if self.function is not None:
            return lambda logits: self._by_function(engine, logits, traced)
        if self.name == "logit_difference":
            return lambda logits: ops.wide(logits[:, 0]) - ops.wide(logits[:, 1])
        if self.name == "probability":
            picked = ops.one_hot(self.answers, engine.anatomy.vocabulary)
            return lambda logits: ops.exp((ops.log_softmax(logits) * picked).sum(-1))
        reference = self.reference
        if reference is None:
            raise ArgumentError("The metric kl needs the clean run's log-probabilities.")
        return lambda logits: (ops.exp(reference) * (ops.log_softmax(logits) - reference)).sum(-1)

    def take(self, rows: IntArray | slice) -> PromptMetric:
        reference = None if self.reference is None else self.reference[rows]
        prompts = tuple(self.prompts[index] for index in np.arange(len(self.prompts))[rows]) if self.prompts else ()
        return replace(self, answers=self.answers[rows], wrongs=self.wrongs[rows], reference=reference, prompts=prompts)

    def repeat(self, times: int, engine: Engine) -> PromptMetric:
        """All rows repeated `times` times: a, b, a, b …"""
        reference = None if self.reference is None else engine.ops.repeat(self.reference, times)
        answers, wrongs = np.tile(self.answers, times), np.tile(self.wrongs, times)
        return replace(self, answers=answers, wrongs=wrongs, reference=reference, prompts=self.prompts * times)

    def _by_function(self, engine: Engine, logits: Array, traced: bool) -> Array:
        ops, function = engine.ops, self.function
        assert function is not None
        count, found = arguments_of(function), []
        for row, prompt in enumerate(self.prompts):
            mine = ActivationTensor(logits[row : row + 1, : prompt.size], ops, traced=traced)
            try:
                answer = function(*(mine, prompt)[:count])
            except NeuroScopeError:
                raise
            except Exception as error:
                raise ArgumentError(f"The metric {self.name} failed for prompt {prompt.index}: {error!r}") from error
            found.append(self._number(answer, prompt, engine, traced))
        return ops.stack(found, 0)

    def _number(self, answer: Any, prompt: MetricPrompt, engine: Engine, traced: bool) -> Array:
        """What a function answered, as an array without axes."""
        array = answer.array if isinstance(answer, ActivationTensor) else answer
        if hasattr(array, "reshape") and type(array).__module__ != "numpy" and math.prod(array.shape) == 1:
            return engine.ops.wide(array.reshape(()))
        if traced:
            raise ArgumentError(
                f"The metric {self.name} answers {answer!r:.60}, which has no gradient.",
                remedy="Calculate with the logits as they are given, without float(), item() and numpy(); or use the method exact.",
            )
        try:
            number = None if isinstance(answer, (str, bytes)) else float(answer)
        except (TypeError, ValueError):
            number = None
        if number is None:
            raise ArgumentError(
                f"The metric {self.name} answers {answer!r:.60} for prompt {prompt.index}, not one number.",
                remedy="It is called with one prompt's logits (1, positions, vocabulary): logits[0, -1, token] is a number.",
            )
        return engine.ops.asarray(np.float32(number))


def checked_metric(metric: Metric) -> Metric:
    """A metric's name, or the function itself. Raises `ArgumentError` with the nearest names."""
    if callable(metric) and not isinstance(metric, (str, type)):
        arguments_of(metric)
        return metric
    return only("metric", METRICS, listing="Metrics")[metric]


def metric_name(metric: Metric) -> str:
    """The name of a metric, or of a function."""
    if isinstance(metric, str):
        return metric
    name = getattr(metric, "__name__", None) or ("a block" if hasattr(metric, "num_args") else type(metric).__name__)
    return "a function" if name == "<lambda>" else str(name)


def arguments_of(function: Callable[..., Any]) -> int:
    """How many arguments a metric takes: the logits, or the prompt as well. Raises `ArgumentError` for another number."""
    count = getattr(function, "num_args", None)
    if count is None:
        count = -1
        try:
            signature = inspect.signature(function)
            for number in (1, 2):  # arguments with defaults are the function's own
                if count < 0 and _takes(signature, number):
                    count = number
        except ValueError:  # a builtin that does not say
            count = 1
    if count not in (1, 2):
        raise ArgumentError(
            f"The metric {metric_name(function)} cannot be called with the logits, nor with the logits and the prompt.",
            remedy="Give a function or block of one or two arguments.",
        )
    return int(count)


def _takes(signature: inspect.Signature, number: int) -> bool:
    try:
        signature.bind(*[None] * number)
    except TypeError:
        return False
    return True


def prompts_of(
    examples: Sequence[Any], answers: IntArray, wrongs: IntArray, cleans: Sequence[Sequence[int]]
) -> tuple[MetricPrompt, ...]:
    """The prompts of examples with `clean`, `corrupt`, `answer` and `wrong`."""
    return tuple(
        MetricPrompt(
            index,
            example.clean,
            example.corrupt,
            example.answer,
            example.wrong,
            None if answers[index] < 0 else int(answers[index]),
            None if wrongs[index] < 0 else int(wrongs[index]),
            tuple(ids),
        )
        for index, (example, ids) in enumerate(zip(examples, cleans, strict=True))
    )
