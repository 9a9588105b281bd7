"""`neuroscope serve` and `neuroscope keys`."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from neuroscope.errors import ArgumentError, reason
from neuroscope_bridge.cli import show
from neuroscope_bridge.files import FileError
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.host.faults import OneLine
from neuroscope_bridge.keys import make_keys
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
    token: str | None
    origins: list[str]
    answer: int
    host: HostOptions
    quiet: bool = False


def serve(options: ServeOptions) -> None:
    """Serve until SIGINT or SIGTERM. Prints the address to standard output when ready, the log to standard error."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(OneLine("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[lines], level=logging.WARNING if options.quiet else logging.INFO)
    if options.zmq is None and options.http is None:
        raise ArgumentError("--zmq off and --http off leave nothing to serve.", remedy="Leave one of them on.")
    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        asked.set()

    with show.progress_shown(options.quiet):
        host = Host(options.host)
    gc.collect()
    gc.freeze()  # what is there now stays: later collections need not look at it
    door = None if options.zmq is None else ZmqDoor(host, options.zmq, options.keys)
    web = _web(host, options)
    url = None if web is None else web.open()
    address = None if door is None else door.open()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if door is not None:
        door.start()
        print(f"NeuroScope listens on {address}", flush=True)
    if web is not None:
        web.start()
        print(f"NeuroScope serves {url}", flush=True)
    try:
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

    return HttpDoor(host, options.http, HttpOptions(token=options.token, origins=tuple(options.origins), answer=options.answer))


def token_from(path: Path | None) -> str | None:
    """The secret in a file, or in NEUROSCOPE_TOKEN. Raises `FileError` for a file without one."""
    if path is None:
        return os.environ.get("NEUROSCOPE_TOKEN") or None
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            f"{path} cannot be read: {reason(error)}.", remedy="Give a file with the secret as its only line."
        ) from error
    if not found or not found.isascii() or not found.isprintable() or " " in found:
        raise FileError(f"{path} has no token.", remedy="Write one line of printable ASCII without spaces.")
    return found


def keys(folder: Path, client: str) -> None:
    """Make keys and print what to do with them."""
    for path in make_keys(folder, client):
        print(path)
    print(f"Serve with --keys {folder}. Move {client}.key_secret and a copy of server.key to the client.", file=sys.stderr)
