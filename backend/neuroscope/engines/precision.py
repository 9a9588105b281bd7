"""Floating types by name: how finely each tells numbers apart."""

from __future__ import annotations

#: Distance from one to the next number.
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


#: Epsilons by which two ways to compute the same logits may differ, relative to their standard deviation.
_PARITY = 32


def tolerance(precision: str, layers: int) -> float:
    """Largest difference, relative to the standard deviation of the logits, that two ways to compute them may have.

    Rounding adds up along the layers as a random walk does. Logits that have nothing to do with each other differ by some 7.
    """
    return max(1e-4, _PARITY * epsilon(precision) * max(1.0, layers / 4) ** 0.5)


def epsilon(precision: str) -> float:
    """Distance from one to the next number of a type named as `Engine.precision` names it."""
    return _EPSILON[precision]
