"""What a name means, for people at a prompt: a class with its comment and messages, a message with its documentation."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

from neuroscope.errors import did_you_mean
from neuroscope.vocabulary import is_public
from neuroscope_dsl.dispatch import rule
from neuroscope_dsl.dispatch.rule import How, Invocation
from neuroscope_dsl.errors import SmalltalkError
from neuroscope_dsl.prelude import PreludeMethod
from neuroscope_dsl.runtime.classes import SmalltalkClass

if TYPE_CHECKING:
    from neuroscope_dsl.workspace import Workspace

_ASKED = re.compile(r"\s*([A-Za-z_]\w*)(\s+class)?\s*(?:>>\s*#?(\S+)|\s+#?([a-z][\w:]*))?\s*\Z")


def describe(workspace: Workspace, text: str) -> str:
    """The documentation of `CircuitFinder`, `CircuitFinder >> findCircuit:examples:`, a variable, or `model generate:`.

    Raises `SmalltalkError` for a name or a message that is unknown, with the nearest.
    """
    asked = _ASKED.match(text)
    if asked is None:
        value = workspace.evaluate(text)
        return _class(workspace, workspace.dispatcher.class_of(value))
    name, side, selector = asked[1], asked[2] is not None, asked[3] or asked[4]
    value = workspace.lookup(name)
    is_class = isinstance(value, SmalltalkClass)
    owner = value if is_class else workspace.dispatcher.class_of(value)
    if selector is None:
        about = "" if is_class else f"{name}: {workspace.print_string(value)}\n"
        return about + _class(workspace, owner)
    class_side = side or (is_class and asked[4] is not None)
    return _message(workspace, owner, selector, class_side)


def _class(workspace: Workspace, owner: SmalltalkClass) -> str:
    comment = owner.comment or (inspect.getdoc(owner.python) if owner.python is not None and is_public(owner.python) else "")
    lines = [f"{owner.name}", *([""] if comment else []), *(comment or "").splitlines()]
    for title, class_side in (("class", True), ("instances", False)):
        selectors = sorted(workspace.dispatcher.own_selectors(owner, class_side=class_side))
        if selectors:
            lines += ["", f"{title}: {'  '.join(selectors)}"]
    return "\n".join(lines)


def _message(workspace: Workspace, owner: SmalltalkClass, selector: str, class_side: bool) -> str:
    title = f"{owner.name}{' class' if class_side else ''} >> {selector}"
    python = owner.python
    if python is not None and is_public(python):
        found = rule.class_rule(python, selector) if class_side else rule.instance_rule(python, selector)
        if isinstance(found, Invocation):
            return f"{title}\n\n{_documentation(found, python)}"
    for above in owner.ancestors():
        method = (above.class_methods if class_side else above.methods).get(selector)
        if method is not None:
            text = method.text if isinstance(method, PreludeMethod) else inspect.getdoc(method)
            return f"{title}\n\n{text or '(a primitive without a comment)'}".rstrip()
    known = workspace.dispatcher.own_selectors(owner, class_side=class_side)
    if selector in known:
        return f"{title}\n\n(defined in this workspace)"
    raise SmalltalkError(f"{title} does not exist.", remedy=did_you_mean(selector, known, listing="It understands"))


def _documentation(found: Invocation, python: type) -> str:
    """The Python signature and docstring."""
    member = python if found.how is How.CONSTRUCT else inspect.getattr_static(python, found.name, None)
    if isinstance(member, (classmethod, staticmethod)):
        member = member.__func__
    name = python.__name__ if found.how is How.CONSTRUCT else found.name
    called = f"In Python: {name}{inspect.signature(member)}\n\n" if callable(member) else f"In Python: {name}\n\n"
    made = python.__dict__["__init__"].__doc__ if found.how is How.CONSTRUCT and "__init__" in python.__dict__ else None
    return (called + (inspect.getdoc(member) or "") + (f"\n\n{inspect.cleandoc(made)}" if made else "")).rstrip()
