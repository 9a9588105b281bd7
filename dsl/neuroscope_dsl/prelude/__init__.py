"""The part of the class library that is written in Smalltalk: `*.st` in this folder.

A file holds class comments (`Bag comment: '…'.`) and method definitions as in scripts. Importing the library only finds the
definitions; a method is parsed and compiled when it is first sent, once for all workspaces, and linked with each workspace that
uses it. An error inside such a method shows the place in the script that sent it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from neuroscope_dsl import nodes
from neuroscope_dsl.compiler.generator import ARITHMETIC, sender_name
from neuroscope_dsl.compiler.scopes import MethodContext, walk
from neuroscope_dsl.compiler.unit import Unit, method_unit
from neuroscope_dsl.parser import parse
from neuroscope_dsl.runtime.classes import LIBRARY
from neuroscope_dsl.source import Source

FOLDER = Path(__file__).parent

_DEFINITION = re.compile(r"^(\w+)( class)? >> (.+)\n((?:[ \t].*\n|\n)*)", re.MULTILINE)
_COMMENT = re.compile(r"^(\w+) comment: '((?:[^']|'')*)'\.$", re.MULTILINE)
_KEYWORD = re.compile(r"\w+:")


class PreludeMethod:
    """One method: its class, its text, and its compiled code."""

    def __init__(self, class_name: str, class_side: bool, selector: str, text: str, file: str) -> None:
        self.class_name = class_name
        self.class_side = class_side
        self.selector = selector
        self.text = text
        self.file = file

    @cached_property
    def tree(self) -> nodes.MethodDefinition:
        (definition,) = parse(self._source).items
        assert isinstance(definition, nodes.MethodDefinition)
        return definition

    @cached_property
    def sent(self) -> tuple[str, ...]:
        """The selectors whose senders the code calls."""
        parts = walk(self.tree)
        found = {part.selector for part in parts if isinstance(part, (nodes.Send, nodes.Message))}
        return tuple(found.difference(ARITHMETIC))

    @cached_property
    def unit(self) -> Unit:
        context = MethodContext.of(LIBRARY[self.class_name], self.class_side, self.selector)
        return method_unit(self.tree, context, self._source, self, f"<{self.file}>")

    @cached_property
    def _source(self) -> Source:
        return Source(self.text, self.file)

    # --- what the compiler asks -----------------------------------------------------------------------------------

    def sender_name(self, selector: str) -> str:
        return sender_name(selector)

    def is_class(self, name: str) -> bool:
        return name in LIBRARY


def definitions() -> Iterator[PreludeMethod]:
    """All methods of the prelude, in the order of its files."""
    for path in sorted(FOLDER.glob("*.st")):
        for match in _DEFINITION.finditer(path.read_text(encoding="utf-8")):
            class_name, meta, pattern, _ = match.groups()
            selector = "".join(_KEYWORD.findall(pattern)) or pattern.split()[0]
            yield PreludeMethod(class_name, bool(meta), selector, match.group(), path.name)


def install() -> None:
    """Add comments and Smalltalk methods to the library's classes."""
    for method in definitions():
        owner = LIBRARY[method.class_name]
        methods = owner.class_methods if method.class_side else owner.methods
        assert method.selector not in methods, f"{owner.name} has two methods {method.selector}"
        methods[method.selector] = method
    for path in FOLDER.glob("*.st"):
        for match in _COMMENT.finditer(path.read_text(encoding="utf-8")):
            LIBRARY[match.group(1)].comment = match.group(2).replace("''", "'")
