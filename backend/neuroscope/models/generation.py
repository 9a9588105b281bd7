"""Generated text: streaming tokens as text, stop strings, and why a generation ends.

A token's text is emitted when it is certain: incomplete characters, and text that may begin a stop string, wait for the next
token.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from neuroscope import events
from neuroscope.engines.protocol import Array, Edit, Engine, GenerationSettings, Step, TokenBatch
from neuroscope.models.text import decoded, shared
from neuroscope.models.token_texts import TokenTexts

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


@dataclass
class Continuation:
    """The continuation of a row of a batch, up to its end token or stop string.

    If a stop string begins in the middle of a token, `ids` has the token, and `text` is cut.
    """

    ids: list[int] = field(default_factory=list)
    text: str = ""
    ended: bool = False


def continued(
    engine: Engine,
    tokenizer: Any,
    batch: TokenBatch,
    settings: GenerationSettings,
    edits: Sequence[Edit] = (),
    kept: list[Array] | None = None,
) -> list[Continuation]:
    """The continuation of each row. `kept` takes every step's logits."""
    ends = {-1, *settings.end_tokens}
    rows = [Continuation() for _ in range(batch.rows)]
    texts = [TextStream(tokenizer, ids[real], settings.stop) for ids, real in zip(batch.ids, batch.real, strict=True)]
    starts: list[list[int]] = [[] for _ in rows]  # for each token, the number of characters before it
    with closing(engine.generate(batch, settings, edits=edits)) as steps:
        for step in steps:
            events.check_cancelled()
            if kept is not None:
                kept.append(step.logits)
            for row, text, start, token in zip(rows, texts, starts, step.tokens.tolist(), strict=True):
                row.ended = row.ended or token in ends
                if row.ended:
                    continue
                row.ids.append(token)
                start.append(text.offset)
                row.text += text.add(token)
                if text.stopped:
                    row.ended = True
                    row.ids = [id_ for id_, at in zip(row.ids, start, strict=True) if at < len(row.text)]
            if all(row.ended for row in rows):
                break
    for row, text in zip(rows, texts, strict=True):
        row.text += "" if text.stopped else text.rest()
    return rows


@dataclass(frozen=True)
class Written:
    """One generated token of a prompt's continuation.

    `text` is the text that it made certain; `offset` counts the continuation's characters before the token. `finish` is "stop"
    (an end token or a stop string) or "length" on the last one.
    """

    step: Step
    id: int
    text: str
    offset: int
    finish: str | None


def written(steps: Generator[Step], text: TextStream, settings: GenerationSettings) -> Generator[Written]:
    """The tokens of one prompt's generation with their texts, the last with its reason to end. Closes `steps`."""
    with closing(steps):
        for step in steps:
            token, offset = int(step.tokens[0]), text.offset
            ended = token in settings.end_tokens
            shown = "" if ended else text.add(token)
            finish = "stop" if ended or text.stopped else "length" if step.index == settings.max_tokens - 1 else None
            if finish is not None and not text.stopped:
                shown += text.rest()
            yield Written(step, token, shown, offset, finish)


class TextStream:
    """Streams generated tokens as text.

    A window of recent tokens is decoded with and without the new one, and the difference is the new text. So the text is that
    of decoding everything, even if a token's text depends on the token before (spaces, bytes of one character). Special tokens
    are left out of the text, but stop strings are searched for in them too.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens = TokenTexts.of(tokenizer)
        self._stops = [stop for stop in stops if stop]
        self._ids = list(prompt)
        self._from, self._read = 0, len(self._ids)
        self._held = ""
        self._shown: list[bool] = []  # for each held character, whether it is part of the text
        self.offset = 0  # characters decoded so far, including held ones
        self.stopped = False

    def add(self, id_: int) -> str:
        """The text that is certain now."""
        if self._tokens.is_special(id_):
            self._hold(self._pending(), shown=True)
            self._ids.append(id_)
            self._read = len(self._ids)
            self._hold(self._tokens.text(id_), shown=False)
            return self._release()
        self._ids.append(id_)
        new = self._pending()
        if not new or new.endswith(_INCOMPLETE):
            return ""
        self._from, self._read = self._read, len(self._ids)
        self._hold(new, shown=True)
        return self._release()

    def rest(self) -> str:
        """The text held back, at the end."""
        self._hold(self._pending(), shown=True)
        self._read = len(self._ids)
        return self._taken(len(self._held))

    def _pending(self) -> str:
        """The text of the tokens not yet emitted."""
        if self._read == len(self._ids):
            return ""
        known = decoded(self._tokenizer, self._ids[self._from : self._read])
        now = decoded(self._tokenizer, self._ids[self._from :])
        return now[shared(known, now) :]

    def _hold(self, text: str, *, shown: bool) -> None:
        self._held += text
        self._shown += [shown] * len(text)
        self.offset += len(text) if shown else 0

    def _release(self) -> str:
        """Remove and return the text in which no stop string can begin; before a complete stop string, all of it."""
        if not self._stops:
            return self._taken(len(self._held))
        # Searched for in the text with and without special tokens.
        places = [at for at, shown in enumerate(self._shown) if shown]
        texts = [(self._held, range(len(self._held))), ("".join(self._held[at] for at in places), places)]
        cuts = [where[at] for text, where in texts for stop in self._stops if (at := text.find(stop)) >= 0]
        if cuts:
            self.stopped = True
            return self._taken(min(cuts))
        begun = [where[-length] for text, where in texts for stop in self._stops if (length := overlap(text, stop))]
        return self._taken(min(begun, default=len(self._held)))

    def _taken(self, count: int) -> str:
        taken = "".join(character for character, shown in zip(self._held[:count], self._shown, strict=False) if shown)
        self._held, self._shown = self._held[count:], self._shown[count:]
        return taken


def overlap(text: str, stop: str) -> int:
    """Number of characters at the end of `text` that begin `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
