"""What can be wrong with a message, with a session, or with the other side."""

from __future__ import annotations

from neuroscope.errors import NeuroScopeError


class WireError(NeuroScopeError):
    """Bytes that are no message: truncated, malformed, or a value that cannot cross the wire."""

    code = "wire"


class ProtocolError(NeuroScopeError):
    """A message that can be read and makes no sense: a field is missing, of the wrong type, or unknown."""

    code = "protocol"


class UnknownOperationError(ProtocolError):
    """No operation has this name; the remedy names the nearest."""

    code = "unknown-operation"


class ProtocolVersionError(ProtocolError):
    """The other side speaks a version that this one does not."""

    code = "protocol-version"


class NoSessionError(NeuroScopeError):
    """The server knows no session of this connection: `hello` was never said, or the lease ran out."""

    code = "no-session"


class StaleHandleError(NeuroScopeError):
    """A handle names no object of this session: it was released, or belongs to another session."""

    code = "stale-handle"


class LimitError(NeuroScopeError):
    """A session asked for more than the server allows; the message says how much that is."""

    code = "limit"


class DeniedError(NeuroScopeError):
    """The server does not let this through."""

    code = "denied"


class CallbackError(NeuroScopeError):
    """A block that stayed with the client failed there, or its client went away."""

    code = "callback"


class ServerGoneError(NeuroScopeError):
    """Nothing was heard from the server for longer than the client waits."""

    code = "server-gone"


class RemoteError(NeuroScopeError):
    """An error that the server answered. `details` holds all it said: code, position, receiver class, nearest selectors."""

    code = "remote"

    def __init__(self, details: dict[str, object]) -> None:
        message, remedy = details.get("message"), details.get("remedy")
        super().__init__(str(message), site=details.get("site"), remedy=None if remedy is None else str(remedy))
        self.details = details
        self.code = str(details.get("code", "remote"))  # type: ignore[misc]  # each error carries the server's code
