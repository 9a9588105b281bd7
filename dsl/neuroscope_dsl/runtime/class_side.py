"""What classes understand: names, instances, and making subclasses."""

from __future__ import annotations

import re
from typing import Any

from neuroscope.vocabulary import is_public
from neuroscope_dsl.runtime.classes import LIBRARY, Class, Object, SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import Error
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.values import Array, SmalltalkObject, Symbol

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

#: Classes whose instances are Python's own immutable values: a script can extend them, not derive from them.
_SEALED = ("Boolean", "True", "False", "UndefinedObject", "Integer", "Float", "Fraction", "Number", "Character", "Symbol",
           "String", "BlockClosure", "Interval", "Class", "Metaclass", "ScaledDecimal", "Date", "Time", "DateAndTime")  # fmt: skip


class Metaclass:
    """`Foo class`: stands for the class side of a class."""

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
    """A fresh instance, initialized."""
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
        return signal(Error(f"{receiver.name} makes no instances by new"))
    return python()


class PlainObject(SmalltalkObject):
    """What `Object new` answers."""

    smalltalk_class = Object


@Class.method("name")
def name(receiver: SmalltalkClass) -> Any:
    return Symbol(receiver.name)


@Class.method("printOn:")
def print_on(receiver: SmalltalkClass, stream: Any) -> Any:
    stream.put_all(receiver.name)
    return receiver


@Class.method("class")
def class_of(receiver: SmalltalkClass) -> Metaclass:
    return Metaclass(receiver)


@Class.method("superclass")
def superclass(receiver: SmalltalkClass) -> SmalltalkClass | None:
    return receiver.superclass


@Class.method("category")
def category(receiver: SmalltalkClass) -> str:
    return receiver.category


@Class.method("category:")
def set_category(receiver: SmalltalkClass, text: Any) -> SmalltalkClass:
    receiver.category = str(text)
    return receiver


@Class.method("comment")
def comment(receiver: SmalltalkClass) -> str:
    return receiver.comment


@Class.method("comment:")
def set_comment(receiver: SmalltalkClass, text: Any) -> SmalltalkClass:
    if receiver.defined_by_script:
        receiver.comment = str(text)
    return receiver


@Class.method("isClass")
def is_class(receiver: SmalltalkClass) -> bool:
    return True


@Class.method("inheritsFrom:")
def inherits_from(receiver: SmalltalkClass, other: Any) -> bool:
    return isinstance(other, SmalltalkClass) and receiver is not other and receiver.inherits_from(other)


@Class.method("includesBehavior:")
def includes_behavior(receiver: SmalltalkClass, other: Any) -> bool:
    return isinstance(other, SmalltalkClass) and receiver.inherits_from(other)


@Class.method("selectors")
def selectors(d: Any, receiver: SmalltalkClass) -> Array:
    return Array(Symbol(selector) for selector in sorted(d.own_selectors(receiver)))


@Class.method("includesSelector:")
def includes_selector(d: Any, receiver: SmalltalkClass, selector: Any) -> bool:
    return str(selector) in d.own_selectors(receiver)


@Class.method("canUnderstand:")
def can_understand(d: Any, receiver: SmalltalkClass, selector: Any) -> bool:
    return receiver.python is not None and d.find(receiver.python, str(selector)) is not None


@Class.method("instanceVariableNames")
def instance_variable_names(receiver: SmalltalkClass) -> Array:
    return Array(receiver.instance_variables)


@MetaclassClass.method("instanceVariableNames:")
def class_instance_variables(receiver: Metaclass, names: Any) -> Metaclass:
    owner = receiver.instance_class
    if not owner.defined_by_script:
        return signal(Error(f"{owner.name} is built in; only classes defined by a script take variables"))
    owner.class_instance_variables = _names(names)
    for variable in owner.class_instance_variables:
        setattr(owner, f"_iv_{variable}", None)
    return receiver


@MetaclassClass.method("name", "asString")
def metaclass_name(receiver: Metaclass) -> str:
    return receiver.print_string()


@MetaclassClass.method("instanceSide", "soleInstance", "theNonMetaClass")
def instance_side(receiver: Metaclass) -> SmalltalkClass:
    return receiver.instance_class


# --- subclasses ---------------------------------------------------------------------------------------------------


def make_subclass(
    d: Any, superclass: SmalltalkClass | None, name: Any, variables: Any = "", class_variables: Any = "", category: Any = ""
) -> SmalltalkClass:
    """Define (or redefine, keeping its methods) the class `name` in the workspace."""
    name = str(name)
    if not _NAME.match(name) or not name[0].isupper():
        return signal(Error(f"{name!r} is no name for a class", remedy="A class name begins with a capital letter."))
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
    names = tuple(str(part) for part in (text.split() if isinstance(text, str) else text or ()))
    for variable in names:
        if not _NAME.match(variable):
            raise Error(f"{variable!r} is no name for a variable")
    return names


_VARIANTS = {
    "subclass:": (),
    "subclass:instanceVariableNames:": ("variables",),
    "subclass:instanceVariableNames:package:": ("variables", "category"),
    "subclass:instanceVariableNames:category:": ("variables", "category"),
    "subclass:instanceVariableNames:classVariableNames:": ("variables", "class_variables"),
    "subclass:instanceVariableNames:classVariableNames:package:": ("variables", "class_variables", "category"),
    "subclass:instanceVariableNames:classVariableNames:category:": ("variables", "class_variables", "category"),
    "subclass:instanceVariableNames:classVariableNames:poolDictionaries:": ("variables", "class_variables", "pools"),
    "subclass:instanceVariableNames:classVariableNames:poolDictionaries:category:": (
        "variables", "class_variables", "pools", "category",
    ),
    "subclass:instanceVariableNames:classVariableNames:poolDictionaries:package:": (
        "variables", "class_variables", "pools", "category",
    ),
}  # fmt: skip


def _declare(selector: str, parts: tuple[str, ...]) -> None:
    @Class.method(selector)
    def subclass(d: Any, receiver: SmalltalkClass, name: Any, *values: Any) -> SmalltalkClass:
        given = dict(zip(parts, values, strict=True))
        if given.pop("pools", ""):
            return signal(Error("Pool dictionaries are not supported", remedy="Give poolDictionaries: ''."))
        return make_subclass(d, receiver, name, **given)


for _selector, _parts in _VARIANTS.items():
    _declare(_selector, _parts)


class ClassBuilder:
    """`Object << #Foo slots: {#a}; package: 'P'`: the class exists at once, each message refines it."""

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


@Builder.method("package:", "tag:")
def package(receiver: ClassBuilder, text: Any) -> ClassBuilder:
    return receiver.refine(category=text)


@Builder.method("install")
def install(receiver: ClassBuilder) -> SmalltalkClass:
    return receiver.defined


@Class.method("isVocabulary")
def is_vocabulary(receiver: SmalltalkClass) -> bool:
    return receiver.python is not None and is_public(receiver.python)
