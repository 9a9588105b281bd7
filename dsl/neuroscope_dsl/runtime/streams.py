"""Streams over collections in memory: ReadStream, WriteStream, ReadWriteStream."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.runtime.accounting import MAX_TEXT, PIECE, account, account_text, characters, joined
from neuroscope_dsl.runtime.arguments import Size, Whole, items_of, wanted
from neuroscope_dsl.runtime.classes import Object, SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import Error, InvalidArgument
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.printing import brief, display_string
from neuroscope_dsl.runtime.values import Array, Character, MutableString


class Stream:
    """Items and a position. `text`: the items are characters."""

    can_read = True
    can_write = True

    def __init__(self, over: Any = "", *, at_end: bool = False) -> None:
        self.text = isinstance(over, (str, MutableString))
        self.bytes = isinstance(over, (bytes, bytearray))
        self.items: list[Any] = characters(str(over)) if self.text else items_of(over)
        self.place = len(self.items) if at_end else 0

    def put_all(self, items: Any) -> None:
        if self.text and isinstance(items, (str, MutableString)):
            text = str(items)
            new = list(text) if len(text) <= PIECE else characters(text)
        else:
            new = [self._kept(item) for item in (items if type(items) is tuple else items_of(items))]
        account(len(self.items) + len(new), MAX_TEXT, 0)
        self.items[self.place : self.place + len(new)] = new
        self.place += len(new)

    def _kept(self, item: Any) -> Any:
        if self.text:
            return item.value if isinstance(item, Character) else display_string(item)
        if self.bytes and not (type(item) is int and 0 <= item < 256):
            wanted("A byte", item)
        return item

    def contents(self) -> Any:
        return self._collected(self.items)

    def _collected(self, items: list[Any]) -> Any:
        if self.text:
            return "".join(items) if len(items) <= PIECE else joined(items)
        return bytearray(items) if self.bytes else Array(items)

    def at_end(self) -> bool:
        return self.place >= len(self.items)

    def peek(self) -> Any:
        if self.at_end():
            return None
        item = self.items[self.place]
        return Character(item) if self.text else item

    def take(self, count: int) -> Any:
        taken = self.items[self.place : self.place + count]
        self.place += len(taken)
        return self._collected(taken)


class ReadStream(Stream):
    can_write = False


class WriteStream(Stream):
    can_read = False

    def __init__(self, over: Any = "", *, at_end: bool = False) -> None:
        super().__init__(over, at_end=at_end)
        if not at_end:
            self.items.clear()


class ReadWriteStream(Stream):
    pass


StreamClass = define("Stream", Object)
Positionable = define("PositionableStream", StreamClass, Stream)
ReadStreamClass = define("ReadStream", Positionable, ReadStream)
WriteStreamClass = define("WriteStream", Positionable, WriteStream)
ReadWriteStreamClass = define("ReadWriteStream", WriteStreamClass, ReadWriteStream)


def _opener(owner: SmalltalkClass, kind: type[Stream]) -> None:
    owner.class_method("on:")(lambda receiver, items: kind(items))
    if kind is not ReadStream:
        owner.class_method("with:")(lambda receiver, items: kind(items, at_end=True))


_opener(ReadStreamClass, ReadStream)
_opener(WriteStreamClass, WriteStream)
_opener(ReadWriteStreamClass, ReadWriteStream)


def _writable(stream: Stream) -> Stream:
    if not stream.can_write:
        signal(Error("A ReadStream cannot be written to"))
    return stream


def _readable(stream: Stream) -> Stream:
    if not stream.can_read:
        signal(Error("A WriteStream cannot be read", remedy="Use a ReadWriteStream, or contents readStream."))
    return stream


@Positionable.method("nextPut:")
def next_put(receiver: Stream, item: Any) -> Any:
    if receiver.text and not isinstance(item, Character):
        wanted("A character", item)
    _writable(receiver).put_all((item,))
    return item


@Positionable.method("nextPutAll:")
def next_put_all(receiver: Stream, items: Any) -> Any:
    _writable(receiver).put_all(items)
    return items


@Positionable.method("next:putAll:")
def next_put_all_times(receiver: Stream, count: Size, items: Any) -> Any:
    if isinstance(items, (str, MutableString)) and receiver.text:
        account_text(count * len(items))
        _writable(receiver).put_all(str(items) * count)
        return items
    given = items_of(items)
    account(count * len(given))
    _writable(receiver).put_all(Array(given * count))
    return items


Positionable.methods |= {
    "contents": lambda receiver: receiver.contents(),
    "size": lambda receiver: len(receiver.items),
    "position": lambda receiver: receiver.place,
    "peek": lambda receiver: _readable(receiver).peek(),
    "atEnd": lambda receiver: receiver.at_end(),
}


@Positionable.method("next")
def next_(receiver: Stream) -> Any:
    item = _readable(receiver).peek()
    receiver.place += not receiver.at_end()
    return item


@Positionable.method("next:")
def next_n(receiver: Stream, count: Size) -> Any:
    return _readable(receiver).take(count)


@Positionable.method("position:")
def set_position(receiver: Stream, place: Whole) -> Any:
    if not 0 <= place <= len(receiver.items):
        return signal(InvalidArgument(f"Position {brief(place)} is outside the stream: its size is {len(receiver.items)}"))
    receiver.place = place
    return receiver
