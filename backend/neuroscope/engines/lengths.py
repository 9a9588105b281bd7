"""The length of a continuation."""

from __future__ import annotations

from neuroscope.errors import ArgumentError


def new_tokens(context: int, prompt: int, asked: int | None, usual: int) -> int:
    """How many tokens to generate after `prompt` tokens: `asked`, else `usual` or as many as fit.

    A context of 0 is unlimited. Raises `ArgumentError` if the prompt fills the context, or if `asked` does not fit.
    """
    if not context:
        return usual if asked is None else asked
    room = context - prompt
    if room < 1:
        raise ArgumentError(
            f"The prompt's {prompt} tokens fill the model's context of {context}.", remedy="Shorten the prompt."
        )
    if asked is not None and asked > room:
        raise ArgumentError(
            f"{prompt} prompt tokens and {asked} new ones exceed the model's context of {context}.",
            remedy=f"Ask for at most {room} new tokens.",
        )
    return min(usual, room) if asked is None else asked
