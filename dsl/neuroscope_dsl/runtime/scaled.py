"""ScaledDecimal: an exact fraction that prints with a fixed number of decimals, `3.14s2`."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from neuroscope_dsl.runtime.bignum import print_integer


@dataclass(frozen=True, slots=True)
class ScaledDecimal:
    """An exact value and its number of printed decimals. Digits beyond the scale are truncated."""

    value: Fraction
    scale: int

    def digits(self) -> str:
        """The number without its `s` suffix."""
        cut = abs(self.value.numerator) * 10**self.scale // self.value.denominator
        text = print_integer(cut).rjust(self.scale + 1, "0")
        sign = "-" if self.value < 0 else ""
        return sign + (f"{text[: -self.scale]}.{text[-self.scale :]}" if self.scale else text)

    def print_string(self) -> str:
        return f"{self.digits()}s{self.scale}"

    def __float__(self) -> float:
        return float(self.value)
