"""Remedies that speak the language of the door through which an error is met: Python, Smalltalk, a command, a request.

    ArgumentError("…", remedy=call("TransformerModel", "from_hugging_face", "gpt2-medium", dtype="bfloat16"))

is `TransformerModel.from_hugging_face('gpt2-medium', dtype='bfloat16')` to somebody in Python, and in a script
`TransformerModel fromHuggingFace: 'gpt2-medium' dtype: 'bfloat16'`. `Remedy` takes each wording by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from neuroscope.errors import Remedy
from neuroscope.naming import camel_case

__all__ = ["Name", "Remedy", "call", "install"]


class Name(str):
    """A variable in an example call, written without quotes."""

    __slots__ = ()


def call(
    receiver: str, message: str, /, *first: Any, shell: str | None = None, http: str | None = None, **named: Any
) -> Remedy:
    """An example call, in Python and in Smalltalk. first: at most one value; named: the others, in order.

    >>> call("model", "analyze", "logit_lens", on="The sky is").at("smalltalk")
    "model analyze: 'logit_lens' on: 'The sky is'"
    """
    spoken = [*map(_python, first), *(f"{name}={_python(value)}" for name, value in named.items())]
    parts = [f"{camel_case(message)}:" if first else camel_case(message), *map(_smalltalk, first)]
    for name, value in named.items():
        parts += [f"{camel_case(name)}:", _smalltalk(value)]
    return Remedy(f"{receiver}.{message}({', '.join(spoken)})", smalltalk=" ".join([receiver, *parts]), shell=shell, http=http)


#: How another engine is chosen.
TORCH = Remedy(
    "engine='torch'.", smalltalk="engine: 'torch'.", shell="--engine torch.", http="`neuroscope serve --engine torch`."
)


def install(extra: str) -> Remedy:
    """How to install an extra of the package: here, or where the models are."""
    command = f"pip install 'neuroscope-interp[{extra}]'"
    there = f"Where the models run: {command}"
    return Remedy(command, smalltalk=there, http=f"On the server's machine: {command}")


def _python(value: Any) -> str:
    return str(value) if isinstance(value, Name) else repr(value)


def _smalltalk(value: Any) -> str:
    if isinstance(value, Name):
        return str(value)
    if value is None or isinstance(value, bool):
        return {None: "nil", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, Mapping):
        return "{" + ". ".join(f"{_smalltalk(key)} -> {_smalltalk(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"#({' '.join(map(_smalltalk, value))})"
    return f"({value})" if isinstance(value, Fraction) else str(value)


#: How to see whether a model can do a task.
MEASURED = Remedy(
    "neuroscope.tasks.evaluate.evaluate(model) measures it.",
    smalltalk="`neuroscope evaluate` measures it.",
    shell="`neuroscope evaluate` measures it.",
)
