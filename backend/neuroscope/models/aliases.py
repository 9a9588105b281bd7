"""Aliases of model names: `gpt-oss-20b` → `openai/gpt-oss-20b`, and those that the user adds.

They belong to the current context, so two runs in one process do not share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from neuroscope import events
from neuroscope.errors import ArgumentError

#: The standard aliases, of names in the documented scripts.
STANDARD: Mapping[str, str] = {
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "gpt-oss-120b": "openai/gpt-oss-120b",
    "gpt2": "openai-community/gpt2",
    "gpt2-small": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
}

#: Prefix of the models that ship with NeuroScope.
BUNDLED = "bundled:"

#: The names for which a bundled model stands in with `--embedded`.
EMBEDDED: Mapping[str, str] = {name: BUNDLED + name for name in ("gpt2-medium", "gpt-oss-20b")}

_given: ContextVar[Mapping[str, str]] = ContextVar("neuroscope_aliases", default=MappingProxyType({}))
_told: ContextVar[set[str] | None] = ContextVar("neuroscope_told_aliases", default=None)


def parse(text: str) -> tuple[str, str]:
    """Parse `NAME=TARGET`. Raises `ArgumentError`."""
    name, equals, target = text.partition("=")
    if not equals or not name.strip() or not target.strip():
        raise ArgumentError(f"{text!r} is not an alias.", remedy="Write NAME=TARGET, for example gpt-oss-20b=./my-model")
    return name.strip(), target.strip()


@contextmanager
def in_force(given: Iterable[str] = (), *, embedded: bool = False) -> Iterator[None]:
    """Use aliases `NAME=TARGET` in a block; `embedded` adds the bundled stand-ins, which `given` aliases override."""
    table = {**_given.get(), **(EMBEDDED if embedded else {}), **dict(parse(text) for text in given)}
    token, told = _given.set(table), _told.set(set())
    try:
        yield
    finally:
        _given.reset(token)
        _told.reset(told)


def follow(name: str) -> str:
    """The final target of `name`. Reports once each stand-in that the user asked for. Raises `ArgumentError` for cycles."""
    chain = _chain(name)
    _tell(name, chain[-1])
    return chain[-1]


def _tell(name: str, target: str) -> None:
    told = _told.get()
    if name in _given.get() and told is not None and name not in told:
        told.add(name)
        events.notice(f"{target} stands in for {name}.")


def follow_given(name: str) -> str:
    """The final target of `name` by the user's aliases alone, reported once; a server resolves the rest."""
    chain = _chain(name, standard=False)
    _tell(name, chain[-1])
    return chain[-1]


def stand_in(name: str) -> str | None:
    """What stands in for `name` because the user asked for it, or None. Reports nothing."""
    return _chain(name)[-1] if name in _given.get() else None


def _chain(name: str, *, standard: bool = True) -> list[str]:
    """`name` and its successive targets, by the user's aliases and the standard ones."""
    given, usual = _given.get(), STANDARD if standard else {}
    chain = [name]
    while (target := given.get(chain[-1]) or usual.get(chain[-1])) is not None and target != chain[-1]:
        if target in chain:
            raise ArgumentError(f"The aliases {' → '.join([*chain, target])} form a cycle.", remedy="Remove one of them.")
        chain.append(target)
    return chain


def given() -> Mapping[str, str]:
    """The user's own aliases."""
    return _given.get()


def table() -> dict[str, str]:
    """All aliases, the user's before the standard ones."""
    return {**STANDARD, **_given.get()}
