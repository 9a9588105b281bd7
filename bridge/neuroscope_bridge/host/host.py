"""One process's models and sessions, for all doors."""

from __future__ import annotations

import contextvars
import gc
import itertools
import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroscope import events, settings, vocabulary
from neuroscope.engines import precision
from neuroscope.errors import ArgumentError
from neuroscope.models import aliases
from neuroscope.models.registry import ModelRegistry, sharing
from neuroscope.places import Confinement, confined, server_folder
from neuroscope_bridge.host.faults import printable
from neuroscope_bridge.host.limits import LEASE, LONGEST_LEASE, SHORTEST_LEASE, Limits
from neuroscope_bridge.host.session import Session
from neuroscope_bridge.wire.errors import LimitError, ProtocolError

log = logging.getLogger("neuroscope.bridge")

#: Closed sessions after which garbage is collected.
_COLLECTED = 50

#: Least seconds between two collections.
_PERIOD = 10.0


@dataclass(frozen=True)
class HostOptions:
    """Options of all sessions. `model`, in its `revision`, is loaded at the start and bound to each session's variable `model`.

    device: of models for which none is chosen. folder: where sessions write, by default `neuroscope/server` in the platform's data folder. readable: further folders that they read.
    download: whether they may load models from the hub. tp: processes that share every model.
    """

    model: str | None = None
    aliases: list[str] = field(default_factory=list)
    embedded: bool = False
    engine: str | None = None
    seed: int | None = None
    limits: Limits = field(default_factory=Limits)
    dtype: str | None = None
    models: int | None = 8  # most models in memory
    folder: Path | None = None
    readable: tuple[Path, ...] = ()
    download: bool = False
    device: str | None = None
    revision: str | None = None
    tp: int | None = None

    @property
    def confinement(self) -> Confinement:
        """What sessions and requests may read, write and load."""
        models = frozenset() if self.model is None else frozenset({self.model})
        return Confinement(self.folder or server_folder(), self.readable, models, self.download)


def _logged(event: events.Event) -> None:
    if isinstance(event, events.Notice):
        log.log(logging.WARNING if event.level == "warning" else logging.INFO, event.message)


class Host:
    """Models, loaded once, and sessions. Safe for threads."""

    def __init__(self, options: HostOptions, *, load: bool = True) -> None:
        """load: whether to load the options' model now, or later by `load`. Raises the errors of loading, and `ArgumentError`."""
        self.options = options
        if options.revision is not None and options.model is None:
            raise ArgumentError("A revision is of a model.", remedy="Give --model NAME with --revision.")
        if options.dtype is not None:
            precision.checked(options.dtype)
        self.models = ModelRegistry(options.models)
        self._lock = threading.Lock()
        self._sessions: dict[int, Session] = {}
        self._numbers = itertools.count(1)
        self._closed = 0
        self._collected = 0.0
        self._loaded = threading.Event()
        self._failure: BaseException | None = None
        if load or options.model is None:
            self.load()

    @property
    def is_loaded(self) -> bool:
        """Whether the options' model is loaded, or there is none to load."""
        return self._loaded.is_set()

    def load(self) -> None:
        """Load the options' model. Raises the errors of loading."""
        try:
            if self.options.model is not None:
                self.context(None).run(self._load, self.options.model)
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._loaded.set()

    def wait(self) -> None:
        """Wait for `load` in another thread. Raises its error."""
        self._loaded.wait()
        if self._failure is not None:
            raise self._failure

    def context(self, seed: int | None) -> contextvars.Context:
        """A context with the host's aliases, engine and models, and a session's seed. Run jobs in copies of it."""
        given = self.options.seed if seed is None else seed

        def snapshot() -> contextvars.Context:
            with (
                aliases.in_force(self.options.aliases, embedded=self.options.embedded),
                settings.defaults(
                    seed=given,
                    engine=self.options.engine,
                    dtype=self.options.dtype,
                    device=self.options.device,
                    tp=self.options.tp,
                ),
                sharing(self.models),
                confined(self.options.confinement),
                events.listen(_logged),
            ):
                return contextvars.copy_context()

        return contextvars.Context().run(snapshot)

    def _load(self, name: str) -> Any:
        from neuroscope.models.model import TransformerModel

        return TransformerModel.from_hugging_face(name, revision=self.options.revision)

    # --- sessions -------------------------------------------------------------------------------------------------

    def open_session(self, client: str = "", lease: float | None = None, seed: int | None = None) -> Session:
        """A new session. Raises `LimitError` if there are too many, `ProtocolError` for an invalid lease."""
        lease = LEASE if lease is None else float(lease)
        if not SHORTEST_LEASE <= lease <= LONGEST_LEASE:
            remedy = f"From {SHORTEST_LEASE:g} to {LONGEST_LEASE:g} seconds."
            raise ProtocolError(f"A session cannot be leased for {lease:g} seconds.", remedy=remedy)
        context = self.context(seed)
        with self._lock:
            if len(self._sessions) >= self.options.limits.sessions:
                raise LimitError(
                    f"{len(self._sessions)} sessions are open, which is the limit.", remedy="Try again when one has ended."
                )
            number = next(self._numbers)
            session = Session(number, printable(client), self.options.limits, lease, context.run(settings.seed), context)
            self._sessions[number] = session
        if self.options.model is not None:
            session.workspace.bind("model", context.copy().run(self._load, self.options.model))
        log.info("session %d%s: opened", number, f" ({client})" if client else "")
        return session

    def close_session(self, session: Session, why: str) -> int:
        """End a session: stop its jobs and free its objects. Return the number of objects."""
        with self._lock:
            if self._sessions.pop(session.number, None) is None:
                return 0
        freed = session.close()
        self._collect()
        log.info("session %d: %s; %d objects freed", session.number, why, freed)
        return freed

    def _collect(self) -> None:
        """Collect the garbage of closed sessions now and then; not often, since everything waits meanwhile."""
        now = time.monotonic()
        with self._lock:
            self._closed += 1
            due = self._closed >= _COLLECTED and now - self._collected > _PERIOD
            if due:
                self._closed, self._collected = 0, now
        if due:
            gc.collect()

    @property
    def sessions(self) -> list[Session]:
        with self._lock:
            return list(self._sessions.values())

    def close(self) -> None:
        """End every session."""
        for session in self.sessions:
            self.close_session(session, "the server stops")

    def about(self) -> dict[str, Any]:
        """The server's part of the answer to `hello`."""
        import neuroscope
        from neuroscope_bridge.wire.messages import VERSION

        return {
            "server": f"neuroscope {neuroscope.__version__}",
            "versions": [VERSION],
            "limits": self.options.limits.as_dictionary(),
            "models": self.models.names(),
            "classes": list(vocabulary.names()),
        }
