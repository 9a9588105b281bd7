"""Models loaded once and shared by the users of a process.

Within `sharing(registry)`, `TransformerModel.from_hugging_face` returns a new model object each time, with its own hooks, on
shared weights and engine. Computations on one engine take turns; all who share it see an edit of its weights.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from neuroscope import events

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

_registry: ContextVar[ModelRegistry | None] = ContextVar("neuroscope_models", default=None)


class ModelRegistry:
    """Loaded models by source. Thread-safe; concurrent requests for one model load it once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loading: dict[Hashable, threading.Lock] = {}
        self._models: dict[Hashable, TransformerModel] = {}

    def get(self, key: Hashable, load: Callable[[], TransformerModel]) -> TransformerModel:
        """The model of a key, loaded if it is new."""
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            found = self._models.get(key)
            if found is None:
                with events.for_all():
                    found = load()
                with self._lock:
                    self._models[key] = found
            return found

    def names(self) -> list[str]:
        """The names under which the loaded models were first asked for."""
        with self._lock:
            return sorted({model.name for model in self._models.values()})


@contextmanager
def sharing(registry: ModelRegistry) -> Iterator[None]:
    """Let models of this context come from `registry`."""
    token = _registry.set(registry)
    try:
        yield
    finally:
        _registry.reset(token)


def current() -> ModelRegistry | None:
    """The registry of this context, or None."""
    return _registry.get()
