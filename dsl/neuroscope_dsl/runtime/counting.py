"""The steps of counting loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from neuroscope_dsl.runtime import arithmetic
from neuroscope_dsl.runtime.arithmetic import is_number
from neuroscope_dsl.runtime.exceptions import InvalidArgument
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.printing import brief


def steps(first: Any, last: Any, step: Any = 1) -> Iterator[Any] | range:
    """The values from `first` to `last`: a range for integers, sums for all other numbers."""
    if type(first) is int and type(step) is int and type(last) in (int, float, Fraction) and step and math.isfinite(last):
        stop = last if type(last) is int else (math.floor(last) if step > 0 else math.ceil(last))
        return range(first, stop + (1 if step > 0 else -1), step)
    return _sums(first, last, step)


def _sums(first: Any, last: Any, step: Any) -> Iterator[Any]:
    if not all(is_number(value) for value in (first, last, step)):
        bad = next(value for value in (first, last, step) if not is_number(value))
        signal(InvalidArgument(f"A loop needs numbers, not {brief(bad)}"))
        return
    forward = arithmetic.greater(step, 0)
    if arithmetic.equal(step, 0):
        signal(InvalidArgument("The step of a loop must not be zero"))
        return
    count = 0
    while True:
        value = arithmetic.add(first, arithmetic.multiply(count, step))
        if (arithmetic.greater if forward else arithmetic.less)(value, last):
            return
        yield value
        count += 1
