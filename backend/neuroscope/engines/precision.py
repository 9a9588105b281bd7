"""Floating types by name, and their precision."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from neuroscope.errors import ArgumentError, Remedy, nearest

#: Machine epsilon: distance from one to the next number.
_EPSILON = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10, "float64": 2.0**-52}


#: Epsilons by which two computations of the same logits may differ, relative to their standard deviation.
_PARITY = 32


def checked(name: str, known: Collection[str] = tuple(_EPSILON)) -> str:
    """A type's name. Raises `ArgumentError` for an unknown type."""
    if name not in known:
        near = nearest(name, known)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise ArgumentError(f"There is no floating type {name!r}.", remedy=_written(meant, near, known))
    return name


def _written(meant: str, near: Sequence[str], known: Collection[str]) -> Remedy:
    types, one = f"{meant}Types: {', '.join(known)}", near[0] if near else "bfloat16"
    return Remedy(
        f"{types}; dtype={one!r}.",
        smalltalk=f"{types}; dtype: '{one}'.",
        shell=f"{types}; --dtype {one}.",
        http=f'{types}; "dtype": "{one}".',
    )


def tolerance(precision: str, layers: int) -> float:
    """Largest difference, relative to the standard deviation of the logits, between two computations of them.

    Rounding errors add up over the layers as a random walk. Unrelated logits differ by about 7.
    """
    return max(1e-4, _PARITY * epsilon(precision) * max(1.0, layers / 4) ** 0.5)


def epsilon(precision: str) -> float:
    """Machine epsilon of a type, named as in `Engine.precision`."""
    return _EPSILON[precision]
