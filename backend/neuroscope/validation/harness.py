"""lm-evaluation-harness on a NeuroScope model: `NeuroScopeLM`, a subclass of its `lm_eval.api.model.LM`.

    import lm_eval
    from neuroscope.validation.harness import NeuroScopeLM
    lm_eval.simple_evaluate(model=NeuroScopeLM(model), tasks=["hellaswag"])

Hooks and edited weights are at work, on either engine. Its conventions are the harness': a context and its continuation are
tokenised together and split at the context's length, with spaces at the context's end moved to the continuation; an empty
context is the token that begins a sequence (or ends one, where there is none); what exceeds the model's context is cut off at
the left; a whole text is read in windows that each predict as many tokens as they can, each token once.

Importing this module needs the package lm-eval (`pip install 'neuroscope-interp[lm-eval]'`), and raises `MissingExtraError` without.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from neuroscope import events
from neuroscope.engines.protocol import TokenBatch
from neuroscope.errors import ArgumentError, MissingExtraError
from neuroscope.models import batching
from neuroscope.models.model import TransformerModel
from neuroscope.models.text import plain_ids

try:
    from lm_eval.api.model import LM
except ImportError as error:
    raise MissingExtraError(
        f"lm-evaluation-harness cannot be imported: {error}.", remedy="pip install 'neuroscope-interp[lm-eval]'"
    ) from error

#: Tokens of a generation that says nothing of its length; the harness' own default.
_USUAL_TOKENS = 256
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
#: Tokens of a model that has no limit of its own.
_CONTEXT = 2048


class NeuroScopeLM(LM):  # type: ignore[misc]
    """A `TransformerModel`, or the name of one, as lm-evaluation-harness asks models. batch_size: rows that are read at once."""

    def __init__(self, model: TransformerModel | str, batch_size: int = 8) -> None:
        super().__init__()
        if isinstance(model, str):
            model = TransformerModel.from_hugging_face(model)
        if not isinstance(model, TransformerModel):
            raise ArgumentError(f"NeuroScopeLM asks a TransformerModel, not {model!r}.")
        if int(batch_size) < 1:
            raise ArgumentError(f"A batch of {batch_size} rows reads nothing.", remedy="Give at least 1.")
        self._model, self._rows = model, int(batch_size)

    @property
    def model(self) -> TransformerModel:
        return self._model

    @property
    def tokenizer_name(self) -> str:
        return self._model.ran.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's chat template, for the harness' fingerprints; None where none is to be applied."""
        found = getattr(self._model.tokenizer, "chat_template", None)
        return str(found) if chat_template and found else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages in the model's chat template. Raises `ArgumentError` without one."""
        if add_generation_prompt:
            return self._model.chat_prompt(chat_history)
        if not self._model.has_chat_template:
            raise ArgumentError(f"{self._model.title} has no chat template.", remedy="Leave apply_chat_template out.")
        return str(
            self._model.tokenizer.apply_chat_template(
                chat_history, tokenize=False, add_generation_prompt=False, continue_final_message=True
            )
        )

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """For each (context, continuation): log P(continuation | context) in nats, and whether it is what greedy decoding writes."""
        return self._scored([self._pair(*request.args) for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """For each (text,): log P(text) in nats, every token predicted once."""
        windows = [(number, one) for number, request in enumerate(requests) for one in self._windows(str(request.args[0]))]
        found = [0.0] * len(requests)
        for (number, _), (score, _) in zip(windows, self._scored([one for _, one in windows]), strict=True):
            found[number] += score
        return found

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """For each (context, options): what the model writes until one of the texts `until`, an end token, or `max_gen_toks` tokens."""
        with events.progress("generating for lm-eval", total=len(requests), unit="requests") as job:
            found = []
            for request in requests:
                found.append(self._written(*request.args))
                job.advance()
        return found

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def _context(self) -> int:
        return self._model.architecture.context or _CONTEXT

    @property
    def _prefix(self) -> int:
        """The token that stands before a text which has nothing before it."""
        tokenizer = self._model.tokenizer
        found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if found is None:
            raise ArgumentError(f"The tokenizer of {self._model.title} has no token that begins or ends a text.")
        return int(found)

    def _ids(self, text: str) -> list[int]:
        return [int(token) for token in self._model.encode(text).ids[0]]

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if not context:
            alone = plain_ids(self._model.tokenizer, continuation)
            return (alone[:1], alone[1:]) if alone[:1] == [self._prefix] else ([self._prefix], alone)
        bare = context.rstrip()
        if not bare:
            raise ArgumentError(f"The context {context!r} is spaces alone.", remedy="Give an empty context, or words.")
        before, whole = self._ids(bare), self._ids(bare + context[len(bare) :] + continuation)
        return before, whole[len(before) :]

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        """(context, tokens to predict): the first window predicts all of its tokens, each further one those that are new."""
        tokens, size = self._ids(text) if text else [], self._context
        for first in range(0, len(tokens), size):
            new = tokens[first : first + size]
            if first == 0:
                yield [self._prefix], new
            else:
                last = first + len(new)
                yield tokens[last - size - 1 : first], new

    def _scored(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """The likelihood of the second part of each pair behind the first; long ones first, so that memory fails early."""
        found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        order = sorted((number for number in range(len(pairs)) if pairs[number][1]), key=lambda at: -sum(map(len, pairs[at])))
        with events.progress("reading for lm-eval", total=len(order), unit="texts") as job:
            for first in range(0, len(order), self._rows):
                part = order[first : first + self._rows]
                for number, score in zip(part, self._batch([pairs[at] for at in part]), strict=True):
                    found[number] = score
                job.advance(len(part))
        return found

    def _batch(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        size = self._context
        rows = []
        for before, after in pairs:
            if len(after) > size:
                raise ArgumentError(
                    f"A continuation of {len(after)} tokens exceeds the context of {self._model.title}, which is {size}."
                )
            rows.append([*before, *after][-(size + 1) :][:-1])
        batch = TokenBatch.of(rows, pad=self._prefix)
        ops = self._model.engine.ops
        logs = ops.to_numpy(ops.log_softmax(self._model.run(batch).logits))
        found = []
        for row, ((_, after), log) in enumerate(zip(pairs, logs, strict=True)):
            end = len(rows[row])
            mine = log[end - len(after) : end]
            picked = mine[np.arange(len(after)), after]
            found.append((math.fsum(map(float, picked)), bool((mine.argmax(-1) == np.array(after)).all())))
        return found

    def _written(self, context: str, options: Mapping[str, Any]) -> str:
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        length = int(next((options[name] for name in _LENGTHS if options.get(name) is not None), _USUAL_TOKENS))
        temperature = float(options.get("temperature") or 0.0)
        if options.get("do_sample") is False:
            temperature = 0.0
        room = self._context - length
        if room < 1:
            raise ArgumentError(
                f"{length} new tokens leave no room for a prompt in the context of {self._model.title}, which is {self._context}.",
                remedy="Ask for fewer with max_gen_toks.",
            )
        ids = (self._ids(context) if context else [self._prefix])[-room:]
        settings = self._model.generation_settings(
            stop=stops,
            max_tokens=length,
            temperature=temperature,
            top_p=float(options.get("top_p", 1.0)),
            seed=int(options.get("seed", 0)),
        )
        with batching.alone():
            return "".join(piece.text for piece in self._model.written(TokenBatch.of([ids]), settings))
