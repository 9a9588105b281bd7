"""Method lookup for all kinds of receivers, with a cache.

A receiver is a value of the runtime (number, string, collection …), an object or class of the public vocabulary, an object or
class that the script defined, or a foreign Python object. The order of lookup:

1. methods that this workspace's scripts gave to the receiver's class or to one above it;
2. for the vocabulary, the declared operations (`dispatch.rule`);
3. the runtime's methods, from the class upwards; for objects of the vocabulary and foreign ones that can be iterated
   over, the collection protocol, and arithmetic through Python's operators.

Methods are cached by selector and type of receiver; defining a method empties the cache.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

from neuroscope.errors import nearest
from neuroscope.vocabulary import is_public
from neuroscope_dsl.compiler.scopes import MethodContext
from neuroscope_dsl.dispatch import rule
from neuroscope_dsl.dispatch.invoke import callable_for
from neuroscope_dsl.dispatch.rule import Found, Invocation, Refusal
from neuroscope_dsl.prelude import PreludeMethod
from neuroscope_dsl.runtime import library
from neuroscope_dsl.runtime.arguments import checked
from neuroscope_dsl.runtime.block import Block
from neuroscope_dsl.runtime.classes import BY_TYPE, LIBRARY, Class, Object, SmalltalkClass
from neuroscope_dsl.runtime.exceptions import MessageNotUnderstood
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.naming import class_name
from neuroscope_dsl.runtime.values import MessageObject, Symbol

Method = Callable[..., Any]


class Vocabulary(Protocol):
    """The source of vocabulary classes: `neuroscope.vocabulary`, or another in tests."""

    def find(self, name: str) -> type | None:
        """The public class called exactly `name`, or None."""

    def names(self) -> Sequence[str]:
        """All class names."""


class Dispatcher:
    """Sends messages for one workspace.

    `send(receiver, 'at:put:', key, value)` sends one message; `sender(selector)` returns a fast function for one selector.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.context: Any = None  # the workspace, for primitives that need it (Transcript, Smalltalk at:)
        self._methods: dict[SmalltalkClass, dict[str, Method]] = {}
        self._class_methods: dict[SmalltalkClass, dict[str, Method]] = {}
        self._classes: dict[type, SmalltalkClass] = {}
        self._senders: dict[str, Method] = {}
        self._tables: list[dict[Any, Method]] = []
        self._bound_methods: dict[Method | PreludeMethod, Method] = {}
        self._super: dict[tuple[Any, ...], Method] = {}

    # --- sending --------------------------------------------------------------------------------------------------

    def send(self, receiver: Any, selector: str, *arguments: Any) -> Any:
        """Send a message. Signals `MessageNotUnderstood`."""
        if not _is_selector(selector, len(arguments)):
            return self._not_understood(receiver, selector, arguments)
        found = self._senders.get(selector)
        if found is None:
            method = self._method(receiver, selector)
            if method is None:  # nothing is kept for a selector that means nothing
                return self._not_understood(receiver, selector, arguments)
            found = self.sender(selector)
        return found(receiver, *arguments)

    def _method(self, receiver: Any, selector: str) -> Method | None:
        if type(receiver) is SmalltalkClass:
            return self.find_class_method(receiver, selector)
        return self.find(type(receiver), selector)

    def sender(self, selector: str) -> Method:
        """A function `(receiver, *arguments)` that sends `selector`."""
        found = self._senders.get(selector)
        if found is None:
            found = self._senders[selector] = self._make_sender(selector)
        return found

    def _make_sender(self, selector: str) -> Method:
        table: dict[type, Method] = {}
        class_table: dict[SmalltalkClass, Method] = {}
        self._tables += [table, class_table]

        def to_class(receiver: SmalltalkClass, *arguments: Any) -> Any:
            method = class_table.get(receiver)
            if method is None:
                method = self.find_class_method(receiver, selector) or partial(self._refuse, selector)
                class_table[receiver] = method
            return method(receiver, *arguments)

        def bind(receiver: Any) -> Method:
            kind = type(receiver)
            method = to_class if kind is SmalltalkClass else self.find(kind, selector) or partial(self._refuse, selector)
            table[kind] = method
            return method

        def send_0(receiver: Any) -> Any:
            try:
                method = table[type(receiver)]
            except KeyError:
                method = bind(receiver)
            return method(receiver)

        def send_1(receiver: Any, first: Any) -> Any:
            try:
                method = table[type(receiver)]
            except KeyError:
                method = bind(receiver)
            return method(receiver, first)

        def send_2(receiver: Any, first: Any, second: Any) -> Any:
            try:
                method = table[type(receiver)]
            except KeyError:
                method = bind(receiver)
            return method(receiver, first, second)

        def send_n(receiver: Any, *arguments: Any) -> Any:
            try:
                method = table[type(receiver)]
            except KeyError:
                method = bind(receiver)
            return method(receiver, *arguments)

        senders: dict[int, Method] = {0: send_0, 1: send_1, 2: send_2}
        return senders.get(argument_count(selector), send_n)

    def super_send(self, context: MethodContext, selector: str, receiver: Any, *arguments: Any) -> Any:
        """Send to `super` from a method of `context`."""
        kind = receiver if context.class_side else type(receiver)
        key = (context.owner, context.class_side, selector, kind)
        method = self._super.get(key)
        if method is None:
            method = self._super[key] = self._find_inherited(context, selector, kind) or partial(self._refuse, selector)
        return method(receiver, *arguments)

    # --- classes --------------------------------------------------------------------------------------------------

    def class_of(self, value: Any) -> SmalltalkClass:
        """The class of a value."""
        if isinstance(value, bool):
            return LIBRARY["True"] if value else LIBRARY["False"]
        if type(value) is int:
            return LIBRARY[class_name(value)]
        return self.class_of_type(type(value))

    def class_of_type(self, python: type) -> SmalltalkClass:
        """The class of a Python type's instances."""
        found = self._classes.get(python)
        if found is None:
            found = self._classes[python] = self._make_class(python)
        return found

    def _make_class(self, python: type) -> SmalltalkClass:
        own = python.__dict__.get("smalltalk_class")
        if isinstance(own, SmalltalkClass):
            return own
        if python in BY_TYPE:
            return BY_TYPE[python]
        above = [base for base in python.__mro__[1:] if base is not object]
        if is_public(python):
            superclass = next((self.class_of_type(base) for base in above if is_public(base)), None)
            superclass = superclass or next((BY_TYPE[base] for base in above if base in BY_TYPE), Object)
            return SmalltalkClass(python.__name__, superclass, python, vocabulary=True, dispatcher=self)
        for base in above:
            if base in BY_TYPE:
                return BY_TYPE[base]
        if issubclass(python, numbers.Integral):
            return LIBRARY["Integer"]
        if issubclass(python, numbers.Real):
            return LIBRARY["Float"]
        return SmalltalkClass(python.__name__, library.Foreign, python)

    def class_named(self, name: str) -> SmalltalkClass | None:
        """The library's or the vocabulary's class of that name; importing the latter's module on first use."""
        found = LIBRARY.get(name)
        if found is not None:
            return found
        python = self.vocabulary.find(name)
        return None if python is None else self.class_of_type(python)

    def is_class_name(self, name: str) -> bool:
        """Whether the library or the vocabulary has a class of this name. Imports nothing."""
        return name in LIBRARY or name in self.vocabulary.names()

    # --- methods --------------------------------------------------------------------------------------------------

    def define(self, owner: SmalltalkClass, class_side: bool, selector: str, method: Method) -> None:
        """Define a method of a class in this workspace; it overrides the class's own."""
        methods = self._class_methods if class_side else self._methods
        methods.setdefault(owner, {})[selector] = method
        self.forget()

    def forget(self) -> None:
        """Empty the cache, after a change of classes."""
        for table in self._tables:
            table.clear()
        self._super.clear()

    def clear(self) -> None:
        """Forget every method of this workspace."""
        self.forget()
        for kept in (self._methods, self._class_methods, self._classes, self._senders, self._bound_methods, self._tables):
            kept.clear()

    def script_method(self, owner: SmalltalkClass, selector: str) -> Method | None:
        """The instance-side method that a script defined in `owner` or a superclass."""
        return self._given(owner.ancestors(), self._methods, selector)

    @staticmethod
    def _given(
        classes: Iterator[SmalltalkClass] | list[SmalltalkClass],
        methods: dict[SmalltalkClass, dict[str, Method]],
        selector: str,
    ) -> Method | None:
        for owner in classes:
            method = methods.get(owner, {}).get(selector)
            if method is not None:
                return method
        return None

    def find(self, python: type, selector: str) -> Method | None:
        """The method for a message to an instance of a Python type."""
        owner = self.class_of_type(python)
        ancestors = list(owner.ancestors())
        return self._find(ancestors, python if is_public(python) else None, selector, ancestors)

    def _find(
        self, given_by: list[SmalltalkClass], public: type | None, selector: str, ancestors: list[SmalltalkClass]
    ) -> Method | None:
        method = self._given([c for c in given_by if c not in library.CLASSES], self._methods, selector)
        if method is not None:
            return method
        refusal: Method | None = None
        if public is not None:
            found = rule.instance_rule(public, selector)
            if isinstance(found, Invocation):
                return callable_for(found)
            refusal = self._refusal(found, selector)
        chain = [c for c in ancestors if c in library.CLASSES]
        if public is not None or library.Foreign in chain:
            own = library.protocols(public or ancestors[0].python or object)
            if public is not None and hasattr(public, "by_unit"):
                found_by_unit = self._by_unit(own, selector)
                if found_by_unit is not None:
                    return found_by_unit
            chain = [*own, *(c for c in chain if c is not library.Foreign)]
        return self._primitive(chain, selector) or refusal

    def _by_unit(self, protocols: Sequence[SmalltalkClass], selector: str) -> Method | None:
        """A method of collections for a tensor, whose elements are its units (`by_unit`) whatever Python's iteration goes over."""
        for owner in protocols:
            method = owner.methods.get(selector) if owner in library.OF_ELEMENTS else None
            if method is None or isinstance(method, PreludeMethod) or selector in self._methods.get(owner, {}):
                continue
            return partial(_through_units, self._bound(method))
        return None

    def _primitive(self, chain: Sequence[SmalltalkClass], selector: str) -> Method | None:
        for owner in chain:
            method = self._methods.get(owner, {}).get(selector)
            if method is not None:
                return method
            method = owner.methods.get(selector)
            if method is not None:
                return self._bound(method)
        return None

    def _bound(self, method: Method | PreludeMethod) -> Method:
        """A library method bound to this workspace."""
        found = self._bound_methods.get(method)
        if found is None:
            made = self.context.linked(method) if isinstance(method, PreludeMethod) else checked(method, self)
            found = self._bound_methods[method] = made
        return found

    def find_class_method(self, owner: SmalltalkClass, selector: str) -> Method | None:
        """The method for a message to a class."""
        ancestors = list(owner.ancestors())
        return self._find_class(ancestors, owner.python, selector, ancestors)

    def _find_class(
        self, given_by: list[SmalltalkClass], python: type | None, selector: str, ancestors: list[SmalltalkClass]
    ) -> Method | None:
        method = self._given([c for c in given_by if c not in library.CLASSES], self._class_methods, selector)
        if method is not None:
            return method
        refusal: Method | None = None
        if python is not None and is_public(python):
            found = rule.class_rule(python, selector)
            if isinstance(found, Invocation):
                return callable_for(found, python)
            refusal = self._refusal(found, selector)
            ancestors = []
        for ancestor in ancestors:
            method = self._class_methods.get(ancestor, {}).get(selector)
            if method is not None:
                return method
            method = ancestor.class_methods.get(selector)
            if method is not None:
                return self._bound(method)
        return self._primitive([Class, Object], selector) or refusal

    def _find_inherited(self, context: MethodContext, selector: str, kind: Any) -> Method | None:
        owner = context.owner
        above = list(owner.ancestors())[1:]
        if context.class_side:
            python = kind.python
            return self._find_class(above, python, selector, above if not owner.vocabulary else [owner, *above])
        public = owner.python if owner.vocabulary else next((c.python for c in above if c.vocabulary), None)
        return self._find(above, public, selector, above if not owner.vocabulary else [owner, *above])

    # --- what is not understood -----------------------------------------------------------------------------------

    def _refuse(self, selector: str, receiver: Any, *arguments: Any) -> Any:
        return self._not_understood(receiver, selector, arguments)

    def _refusal(self, found: Found, selector: str) -> Method | None:
        """A method that signals why the arguments do not fit."""
        if not isinstance(found, Refusal):
            return None
        usual = " or ".join(f"#{name}" for name in found.selectors)

        def refuse(receiver: Any, *arguments: Any) -> Any:
            name = class_name(receiver)
            error = MessageNotUnderstood(
                f"{name} does not understand #{selector}: {found.reason}",
                receiver=receiver,
                receiver_class=name,
                selector=selector,
                arguments=arguments,
                nearest=found.selectors,
                remedy=f"It understands {usual}." if usual else None,
            )
            return signal(error)

        refuse.is_refusal = True  # type: ignore[attr-defined]
        return refuse

    def _not_understood(self, receiver: Any, selector: str, arguments: tuple[Any, ...]) -> Any:
        if type(receiver) is SmalltalkClass:
            custom = self._given(receiver.ancestors(), self._class_methods, "doesNotUnderstand:")
        else:
            custom = self.script_method(self.class_of_type(type(receiver)), "doesNotUnderstand:")
        if custom is not None:
            return custom(receiver, MessageObject(selector, arguments))
        name = class_name(receiver)
        if len(selector) > LONGEST_SELECTOR:
            selector = selector[:40] + "…"
        close = tuple(nearest(selector, self.selectors(receiver)))
        remedy = f"Did you mean {' or '.join(f'#{choice}' for choice in close)}?" if close else None
        if receiver is None and remedy is None:
            remedy = "The receiver is nil: was a variable never assigned, or did an earlier message answer nil?"
        return signal(
            MessageNotUnderstood(
                f"{name} does not understand #{selector}",
                receiver=receiver,
                receiver_class=name,
                selector=selector,
                arguments=arguments,
                nearest=close,
                remedy=remedy,
            )
        )

    def understands(self, receiver: Any, selector: str) -> bool:
        """`respondsTo:`."""
        if type(receiver) is SmalltalkClass:
            method = self.find_class_method(receiver, selector)
        else:
            method = self.find(type(receiver), selector)
        return method is not None and not getattr(method, "is_refusal", False)

    def selectors(self, receiver: Any) -> list[str]:
        """Every selector the receiver understands, for completion and for suggestions."""
        found: dict[str, None] = {}
        if type(receiver) is SmalltalkClass:
            ancestors = list(receiver.ancestors())
            for owner in ancestors:
                found.update(dict.fromkeys(self._class_methods.get(owner, {})))
            if receiver.python is not None and is_public(receiver.python):
                found.update(dict.fromkeys(rule.class_selectors(receiver.python)))
            else:
                for owner in ancestors:
                    found.update(dict.fromkeys(owner.class_methods))
            chain: Sequence[SmalltalkClass] = [Class, Object]
        else:
            python: type = type(receiver)
            chain = list(self.class_of_type(python).ancestors())
            public = is_public(python)
            if public:
                found.update(dict.fromkeys(rule.instance_selectors(python)))
            if public or library.Foreign in chain:
                chain = [*chain[:-1], *library.protocols(python), *chain[-1:]]
        for owner in chain:
            found.update(dict.fromkeys(self._methods.get(owner, {})))
            found.update(dict.fromkeys(owner.methods))
        return list(found)

    def own_selectors(self, owner: SmalltalkClass, *, class_side: bool = False) -> list[str]:
        """The selectors that a class itself defines; for the vocabulary, those of its declared operations."""
        given, built_in = (self._class_methods, owner.class_methods) if class_side else (self._methods, owner.methods)
        found = dict.fromkeys([*given.get(owner, {}), *built_in])
        if owner.vocabulary and owner.python is not None:
            declared = rule.class_selectors if class_side else rule.instance_selectors
            found.update(dict.fromkeys(declared(owner.python)))
        return list(found)

    # --- for primitives -------------------------------------------------------------------------------------------

    def function(self, block: Any, count: int) -> Method:
        """A function for an argument that should be a block of `count` arguments; a symbol becomes the message."""
        if type(block) is Block:
            return block.function if block.num_args == count else block
        if isinstance(block, Symbol) or (isinstance(block, str) and argument_count(block) == count - 1):
            return partial(self.send_named, block)
        if callable(block) and not isinstance(block, type):
            return block
        return partial(self.sender("value:" * count), block)

    def send_named(self, selector: str, receiver: Any, *arguments: Any) -> Any:
        return self.send(receiver, selector, *arguments)

    def value(self, block: Any) -> Any:
        """The value of a block without arguments; any other value itself."""
        return block.function() if type(block) is Block and block.num_args == 0 else self.cull(block)

    def cull(self, block: Any, *arguments: Any) -> Any:
        """The value of a block with as many of the arguments as it takes; any other value itself."""
        if isinstance(block, Block):
            return block(*arguments[: block.num_args])
        if isinstance(block, Symbol) and arguments:
            return self.send(arguments[0], block)
        if callable(block) and not isinstance(block, type):
            count = len(inspect.signature(block).parameters)
            return block(*arguments[:count])
        return block


def _through_units(method: Method, receiver: Any, *arguments: Any) -> Any:
    units = receiver.by_unit
    answer = method(units, *arguments)
    return receiver if answer is units else answer


def argument_count(selector: str) -> int:
    """How many arguments a selector takes."""
    if selector[:1].isalpha() or selector[:1] == "_":
        return selector.count(":")
    return 1


def _is_selector(selector: str, count: int) -> bool:
    """Whether `selector` could be sent with `count` arguments. Names that begin with an underscore cannot."""
    return 0 < len(selector) <= LONGEST_SELECTOR and _fits(selector, count)


#: Longest selector in characters.
LONGEST_SELECTOR = 500

#: Most selectors that a workspace knows at a time.
_MOST_SELECTORS = 20_000


@lru_cache(maxsize=4096)
def _fits(selector: str, count: int) -> bool:
    if rule.keywords_of(selector) is not None or not any(c.isalnum() or c in "_: \t\n" for c in selector):
        return argument_count(selector) == count
    return False
