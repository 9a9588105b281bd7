"""Streams over collections in memory: ReadStream, WriteStream, ReadWriteStream."""

from __future__ import annotations

from typing import Any

from neuroscope_dsl.runtime.arithmetic import equal
from neuroscope_dsl.runtime.classes import Object, SmalltalkClass, define
from neuroscope_dsl.runtime.collections import elements
from neuroscope_dsl.runtime.exceptions import Error, InvalidArgument
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.objects import truth
from neuroscope_dsl.runtime.printing import display_string, print_string
from neuroscope_dsl.runtime.protocols import ArrayedCollection, SequenceableCollection
from neuroscope_dsl.runtime.strings import MutableString
from neuroscope_dsl.runtime.values import Array, Character, OrderedCollection


class Stream:
    """Items and a place among them. `text` says that the items are characters."""

    can_read = True
    can_write = True

    def __init__(self, over: Any = "", *, at_end: bool = False) -> None:
        self.text = isinstance(over, (str, MutableString))
        self.bytes = isinstance(over, (bytes, bytearray))
        self.items: list[Any] = list(str(over)) if self.text else list(elements(over))
        self.place = len(self.items) if at_end else 0

    def put(self, item: Any) -> None:
        if self.text:
            if not isinstance(item, Character):
                raise InvalidArgument(f"This stream takes characters, not {print_string(item)[:60]}")
            item = item.value
        self.items[self.place : self.place + 1] = [item]
        self.place += 1

    def put_all(self, items: Any) -> None:
        new = list(str(items)) if isinstance(items, (str, MutableString)) and self.text else list(elements(items))
        if self.text and not isinstance(items, (str, MutableString)):
            new = [str(item) if isinstance(item, Character) else display_string(item) for item in new]
        self.items[self.place : self.place + len(new)] = new
        self.place += len(new)

    def contents(self) -> Any:
        return self._collected(self.items)

    def _collected(self, items: list[Any]) -> Any:
        if self.text:
            return "".join(items)
        return bytearray(items) if self.bytes else Array(items)

    def at_end(self) -> bool:
        return self.place >= len(self.items)

    def next(self) -> Any:
        if self.at_end():
            return None
        self.place += 1
        return self._seen(self.items[self.place - 1])

    def peek(self) -> Any:
        return None if self.at_end() else self._seen(self.items[self.place])

    def _seen(self, item: Any) -> Any:
        return Character(item) if self.text else item

    def take(self, count: int) -> Any:
        taken = self.items[self.place : self.place + count]
        self.place += len(taken)
        return self._collected(taken)

    def up_to_end_text(self) -> str:
        return str(self.take(len(self.items)))


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


StreamClass = define("Stream", Object, Stream)
PositionableStream = define("PositionableStream", StreamClass)
ReadStreamClass = define("ReadStream", PositionableStream, ReadStream)
WriteStreamClass = define("WriteStream", PositionableStream, WriteStream)
ReadWriteStreamClass = define("ReadWriteStream", WriteStreamClass, ReadWriteStream)


@ReadStreamClass.class_method("on:")
def read_on(receiver: SmalltalkClass, items: Any) -> ReadStream:
    return ReadStream(items)


@WriteStreamClass.class_method("on:")
def write_on(receiver: SmalltalkClass, items: Any) -> WriteStream:
    return WriteStream(items)


@WriteStreamClass.class_method("with:")
def write_with(receiver: SmalltalkClass, items: Any) -> WriteStream:
    return WriteStream(items, at_end=True)


@ReadWriteStreamClass.class_method("on:")
def read_write_on(receiver: SmalltalkClass, items: Any) -> ReadWriteStream:
    return ReadWriteStream(items)


@ReadWriteStreamClass.class_method("with:")
def read_write_with(receiver: SmalltalkClass, items: Any) -> ReadWriteStream:
    return ReadWriteStream(items, at_end=True)


@SequenceableCollection.method("readStream")
def read_stream(receiver: Any) -> ReadStream:
    return ReadStream(receiver)


@SequenceableCollection.method("writeStream")
def write_stream(receiver: Any) -> WriteStream:
    return WriteStream(receiver)


@ArrayedCollection.class_method("streamContents:")
def stream_contents(d: Any, receiver: SmalltalkClass, block: Any) -> Any:
    from neuroscope_dsl.runtime.classes import LIBRARY

    if receiver.inherits_from(LIBRARY["String"]):
        over: Any = ""
    else:
        over = bytearray() if receiver.name == "ByteArray" else Array()
    stream = WriteStream(over)
    d.cull(block, stream)
    return stream.contents()


@SequenceableCollection.class_method("streamContents:")
def ordered_stream_contents(d: Any, receiver: SmalltalkClass, block: Any) -> Any:
    stream = WriteStream(Array())
    d.cull(block, stream)
    return OrderedCollection(stream.contents())


def _writable(stream: Stream) -> Stream:
    if not stream.can_write:
        signal(Error("A ReadStream cannot be written to"))
    return stream


def _readable(stream: Stream) -> Stream:
    if not stream.can_read:
        signal(Error("A WriteStream cannot be read", remedy="Use a ReadWriteStream, or contents readStream."))
    return stream


# --- writing ------------------------------------------------------------------------------------------------------


@StreamClass.method("nextPut:")
def next_put(receiver: Stream, item: Any) -> Any:
    _writable(receiver).put(item)
    return item


@StreamClass.method("nextPutAll:")
def next_put_all(receiver: Stream, items: Any) -> Any:
    _writable(receiver).put_all(items)
    return items


@StreamClass.method("<<")
def stream_in(d: Any, receiver: Stream, item: Any) -> Stream:
    if isinstance(item, Character):
        _writable(receiver).put(item)
    elif isinstance(item, (str, MutableString)) or not receiver.text:
        _writable(receiver).put_all(item)
    else:
        _writable(receiver).put_all(d.send(item, "displayString"))
    return receiver


@StreamClass.method("print:")
def print_(d: Any, receiver: Stream, item: Any) -> Stream:
    _writable(receiver).put_all(d.send(item, "printString"))
    return receiver


@StreamClass.method("display:", "show:")
def display(d: Any, receiver: Stream, item: Any) -> Stream:
    _writable(receiver).put_all(d.send(item, "displayString"))
    return receiver


@StreamClass.method("store:")
def store(d: Any, receiver: Stream, item: Any) -> Stream:
    _writable(receiver).put_all(d.send(item, "storeString"))
    return receiver


@StreamClass.method("next:put:")
def next_n_put(receiver: Stream, count: int, item: Any) -> Any:
    for _ in range(count):
        _writable(receiver).put(item)
    return item


def _text_writer(text: str, *selectors: str) -> None:
    @StreamClass.method(*selectors)
    def write(receiver: Stream) -> Stream:
        _writable(receiver).put_all(text)
        return receiver


_text_writer("\n", "nl", "lf", "newLine")
_text_writer("\r", "cr")
_text_writer("\t", "tab")
_text_writer(" ", "space")


@StreamClass.method("tab:")
def tabs(receiver: Stream, count: int) -> Stream:
    _writable(receiver).put_all("\t" * count)
    return receiver


@StreamClass.method("space:")
def spaces(receiver: Stream, count: int) -> Stream:
    _writable(receiver).put_all(" " * count)
    return receiver


@StreamClass.method("contents")
def contents(receiver: Stream) -> Any:
    return receiver.contents()


@StreamClass.method("size")
def size(receiver: Stream) -> int:
    return len(receiver.items)


@StreamClass.method("isEmpty")
def is_empty(receiver: Stream) -> bool:
    return not receiver.items


@StreamClass.method("isStream")
def is_stream(receiver: Stream) -> bool:
    return True


@StreamClass.method("flush", "close")
def flush(receiver: Stream) -> Stream:
    return receiver


# --- reading ------------------------------------------------------------------------------------------------------


@StreamClass.method("next")
def next_(receiver: Stream) -> Any:
    return _readable(receiver).next()


@StreamClass.method("next:")
def next_n(receiver: Stream, count: int) -> Any:
    return _readable(receiver).take(count)


@StreamClass.method("peek")
def peek(receiver: Stream) -> Any:
    return _readable(receiver).peek()


@StreamClass.method("peekFor:")
def peek_for(receiver: Stream, item: Any) -> bool:
    if equal(_readable(receiver).peek(), item) is not True:
        return False
    receiver.next()
    return True


@StreamClass.method("atEnd")
def at_end(receiver: Stream) -> bool:
    return receiver.at_end()


@StreamClass.method("upToEnd")
def up_to_end(receiver: Stream) -> Any:
    return _readable(receiver).take(len(receiver.items))


@StreamClass.method("upTo:")
def up_to(receiver: Stream, item: Any) -> Any:
    start = _readable(receiver).place
    while not receiver.at_end():
        if equal(receiver.next(), item) is True:
            return receiver._collected(receiver.items[start : receiver.place - 1])
    return receiver._collected(receiver.items[start:])


@StreamClass.method("nextLine")
def next_line(receiver: Stream) -> Any:
    return None if receiver.at_end() else up_to(receiver, Character("\n"))


@StreamClass.method("skip:")
def skip(receiver: Stream, count: int) -> Stream:
    receiver.place = max(0, min(len(receiver.items), receiver.place + count))
    return receiver


@StreamClass.method("skipSeparators")
def skip_separators(receiver: Stream) -> Stream:
    while not receiver.at_end() and receiver.text and receiver.items[receiver.place].isspace():
        receiver.place += 1
    return receiver


@StreamClass.method("position")
def position(receiver: Stream) -> int:
    return receiver.place


@StreamClass.method("position:")
def set_position(receiver: Stream, place: int) -> Any:
    if not 0 <= place <= len(receiver.items):
        return signal(
            InvalidArgument(f"Position {print_string(place)} is outside the stream: its size is {len(receiver.items)}")
        )
    receiver.place = place
    return receiver


@StreamClass.method("reset")
def reset(receiver: Stream) -> Stream:
    receiver.place = 0
    return receiver


@StreamClass.method("setToEnd")
def set_to_end(receiver: Stream) -> Stream:
    receiver.place = len(receiver.items)
    return receiver


@StreamClass.method("do:")
def do(d: Any, receiver: Stream, block: Any) -> Stream:
    function = d.function(block, 1)
    while not _readable(receiver).at_end():
        function(receiver.next())
    return receiver


@StreamClass.method("collect:")
def collect(d: Any, receiver: Stream, block: Any) -> ReadStream:
    function = d.function(block, 1)
    return ReadStream(Array(function(receiver._seen(item)) for item in _rest(receiver)))


@StreamClass.method("select:")
def select(d: Any, receiver: Stream, block: Any) -> ReadStream:
    function = d.function(block, 1)
    return ReadStream(Array(receiver._seen(i) for i in _rest(receiver) if truth(function(receiver._seen(i)))))


def _rest(receiver: Stream) -> list[Any]:
    rest = _readable(receiver).items[receiver.place :]
    receiver.place = len(receiver.items)
    return rest
