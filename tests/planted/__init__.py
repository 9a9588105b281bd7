"""Transformers whose circuits are known by construction: the truth that circuit finders are held against.

Every planted circuit comes with prompts on which all of its edges matter and no other edge does. All components that do
not belong to it are distractors: they read the stream at random and write where no part of the circuit looks, so that
their activations differ between clean and corrupt prompts as those of the circuit do.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.planted import compiled, facts, gates, grouped, induction, names
from tests.planted.circuit import Planted

#: By name, each a builder of the model and `n` examples.
CIRCUITS: dict[str, Callable[..., Planted]] = {
    "induction": induction.planted,
    "or": gates.either,
    "or, both on": gates.either_redundant,
    "or in one head": gates.either_in_one_head,
    "and": gates.both,
    "indirect object, negative mover": names.planted,
    "histogram, compiled": compiled.histogram,
    "fact in one MLP": facts.planted,
    "grouped queries": grouped.planted,
}

__all__ = ["CIRCUITS", "Planted"]
