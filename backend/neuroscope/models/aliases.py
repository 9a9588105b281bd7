"""Names that stand for other names: `gpt-oss-20b` → `openai/gpt-oss-20b`, and what the user adds.

The aliases in force belong to the current context, so that two runs in one process do not share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from neuroscope import events
from neuroscope.errors import ArgumentError

#: What the names in the documented scripts mean everywhere.
STANDARD: Mapping[str, str] = {
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "gpt-oss-120b": "openai/gpt-oss-120b",
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
}

#: Prefix of targets that are models shipped with NeuroScope.
BUNDLED = "bundled:"

#: The names for which a bundled model stands in when `--embedded` asks for it.
EMBEDDED: Mapping[str, str] = {name: BUNDLED + name for name in ("gpt2-medium", "gpt-oss-20b")}

_given: ContextVar[Mapping[str, str]] = ContextVar("neuroscope_aliases", default=MappingProxyType({}))
_told: ContextVar[set[str] | None] = ContextVar("neuroscope_told_aliases", default=None)


def parse(text: str) -> tuple[str, str]:
    """`NAME=TARGET` as a pair; `ArgumentError` that says the form."""
    name, equals, target = text.partition("=")
    if not equals or not name.strip() or not target.strip():
        raise ArgumentError(f"{text!r} is no alias.", remedy="Write NAME=TARGET, for example gpt-oss-20b=./my-model")
    return name.strip(), target.strip()


@contextmanager
def in_force(given: Iterable[str] = (), *, embedded: bool = False) -> Iterator[None]:
    """Let aliases `NAME=TARGET` hold for a block; `embedded` adds the bundled stand-ins. Given ones go before those."""
    table = {**_given.get(), **(EMBEDDED if embedded else {}), **dict(parse(text) for text in given)}
    token, told = _given.set(table), _told.set(set())
    try:
        yield
    finally:
        _given.reset(token)
        _told.reset(told)


def follow(name: str) -> str:
    """What `name` stands for in the end. A stand-in that the user asked for is told once. Cycles are an `ArgumentError`."""
    chain = _chain(name)
    _tell(name, chain[-1])
    return chain[-1]


def _tell(name: str, target: str) -> None:
    told = _told.get()
    if name in _given.get() and told is not None and name not in told:
        told.add(name)
        events.notice(f"{target} stands in for {name}.")


def follow_given(name: str) -> str:
    """What `name` stands for by the user's own aliases alone; told once. What it means otherwise is for a server to say."""
    chain = _chain(name, standard=False)
    _tell(name, chain[-1])
    return chain[-1]


def stand_in(name: str) -> str | None:
    """What stands in for `name` because the user asked for it, or None. Tells nobody."""
    return _chain(name)[-1] if name in _given.get() else None


def _chain(name: str, *, standard: bool = True) -> list[str]:
    """`name`, and what each name stands for in turn, by the user's aliases and the standard ones."""
    given, usual = _given.get(), STANDARD if standard else {}
    chain = [name]
    while (target := given.get(chain[-1]) or usual.get(chain[-1])) is not None and target != chain[-1]:
        if target in chain:
            raise ArgumentError(f"The aliases {' → '.join([*chain, target])} go round in a circle.", remedy="Drop one of them.")
        chain.append(target)
    return chain


def table() -> dict[str, str]:
    """Every alias in force, the user's before the standard ones."""
    return {**STANDARD, **_given.get()}
