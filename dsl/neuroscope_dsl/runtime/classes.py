"""Smalltalk classes, and the declaration of the library's methods.

A `SmalltalkClass` gives a name, a superclass and methods to a Python type. The library's classes are built once, at import, and
shared by all workspaces; a script's additions are in its workspace's dispatcher.

    Integer = define("Integer", Number, int)

    @Integer.method("factorial")
    def factorial(receiver: int) -> int: ...

A primitive whose first parameter is called `d` receives the dispatcher of the workspace it is called in; its annotations give
the kinds of its arguments (`runtime.arguments`). Other methods are written in Smalltalk (`prelude`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class SmalltalkClass:
    """A class: its name, its superclass, the Python type behind it, and its methods by selector."""

    def __init__(
        self,
        name: str,
        superclass: SmalltalkClass | None,
        python: type | None = None,
        *,
        vocabulary: bool = False,
        dispatcher: Any = None,
    ) -> None:
        self.name = name
        self.superclass = superclass
        self.python = python
        self.vocabulary = vocabulary
        self.dispatcher = dispatcher
        self.methods: dict[str, Any] = {}
        self.class_methods: dict[str, Any] = {}
        self.instance_variables: tuple[str, ...] = ()
        self.class_variables: tuple[str, ...] = ()
        self.class_instance_variables: tuple[str, ...] = ()
        self.category = ""
        self.comment = ""

    @property
    def defined_by_script(self) -> bool:
        return self.dispatcher is not None and not self.vocabulary

    def ancestors(self) -> Iterator[SmalltalkClass]:
        """The class itself, its superclass, and so on."""
        here: SmalltalkClass | None = self
        while here is not None:
            yield here
            here = here.superclass

    def inherits_from(self, other: SmalltalkClass) -> bool:
        return any(ancestor is other for ancestor in self.ancestors())

    def all_instance_variables(self) -> list[str]:
        return [name for ancestor in reversed(list(self.ancestors())) for name in ancestor.instance_variables]

    def all_class_instance_variables(self) -> list[str]:
        return [name for ancestor in reversed(list(self.ancestors())) for name in ancestor.class_instance_variables]

    def class_variable_owner(self, name: str) -> SmalltalkClass | None:
        return next((ancestor for ancestor in self.ancestors() if name in ancestor.class_variables), None)

    def script_method(self, selector: str) -> Callable[..., Any] | None:
        """The method that a script defined in this class or a superclass, or None."""
        return None if self.dispatcher is None else self.dispatcher.script_method(self, selector)

    # --- declaring primitives -------------------------------------------------------------------------------------

    def method(self, *selectors: str) -> Callable[[F], F]:
        """Decorator: the function is the instance-side method of these selectors."""
        return self._adder(self.methods, selectors)

    def class_method(self, *selectors: str) -> Callable[[F], F]:
        """Decorator: the function is the class-side method of these selectors; its receiver is the `SmalltalkClass`."""
        return self._adder(self.class_methods, selectors)

    @staticmethod
    def _adder(methods: dict[str, Any], selectors: tuple[str, ...]) -> Callable[[F], F]:
        def add(function: F) -> F:
            for selector in selectors:
                methods[selector] = function
            return function

        return add

    def __repr__(self) -> str:
        return f"<class {self.name}>"


#: The library's classes by name.
LIBRARY: dict[str, SmalltalkClass] = {}

#: The class of each Python type that the library knows.
BY_TYPE: dict[type, SmalltalkClass] = {}


def define(name: str, superclass: SmalltalkClass | None, *types: type) -> SmalltalkClass:
    """A class of the library; the first type is the one that `new` makes."""
    created = SmalltalkClass(name, superclass, types[0] if types else None)
    LIBRARY[name] = created
    for python in types:
        BY_TYPE.setdefault(python, created)
    return created


Object = define("Object", None)
Class = define("Class", Object, SmalltalkClass)
Boolean = define("Boolean", Object, bool)
TrueClass = define("True", Boolean)
FalseClass = define("False", Boolean)
UndefinedObject = define("UndefinedObject", Object, type(None))


def article(name: str) -> str:
    """`a Foo`, `an Apple`."""
    return f"{'an' if name[:1].upper() in 'AEIOU' and name else 'a'} {name}"
