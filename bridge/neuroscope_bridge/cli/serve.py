"""`neuroscope serve` and `neuroscope keys`."""

from __future__ import annotations

import gc
import logging
import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from neuroscope.errors import ArgumentError
from neuroscope_bridge.cli import show
from neuroscope_bridge.files import FileError
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.keys import make_keys
from neuroscope_bridge.secrets import read_secret
from neuroscope_bridge.server import ZmqDoor

if TYPE_CHECKING:
    from neuroscope_bridge.rest.door import HttpDoor

log = logging.getLogger("neuroscope.bridge")


@dataclass(frozen=True)
class ServeOptions:
    """The options of `serve`."""

    zmq: str | None
    keys: Path | None
    http: str | None
    token: str | Callable[[], str | None] | None
    origins: list[str]
    answer: int
    host: HostOptions
    quiet: bool = False
    edits: bool = False
    on_demand: bool = True


class EscapedLines(logging.Formatter):
    """One line for each message: control characters, also those that turn or hide text, are written as escapes."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join("  | " + _CONTROLS.sub("?", line) for line in super().formatException(ei).split("\n"))


#: C0 and C1 controls, line and paragraph separators, marks of direction, and halves of surrogate pairs.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def serve(options: ServeOptions) -> None:
    """Serve until SIGINT or SIGTERM. Prints the address to standard output when ready, the log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EscapedLines("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING if options.quiet else logging.INFO)
    if options.zmq is None and options.http is None:
        raise ArgumentError("--zmq off and --http off leave nothing to serve.", remedy="Leave one of them on.")
    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        asked.set()

    host = Host(options.host, load=False)
    door = None if options.zmq is None else ZmqDoor(host, options.zmq, options.keys)
    web = _web(host, options)
    url = None if web is None else web.open()
    address = None if door is None else door.open()
    try:
        if web is not None:
            web.start()  # before the model is there, so that /health says how far it is
            if not host.is_loaded:
                log.info("loading %s; %s/health answers meanwhile", options.host.model, url)
        with show.progress_shown(options.quiet):
            host.load()
        gc.collect()
        gc.freeze()  # what is there now stays: later collections need not look at it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        if door is not None:
            door.start()
            print(f"NeuroScope listens on {address}", flush=True)
        if web is not None:
            web.wait()
            print(f"NeuroScope serves {url}", flush=True)
        while not asked.wait(1.0):
            pass
    finally:
        if web is not None:
            web.close()
        if door is not None:
            door.close()
        host.close()
        log.info("stopped")


def _web(host: Host, options: ServeOptions) -> HttpDoor | None:
    if options.http is None:
        return None
    from neuroscope_bridge.rest.door import HttpDoor
    from neuroscope_bridge.rest.jobs import HttpOptions

    http = HttpOptions(
        token=options.token,
        origins=tuple(options.origins),
        answer=options.answer,
        edits=options.edits,
        on_demand=options.on_demand,
    )
    return HttpDoor(host, options.http, http)


def token_from(path: Path | None) -> str | TokenFile | None:
    """The token in NEUROSCOPE_TOKEN, or the one in a file, which may change. Raises `FileError` for a file without one, or one that other
    users can read; `ArgumentError` for a variable that is no token.
    """
    if path is not None:
        return TokenFile(path)
    found = os.environ.get("NEUROSCOPE_TOKEN") or None
    if found is not None and not _is_token(found):
        raise ArgumentError("NEUROSCOPE_TOKEN is no token.", remedy="Give printable ASCII without spaces.")
    return found


class TokenFile:
    """The token in a file, read again whenever the file changes. Answers one that nobody has while the file is absent or unfit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp, self._token = self._stamped(), self._read()

    def __call__(self) -> str:
        stamp = self._stamped()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._token = self._read()
                log.info("%s has a new token", self._path)
            except FileError as error:
                self._token = secrets.token_hex()
                log.warning("no token is valid now: %s", error.brief)
        return self._token

    def _stamped(self) -> object:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode, found.st_uid

    def _read(self) -> str:
        found = read_secret(self._path, "a token as its only line").strip()
        if not _is_token(found):
            raise FileError(f"{self._path} has no token.", remedy="Write one line of printable ASCII without spaces.")
        return found


def _is_token(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def keys(folder: Path, client: str) -> None:
    """Make keys and print what to do with them."""
    for path in make_keys(folder, client):
        print(path)
    print(f"Serve with --keys {folder}. Move {client}.key_secret and a copy of server.key to the client.", file=sys.stderr)
