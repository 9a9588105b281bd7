"""Floating types by name: how finely each tells numbers apart."""

from __future__ import annotations

#: Distance from one to the next number.
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def epsilon(precision: str) -> float:
    """Distance from one to the next number of a type named as `Engine.precision` names it."""
    return _EPSILON[precision]
