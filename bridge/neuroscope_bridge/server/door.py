"""The ZeroMQ door: a ROUTER socket, its peers, and the handling of requests, as specified in `bridge/PROTOCOL.md`.

Only the leading thread of the `LeaderThreads` uses the socket. Other threads put messages into the outbox and wake the leader.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from neuroscope.errors import ArgumentError, NeuroScopeError
from neuroscope_bridge.host import Host, Session
from neuroscope_bridge.host.faults import error_fields
from neuroscope_bridge.keys import Clients, curve_available, is_loopback, read_pair
from neuroscope_bridge.server.threads import LeaderThreads, Work
from neuroscope_bridge.wire import decode, encode
from neuroscope_bridge.wire.codec import Frame
from neuroscope_bridge.wire.errors import DeniedError, LimitError, NoSessionError, ProtocolError, WireError
from neuroscope_bridge.wire.messages import OPERATIONS, Request, parse_request, reply, request_id
from neuroscope_dsl.runtime.values import Array

#: As integers: combining pyzmq's enums is slow.
_NOBLOCK, _RCVMORE, _SNDMORE = int(zmq.NOBLOCK), int(zmq.RCVMORE), int(zmq.SNDMORE)

log = logging.getLogger("neuroscope.bridge")

#: Milliseconds between checks of beats, leases and limits.
_TICK = 100

#: Seconds between beats for a waiting session, and between checks of whether a silent one is still connected.
_BEAT, _PROBE = 1.0, 20.0

#: Seconds for running jobs to end when the server stops.
_GRACE = 10.0

#: The name under which the authenticator knows this server's socket.
_DOMAIN = "neuroscope"


@dataclass
class _Peer:
    """A connection that said hello."""

    identity: bytes
    session: Session
    told: float  # when something was last sent
    key: bytes | None = None  # the client's public key, with CURVE


class ZmqDoor:
    """Serves a `Host` at a ZeroMQ address. `open` binds, `start` serves in its own threads, `close` stops them."""

    def __init__(self, host: Host, address: str, keys: Path | None = None) -> None:
        """`keys` is a folder of `neuroscope keys`. Raises `DeniedError` for an address that other machines can reach, without
        keys; `ArgumentError` for an invalid address.
        """
        if "://" not in address:
            raise ArgumentError(f"{address!r} is not an address.", remedy="Write tcp://HOST:PORT, ipc://PATH, or off.")
        if not is_loopback(address) and keys is None:
            raise DeniedError(
                f"{address} can be reached from other machines, but is not protected.",
                remedy="Make keys with `neuroscope keys FOLDER` and serve with --keys FOLDER, or listen on 127.0.0.1.",
            )
        self._host = host
        self._wanted = address
        self._keys = keys
        self._clients: Clients | None = None
        self._speaker: bytes | None = None  # the public key behind the message at hand
        self._peers: dict[bytes, _Peer] = {}
        self._outbox: deque[tuple[bytes, list[Frame]]] = deque()
        self._ready: deque[_Peer] = deque()
        self._stopping = threading.Event()
        self._threads = LeaderThreads(self._step, self._stopping.is_set)
        self._next_tick = 0.0
        self._message_next = True

    # --- opening and closing --------------------------------------------------------------------------------------

    def open(self) -> str:
        """Bind. Return the address with the port in use. Raises `ArgumentError` on failure."""
        self._context = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.MAXMSGSIZE, self._host.options.limits.message)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        if self._keys is not None:
            self._protect(self._keys)
        try:
            self._socket.bind(self._wanted)
        except zmq.ZMQError as error:
            self._socket.close(0)
            self._context.term()
            raise ArgumentError(
                f"{self._wanted} is not available: {os.strerror(error.errno) if error.errno else error}.",
                remedy="Choose another port (tcp://127.0.0.1:* takes a free one), or stop the server that uses this one.",
            ) from error
        self._wake_here, self._wake_there = socket.socketpair()
        for end in (self._wake_here, self._wake_there):
            end.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_here, zmq.POLLIN)
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def _protect(self, folder: Path) -> None:
        if not curve_available():
            raise DeniedError("This build of ZeroMQ has no CURVE.", remedy="Install the wheel of pyzmq from PyPI.")
        public, secret = read_pair(folder / "server.key_secret")
        self._clients = Clients(folder)
        self._authenticator = ThreadAuthenticator(self._context, log=logging.getLogger("neuroscope.bridge.auth"))
        self._authenticator.start()
        self._authenticator.configure_curve_callback(domain=_DOMAIN, credentials_provider=self._clients)
        self._socket.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # nobody enters when the authenticator does not answer
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret)

    def start(self) -> None:
        self._threads.start()

    def close(self) -> None:
        """Stop jobs, end this door's sessions, send what is queued, and stop."""
        for peer in list(self._peers.values()):
            self._host.close_session(peer.session, "the server stops")
        self._stopping.set()
        self._wake()
        if not self._threads.join(_GRACE):
            log.warning("a request did not stop within %g seconds", _GRACE)
            return  # its thread may still use the socket; the process ends anyway
        self._flush()
        self._socket.close()
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()
        self._wake_here.close()
        self._wake_there.close()

    # --- the leader's round ---------------------------------------------------------------------------------------

    def _step(self) -> Work | None:
        found = dict(self._poller.poll(0 if self._ready or self._outbox else _TICK))
        if self._wake_here.fileno() in found or self._wake_here in found:
            with contextlib.suppress(BlockingIOError):
                self._wake_here.recv(4096)
        self._flush()
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + _TICK / 1000
            self._tick(now)
        self._message_next = not self._message_next or not self._ready  # messages and waiting sessions take turns
        if self._message_next and self._socket in found:
            return self._receive()
        if self._ready:
            peer = self._ready.popleft()
            return lambda: self._advance(peer)
        return None

    def _tick(self, now: float) -> None:
        allowed = None if self._clients is None else self._clients.keys()
        for peer in list(self._peers.values()):
            if allowed is not None and peer.key not in allowed:
                self._drop(peer, "its key was taken away")
                continue
            session = peer.session
            jobs = session.jobs()
            for job in jobs:
                job.check_time(now)
            if now - session.heard > session.lease and not jobs:
                self._drop(peer, "silent for longer than its lease")
            elif now - peer.told > (_BEAT if jobs else _PROBE):
                self._transmit(peer.identity, encode(reply("beat", jobs[0].number if jobs else None)))

    # --- receiving ------------------------------------------------------------------------------------------------

    def _receive(self) -> Work | None:
        identity = self._socket.recv(_NOBLOCK)
        frames: list[Frame] = [self._first_frame()]  # a message has one frame at least
        while self._socket.getsockopt(_RCVMORE):
            frames.append(self._socket.recv(copy=False).buffer)
        header: Any = None
        try:
            if sum(len(frame) for frame in frames) > self._host.options.limits.message:
                raise LimitError("The message is longer than this server's limit.", remedy="The answer to hello has the limit.")
            header = decode(frames, array=Array)
            request = parse_request(header)
            return self._perform(identity, request)
        except NeuroScopeError as error:
            if isinstance(error, WireError):
                log.warning("a message that cannot be read: %s", error.message)
            self._refuse(identity, request_id(header), error)
        except Exception as error:  # no message may stop the server
            self._refuse(identity, request_id(header), error)
        return None

    def _first_frame(self) -> Frame:
        if self._clients is None:
            return self._socket.recv()
        frame: Any = self._socket.recv(copy=False)
        self._speaker = str(frame.get("User-Id")).encode("ascii", "replace")
        return bytes(frame.buffer)

    def _perform(self, identity: bytes, request: Request) -> Work | None:
        peer = self._peers.get(identity)
        if request.operation == "hello":
            self._answer(identity, request, self._hello(identity, peer, request))
            return None
        if peer is None:
            raise NoSessionError("This connection has no session.", remedy="Say hello first; after a lost connection, again.")
        session = peer.session
        session.heard = time.monotonic()
        immediate = _IMMEDIATE.get(request.operation)
        if immediate is not None:
            immediate(self, peer, request)
            return None
        job = session.job(request, lambda kind, fields: self._tell(identity, reply(kind, request.id, **fields)))
        return (lambda: self._advance(peer)) if session.enqueue(job, request.get("within")) else None

    def _hello(self, identity: bytes, peer: _Peer | None, request: Request) -> dict[str, Any]:
        if self._clients is not None and not self._clients.allow(self._speaker or b""):
            raise DeniedError("This client's key was taken away.", remedy="Ask the server's owner for a new one.")
        if peer is None:
            session = self._host.open_session(request.get("client", "")[:80], request.get("lease"), request.get("seed"))
            try:
                session.subscribe(request.get("events", []))
            except NeuroScopeError:
                self._host.close_session(session, "its hello was faulty")
                raise
            peer = self._peers[identity] = _Peer(identity, session, time.monotonic(), self._speaker)
        else:
            surplus = [name for name in ("client", "lease", "seed", "events") if name in request.fields]
            if surplus:
                raise ProtocolError(f"This session is already open, so {surplus[0]!r} comes too late.")
        peer.session.heard = time.monotonic()
        return {"session": peer.session.number, "lease": peer.session.lease, **self._host.about()}

    def _release(self, peer: _Peer, request: Request) -> None:
        if request.get("session"):
            freed = self._host.close_session(peer.session, "released")
            self._answer(peer.identity, request, freed)
            self._peers.pop(peer.identity, None)
            return
        handles = request.get("handles", [])
        if not all(isinstance(number, int) for number in handles):
            raise ProtocolError("Handles must be released by their numbers.")
        self._answer(peer.identity, request, peer.session.handles.release(handles))

    def _cancel(self, peer: _Peer, request: Request) -> None:
        self._answer(peer.identity, request, peer.session.cancel(request["request"]))

    def _subscribe(self, peer: _Peer, request: Request) -> None:
        self._answer(peer.identity, request, peer.session.subscribe(request["events"]))

    def _answered(self, peer: _Peer, request: Request) -> None:
        peer.session.answer_call(request)

    # --- computing ------------------------------------------------------------------------------------------------

    def _advance(self, peer: _Peer) -> Callable[[bool], None]:
        """Run a session's next job. Returns the rest of the work, which depends on whether this thread still leads."""
        message = self._next_message(peer)

        def send(leads: bool) -> None:
            if leads:
                if message is not None:
                    self._flush()  # its events come before its result
                    self._transmit(peer.identity, message)
                    if not peer.session.rest():
                        self._ready.append(peer)
                return
            following = message
            while following is not None:
                self._post(peer.identity, following)
                following = self._next_message(peer)

        return send

    def _next_message(self, peer: _Peer) -> list[Frame] | None:
        job = peer.session.next_job()
        if job is None:
            return None
        kind, fields = job.outcome()
        try:
            return encode(reply(kind, job.number, **fields))
        except WireError as error:
            return encode(reply("error", job.number, error=error_fields(error)))

    # --- sending --------------------------------------------------------------------------------------------------

    def _answer(self, identity: bytes, request: Request, value: Any) -> None:
        self._transmit(identity, encode(reply("result", request.id, value=value)))

    def _refuse(self, identity: bytes, request: int | None, error: BaseException) -> None:
        self._transmit(identity, encode(reply("error", request, error=error_fields(error))))

    def _tell(self, identity: bytes, message: dict[str, Any]) -> None:
        """From any thread."""
        self._post(identity, encode(message))

    def _post(self, identity: bytes, frames: list[Frame]) -> None:
        self._outbox.append((identity, frames))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-ups already
            self._wake_there.send(b"\0")

    def _flush(self) -> None:
        while self._outbox:
            self._transmit(*self._outbox.popleft())

    def _transmit(self, identity: bytes, frames: list[Frame]) -> None:
        """Send, as leader. A disconnected peer loses its session."""
        peer = self._peers.get(identity)
        if peer is not None:
            peer.told = time.monotonic()
        try:
            self._socket.send(identity, _NOBLOCK | _SNDMORE)
            for frame in frames[:-1]:
                self._socket.send(frame, _NOBLOCK | _SNDMORE, copy=False)
            self._socket.send(frames[-1], _NOBLOCK, copy=len(frames) == 1)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            if peer is not None:
                self._drop(peer, "its connection is gone")

    def _drop(self, peer: _Peer, why: str) -> None:
        self._peers.pop(peer.identity, None)
        self._host.close_session(peer.session, why)


_IMMEDIATE: dict[str, Callable[[ZmqDoor, _Peer, Request], None]] = {
    "release": ZmqDoor._release,
    "cancel": ZmqDoor._cancel,
    "subscribe": ZmqDoor._subscribe,
    "answer": ZmqDoor._answered,
}

assert _IMMEDIATE.keys() < OPERATIONS.keys()
