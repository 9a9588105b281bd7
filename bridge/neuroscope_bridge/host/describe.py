"""Descriptions of vocabulary classes as data, for completion, inspectors and clients in other languages."""

from __future__ import annotations

import inspect
from typing import Any

from neuroscope.naming import camel_case
from neuroscope.vocabulary import Kind, Operation, is_public, operations
from neuroscope_dsl.dispatch import rule
from neuroscope_dsl.runtime.classes import SmalltalkClass


def describe(described: SmalltalkClass) -> dict[str, Any]:
    """Name, comment, superclass and operations of a class."""
    python = described.python
    parent = described.superclass
    return {
        "name": described.name,
        "comment": inspect.getdoc(python) if python is not None and described.vocabulary else None,
        "superclass": None if parent is None else parent.name,
        "operations": _operations(python) if python is not None and is_public(python) else [],
    }


def _operations(python: type) -> list[dict[str, Any]]:
    found = [_operation(python, operation) for operation in operations(python).values()]
    selectors = rule.constructor_selectors(python)
    if selectors:
        parameters = [p for p in inspect.signature(python).parameters if not p.startswith("_")]
        made = {"name": "new", "kind": "constructor", "comment": None, "parameters": parameters, "selectors": list(selectors)}
        found.append(made)
    return found


def _operation(python: type, operation: Operation) -> dict[str, Any]:
    name, kind = operation.name, operation.kind
    camel = camel_case(name)
    parameters: list[str] = []
    selectors = [camel, f"{camel}:"] if operation.writable else [camel]
    if kind in (Kind.METHOD, Kind.CLASS_METHOD):
        member = inspect.getattr_static(python, name)
        signature = inspect.signature(member.__func__ if isinstance(member, classmethod) else member)
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
        parameters = [p for p in signature.parameters if not p.startswith("_")]
        selectors = list(rule.method_selectors(name, signature))
    comment = None if kind is Kind.ATTRIBUTE else inspect.getdoc(getattr(python, name, None))
    return {"name": name, "kind": kind.value, "comment": comment, "parameters": parameters, "selectors": selectors}
