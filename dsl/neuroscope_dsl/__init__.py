"""NeuroScope's Smalltalk: parser, compiler, class library and the dispatcher of messages.

Start with `Workspace`; `parse` and `unparse` are for tools that work on programs.
"""

from neuroscope_dsl.errors import SmalltalkError, SmalltalkSyntaxError
from neuroscope_dsl.limits import Limits
from neuroscope_dsl.workspace import Workspace

__all__ = ["Limits", "SmalltalkError", "SmalltalkSyntaxError", "Workspace"]
