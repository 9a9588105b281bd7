"""The objects that a session holds for its client."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from typing import Any

from neuroscope_bridge.wire.errors import LimitError, StaleHandleError


class HandleTable:
    """Objects by number. A number is never used twice. Safe for threads: `release` may come while a job runs."""

    def __init__(self, most: int) -> None:
        self._objects: dict[int, Any] = {}
        self._numbers = itertools.count(1)
        self._most = most
        self._lock = threading.Lock()

    def add(self, value: Any) -> int:
        """A new number for an object. Raises `LimitError` if the session has too many."""
        with self._lock:
            if len(self._objects) >= self._most:
                raise LimitError(
                    f"This session holds {self._most} objects, which is the limit.",
                    remedy="Release handles that are no longer needed.",
                )
            number = next(self._numbers)
            self._objects[number] = value
            return number

    def get(self, number: int) -> Any:
        """The object of a number. Raises `StaleHandleError` if there is none."""
        with self._lock:
            if number in self._objects:
                return self._objects[number]
        raise StaleHandleError(
            f"Handle {number} is stale: this session holds no such object.",
            remedy="It was released, or belongs to an earlier session. Make the object again.",
        )

    def release(self, numbers: Iterable[int]) -> int:
        """Remove objects. Return their number."""
        with self._lock:
            missing = object()
            return sum(self._objects.pop(number, missing) is not missing for number in numbers)

    def clear(self) -> int:
        with self._lock:
            count = len(self._objects)
            self._objects.clear()
            return count

    def __len__(self) -> int:
        return len(self._objects)
