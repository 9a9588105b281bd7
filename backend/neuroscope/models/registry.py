"""Models loaded once and shared, for a process that serves several users.

Within `sharing(registry)`, `TransformerModel.from_hugging_face` answers a new model object each time, with its own hooks,
on weights and an engine that were loaded once. Computations on one engine take turns; an edit of its weights is seen by
all who share it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

_registry: ContextVar[ModelRegistry | None] = ContextVar("neuroscope_models", default=None)


class ModelRegistry:
    """Loaded models by what they were loaded from. Safe for threads; two that ask for one model load it once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loading: dict[Hashable, threading.Lock] = {}
        self._models: dict[Hashable, TransformerModel] = {}

    def get(self, key: Hashable, load: Callable[[], TransformerModel]) -> TransformerModel:
        """The model of that key, loaded now if nobody did before."""
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            found = self._models.get(key)
            if found is None:
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
    """The registry of this context; None where every load is a new one."""
    return _registry.get()
