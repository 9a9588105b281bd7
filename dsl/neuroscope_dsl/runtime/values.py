"""Values that Python lacks: symbols, characters, arrays, associations, points, and objects of script-defined classes.

Integers, floats, strings, booleans, nil, fractions, lists and dictionaries are Python's, so they need no conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from neuroscope_dsl.runtime.process import within

if TYPE_CHECKING:
    from neuroscope_dsl.runtime.classes import SmalltalkClass


class Symbol(str):
    """`#name`. Equal to the string of the same characters, as in Pharo, and so the same dictionary key; but each symbol exists
    once, as long as something refers to it, so `==` differs.
    """

    __slots__ = ("__weakref__",)
    _table: ClassVar[WeakValueDictionary[str, Symbol]] = WeakValueDictionary()

    def __new__(cls, name: str) -> Symbol:
        if type(name) is cls:
            return name
        found = cls._table.get(name)
        if found is None:
            found = cls._table.setdefault(str(name), super().__new__(cls, name))
        return found

    def __reduce__(self) -> tuple[type[Symbol], tuple[str]]:
        return Symbol, (str(self),)


class Character:
    """`$a`. One object for each code point, as long as something refers to it."""

    __slots__ = ("__weakref__", "value")
    _usual: ClassVar[dict[str, Character]] = {}
    _table: ClassVar[WeakValueDictionary[str, Character]] = WeakValueDictionary()
    value: str

    def __new__(cls, value: str) -> Character:
        found = cls._usual.get(value) or cls._table.get(value)
        if found is None:
            made = object.__new__(cls)
            made.value = value
            found = (cls._usual if value < "\u0250" else cls._table).setdefault(value, made)
        return found

    def __lt__(self, other: object) -> bool:
        return self.value < other.value if isinstance(other, Character) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self.value <= other.value if isinstance(other, Character) else NotImplemented

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return f"Character({self.value!r})"

    def __reduce__(self) -> tuple[type[Character], tuple[str]]:
        return Character, (self.value,)


class MutableString(Sequence[Character]):
    """The result of `String new: 5` and `'abc' copy`, whose characters can be changed."""

    __slots__ = ("characters",)

    def __init__(self, text: Iterable[str] = "") -> None:
        self.characters = list(text)

    def __str__(self) -> str:
        return "".join(self.characters)

    def __len__(self) -> int:
        return len(self.characters)

    def __getitem__(self, index: Any) -> Any:
        return Character(self.characters[index])

    def __setitem__(self, index: int, value: Character) -> None:
        self.characters[index] = value.value

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, (str, MutableString)) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: Any) -> bool:
        return str(self) < str(other)

    def print_string(self) -> str:
        return "'" + str(self).replace("'", "''") + "'"


class Array(list[Any]):
    """`#(1 2 3)`: a list of fixed size. Hashable by its elements, so that arrays can be keys."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]
        return within(lambda: hash(tuple(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Array, tuple)) or len(self) != len(other):
            return False
        return within(lambda: list(self) == list(other))

    def __ne__(self, other: object) -> bool:
        return not self == other


class OrderedCollection(list[Any]):
    """A list that grows. A Python list behaves in the same way."""

    __slots__ = ("__dict__",)

    def __hash__(self) -> int:  # type: ignore[override]
        return within(lambda: hash(tuple(self)))


class Association:
    """`key -> value`."""

    __slots__ = ("key", "value")

    def __init__(self, key: Any, value: Any) -> None:
        self.key = key
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Association):
            return False
        return within(lambda: bool(self.key == other.key) and bool(self.value == other.value))

    def __hash__(self) -> int:
        return within(lambda: hash(self.key))

    def __lt__(self, other: object) -> bool:
        return bool(self.key < other.key) if isinstance(other, Association) else NotImplemented

    def as_dictionary(self) -> dict[str, Any]:
        """For JSON."""
        return {"key": self.key, "value": self.value}


class Point:
    """`3 @ 4`."""

    __slots__ = ("x", "y")

    def __init__(self, x: Any, y: Any) -> None:
        self.x = x
        self.y = y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and within(lambda: bool(self.x == other.x) and bool(self.y == other.y))

    def __hash__(self) -> int:
        return within(lambda: hash((self.x, self.y)))


class MessageObject:
    """The argument of `doesNotUnderstand:`, and the result of `e message`."""

    __slots__ = ("arguments", "selector")

    def __init__(self, selector: str, arguments: tuple[Any, ...]) -> None:
        self.selector = Symbol(selector)
        self.arguments = Array(arguments)


Sender = Callable[..., Any]


class SmalltalkObject:
    """An instance of a class that a script defined. Python's operators call its Smalltalk methods, so Python code can compare,
    sort and add such objects and use them as dictionary keys.
    """

    smalltalk_class: ClassVar[SmalltalkClass]

    def _understood(self, selector: str) -> Sender | None:
        return self.smalltalk_class.script_method(selector)

    def _operate(self, selector: str, other: Any) -> Any:
        method = self._understood(selector)
        return NotImplemented if method is None else method(self, other)

    def __eq__(self, other: object) -> bool:
        method = self._understood("=")
        return self is other if method is None else bool(method(self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        method = self._understood("hash")
        return id(self) >> 4 if method is None else hash(method(self))

    def __lt__(self, other: Any) -> Any:
        return self._operate("<", other)

    def __le__(self, other: Any) -> Any:
        return self._operate("<=", other)

    def __gt__(self, other: Any) -> Any:
        return self._operate(">", other)

    def __ge__(self, other: Any) -> Any:
        return self._operate(">=", other)

    def __add__(self, other: Any) -> Any:
        return self._operate("+", other)

    def __sub__(self, other: Any) -> Any:
        return self._operate("-", other)

    def __mul__(self, other: Any) -> Any:
        return self._operate("*", other)

    def __truediv__(self, other: Any) -> Any:
        return self._operate("/", other)

    def __repr__(self) -> str:
        return f"<{self.smalltalk_class.name}>"

    def as_dictionary(self) -> dict[str, Any]:
        """For JSON: the class's name and the instance variables."""
        names = self.smalltalk_class.all_instance_variables()
        return {"class": self.smalltalk_class.name, **{name: getattr(self, f"_iv_{name}", None) for name in names}}
