"""Messages of classes: names, instances, and making subclasses."""

from __future__ import annotations

import inspect
import re
from typing import Any

from neuroscope_dsl.runtime.arguments import Text, elements
from neuroscope_dsl.runtime.classes import LIBRARY, Class, Object, SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import Error
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.values import Array, MutableString, SmalltalkObject, Symbol

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

#: Classes whose instances are immutable Python values: a script can extend but not subclass them.
_SEALED = ("Boolean", "True", "False", "UndefinedObject", "Integer", "Float", "Fraction", "Number", "Character", "Symbol",
           "String", "BlockClosure", "Interval", "Class", "Metaclass", "ScaledDecimal", "Date", "Time", "DateAndTime")  # fmt: skip


class Metaclass:
    """`Foo class`: the class side of a class."""

    __slots__ = ("instance_class",)

    def __init__(self, instance_class: SmalltalkClass) -> None:
        self.instance_class = instance_class

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metaclass) and other.instance_class is self.instance_class

    def __hash__(self) -> int:
        return hash(self.instance_class)

    def print_string(self) -> str:
        return f"{self.instance_class.name} class"


MetaclassClass = define("Metaclass", Object, Metaclass)


@Object.class_method("new")
def new(d: Any, receiver: SmalltalkClass) -> Any:
    """A new, initialized instance."""
    instance = d.send(receiver, "basicNew")
    if isinstance(instance, SmalltalkObject) or receiver.defined_by_script:
        d.send(instance, "initialize")
    return instance


@Object.class_method("basicNew")
def basic_new(d: Any, receiver: SmalltalkClass) -> Any:
    python = receiver.python
    if python is None or receiver.name in _SEALED:
        if receiver is LIBRARY["Object"]:
            return PlainObject()
        return signal(Error(f"{receiver.name} cannot be instantiated with new"))
    try:
        return python()
    except TypeError:  # the Python class needs arguments
        return signal(Error(f"{receiver.name} cannot be instantiated with new"))


class PlainObject(SmalltalkObject):
    """The result of `Object new`."""

    smalltalk_class = Object


Class.methods |= {
    "name": lambda receiver: Symbol(receiver.name),
    "class": lambda receiver: Metaclass(receiver),
    "superclass": lambda receiver: receiver.superclass,
    "category": lambda receiver: receiver.category,
    "comment": lambda receiver: receiver.comment or inspect.getdoc(receiver.python) or "",
    "instanceVariableNames": lambda receiver: Array(receiver.instance_variables),
}


@Class.method("category:")
def set_category(receiver: SmalltalkClass, text: Any) -> SmalltalkClass:
    receiver.category = str(text)
    return receiver


@Class.method("comment:")
def set_comment(receiver: SmalltalkClass, text: Any) -> SmalltalkClass:
    if receiver.defined_by_script:
        receiver.comment = str(text)
    return receiver


@Class.method("inheritsFrom:")
def inherits_from(receiver: SmalltalkClass, other: Any) -> bool:
    return isinstance(other, SmalltalkClass) and receiver is not other and receiver.inherits_from(other)


@Class.method("selectors")
def selectors(d: Any, receiver: SmalltalkClass) -> Array:
    return Array(Symbol(selector) for selector in sorted(d.own_selectors(receiver)))


@MetaclassClass.method("selectors")
def class_selectors(d: Any, receiver: Metaclass) -> Array:
    return Array(Symbol(selector) for selector in sorted(d.own_selectors(receiver.instance_class, class_side=True)))


@Class.method("canUnderstand:")
def can_understand(d: Any, receiver: SmalltalkClass, selector: Text) -> bool:
    return receiver.python is not None and d.find(receiver.python, selector) is not None


@MetaclassClass.method("instanceVariableNames:")
def class_instance_variables(receiver: Metaclass, names: Any) -> Metaclass:
    owner = receiver.instance_class
    if not owner.defined_by_script:
        return signal(Error(f"{owner.name} is built in; only classes defined by a script can have variables"))
    owner.class_instance_variables = _names(names)
    for variable in owner.class_instance_variables:
        setattr(owner, f"_iv_{variable}", None)
    return receiver


MetaclassClass.methods["instanceSide"] = lambda receiver: receiver.instance_class


# --- subclasses ---------------------------------------------------------------------------------------------------


def make_subclass(
    d: Any, superclass: SmalltalkClass | None, name: Any, variables: Any = "", class_variables: Any = "", category: Any = ""
) -> SmalltalkClass:
    """Define (or redefine, keeping its methods) the class `name` in the workspace."""
    name = str(name)
    if not _NAME.match(name) or not name[0].isupper():
        return signal(Error(f"{name!r} is not a name for a class", remedy="A class name begins with a capital letter."))
    superclass = superclass or Object
    if superclass.name in _SEALED and not superclass.defined_by_script:
        return signal(Error(f"{superclass.name} cannot have subclasses"))
    found = d.context.lookup_class(name)
    if found is not None and not found.defined_by_script:
        return signal(Error(f"{name} is built in and cannot be redefined", remedy="Choose another name, or add methods to it."))
    if found is None or found.superclass is not superclass:
        found = SmalltalkClass(name, superclass, dispatcher=d)
        base = superclass.python if superclass.python not in (None, object) else SmalltalkObject
        try:
            found.python = type(name, (base,), {"smalltalk_class": found})
        except TypeError as error:
            return signal(Error(f"{superclass.name} cannot have subclasses: {error}"))
    found.instance_variables = _names(variables)
    found.class_variables = _names(class_variables)
    found.category = str(category)
    for variable in found.instance_variables:
        setattr(found.python, f"_iv_{variable}", None)
    for variable in found.all_class_instance_variables():
        setattr(found, f"_iv_{variable}", getattr(found, f"_iv_{variable}", None))
    d.context.install_class(found)
    return found


def _names(text: Any) -> tuple[str, ...]:
    given = str(text).split() if isinstance(text, (str, MutableString)) else list(elements(text))
    names = tuple(map(str, given))
    for variable in names:
        if not _NAME.match(variable):
            signal(Error(f"{variable!r} is not a name for a variable"))
    return names


@Class.method("subclass:instanceVariableNames:classVariableNames:package:")
def subclass(
    d: Any, receiver: SmalltalkClass, name: Any, variables: Any, class_variables: Any, category: Any
) -> SmalltalkClass:
    return make_subclass(d, receiver, name, variables, class_variables, category)


class ClassBuilder:
    """`Object << #Foo slots: {#a}; package: 'P'`: the class exists at once, and each message modifies it."""

    def __init__(self, d: Any, defined: SmalltalkClass) -> None:
        self.dispatcher = d
        self.defined = defined

    def refine(self, **changes: Any) -> ClassBuilder:
        now: dict[str, Any] = {
            "variables": self.defined.instance_variables,
            "class_variables": self.defined.class_variables,
            "category": self.defined.category,
        }
        self.defined = make_subclass(self.dispatcher, self.defined.superclass, self.defined.name, **{**now, **changes})
        return self


Builder = define("FluidClassBuilder", Object, ClassBuilder)


@Class.method("<<")
def fluid(d: Any, receiver: SmalltalkClass, name: Any) -> ClassBuilder:
    return ClassBuilder(d, make_subclass(d, receiver, name))


@Builder.method("slots:")
def slots(receiver: ClassBuilder, names: Any) -> ClassBuilder:
    return receiver.refine(variables=names)


@Builder.method("sharedVariables:")
def shared_variables(receiver: ClassBuilder, names: Any) -> ClassBuilder:
    return receiver.refine(class_variables=names)


@Builder.method("package:")
def package(receiver: ClassBuilder, text: Any) -> ClassBuilder:
    return receiver.refine(category=text)


@Builder.method("install")
def install(receiver: ClassBuilder) -> SmalltalkClass:
    return receiver.defined
