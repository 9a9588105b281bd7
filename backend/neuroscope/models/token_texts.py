"""Single tokens: their bytes, and the bytes as text.

Decoding a token alone loses what depends on its context: the space that SentencePiece strips from the start of a text, and the
bytes of a character that several tokens share. The vocabulary's entry and the kind of decoder have both:

    ByteLevel      each character of the entry is a byte (Radford et al. 2019, GPT-2)
    Metaspace, Replace   ▁ is a space (Kudo & Richardson 2018, SentencePiece)
    ByteFallback   <0xE2> is that byte

For a tokenizer without a decoder, or with another kind, a token is decoded alone.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

_Step = Mapping[str, Any]


class TokenTexts:
    """The tokens of one tokenizer. `TokenTexts.of(tokenizer)` returns the same object each time."""

    _known: ClassVar[weakref.WeakKeyDictionary[Any, TokenTexts]] = weakref.WeakKeyDictionary()

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = weakref.proxy(tokenizer)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._steps = _decoder(backend)
        added = {} if backend is None else backend.get_added_tokens_decoder()
        self._added = {int(id_): token.content for id_, token in added.items()}
        self._special: dict[int, bool] = {}

    @classmethod
    def of(cls, tokenizer: Any) -> TokenTexts:
        found = cls._known.get(tokenizer)
        if found is None:
            found = cls._known[tokenizer] = cls(tokenizer)
        return found

    def data(self, id_: int) -> bytes:
        """A token's bytes, including its space."""
        entry = self._entry(id_)
        if entry is None or not self._steps:
            return self._alone(id_).encode("utf-8", "replace")
        for step in self._steps:
            kind = step["type"]
            if kind == "ByteLevel":
                found = _unmapped(entry)
                return entry.encode("utf-8", "replace") if found is None else found
            if kind == "ByteFallback" and id_ not in self._added and (match := _BYTE.fullmatch(entry)):
                return bytes([int(match[1], 16)])
            entry = _replaced(step, entry)
        return entry.encode("utf-8", "replace")

    def text(self, id_: int) -> str:
        """A token as text, including special ones. Bytes of an incomplete character are written as `\\xe2`."""
        return self.data(id_).decode("utf-8", "backslashreplace")

    def is_whole(self, id_: int) -> bool:
        """Whether a token is complete text, not part of a character."""
        try:
            self.data(id_).decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    def is_special(self, id_: int) -> bool:
        """Whether decoding without special tokens drops this one."""
        found = self._special.get(id_)
        if found is None:
            shown = self._tokenizer.decode([id_], skip_special_tokens=True)
            found = self._special[id_] = not shown and bool(self._tokenizer.decode([id_], skip_special_tokens=False))
        return found

    def _entry(self, id_: int) -> str | None:
        """The vocabulary's entry for an id, or None."""
        if id_ in self._added:
            return self._added[id_]
        try:
            entry = self._tokenizer.convert_ids_to_tokens(id_)
        except (IndexError, KeyError, OverflowError, ValueError):
            return None
        return entry if isinstance(entry, str) else None

    def _alone(self, id_: int) -> str:
        try:
            return str(self._tokenizer.decode([id_]))
        except (IndexError, OverflowError, TypeError, ValueError):  # Python tokenizers raise for an id without an entry
            return ""


def _decoder(backend: Any) -> list[_Step]:
    """The steps of a tokenizer's decoder; empty if the effect of one of them on a token is unknown."""
    decoder = None if backend is None else backend.decoder
    if decoder is None:
        return []
    steps = _flat(json.loads(decoder.__getstate__()))
    known = {"ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}
    return steps if all(step["type"] in known and _is_plain(step) for step in steps) else []


def _flat(step: _Step) -> list[_Step]:
    if step["type"] == "Sequence":
        return [inner for part in step["decoders"] for inner in _flat(part)]
    return [step]


def _is_plain(step: _Step) -> bool:
    return step["type"] != "Replace" or "String" in step["pattern"]


def _replaced(step: _Step, entry: str) -> str:
    if step["type"] == "Metaspace":
        return entry.replace(step["replacement"], " ")
    if step["type"] == "Replace":
        return entry.replace(step["pattern"]["String"], step["content"])
    return entry


def _unmapped(entry: str) -> bytes | None:
    """The bytes of an entry of a byte-level vocabulary; None for plain text, as in added tokens."""
    table = _byte_of()
    if all(character in table for character in entry):
        return bytes(table[character] for character in entry)
    return None


@cache
def _byte_of() -> dict[str, int]:
    """GPT-2's table: printable bytes map to themselves, the others to characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(others)}
