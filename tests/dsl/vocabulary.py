"""A small vocabulary for tests of the dispatcher, and a stand-in for `neuroscope.vocabulary`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from neuroscope.errors import SiteError
from neuroscope.vocabulary import public, python_only


@public
class Engine:
    """What a model is made on."""

    label: str
    _secret: str

    def __init__(self, name: str = "torch", size: int = 1, from_: int = 0) -> None:
        self.name = name
        self.label = ""
        self.size = size
        self.start = from_
        self._secret = "hidden"

    name: str

    @property
    def twice(self) -> int:
        return self.size * 2

    @property
    def speed(self) -> int:
        return self.size

    @speed.setter
    def speed(self, value: int) -> None:
        self.size = value

    @classmethod
    def default(cls) -> Engine:
        return cls("default", 7)

    @classmethod
    def load_ioi_examples(cls, path: str, *, strict: bool = False) -> Engine:
        return cls(f"{path}/{strict}")

    def find_circuit(self, task: str, examples: Any = None, min_edges: int = 3) -> tuple[Any, ...]:
        return (task, examples, min_edges)

    def measure(self) -> int:
        return 42

    def reset(self) -> None:
        self.size = 0

    def nothing(self) -> int | None:
        return None

    def at_put(self, key: Any, value: Any) -> tuple[Any, Any]:
        return (key, value)

    def for_each(self, block: Any) -> list[Any]:
        return [block(1), block(2)]

    def update(self, fact: str, class_: str = "none") -> tuple[str, str]:
        return (fact, class_)

    def broken(self) -> int:
        return len(3)  # type: ignore[arg-type]

    def wrong_call(self) -> int:
        return self.find_circuit()  # type: ignore[call-arg]

    def fail(self) -> None:
        raise SiteError("There is no layer 99.", remedy="Layers run from 0 to 11.")

    @python_only
    def internals(self) -> dict[str, Any]:
        return self.__dict__

    @staticmethod
    def shell(command: str) -> str:
        raise AssertionError("a static method was reached")

    def _private(self) -> str:
        raise AssertionError("a private method was reached")

    def __add__(self, other: Any) -> str:
        return f"sum with {other}"


@public
class Level:
    """Compares with the names of levels."""

    order = ("none", "low", "medium", "high")

    def __init__(self, name: str) -> None:
        self.rank = self.order.index(name)

    def __lt__(self, other: str) -> bool:
        return self.rank < self.order.index(other)


@public
class Bundle:
    """Iterable and subscriptable, zero-based."""

    def __init__(self, items: list[int]) -> None:
        self._items = list(items)

    def __iter__(self) -> Iterator[int]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> int:
        if not isinstance(index, int) or not 0 <= index < len(self._items):
            raise IndexError(f"no unit {index}")
        return self._items[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._items[index] = value

    def total(self) -> int:
        return sum(self._items)


@public
@dataclass(frozen=True)
class Report:
    """A frozen result."""

    score: float
    title: str = "report"


@public
class Settings:
    """Set by a cascade."""

    model: str | None
    target_capability: str | None

    def __init__(self) -> None:
        self.model = None
        self.target_capability = None
        self.seen: list[str] = []

    def search_strategy(self, name: str) -> str:
        self.seen.append(name)
        return "a method"


class NotPublic:
    """Not of the vocabulary; it may still be handed around."""

    secret = 5

    def run(self) -> str:
        raise AssertionError("an unexported class was reached")


CLASSES = {cls.__name__: cls for cls in (Engine, Level, Bundle, Report, Settings)}


class Vocabulary:
    """`find` and `names` over the classes of this module."""

    def find(self, name: str) -> type | None:
        return CLASSES.get(name)

    def names(self) -> list[str]:
        return sorted(CLASSES)
