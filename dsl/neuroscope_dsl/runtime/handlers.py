"""Signalling and handling: `on:do:`, `signal`, `resume:`, `retry`, `pass`, `ensure:`.

As in Smalltalk, a handler's block runs where the exception was signalled, before anything is unwound:

1. `on:do:` puts a `Handler` on the thread's chain and runs its block;
2. `signal` walks the chain outwards to the first handler that matches and runs the handler's block with the chain cut
   behind that handler;
3. when that block ends, `Unwind` carries its value back to the `on:do:`, running `ensure:` blocks on the way; `resume:` ends
   the `signal` with a value instead, `retry` runs the protected block again.

Python exceptions that were not signalled become Smalltalk exceptions where a protected block catches them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from neuroscope.errors import CancelledError
from neuroscope_dsl.errors import ScriptStopped, SmalltalkError
from neuroscope_dsl.runtime.exceptions import (
    BlockCannotReturn,
    Error,
    Home,
    IllegalResumeAttempt,
    LibraryError,
    NonLocalReturn,
    Resume,
    SmalltalkException,
    Unwind,
    ZeroDivide,
)
from neuroscope_dsl.runtime.process import current_stack, process, stack_of_traceback


class Handler:
    """One `on:do:` in progress."""

    __slots__ = ("action", "matches", "outer")

    def __init__(
        self, matches: Callable[[SmalltalkException], bool], action: Callable[[SmalltalkException], Any], outer: Handler | None
    ) -> None:
        self.matches = matches
        self.action = action
        self.outer = outer


def signal(exception: SmalltalkException) -> Any:
    """Signal an exception. Return the value that a handler resumes with. Unhandled errors are raised."""
    return _signal_from(exception, process.handler)


def _signal_from(exception: SmalltalkException, handler: Handler | None) -> Any:
    while handler is not None:
        if handler.matches(exception):
            if exception.position is None:
                exception.stack = current_stack(sys._getframe(1))
                exception.position = exception.stack[0] if exception.stack else None
            return _handle(exception, handler)
        handler = handler.outer
    return exception.unhandled_action()


def _handle(exception: SmalltalkException, handler: Handler) -> Any:
    saved = process.handler
    process.handler = handler.outer
    previous = exception.handler
    exception.handler = handler
    try:
        value = handler.action(exception)
    except Resume as resume:
        if resume.exception is not exception:
            raise
        return resume.value
    finally:
        process.handler = saved
        exception.handler = previous
    raise Unwind(handler, value)


def protect(
    body: Callable[[], Any], matches: Callable[[SmalltalkException], bool], action: Callable[[SmalltalkException], Any]
) -> Any:
    """`[body] on: matches do: action`."""
    handler = Handler(matches, action, process.handler)
    process.handler = handler
    try:
        while True:
            try:
                return body()
            except Unwind as unwind:
                if unwind.handler is not handler:
                    raise
                if not unwind.retry:
                    return unwind.value
                body = unwind.replacement or body
                process.handler = handler
            except Exception as error:
                # A Python exception from code that did not signal it: treated as signalled here.
                exception = adopt(error)
                if exception is None or exception.unhandled or not matches(exception):
                    raise
                process.handler = handler
                try:
                    return _handle(exception, handler)
                except Unwind as unwind:
                    if unwind.handler is not handler:
                        raise
                    if not unwind.retry:
                        return unwind.value
                    body = unwind.replacement or body
                    process.handler = handler
    finally:
        process.handler = handler.outer


def adopt(error: BaseException) -> SmalltalkException | None:
    """A Python exception as a Smalltalk one; None for those that no script may catch (limits, interrupts, syntax errors)."""
    if isinstance(error, SmalltalkException):
        adopted: SmalltalkException = error
    elif isinstance(error, (ScriptStopped, CancelledError, RecursionError, MemoryError, SmalltalkError)) or not isinstance(
        error, Exception
    ):
        return None
    elif isinstance(error, NameError) and str(getattr(error, "name", "") or "").startswith("v_"):
        adopted = _unknown_name(error)
    elif isinstance(error, ZeroDivisionError):
        adopted = ZeroDivide()
        adopted.__cause__ = error
    else:
        adopted = LibraryError(error)
    if adopted.position is None:
        adopted.stack = stack_of_traceback(error.__traceback__)
        adopted.position = adopted.stack[0] if adopted.stack else None
    return adopted


def _unknown_name(error: NameError) -> SmalltalkException:
    from neuroscope_dsl.runtime.unknown import unknown_name

    traceback = error.__traceback__
    variables: dict[str, Any] = {}
    while traceback is not None:
        if "__sources__" in traceback.tb_frame.f_globals:
            variables = traceback.tb_frame.f_globals
        traceback = traceback.tb_next
    return unknown_name(str(error.name)[2:], variables)


def leaving(home: Home, value: Any) -> NonLocalReturn:
    """The exception for `^` in a block. Signals `BlockCannotReturn` if its method has already returned."""
    if not home.alive:
        signal(BlockCannotReturn("The method that this block returns from has already returned"))
    return NonLocalReturn(home, value)


# --- what a handler block may say to the exception ----------------------------------------------------------------


def return_from(exception: SmalltalkException, value: Any) -> Any:
    """`e return: value`."""
    raise Unwind(_active(exception), value)


def retry(exception: SmalltalkException, replacement: Callable[[], Any] | None = None) -> Any:
    """`e retry`, `e retryUsing: block`."""
    raise Unwind(_active(exception), retry=True, replacement=replacement)


def resume(exception: SmalltalkException, value: Any) -> Any:
    """`e resume: value`."""
    if not exception.resumable:
        return signal(IllegalResumeAttempt(f"{exception.class_name} cannot be resumed", remedy="Use return: or retry."))
    _active(exception)
    raise Resume(exception, value)


def outer(exception: SmalltalkException) -> Any:
    """`e outer`: signal to the outer handlers. Return the value they resume with."""
    handler = _active(exception)
    value = _signal_from(exception, handler.outer)
    exception.handler = handler
    return value


def pass_on(exception: SmalltalkException) -> Any:
    """`e pass`: as `outer`, then resume with its value."""
    value = outer(exception)
    raise Resume(exception, value)


def _active(exception: SmalltalkException) -> Handler:
    if exception.handler is None:
        raise Error(f"{exception.class_name} is not being handled", remedy="Send this inside the block of on:do:.")
    handler: Handler = exception.handler
    return handler
