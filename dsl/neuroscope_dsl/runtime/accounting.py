"""What primitives may make and how long they may take: one function for all that grow.

A primitive that runs in C cannot be interrupted, and holds up every other thread of the process meanwhile. So nothing is made that
takes longer than a few hundredths of a second: `account` refuses what is larger, and asks for the memory of what is large.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from neuroscope_dsl.errors import MemoryLimitReached
from neuroscope_dsl.runtime.process import process

#: Largest size of a collection that a primitive makes, in elements.
MAX_SIZE = 1_000_000

#: Largest size of a string in characters, and of a ByteArray.
MAX_TEXT = 4_000_000

#: Largest integer in bits, and largest numerator and denominator of a fraction, whose common divisor takes longer.
MAX_BITS = 1 << 18
MAX_FRACTION_BITS = 1 << 16

#: Most characters that a value is printed with.
MAX_PRINTED = 1_000_000

#: Most keys with one hash in a set or a dictionary, and the seconds that finding one may take.
MAX_COLLIDING = 1024
_SLOW_LOOKUP = 4e-6

#: Characters, or elements, that are worked on at a time.
PIECE = 100_000

#: Nanoseconds that an operation on large integers may take by estimate.
LONGEST_WORK = 3e7

#: Sizes in bytes from which the meter of the memory is asked.
_LARGE = 1 << 18


def account(count: int, most: int = MAX_SIZE, each: int = 8) -> None:
    """Allow a collection of `count` elements of `each` bytes. Raises `MemoryLimitReached`."""
    if count > most:
        what = "text" if most == MAX_TEXT else "collection"
        shown = f"{count:,}" if count < 10**30 else "so many"
        raise MemoryLimitReached(f"A {what} of {shown} elements would be too large.", remedy=f"At most {most:,}.")
    if count * each > _LARGE and process.meter is not None:
        process.meter.reserve(count * each)


def account_text(count: int) -> None:
    """The same for a string of `count` characters."""
    account(count, MAX_TEXT, 1)


def account_bits(bits: int, most: int = MAX_BITS) -> None:
    """Allow an integer of so many bits."""
    if bits > most:
        shown = f"{bits:,}" if bits < 10**30 else "so many"
        raise MemoryLimitReached(
            f"A number of {shown} bits would be too large to compute with.", remedy=f"At most {most:,} bits."
        )


def account_work(work: float) -> None:
    """Allow an operation of so many nanoseconds that cannot be interrupted."""
    if work > LONGEST_WORK:
        raise MemoryLimitReached("These numbers are too large to compute with.", remedy="Use smaller ones, or floats.")


def joined(parts: Iterable[str]) -> str:
    """The concatenation of strings."""
    found = gathered(parts)
    size = 0
    done: list[str] = []
    for start in range(0, len(found), PIECE):
        done.append("".join(found[start : start + PIECE]))
        size += len(done[-1])
        account_text(size)
    return "".join(done)


def pieces(text: str) -> Iterator[str]:
    """A text in parts that are quickly worked on."""
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]


def characters(text: str) -> list[str]:
    """The characters of a text, one by one."""
    account_text(len(text))
    found: list[str] = []
    for piece in pieces(text):
        found.extend(piece)
    return found


def gathered(items: Iterable[Any]) -> list[Any]:
    """`list(items)` with a bound."""
    if isinstance(items, Sized):
        account(len(items), MAX_TEXT if isinstance(items, list) else MAX_SIZE)
        return list(items)
    found: list[Any] = []
    for item in items:
        if len(found) >= MAX_SIZE:
            account(MAX_SIZE + 1)
        found.append(item)
    return found


def check_collisions(mapping: Any) -> None:
    """Called when a set or a dictionary has grown. Raises `MemoryLimitReached` if its keys share their hashes.

    A search among equal hashes cannot be interrupted, and goes through all of them.
    """
    size = len(mapping)
    account(size, each=100)
    if size % MAX_COLLIDING:
        return
    sample: list[Any] = []
    for key in reversed(mapping):
        sample.append(key)
        if len(sample) == 16:
            break
    if any(type(key) not in _HASHED_QUICKLY for key in sample):
        return
    best = 1.0
    for _ in range(3):
        start = time.perf_counter()
        for key in sample:
            key in mapping  # noqa: B015 - its duration is what matters
        best = min(best, (time.perf_counter() - start) / len(sample))
    if best > _SLOW_LOOKUP:
        raise MemoryLimitReached(
            f"More than {MAX_COLLIDING} keys have the same hash.", remedy="Use other keys: their printString, for example."
        )


_HASHED_QUICKLY = frozenset({int, float, str})
