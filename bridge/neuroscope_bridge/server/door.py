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
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from neuroscope.errors import ArgumentError, NeuroScopeError
from neuroscope_bridge.host import Host
from neuroscope_bridge.host.faults import error_fields
from neuroscope_bridge.host.limits import UNDECODED
from neuroscope_bridge.keys import Clients, is_loopback
from neuroscope_bridge.server.admission import Admission
from neuroscope_bridge.server.peers import Peer, send_frames, size_of
from neuroscope_bridge.server.threads import LeaderThreads, Work
from neuroscope_bridge.wire import decode, encode
from neuroscope_bridge.wire.codec import Frame
from neuroscope_bridge.wire.errors import DeniedError, LimitError, NoSessionError, ProtocolError, WireError
from neuroscope_bridge.wire.messages import EVENTS, OPERATIONS, Request, parse_request, reply, request_id
from neuroscope_dsl.runtime.values import Array

#: As integers: combining pyzmq's enums is slow.
_NOBLOCK, _RCVMORE = int(zmq.NOBLOCK), int(zmq.RCVMORE)

log = logging.getLogger("neuroscope.bridge")

#: Milliseconds between checks of beats, leases and limits.
_TICK = 100

#: Seconds between beats for a waiting session, and between checks of whether a silent one is still connected.
_BEAT, _PROBE = 1.0, 20.0

#: Seconds for running jobs to end when the server stops.
_GRACE = 10.0

#: Milliseconds between attempts to send to clients that are behind.
_RETRY = 5

#: Messages of the outbox that are sent before another message is received.
_FLUSHED = 100

#: Longest message of a connection without a session, and longest header that is decoded between other messages.
_SHORT = 1 << 16

#: Most messages in ZeroMQ's own queues, for each connection and direction.
_SENT, _RECEIVED = 500, 100


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
        self._peers: dict[bytes, Peer] = {}
        self._admission: Admission | None = None
        self._outbox: deque[tuple[Peer | None, bytes, list[Frame]]] = deque()
        self._behind: dict[bytes, Peer] = {}  # those that have something to read
        self._decoded: deque[tuple[Peer, Any]] = deque()
        self._ready: deque[Peer] = deque()
        self._parked: deque[Peer] = deque()  # those whose requests wait until they have read
        self._stopping = threading.Event()
        self._threads = LeaderThreads(self._step, self._stopping.is_set)
        self._next_tick = 0.0
        self._message_next = True

    # --- opening and closing --------------------------------------------------------------------------------------

    def open(self) -> str:
        """Bind. Return the address with the port in use. Raises `ArgumentError` on failure."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, _SENT)
        self._socket.setsockopt(zmq.RCVHWM, _RECEIVED)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.MAXMSGSIZE, self._host.options.limits.message)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        if self._keys is not None or not self._wanted.startswith("inproc:"):
            self._admission = Admission(self._context, self._socket, self._keys)
            self._clients = self._admission.clients
        try:
            self._socket.bind(self._wanted)
        except zmq.ZMQError as error:
            self._abandon()
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
        address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        if self._admission is not None:
            try:
                self._admission.announce(address)
            except NeuroScopeError:
                self._abandon()
                raise
        return address

    def _abandon(self) -> None:
        self._socket.close(0)
        if self._admission is not None:
            self._admission.stop()
        self._context.term()

    def start(self) -> None:
        self._threads.start()

    def close(self) -> None:
        """Stop jobs, end this door's sessions, send what is queued, and stop."""
        if self._admission is not None:
            self._admission.withdraw()
        for peer in list(self._peers.values()):
            self._host.close_session(peer.session, "the server stops")
        self._stopping.set()
        self._wake()
        if not self._threads.join(_GRACE):
            log.warning("a request did not stop within %g seconds", _GRACE)
            return  # its thread may still use the socket; the process ends anyway
        while self._outbox:
            self._flush()
        self._socket.close()
        if self._admission is not None:
            self._admission.stop()
        self._context.term()
        self._wake_here.close()
        self._wake_there.close()

    # --- the leader's round ---------------------------------------------------------------------------------------

    def _step(self) -> Work | None:
        busy = self._ready or self._outbox or self._decoded
        found = dict(self._poller.poll(0 if busy else _RETRY if self._behind else _TICK))
        if self._wake_here.fileno() in found or self._wake_here in found:
            with contextlib.suppress(BlockingIOError):
                self._wake_here.recv(4096)
        self._flush()
        for peer in list(self._behind.values()):
            self._send_to(peer)
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + _TICK / 1000
            self._tick(now)
        self._message_next = not self._message_next or not self._ready  # messages and waiting sessions take turns
        if self._message_next and self._decoded:
            peer, message = self._decoded.popleft()
            peer.undecoded -= 1
            return self._act(peer.identity, message)
        if self._message_next and self._socket in found:
            return self._receive()
        if self._ready:
            peer = self._ready.popleft()
            if not peer.behind:
                return lambda: self._advance(peer)
            self._behind[peer.identity] = peer  # until it has read what it has
            self._parked.append(peer)
        return None

    def _tick(self, now: float) -> None:
        for _ in range(len(self._parked)):
            peer = self._parked.popleft()
            (self._parked if peer.behind and not peer.session.closed else self._ready).append(peer)
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
        peer = self._peers.get(identity)
        try:
            size = self._check_size(peer, frames)
        except LimitError as error:
            self._refuse(identity, None, error)
            return None
        if peer is None or (size <= _SHORT and not peer.undecoded):
            return self._act(identity, self._read(frames))
        if peer.undecoded_bytes + size > max(self._host.options.limits.message, UNDECODED):
            self._refuse(
                identity, None, LimitError("Too many long messages wait to be read.", remedy="Wait for their results.")
            )
            return None
        for frame in frames[1:]:
            if len(frame) > _SHORT and isinstance(frame, memoryview):
                peer.session.meter.hold(frame.obj, len(frame))
        peer.undecoded += 1
        with peer.lock:
            peer.undecoded_bytes += size
            peer.arrived.append(frames)
            if peer.decodes:
                return None
            peer.decodes = True
        return lambda: self._decode_all(peer)

    def _check_size(self, peer: Peer | None, frames: list[Frame]) -> int:
        limits = self._host.options.limits
        size = size_of(frames)
        if peer is None and (size > _SHORT or len(frames) > 1):
            raise LimitError("The message is too long for a connection without a session.", remedy="Say hello first.")
        if size > limits.message or len(frames) > limits.frames:
            raise LimitError("The message is longer than this server's limit.", remedy="The answer to hello has the limit.")
        if len(frames[0]) > limits.header:
            raise LimitError(
                f"The header has {len(frames[0]):,} bytes; this server takes {limits.header:,}.",
                remedy="Send data as tensors, in frames of their own.",
            )
        return size

    def _decode_all(self, peer: Peer) -> Callable[[bool], None]:
        """Read long messages in a thread that does not use the socket, in their order."""
        while True:
            with peer.lock:
                if not peer.arrived:
                    peer.decodes = False
                    return lambda leads: None
                frames = peer.arrived.popleft()
                peer.undecoded_bytes -= size_of(frames)
            self._decoded.append((peer, self._read(frames)))
            self._wake()

    @staticmethod
    def _read(frames: list[Frame]) -> tuple[Request | None, int | None, BaseException | None]:
        """The request in a message; or else its number, if it has one, and the error."""
        header: Any = None
        try:
            header = decode(frames, array=Array, guarded=True)
            request = parse_request(header)
            return replace(request, size=size_of(frames)), request.id, None
        except Exception as error:  # no message may stop the server
            return None, request_id(header), error

    def _act(self, identity: bytes, message: tuple[Request | None, int | None, BaseException | None]) -> Work | None:
        request, number, error = message
        if request is not None:
            try:
                return self._perform(identity, request)
            except Exception as failure:  # no message may stop the server
                error = failure
        assert error is not None
        if isinstance(error, WireError):
            log.warning("a message that cannot be read: %s", error.message)
        self._refuse(identity, number, error)
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
        known = peer
        job = session.job(request, lambda kind, fields: self._tell(known, reply(kind, request.id, **fields)))
        if peer.behind:
            raise LimitError(
                "This client has not read the answers that it has.", remedy="Read them: nothing more is computed until then."
            )
        return (lambda: self._advance(peer)) if session.enqueue(job, request.get("within")) else None

    def _hello(self, identity: bytes, peer: Peer | None, request: Request) -> dict[str, Any]:
        if peer is None and self._clients is not None and not self._clients.allow(self._speaker or b""):
            raise DeniedError("This client's key was taken away.", remedy="Ask the server's owner for a new one.")
        if peer is None:
            session = self._host.open_session(request.get("client", "")[:80], request.get("lease"), request.get("seed"))
            try:
                session.subscribe(request.get("events", []))
            except NeuroScopeError:
                self._host.close_session(session, "its hello was faulty")
                raise
            limit = self._host.options.limits.waiting
            peer = self._peers[identity] = Peer(identity, session, time.monotonic(), limit, self._speaker)
        else:
            surplus = [name for name in ("client", "lease", "seed", "events") if name in request.fields]
            if surplus:
                raise ProtocolError(f"This session is already open, so {surplus[0]!r} comes too late.")
        peer.session.heard = time.monotonic()
        return {"session": peer.session.number, "lease": peer.session.lease, **self._host.about()}

    def _release(self, peer: Peer, request: Request) -> None:
        if request.get("session"):
            freed = self._host.close_session(peer.session, "released")
            self._answer(peer.identity, request, freed)
            self._peers.pop(peer.identity, None)
            return
        handles = request.get("handles", [])
        if not all(type(number) is int for number in handles):
            raise ProtocolError("Handles must be released by their numbers.")
        self._answer(peer.identity, request, peer.session.handles.release(handles))

    def _cancel(self, peer: Peer, request: Request) -> None:
        self._answer(peer.identity, request, peer.session.cancel(request["request"]))

    def _subscribe(self, peer: Peer, request: Request) -> None:
        self._answer(peer.identity, request, peer.session.subscribe(request["events"]))

    def _answered(self, peer: Peer, request: Request) -> None:
        peer.session.answer_call(request)

    # --- computing ------------------------------------------------------------------------------------------------

    def _advance(self, peer: Peer) -> Callable[[bool], None]:
        """Run a session's next job. Returns the rest of the work, which depends on whether this thread still leads."""
        message = self._next_message(peer)

        def send(leads: bool) -> None:
            if leads:
                if message is not None:
                    if self._outbox:  # its events come before its result
                        self._post(peer, message)
                    else:
                        self._transmit(peer.identity, message)
                    if not peer.session.rest():
                        self._ready.append(peer)
                return
            following = message
            while following is not None:
                self._post(peer, following)
                if peer.behind:
                    if not peer.session.rest():
                        self._ready.append(peer)
                    return
                following = self._next_message(peer)

        return send

    def _next_message(self, peer: Peer) -> list[Frame] | None:
        job = peer.session.next_job()
        if job is None:
            return None
        kind, fields = job.outcome()
        try:
            return encode(reply(kind, job.number, **fields))
        except Exception as error:
            return encode(reply("error", job.number, error=error_fields(error)))

    # --- sending --------------------------------------------------------------------------------------------------

    def _answer(self, identity: bytes, request: Request, value: Any) -> None:
        self._transmit(identity, encode(reply("result", request.id, value=value)))

    def _refuse(self, identity: bytes, request: int | None, error: BaseException) -> None:
        self._transmit(identity, encode(reply("error", request, error=error_fields(error))))

    def _tell(self, peer: Peer, message: dict[str, Any]) -> None:
        """From any thread. Events of a client that does not read are left out."""
        if message["type"] in EVENTS:
            if peer.drops_events:
                peer.left_out += 1
                return
            if peer.left_out:
                text, peer.left_out = f"{peer.left_out} events were left out: the client did not read them.", 0
                self._post(peer, encode(reply("notice", message["re"], message=text, level="warning")))
        self._post(peer, encode(message))

    def _post(self, peer: Peer, frames: list[Frame]) -> None:
        peer.post(size_of(frames), lambda: not (self._stopping.is_set() or peer.session.closed))
        self._outbox.append((peer, peer.identity, frames))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-ups already
            self._wake_there.send(b"\0")

    def _flush(self) -> None:
        for _ in range(min(len(self._outbox), _FLUSHED)):
            peer, identity, frames = self._outbox.popleft()
            if peer is not None:
                peer.unpost(size_of(frames))
            self._transmit(identity, frames)

    def _transmit(self, identity: bytes, frames: list[Frame]) -> None:
        """Send, as leader. A disconnected peer loses its session."""
        peer = self._peers.get(identity)
        if peer is not None:
            peer.told = time.monotonic()
            peer.put(frames)
            self._send_to(peer)
            if peer.lost:
                self._drop(peer, "its client does not read, and went on asking")
            return
        try:
            send_frames(self._socket, identity, frames)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise

    def _send_to(self, peer: Peer) -> None:
        try:
            done = peer.send(self._socket)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._drop(peer, "its connection is gone")
            return
        if done:
            self._behind.pop(peer.identity, None)
        else:
            self._behind[peer.identity] = peer

    def _drop(self, peer: Peer, why: str) -> None:
        self._peers.pop(peer.identity, None)
        self._behind.pop(peer.identity, None)
        self._host.close_session(peer.session, why)


_IMMEDIATE: dict[str, Callable[[ZmqDoor, Peer, Request], None]] = {
    "release": ZmqDoor._release,
    "cancel": ZmqDoor._cancel,
    "subscribe": ZmqDoor._subscribe,
    "answer": ZmqDoor._answered,
}

assert _IMMEDIATE.keys() < OPERATIONS.keys()
