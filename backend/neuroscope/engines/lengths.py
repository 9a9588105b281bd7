"""How long a continuation may be."""

from __future__ import annotations

from neuroscope.errors import ArgumentError


def new_tokens(context: int, prompt: int, asked: int | None, usual: int) -> int:
    """How many tokens to generate behind a prompt of so many: those asked for, else `usual` or as many as there is room for.

    A context of 0 has room for any number. Raises `ArgumentError` where there is none, or not enough for those asked for.
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
