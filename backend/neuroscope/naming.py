"""Names across the three languages: Smalltalk's camelCase, Python's snake_case, and equality between them."""

from __future__ import annotations

import functools
import re

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


#: Longer names are not kept.
_LONGEST = 200


def fold(name: str) -> str:
    """A name without underscores and case, for comparison.

    >>> fold("loadIOIExamples") == fold("load_ioi_examples")
    True
    """
    return _folded(name) if len(name) <= _LONGEST else name.replace("_", "").lower()


@functools.lru_cache(maxsize=4096)
def _folded(name: str) -> str:
    return name.replace("_", "").lower()


@functools.lru_cache(maxsize=4096)
def snake_case(name: str) -> str:
    """
    >>> snake_case("findCircuit"), snake_case("loadIOIExamples")
    ('find_circuit', 'load_ioi_examples')
    """
    return _BOUNDARY.sub("_", name).lower()


@functools.lru_cache(maxsize=4096)
def camel_case(name: str) -> str:
    """
    >>> camel_case("random_circuit_faithfulness")
    'randomCircuitFaithfulness'
    """
    head, *tail = name.strip("_").split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)
