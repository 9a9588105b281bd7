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
from neuroscope.errors import ModelLimitError, Remedy

if TYPE_CHECKING:
    from neuroscope.engines.protocol import Engine
    from neuroscope.models.model import TransformerModel

_registry: ContextVar[ModelRegistry | None] = ContextVar("neuroscope_models", default=None)


class ModelRegistry:
    """Loaded models by source, at most `most`. Thread-safe; concurrent requests for one model load it once."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._loading: dict[Hashable, threading.Lock] = {}
        self._models: dict[Hashable, TransformerModel] = {}

    def get(self, key: Hashable, load: Callable[[], TransformerModel]) -> TransformerModel:
        """The model of a key, loaded if it is new. Raises `ModelLimitError` if too many are loaded."""
        with self._lock:
            if key in self._models:
                return self._models[key]
            loading = self._loading.get(key)
            if loading is None:
                if self._most is not None and len(self._models) + len(self._loading) >= self._most:
                    raise ModelLimitError(
                        f"{len(self._models)} models are loaded, which is the limit.",
                        remedy=self._fewer(),
                    )
                loading = self._loading[key] = threading.Lock()
        with loading:
            try:
                found = self._models.get(key)
                if found is None:
                    with events.for_all():
                        found = load()
                    with self._lock:
                        self._models[key] = found
                return found
            finally:
                with self._lock:
                    if self._loading.get(key) is loading:
                        del self._loading[key]

    def _fewer(self) -> Remedy:
        of = f"Unload one of {', '.join(self._named())}"
        return Remedy(
            f"{of} (LMStudioRESTClient().unload_model(name)), or serve with --max-models.",
            smalltalk=f"{of} (LMStudioRESTClient default unloadModel: name), or serve with --max-models.",
            shell=f"{of}, or serve with --max-models.",
            http=f"{of} (DELETE /v1/models/NAME), or serve with --max-models.",
        )

    def forget(self, engine: Engine) -> bool:
        """Drop the models on an engine; its memory is free when nobody uses it any more. Return whether there were any."""
        with self._lock:
            gone = [key for key, model in self._models.items() if model.engine is engine]
            for key in gone:
                del self._models[key]
            return bool(gone)

    def loaded(self) -> list[TransformerModel]:
        """The loaded models, in the order of loading."""
        with self._lock:
            return list(self._models.values())

    def names(self) -> list[str]:
        """The names under which the loaded models were first asked for."""
        with self._lock:
            return self._named()

    def _named(self) -> list[str]:
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
