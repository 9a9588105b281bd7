"""How an edit of facts did: by probability and by what the model writes.

probability   the new object is likelier than the old one behind the prompt; for a neighbour, the right one likelier than the new.
              An object of several tokens counts with the mean over its tokens (Meng et al. 2022, CounterFact)
generation    the model's own greedy continuation begins with the object, at a word's end (Yang et al. 2025 show how far the two
              differ)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuroscope.editing.keys import Numbers
from neuroscope.editing.probes import Probes, Question
from neuroscope.engines.protocol import LogitRequest, TokenBatch
from neuroscope.models.model import TransformerModel
from neuroscope.models.text import Texts
from neuroscope.tasks.domains import DOMAINS
from neuroscope.tasks.losses import text_losses
from neuroscope.tasks.statistics import Estimate, mean_of, ratio_of, wilson
from neuroscope.vocabulary import public

_MOST_TOKENS, _TEXTS = 4, 60
#: Questions of a kind that an edit keeps with their answers.
_SHOWN = 12


@public
@dataclass(frozen=True)
class FactRate:
    """A share of questions, judged by probability and by generation, with 95 % intervals."""

    probability: Estimate
    generation: Estimate

    def __str__(self) -> str:
        return f"{self.probability} by probability, {self.generation} by generation"


@public
@dataclass(frozen=True)
class Shift:
    """A probability before and after an edit."""

    before: float
    after: float


@public
@dataclass(frozen=True)
class FactAnswer:
    """One question about an edit. kind: what it tells (`efficacy`, `paraphrase`, …). wanted: the right object after the edit, other: the one
    that it is compared with; of an object of several tokens the probability is the geometric mean. before, after: what the model writes.
    """

    kind: str
    prompt: str
    wanted: str
    wanted_probability: Shift
    other: str
    other_probability: Shift
    before: str
    after: str


@dataclass(frozen=True)
class Answers:
    """What a model answers to questions: mean log-probability per token of two objects (n,), and what it writes."""

    first: Numbers
    second: Numbers
    texts: list[str]


class Known:
    """What a model answers while its weights and hooks stay as they are: each question is put to it once.

    The facts of one edit have most of their questions in common, and before an edit the model is what it was before the last one.
    """

    def __init__(self, model: TransformerModel) -> None:
        self._model = model
        self._scores: dict[tuple[str, str], float] = {}
        self._texts: dict[str, str] = {}
        self._losses: dict[int, tuple[Numbers, Numbers]] = {}

    def answers(self, questions: Sequence[Question], against: str) -> Answers:
        """Answers to questions; first is the question's own object, second the other one."""
        prompts = [question.prompt for question in questions]
        own = [(question.prompt, question.answer) for question in questions]
        scores = self.scores([*own, *((prompt, against) for prompt in prompts)])
        return Answers(scores[: len(own)], scores[len(own) :], self.written(prompts))

    def scores(self, pairs: Sequence[tuple[str, str]]) -> Numbers:
        """(n,): mean log-probability per token of each object behind its prompt."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._scores]
        if new:
            self._scores.update(zip(new, _object_scores(self._model, new).tolist(), strict=True))
        return np.array([self._scores[pair] for pair in pairs])

    def written(self, prompts: Sequence[str]) -> list[str]:
        """A few tokens of the greedy continuation of each prompt."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            self._texts.update(zip(new, written(self._model, new), strict=True))
        return [self._texts[prompt] for prompt in prompts]

    def losses(self, seed: int) -> tuple[Numbers, Numbers]:
        """See `general_loss`."""
        if seed not in self._losses:
            self._losses[seed] = general_loss(self._model, seed)
        return self._losses[seed]


def _object_scores(model: TransformerModel, pairs: Sequence[tuple[str, str]]) -> Numbers:
    """(n,): mean log-probability per token of each object behind its prompt. What different objects have in common runs once."""
    texts = Texts(model.tokenizer)
    texts.read(prompt for prompt, _ in pairs)
    rows: dict[tuple[int, ...], int] = {}
    asked: list[tuple[int, int, int]] = []  # row, token and pair
    for at, (prompt, object_) in enumerate(pairs):
        begun, answer = texts.prompt(prompt), texts.answer(prompt, object_)
        for place, token in enumerate(answer):
            row = rows.setdefault((*begun, *answer[:place]), len(rows))
            asked.append((row, token, at))
    ids, (of, tokens, owner) = list(rows), np.array(asked).T
    ops, found = model.engine.ops, np.zeros(len(asked))
    order = np.argsort([len(row) for row in ids], kind="stable")
    size = model.engine.rows_that_fit(max(map(len, ids)))
    for some in np.array_split(order, -(-len(order) // size)):
        batch = TokenBatch.of([ids[row] for row in some])
        logs = ops.to_numpy(ops.log_softmax(model.run(batch, logits=LogitRequest.last(batch)).logits))
        where = np.full(len(ids), -1)
        where[some] = np.arange(len(some))
        here = where[of] >= 0
        found[here] = logs[where[of][here], tokens[here]]
    return np.bincount(owner, found) / np.bincount(owner)


def written(model: TransformerModel, prompts: Sequence[str]) -> list[str]:
    """A few tokens of the greedy continuation of each prompt."""
    size = model.engine.rows_that_fit(32)
    return [
        text
        for first in range(0, len(prompts), size)
        for text in model.continuations(list(prompts[first : first + size]), _MOST_TOKENS)
    ]


def begins_with(text: str, object_: str) -> bool:
    """Whether a continuation begins with an object that ends where a word does."""
    rest, wanted = text.strip(), object_.strip()
    return rest.startswith(wanted) and not rest[len(wanted) : len(wanted) + 1].isalnum()


def rate(found: Answers, questions: Sequence[Question]) -> FactRate | None:
    """How many questions are answered with their own object; None where there are none."""
    if not questions:
        return None
    likelier = found.first > found.second
    said = [
        any(begins_with(text, answer) for answer in (question.answer, *question.others))
        for text, question in zip(found.texts, questions, strict=True)
    ]
    return FactRate(*(wilson(int(np.sum(hits)), len(questions)) for hits in (likelier, said)))


def general_loss(model: TransformerModel, seed: int) -> tuple[Numbers, Numbers]:
    """Nats and tokens of general texts (prose, mathematics, programs), one entry a text."""
    random = np.random.default_rng([seed, 7])
    texts = [make(random) for make in DOMAINS.values() for _ in range(_TEXTS // len(DOMAINS))]
    losses, counts = text_losses(model, texts)
    return np.asarray(losses), np.asarray(counts, dtype=np.float64)


def perplexity(losses: Numbers, counts: Numbers) -> Estimate:
    """exp of the loss per token, with its interval over texts."""
    found = ratio_of(losses, counts)
    value, low, high = (float(np.exp(bound)) for bound in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.n)


def mean_rate(rates: Sequence[FactRate]) -> FactRate | None:
    """The mean over facts; the facts are what is independent. Of one question a fact it is their share, with Wilson's interval."""
    if not rates:
        return None
    return FactRate(*(_mean([getattr(one, by) for one in rates]) for by in ("probability", "generation")))


def _mean(found: Sequence[Estimate]) -> Estimate:
    if all(one.n == 1 for one in found):
        return wilson(round(sum(one.value for one in found)), len(found))
    mean = mean_of([one.value for one in found])
    return replace(mean, low=max(mean.low, 0.0), high=min(mean.high, 1.0))


@dataclass(frozen=True)
class Judged:
    """A fact's probes on a model. rates: by what they ask. asked, found: the questions and the answers, other: the object they are compared with."""

    rates: dict[str, FactRate]
    asked: dict[str, list[Question]]
    found: dict[str, Answers]
    other: dict[str, str]


def judged(known: Known, asked: Sequence[Probes]) -> list[Judged]:
    """The probes' answers by the model as it is: of each fact `efficacy`, `paraphrase`, `specificity`, `ownFacts`, `portability`."""
    by_fact = [list(_kinds(probes)) for probes in asked]
    every = [(one, other) for kinds in by_fact for _, questions, other in kinds for one in questions]
    known.scores([(one.prompt, answer) for one, other in every for answer in (one.answer, other)])  # all of them in few runs
    known.written([one.prompt for one, _ in every])
    found = []
    for kinds in by_fact:
        judged = Judged({}, {}, {}, {})
        for name, questions, other in kinds:
            answers = known.answers(questions, other)
            measured = rate(answers, questions)
            assert measured is not None
            judged.rates[name], judged.asked[name] = measured, questions
            judged.found[name], judged.other[name] = answers, other
        found.append(judged)
    return found


def _kinds(probes: Probes) -> Iterator[tuple[str, list[Question], str]]:
    """Kinds of questions with the object that answers are compared with, where there are any."""
    fact = probes.fact
    old = probes.old or fact.object
    for name, questions, other in (
        ("efficacy", [Question(fact.prompt, fact.object, fact.subject, "rewrite")], old),
        ("paraphrase", probes.paraphrases, old),
        ("specificity", [one for one in probes.neighbours if one.answer != fact.object], fact.object),
        ("ownFacts", probes.own, fact.object),
        ("portability", probes.consequences, old),
    ):
        asked = [one for one in questions if one.answer != other]
        if asked:
            yield name, asked, other


def shown(before: Judged, after: Judged) -> Iterator[FactAnswer]:
    """What was answered before and after, of each kind the first few questions."""
    for name, asked in after.asked.items():
        was, now = before.found[name], after.found[name]
        for at, question in enumerate(asked[:_SHOWN]):
            own = Shift(float(np.exp(was.first[at])), float(np.exp(now.first[at])))
            other = Shift(float(np.exp(was.second[at])), float(np.exp(now.second[at])))
            yield FactAnswer(
                name, question.prompt, question.answer, own, after.other[name], other, was.texts[at], now.texts[at]
            )
