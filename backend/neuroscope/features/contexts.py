"""Contexts of a unit: its strongest tokens in their texts, and a hypothesis about what they share.

The hypothesis states its evidence: the kind of token at most of the unit's peaks in every domain, and how common that kind is
among all tokens of those domains.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_BEST = 3
_PEAKS = 10
#: Least share of the peaks in every domain at one kind of token, or two.
_ONE_KIND, _TWO_KINDS = 0.5, 0.7
_FUNCTION_WORDS = frozenset(
    "the a an of to in on at by and or not is are was were be that this it its as with for from if then let both we i you he she "
    "has have had who why".split()
)
#: The results of `kind_of`.
KINDS = (
    "line breaks and spaces",
    "numbers",
    "operators and brackets",
    "punctuation marks",
    "function words",
    "single letters",
    "capitalised words",
    "other words",
)
_OPERATORS = frozenset("()[]{}=+-*/<>:_%\\|&^~@#")
_MARKS = frozenset(".,;!?'\"`’“”…–—")


@dataclass(frozen=True)
class Context:
    """A text of a domain with the unit's activation at every token; `peak` is the index of the largest."""

    domain: str
    tokens: list[str]
    activations: list[float]
    peak: int

    @property
    def token(self) -> str:
        return self.tokens[self.peak]

    @property
    def value(self) -> float:
        return self.activations[self.peak]

    def as_dictionary(self) -> dict[str, Any]:
        return {
            "domain": self.domain,
            "text": "".join(self.tokens),
            "token": self.token,
            "activation": self.value,
            "tokens": self.tokens,
            "activations": [round(value, 4) for value in self.activations],
        }


def strongest(contexts: Sequence[Context], domains: Sequence[str]) -> list[Context]:
    """The best contexts of each domain, strongest first."""
    return [context for domain in domains for context in _ranked(contexts, domain)[:_BEST]]


def kind_of(token: str) -> str:
    """The kind of a token's text, in words."""
    text = token.strip()
    if not text:
        return "line breaks and spaces"
    if text.isdigit():
        return "numbers"
    if set(text) <= _OPERATORS:
        return "operators and brackets"
    if set(text) <= _MARKS:
        return "punctuation marks"
    if text.lower() in _FUNCTION_WORDS:
        return "function words"
    if len(text) == 1:
        return "single letters"
    return "capitalised words" if text[0].isupper() else "other words"


def hypothesis(contexts: Sequence[Context], domains: Sequence[str]) -> str:
    """One sentence about the kind of token that the unit's strongest tokens in its domains share, if any."""
    peaks = {domain: [context.token for context in _ranked(contexts, domain)[:_PEAKS]] for domain in domains}
    kinds = _shared_kinds(list(peaks.values()))
    if kinds:
        every = [token for context in contexts if context.domain in domains for token in context.tokens[1:]]
        usual = sum(kind_of(token) in kinds for token in every) / len(every)
        found = [token for tokens in peaks.values() for token in tokens if kind_of(token) in kinds]
        total = sum(map(len, peaks.values()))
        return (
            f"Fires at {_listed(kinds)} in {_listed(domains)}: {len(found)} of its {total} strongest tokens there, "
            f"where {usual:.0%} of all tokens are; such as {_examples(found)}."
        )
    parts = [f"in {domain} at {_examples(peaks[domain])}" for domain in domains]
    return f"Its strongest tokens are of no one kind: {'; '.join(parts)}."


def _ranked(contexts: Sequence[Context], domain: str) -> list[Context]:
    return sorted((context for context in contexts if context.domain == domain), key=lambda context: -context.value)


def _shared_kinds(peaks: Sequence[Sequence[str]]) -> list[str]:
    """The one or two kinds of token at most of the peaks in every domain; empty if there are none."""
    counts = [Counter(map(kind_of, tokens)) for tokens in peaks]
    common = sorted(set.intersection(*map(set, counts)))
    for size, least in ((1, _ONE_KIND), (2, _TWO_KINDS)):
        scored = [
            (min(sum(count[kind] for kind in kinds) / count.total() for count in counts), list(kinds))
            for kinds in itertools.combinations(common, size)
        ]
        best = max(scored, default=(0.0, []))
        if best[0] >= least:
            return best[1]
    return []


def _examples(tokens: Sequence[str]) -> str:
    return ", ".join(repr(token) for token, _ in Counter(tokens).most_common(3))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
