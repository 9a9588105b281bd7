"""Values to frames and back.

A message is one msgpack frame, the header, and one raw frame for each tensor in it. Extension types, whose payloads are msgpack
again, represent values that msgpack lacks. `bridge/PROTOCOL.md` has the table, and `vectors.txt` in this folder has bytes that
every implementation must read and write.

Tensors are not copied: an array's memory becomes a frame, and a frame's memory a read-only array.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from fractions import Fraction
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from neuroscope_bridge.wire.errors import WireError
from neuroscope_bridge.wire.values import BlockSource, Callback, ClassName, Handle
from neuroscope_dsl.errors import MemoryLimitReached
from neuroscope_dsl.runtime.accounting import MAX_BITS, MAX_COLLIDING, MAX_FRACTION_BITS, check_collisions
from neuroscope_dsl.runtime.values import Association, Character, Symbol

#: Types that zmq sends and receives.
Frame = bytes | bytearray | memoryview

#: Largest nesting of extension values.
MAX_NESTING = 32

#: Element types of tensors. bfloat16, which numpy lacks, is read as float32.
DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
_BFLOAT16 = "bfloat16"


class Ext(IntEnum):
    """Codes of the extension types."""

    TENSOR = 1
    HANDLE = 2
    SYMBOL = 3
    BLOCK = 4
    CALLBACK = 5
    CLASS = 6
    INTEGER = 7
    FRACTION = 8
    CHARACTER = 9
    ASSOCIATION = 10


# --- writing --------------------------------------------------------------------------------------------------------


def encode(value: Any) -> list[Frame]:
    """The frames of a message. Raises `WireError` for a value that cannot be sent."""
    writer = _Writer()
    header = writer.pack(value)
    return [header, *writer.frames]


class _Writer:
    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def pack(self, value: Any) -> bytes:
        try:
            return msgpack.packb(value, default=self._default, strict_types=True)
        except (ValueError, OverflowError, TypeError, RecursionError) as error:
            raise WireError(f"A value cannot be sent: {error}") from error

    def _default(self, value: Any) -> Any:
        match value:
            case Symbol():
                return msgpack.ExtType(Ext.SYMBOL, value.encode("utf-8", "surrogatepass"))
            case str():
                return str(value)
            case Handle():
                return self._ext(Ext.HANDLE, [value.id, value.class_name, value.print_string])
            case list() | tuple():
                return list(value)
            case dict():
                return dict(value)
            case bytearray() | memoryview():
                return bytes(value)
            case np.ndarray():
                return self._ext(Ext.TENSOR, self._tensor(value))
            case np.generic():
                return value.item()
            case bool():
                return bool(value)
            case int():
                size = value.bit_length() // 8 + 1
                return msgpack.ExtType(Ext.INTEGER, value.to_bytes(size, "big", signed=True))
            case float():
                return float(value)
            case Fraction():
                return self._ext(Ext.FRACTION, [value.numerator, value.denominator])
            case Character():
                return msgpack.ExtType(Ext.CHARACTER, value.value.encode("utf-8", "surrogatepass"))
            case Association():
                return self._ext(Ext.ASSOCIATION, [value.key, value.value])
            case BlockSource():
                return self._ext(Ext.BLOCK, [value.source, dict(value.captured)])
            case Callback():
                return self._ext(Ext.CALLBACK, [value.id, value.num_args])
            case ClassName():
                return msgpack.ExtType(Ext.CLASS, value.name.encode())
        raise WireError(
            f"{type(value).__name__} cannot be sent.",
            remedy="Send numbers, strings, collections of these, arrays, blocks or remote objects.",
        )

    def _ext(self, code: Ext, payload: list[Any]) -> msgpack.ExtType:
        return msgpack.ExtType(code, self.pack(payload))

    def _tensor(self, array: NDArray[Any]) -> list[Any]:
        if array.dtype.name not in DTYPES:
            raise WireError(f"Arrays of {array.dtype.name} cannot be sent.", remedy=f"Convert to one of {', '.join(DTYPES)}.")
        plain = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        self.frames.append(plain.reshape(-1).view(np.uint8).data if plain.size else b"")
        return [array.dtype.name, list(array.shape), len(self.frames) - 1]


# --- reading --------------------------------------------------------------------------------------------------------


def decode(frames: Sequence[Frame], array: Callable[[list[Any]], Any] = list, *, guarded: bool = False) -> Any:
    """The value of a message's frames; `array` converts msgpack arrays. `guarded`: the sender is not trusted, so that a value which
    takes long to make is refused.

    Raises only `WireError`, for any bytes.
    """
    if not frames:
        raise WireError("The message has no frames.", remedy="The first frame is the header.")
    reader = _Reader(frames[1:], array, guarded)
    value = reader.unpack(frames[0], 0)
    unused = sorted(set(range(len(frames) - 1)) - reader.used)
    if unused:
        raise WireError(f"No tensor refers to frame {unused[0]}.", remedy="Send one frame for each tensor, in order.")
    return value


class _Reader:
    def __init__(self, frames: Sequence[Frame], array: Callable[[list[Any]], Any], guarded: bool) -> None:
        self._frames = frames
        self._pairs = _dictionary if guarded else None
        self._end = time.monotonic() + LONGEST_DECODING if guarded else None
        self._array = array
        self.used: set[int] = set()

    def unpack(self, data: Frame, depth: int) -> Any:
        if depth > MAX_NESTING:
            raise WireError(f"Values are nested deeper than {MAX_NESTING}.")
        try:
            return msgpack.unpackb(
                data,
                raw=False,
                strict_map_key=False,
                object_pairs_hook=self._pairs,
                list_hook=None if self._array is list else self._array,
                ext_hook=lambda code, payload: self._extension(code, payload, depth + 1),
            )
        except WireError:
            raise
        except msgpack.ExtraData as error:
            raise WireError("There are bytes after the end of a value.") from error
        except UnicodeDecodeError as error:
            raise WireError(f"A string is not UTF-8: {error.reason}.") from error
        except msgpack.StackError as error:
            raise WireError("Collections are nested too deep.") from error
        except TypeError as error:
            raise WireError(f"A map has an invalid key: {error}.") from error
        except (ValueError, OverflowError, RecursionError) as error:  # msgpack raises plain ValueError for truncated data
            raise WireError(f"The header is not msgpack: {error}".rstrip(".") + ".") from error

    def _extension(self, code: int, payload: bytes, depth: int) -> Any:
        if self._end is not None and time.monotonic() > self._end:
            raise WireError(f"The message takes longer than {LONGEST_DECODING:g} seconds to read.")
        match code:
            case Ext.SYMBOL:
                return Symbol(_text(payload))
            case Ext.CLASS:
                return ClassName(_text(payload))
            case Ext.CHARACTER:
                text = _text(payload)
                if len(text) != 1:
                    raise WireError(f"A character must be one code point, not {len(text)}.")
                return Character(text)
            case Ext.INTEGER:
                if not payload:
                    raise WireError("An integer has no digits.")
                if 8 * len(payload) > MAX_BITS + 8:
                    raise WireError(f"An integer has {8 * len(payload):,} bits.", remedy=f"At most {MAX_BITS:,}.")
                return int.from_bytes(payload, "big", signed=True)
        try:
            kind = Ext(code)
        except ValueError as error:
            known = ", ".join(f"{known.value} {known.name.lower()}" for known in Ext)
            raise WireError(f"There is no extension type {code}.", remedy=f"Known: {known}.") from error
        parts = self.unpack(payload, depth)
        parts = list(parts) if isinstance(parts, list) else [parts]
        match kind, parts:
            case Ext.TENSOR, [str(dtype), list(shape), int(frame)]:
                return self._tensor(dtype, shape, frame)
            case Ext.HANDLE, [int(number), str(name), str(text)] if number.bit_length() < 64:
                return Handle(number, str(name), str(text))
            case Ext.BLOCK, [str(source), dict(captured)]:
                return BlockSource(str(source), captured)
            case Ext.CALLBACK, [int(number), int(count)] if count >= 0 and number.bit_length() < 65 and count.bit_length() < 32:
                return Callback(number, count)
            case Ext.FRACTION, [int(above), int(below)]:
                if below == 0:
                    raise WireError("A fraction has the denominator 0.")
                if max(above.bit_length(), below.bit_length()) > MAX_FRACTION_BITS:
                    raise WireError(
                        "The parts of a fraction are too large.", remedy=f"At most {MAX_FRACTION_BITS:,} bits each."
                    )
                return Fraction(above, below)
            case Ext.ASSOCIATION, [key, value]:
                return Association(key, value)
        raise WireError(f"A {kind.name.lower()} must be {_FORMS[kind]}.")

    def _tensor(self, dtype: str, shape: list[Any], frame: int) -> NDArray[Any]:
        if dtype not in DTYPES and dtype != _BFLOAT16:
            raise WireError(f"There is no element type {dtype[:60]!r}.", remedy=f"Known: {', '.join((*DTYPES, _BFLOAT16))}.")
        if len(shape) > 32 or any(type(size) is not int or not 0 <= size < 1 << 63 for size in shape):
            raise WireError("A tensor has no valid shape.", remedy="At most 32 sizes, none negative.")
        if not 0 <= frame < len(self._frames):
            shown = frame if -10 < frame < 1 << 63 else "of another message"
            raise WireError(f"A tensor refers to frame {shown}; the message has {len(self._frames)}.")
        self.used.add(frame)
        stored = np.dtype("<u2" if dtype == _BFLOAT16 else dtype).newbyteorder("<")
        data = memoryview(self._frames[frame]).cast("B")
        count = 1
        for size in shape:
            count *= size
        if count * stored.itemsize != len(data):
            needed = f"{' × '.join(map(str, shape)) or 'One'} element(s) of {dtype}"
            if count.bit_length() > 64:
                raise WireError(f"A tensor's shape does not fit its frame of {len(data)} bytes.")
            raise WireError(f"{needed} take {count * stored.itemsize} bytes; frame {frame} has {len(data)}.")
        array = np.frombuffer(data, dtype=stored) if count else np.empty(0, dtype=stored)
        if dtype == _BFLOAT16:
            array = (array.astype("<u4") << 16).view("<f4")
        array = array.reshape(shape)
        array.flags.writeable = False
        return array


def _dictionary(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map of a sender that is not trusted: keys that share their hashes would take for ever."""
    found: dict[Any, Any] = {}
    if len(pairs) < MAX_COLLIDING:
        for key, value in pairs:
            found[_key(key)] = value
        return found
    for key, value in pairs:
        found[_key(key)] = value
        if not len(found) % MAX_COLLIDING:
            try:
                check_collisions(found)
            except MemoryLimitReached as error:
                raise WireError(f"A map is too large: {error.message}") from error
    return found


def _key(key: Any) -> Any:
    if type(key) is int and key.bit_length() > 64:
        raise WireError("A map has a key beyond 64 bits.", remedy="Keys are strings, symbols and numbers.")
    if type(key) in _KEYS:
        return key
    raise WireError(f"A map has an invalid key: {type(key).__name__}.", remedy="Keys are strings, symbols and numbers.")


_KEYS = frozenset({str, Symbol, int, float, bool, Fraction, Character, bytes, type(None)})

#: Seconds that the reading of one message may take.
LONGEST_DECODING = 5.0

_FORMS = {
    Ext.TENSOR: "[element type, shape, frame]",
    Ext.HANDLE: "[number, class, printed form]",
    Ext.BLOCK: "[source, captured values by name]",
    Ext.CALLBACK: "[number, count of arguments]",
    Ext.FRACTION: "[numerator, denominator]",
    Ext.ASSOCIATION: "[key, value]",
}


def _text(payload: bytes) -> str:
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"A name is not UTF-8: {error.reason}.") from error
