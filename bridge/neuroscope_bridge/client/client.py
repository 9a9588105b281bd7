"""`connect(url)`: a session on a server."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from neuroscope import events
from neuroscope.errors import ArgumentError, NeuroScopeError, did_you_mean
from neuroscope.naming import fold
from neuroscope.settings import dtype_name
from neuroscope.vocabulary import planned
from neuroscope_bridge.client.connection import Connection, Pending
from neuroscope_bridge.client.remote import RemoteClass, RemoteObject
from neuroscope_bridge.wire.values import BlockSource, Callback, ClassName, Handle

#: Seconds of silence during a request after which the server counts as gone.
PATIENCE = 10.0


def block(source: str, **captured: Any) -> BlockSource:
    """A Smalltalk block as text, with values for its free names: `block("[:x | x * k]", k=2)`.

    It runs on the server at full speed, while a Python function is called back over the wire each time.
    """
    return BlockSource(source, captured)


def connect(
    url: str = "tcp://127.0.0.1:5555",
    *,
    timeout: float = PATIENCE,
    lease: float | None = None,
    seed: int | None = None,
    key: str | Path | None = None,
    server_key: str | Path | None = None,
) -> Client:
    """Open a session on `neuroscope serve`. Raises `ServerGoneError` if there is no answer within `timeout` seconds.

    `key` is your `.key_secret` file and `server_key` the server's `.key`, for a server on another machine.
    """
    return Client(
        url,
        timeout=timeout,
        lease=lease,
        seed=seed,
        key=None if key is None else Path(key),
        server_key=None if server_key is None else Path(server_key),
    )


class Client:
    """A session. Classes of the vocabulary are attributes: `client.CircuitFinder`.

    Progress and notices go to listeners of `neuroscope.events.listen`, the Transcript's text to `transcript`.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = PATIENCE,
        lease: float | None = None,
        seed: int | None = None,
        key: Path | None = None,
        server_key: Path | None = None,
    ) -> None:
        self.address = url
        self.transcript: Callable[[str], object] = sys.stdout.write
        self._timeout = timeout
        self._hello = {
            name: value
            for name, value in (("lease", None if lease is None else float(lease)), ("seed", seed))
            if value is not None
        }
        self._keys = {"key": key, "server_key": server_key}
        self._functions: dict[int, Callable[..., Any]] = {}
        self._within = threading.local()
        self.reconnect()

    def reconnect(self) -> None:
        """Open a new session. Objects of the old one are stale; the server's models are still loaded if it is the same."""
        old = self.__dict__.get("_connection")
        if old is not None:
            old.close()
        self._garbage: deque[int] = deque()
        self._described: dict[str, dict[str, Any]] = {}
        self._connection = Connection(
            self.address, patience=self._timeout, on_event=self._event, convert=self._received, **self._keys
        )
        wanted = ["notice", "progress", "transcript"]
        try:
            about = self._connection.request("hello", client=f"python {os.getpid()}", events=wanted, **self._hello).result()
        except BaseException:
            self._connection.close()
            raise
        self.about: dict[str, Any] = about

    def close(self) -> None:
        """End the session: jobs are cancelled, objects freed."""
        try:
            self._connection.request("release", session=True).result(2.0)
        except (NeuroScopeError, TimeoutError):
            pass  # the server is gone, and the session with it
        finally:
            self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- asking ---------------------------------------------------------------------------------------------------

    def send(self, receiver: Any, selector: str, *arguments: Any, timeout: float | None = None) -> Any:
        """Send a Smalltalk message and wait for its value."""
        return self.send_later(receiver, selector, *arguments).result(timeout)

    def send_later(self, receiver: Any, selector: str, *arguments: Any, wanted: Mapping[str, Any] | None = None) -> Pending:
        """Send a Smalltalk message. Return a future."""
        fields = {"receiver": self._sent(receiver), "selector": selector, "arguments": [self._sent(a) for a in arguments]}
        return self._request("send", wanted, **fields)

    def evaluate(self, source: str, **bindings: Any) -> Any:
        """The value of a Smalltalk text; `bindings` become variables of the session's workspace."""
        return self.evaluate_later(source, **bindings).result()

    def evaluate_later(self, source: str, **bindings: Any) -> Pending:
        """The same without waiting. Return a future."""
        return self._request("evaluate", None, source=source, bindings={k: self._sent(v) for k, v in bindings.items()})

    def run(self, path: str | Path) -> Any:
        """Run a local script file on the server. Return the value of its last statement."""
        text = Path(path).read_text(encoding="utf-8")
        return self._request("run", None, source=text, file=str(path)).result()

    def release(self, remote: RemoteObject) -> None:
        """Free an object now, not when Python collects it."""
        self._connection.request("release", handles=[remote._handle.id]).result()

    def poll(self) -> None:
        """Handle events and answers that have arrived, without waiting."""
        self._connection.poll()

    def _request(self, operation: str, wanted: Mapping[str, Any] | None, **fields: Any) -> Pending:
        if self._garbage:
            freed = [self._garbage.popleft() for _ in range(len(self._garbage))]
            self._connection.request("release", handles=freed)
        if wanted is not None:
            fields["answer"] = dict(wanted)
        call = getattr(self._within, "call", None)
        if call is not None:
            fields["within"] = call
        return self._connection.request(operation, **fields)

    # --- the vocabulary -------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> RemoteClass:
        if name.startswith("_") or name == "about":
            raise AttributeError(name)
        classes = self.about["classes"]
        if name not in classes:
            raise AttributeError(planned(name) or f"The server has no class {name!r}. {did_you_mean(name, classes)}")
        return RemoteClass(self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.about["classes"]]

    def operations(self, of: str | Handle) -> dict[str, Any]:
        """The operations of a class of the server, or of an object's class, by folded name; cached."""
        class_name = of.class_name if isinstance(of, Handle) else of
        found = self._described.get(class_name)
        if found is None:
            description = self._request("describe", None, **{"class": of}).result()
            found = {fold(operation["name"]): operation for operation in description["operations"]}
            self._described[class_name] = found
        return found

    def operation(self, of: str | Handle, name: str) -> Mapping[str, Any] | None:
        return self.operations(of).get(fold(name))

    # --- values ---------------------------------------------------------------------------------------------------

    def _sent(self, value: Any) -> Any:
        """A value of this program as a wire value."""
        if isinstance(value, RemoteObject):
            if value._client is not self:
                raise ArgumentError(f"{value!r} belongs to another client.")
            return value._handle
        if isinstance(value, RemoteClass):
            return ClassName(value._name)
        if isinstance(value, (list, tuple)):
            return [self._sent(item) for item in value]
        if isinstance(value, dict):
            return {key: self._sent(item) for key, item in value.items()}
        if isinstance(value, BlockSource):
            return BlockSource(value.source, {name: self._sent(item) for name, item in value.captured.items()})
        if callable(value) and not isinstance(value, (type, Callback)):
            return self._callback(value)
        if not isinstance(value, str) and (name := dtype_name(value)) is not None:
            return name
        return value

    def _callback(self, function: Callable[..., Any]) -> Callback:
        from neuroscope.hooks.hook import arity

        number = id(function)
        self._functions[number] = function  # stored for the session: the server may call it at any time
        return Callback(number, arity(function, 9))

    def _received(self, value: Any) -> Any:
        """A wire value as a value of this program."""
        if isinstance(value, Handle):
            remote = RemoteObject(self, value)
            weakref.finalize(remote, self._garbage.append, value.id).atexit = False
            return remote
        if isinstance(value, ClassName):
            return RemoteClass(self, value.name)
        if isinstance(value, list):
            return [self._received(item) for item in value]
        if isinstance(value, dict):
            return {key: self._received(item) for key, item in value.items()}
        return value

    # --- events ---------------------------------------------------------------------------------------------------

    def _event(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "transcript":
                self.transcript(message["text"])
            case "notice":
                events.notice(message["message"], message["level"])
            case "progress":
                names = ("job", "done", "total", "unit", "seconds", "finished")
                events.emit(events.Progress(*(message[name] for name in names)))
            case "call":
                self._called(message)

    def _called(self, message: dict[str, Any]) -> None:
        """The server calls one of this program's functions."""
        number = message["call"]
        outer = getattr(self._within, "call", None)
        self._within.call = number
        try:
            function = self._functions[message["block"]]
            value = self._sent(function(*[self._received(argument) for argument in message["arguments"]]))
            self._connection.request("answer", call=number, value=value)
        except Exception as error:
            self._connection.request("answer", call=number, error=f"{type(error).__name__}: {error}")
        finally:
            self._within.call = outer
