"""Floating types by name: how finely each tells numbers apart."""

from __future__ import annotations

from collections.abc import Collection

from neuroscope.errors import ArgumentError, nearest

#: Distance from one to the next number.
_EPSILON = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10, "float64": 2.0**-52}


#: Epsilons by which two ways to compute the same logits may differ, relative to their standard deviation.
_PARITY = 32


def checked(name: str, known: Collection[str] = tuple(_EPSILON)) -> str:
    """The name of a type that is known; `ArgumentError` with all of them for another."""
    if name not in known:
        near = nearest(name, known)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise ArgumentError(f"There is no type {name!r}.", remedy=f"{meant}Types: {', '.join(known)}.")
    return name


def tolerance(precision: str, layers: int) -> float:
    """Largest difference, relative to the standard deviation of the logits, that two ways to compute them may have.

    Rounding adds up along the layers as a random walk does. Logits that have nothing to do with each other differ by some 7.
    """
    return max(1e-4, _PARITY * epsilon(precision) * max(1.0, layers / 4) ** 0.5)


def epsilon(precision: str) -> float:
    """Distance from one to the next number of a type named as `Engine.precision` names it."""
    return _EPSILON[precision]
