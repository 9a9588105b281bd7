"""Facts of Smalltalk's syntax that printing and parsing share."""

from __future__ import annotations

import re

_BARE_SYMBOL = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*(?::[A-Za-z_][A-Za-z0-9_]*)*:?|[-+*/\\<>=~,@%&?!|]+)\Z")

#: Invisible characters, which print by name.
CHARACTER_NAMES = {
    " ": "Character space",
    "\t": "Character tab",
    "\n": "Character lf",
    "\r": "Character cr",
    "\0": "Character null",
    "\x1b": "Character escape",
    "\x08": "Character backspace",
    "\x0c": "Character newPage",
    "\x7f": "Character delete",
    "\xa0": "Character nbsp",
}


def is_bare_symbol(name: str) -> bool:
    """Whether a symbol can be written without quotes: `#foo`, `#at:put:`, `#+`."""
    return _BARE_SYMBOL.match(name) is not None
