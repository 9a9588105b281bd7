"""Errors of messages, sessions, and the other side."""

from __future__ import annotations

from neuroscope.errors import NeuroScopeError, Remedy


class WireError(NeuroScopeError):
    """The bytes are not a valid message, or a value cannot be sent."""

    code = "wire"


class ProtocolError(NeuroScopeError):
    """A field of a message is missing, of the wrong type, or unknown."""

    code = "protocol"


class UnknownOperationError(ProtocolError):
    """No operation has this name; the remedy has the nearest names."""

    code = "unknown-operation"


class ProtocolVersionError(ProtocolError):
    """The other side uses another version of the protocol."""

    code = "protocol-version"


class NoSessionError(NeuroScopeError):
    """This connection has no session: `hello` was never sent, or the lease expired."""

    code = "no-session"


class StaleHandleError(NeuroScopeError):
    """A handle was released, or belongs to another session."""

    code = "stale-handle"


class LimitError(NeuroScopeError):
    """A session exceeds a limit of the server, which the message names."""

    code = "limit"


class DeniedError(NeuroScopeError):
    """The server denies access."""

    code = "denied"


class CallbackError(NeuroScopeError):
    """A block on the client failed, or the client disconnected."""

    code = "callback"


class ServerGoneError(NeuroScopeError):
    """The server was silent for longer than the client waits."""

    code = "server-gone"


class RefusedError(ServerGoneError):
    """The server does not accept this client: its cookie or its keys are missing or wrong."""

    code = "refused"


class RemoteError(NeuroScopeError):
    """An error of the server. `details` has all of it: code, position, receiver class, nearest selectors."""

    code = "remote"

    def __init__(self, details: dict[str, object]) -> None:
        message, remedy = details.get("message"), details.get("remedy")
        wordings = details.get("remedies")
        if isinstance(wordings, dict) and "python" in wordings:
            named = {door: str(wordings[door]) for door in ("smalltalk", "shell", "http") if door in wordings}
            remedy = Remedy(str(wordings["python"]), **named)
        elif remedy is not None:
            remedy = str(remedy)
        super().__init__(str(message), site=details.get("site"), remedy=remedy)
        self.details = details
        self.code = str(details.get("code", "remote"))  # type: ignore[misc]  # each error carries the server's code
