"""`neuroscope serve` and `neuroscope keys`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from neuroscope_bridge.cli import show
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.keys import make_keys
from neuroscope_bridge.server import ZmqDoor

log = logging.getLogger("neuroscope.bridge")


@dataclass(frozen=True)
class ServeOptions:
    """What `serve` was asked for."""

    zmq: str
    keys: Path | None
    host: HostOptions
    quiet: bool = False


def serve(options: ServeOptions) -> None:
    """Serve until SIGINT or SIGTERM. The address stands on standard output once it answers, the log on standard error."""
    logging.basicConfig(
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.WARNING if options.quiet else logging.INFO,
    )
    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        asked.set()

    with show.progress_shown(options.quiet):
        host = Host(options.host)
    door = ZmqDoor(host, options.zmq, options.keys)
    address = door.open()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    door.start()
    print(f"NeuroScope listens on {address}", flush=True)
    try:
        while not asked.wait(1.0):
            pass
    finally:
        door.close()
        host.close()
        log.info("stopped")


def keys(folder: Path, client: str) -> None:
    """Make keys and say what to do with each."""
    for path in make_keys(folder, client):
        print(path)
    print(f"Serve with --keys {folder}. Move {client}.key_secret and a copy of server.key to the client.", file=sys.stderr)
