"""The exception classes of the runtime, each a Python exception too.

A script sees `Error`, `ZeroDivide` and so on; Python sees `SmalltalkException` and its subclasses, all of them
`NeuroScopeError`s with a code, a remedy and a position.
"""

from __future__ import annotations

from typing import Any, ClassVar

from neuroscope_dsl.errors import SmalltalkError
from neuroscope_dsl.runtime.values import MessageObject


class SmalltalkException(SmalltalkError):
    """Smalltalk's `Exception`. `message_text` is what the script said, or None."""

    code = "exception"
    smalltalk_name: ClassVar[str] = "Exception"
    default_text: ClassVar[str | None] = None

    def __init__(self, message_text: str | None = None, *, remedy: str | None = None, **details: Any) -> None:
        super().__init__(message_text or "", remedy=remedy)
        self.message_text: str | None = message_text
        self.details: dict[str, Any] = details
        self.handler: Any = None  # the Handler whose block runs for this exception
        self.unhandled = False  # no handler matched; the exception leaves the script
        self.resumable: bool = self.always_resumable

    always_resumable: ClassVar[bool] = True

    @property
    def class_name(self) -> str:
        """The Smalltalk name of the exception's class."""
        own = getattr(type(self), "smalltalk_class", None)
        return str(own.name) if own is not None else self.smalltalk_name

    @property
    def text(self) -> str:
        """The message text, or the default."""
        return self.message_text if self.message_text is not None else (self.default_text or self.class_name)

    @property
    def title(self) -> str:
        return self.class_name if self.text == self.class_name else f"{self.class_name}: {self.text}"

    def as_dictionary(self) -> dict[str, Any]:
        return {**super().as_dictionary(), "message": self.title}

    def unhandled_action(self) -> Any:
        """Without a matching handler, an error leaves the script."""
        self.unhandled = True
        raise self


class Notification(SmalltalkException):
    """If unhandled, `signal` answers nil and the script continues."""

    smalltalk_name = "Notification"

    def unhandled_action(self) -> Any:
        self.unhandled = True


class Warning(Notification):  # noqa: A001 - Smalltalk's own name
    """If unhandled, `signal` answers nil and the script continues; the workspace's Transcript shows its text."""

    smalltalk_name = "Warning"


class Halt(SmalltalkException):
    smalltalk_name = "Halt"
    code = "halt"


class Error(SmalltalkException):
    smalltalk_name = "Error"
    code = "smalltalk-error"
    always_resumable = False


class ArithmeticError(Error):  # noqa: A001 - Smalltalk's own name
    smalltalk_name = "ArithmeticError"
    code = "arithmetic"
    always_resumable = True


class ZeroDivide(ArithmeticError):
    smalltalk_name = "ZeroDivide"
    code = "zero-divide"
    default_text = "The program attempted to divide a number by zero"


class DomainError(ArithmeticError):
    smalltalk_name = "DomainError"


class MessageNotUnderstood(Error):
    """`receiver_class` does not understand `selector`; the remedy names the nearest selectors."""

    smalltalk_name = "MessageNotUnderstood"
    code = "message-not-understood"
    always_resumable = True

    def __init__(
        self,
        message_text: str | None = None,
        *,
        receiver: Any = None,
        receiver_class: str = "",
        selector: str = "",
        arguments: tuple[Any, ...] = (),
        nearest: tuple[str, ...] = (),
        remedy: str | None = None,
    ) -> None:
        super().__init__(message_text, remedy=remedy)
        self.receiver = receiver
        self.receiver_class = receiver_class
        self.selector = selector
        self.nearest = nearest
        self.sent = MessageObject(selector, arguments)

    def as_dictionary(self) -> dict[str, Any]:
        return {
            **super().as_dictionary(),
            "receiverClass": self.receiver_class,
            "selector": self.selector,
            "nearest": list(self.nearest),
        }


class NotFound(Error):
    smalltalk_name = "NotFound"
    code = "not-found"


class KeyNotFound(NotFound):
    smalltalk_name = "KeyNotFound"
    code = "key-not-found"


class ValueNotFound(NotFound):
    smalltalk_name = "ValueNotFound"


class SubscriptOutOfBounds(Error):
    smalltalk_name = "SubscriptOutOfBounds"
    code = "subscript-out-of-bounds"


class CollectionIsEmpty(Error):
    smalltalk_name = "CollectionIsEmpty"


class InvalidArgument(Error):
    """Smalltalk's `InvalidArgument`."""

    smalltalk_name = "InvalidArgument"
    code = "argument"


class NonBooleanReceiver(Error):
    smalltalk_name = "NonBooleanReceiver"
    code = "non-boolean"


class ArgumentsCountMismatch(Error):
    smalltalk_name = "ArgumentsCountMismatch"
    code = "block-arguments"


class BlockCannotReturn(Error):
    smalltalk_name = "BlockCannotReturn"
    code = "block-cannot-return"


class IllegalResumeAttempt(Error):
    smalltalk_name = "IllegalResumeAttempt"


class SubclassResponsibility(Error):
    smalltalk_name = "SubclassResponsibility"


class ModificationForbidden(Error):
    smalltalk_name = "ModificationForbidden"


class AssertionFailure(Error):
    smalltalk_name = "AssertionFailure"
    code = "assertion"


class UnknownVariable(Error):
    """An unbound name."""

    smalltalk_name = "UnknownVariable"
    code = "unknown-variable"


class UnknownClass(UnknownVariable):
    """An unbound capitalised name, probably of a class that does not exist."""

    smalltalk_name = "UnknownClass"
    code = "unknown-class"


class LibraryError(Error):
    """A Python exception in a script. `cause` is the original, whose code and remedy it has."""

    smalltalk_name = "LibraryError"
    code = "library"

    def __init__(self, cause: Exception) -> None:
        message = getattr(cause, "message", None)
        kind = type(cause).__name__
        super().__init__(
            str(message) if message else (f"{kind}: {cause}" if str(cause) else kind), remedy=getattr(cause, "advice", None)
        )
        self.cause = cause
        self.__cause__ = cause
        self.site = getattr(cause, "site", None)
        self.kind = kind
        code = getattr(cause, "code", None)
        if isinstance(code, str):
            self.code = code  # type: ignore[misc]

    @property
    def class_name(self) -> str:
        return self.kind

    @property
    def title(self) -> str:
        return self.text if self.text.startswith(self.kind) else f"{self.kind}: {self.text}"


# --- control flow that no script catches: BaseException, so that Python code between does not catch it either ---------


class Unwind(BaseException):
    """Unwinds to the handling `on:do:`; `retry`: run its block again (or `replacement`)."""

    def __init__(self, handler: Any, value: Any = None, *, retry: bool = False, replacement: Any = None) -> None:
        super().__init__()
        self.handler = handler
        self.value = value
        self.retry = retry
        self.replacement = replacement


class Resume(BaseException):
    """Unwinds to the `signal` to be resumed."""

    def __init__(self, exception: SmalltalkException, value: Any) -> None:
        super().__init__()
        self.exception = exception
        self.value = value


class Home:
    """The activation that `^` in a block returns from."""

    __slots__ = ("alive",)

    def __init__(self) -> None:
        self.alive = True


class NonLocalReturn(BaseException):
    """`^` in a block: unwinds to its method."""

    def __init__(self, home: Home, value: Any) -> None:
        super().__init__()
        self.home = home
        self.value = value
