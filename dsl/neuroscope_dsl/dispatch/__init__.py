"""The one place through which Smalltalk messages reach Python: the DSL and the bridge both send through it.

`rule` states how a selector finds an operation of a vocabulary class, `invoke` turns what was found into a fast
callable, `dispatcher` looks up methods of all kinds of receivers and remembers what it found.
"""

from neuroscope_dsl.dispatch.dispatcher import Dispatcher, Vocabulary

__all__ = ["Dispatcher", "Vocabulary"]
