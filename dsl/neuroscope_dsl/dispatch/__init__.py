"""Sends Smalltalk messages to Python objects, for the DSL and the bridge.

`rule` maps a selector to an operation of a vocabulary class, `invoke` makes a fast callable of it, `dispatcher` looks up
methods for all kinds of receivers and caches them.
"""

from neuroscope_dsl.dispatch.dispatcher import Dispatcher, Vocabulary

__all__ = ["Dispatcher", "Vocabulary"]
