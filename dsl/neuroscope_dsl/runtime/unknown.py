"""Errors for unbound names, with near names and how to bind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from neuroscope.errors import did_you_mean, nearest
from neuroscope.vocabulary import planned
from neuroscope_dsl.runtime.classes import LIBRARY
from neuroscope_dsl.runtime.exceptions import UnknownClass, UnknownVariable

#: Key of the vocabulary's class names in a workspace's globals.
CLASS_NAMES = "__class_names__"


def unknown_class(name: str, known: Iterable[str], what: str = "class") -> UnknownClass:
    """The error for a missing class, which may be planned."""
    to_come = planned(name)
    if to_come is not None:
        return UnknownClass(to_come, remedy="`neuroscope run` runs the scripts whose classes exist.")
    return UnknownClass(f"There is no {what} named {name}.", remedy=did_you_mean(name, known, listing="Classes"))


def unknown_name(name: str, variables: Mapping[str, Any]) -> UnknownVariable:
    """The error for an unbound name; `variables` are the workspace's globals."""
    bound = [key[2:] for key in variables if key.startswith("v_")]
    classes = [*variables.get(CLASS_NAMES, ()), *LIBRARY]
    if name[:1].isupper():
        return unknown_class(name, {*classes, *(key for key in bound if key[:1].isupper())}, "class or variable")
    close = nearest(name, bound)
    hint = f"Did you mean {' or '.join(close)}? Otherwise bind it" if close else "Bind it"
    value, model = ("TransformerModel fromHuggingFace: 'gpt2-medium'", "--model NAME or ") if name == "model" else ("…", "")
    return UnknownVariable(
        f"The variable {name} is not bound.",
        remedy=f"{hint}: {name} := {value} earlier in the same run; or start it with {model}--bind {name}=VALUE.",
    )
