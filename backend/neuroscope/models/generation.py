"""What a model writes: tokens to text as they come, stop texts, and why a generation ends.

A token's text is told when it is certain: characters that are still incomplete, and text that may be the beginning of a stop
text, wait for the next token.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """What a row of a batch goes on with, up to its end token or stop text.

    A token that a stop text begins in the middle of is one of `ids`; in `text` it is cut.
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
    """How each row goes on, each to an end of its own. `kept` takes every step's logits."""
    ends = {-1, *settings.end_tokens}
    rows = [Continuation() for _ in range(batch.rows)]
    texts = [TextStream(tokenizer, ids[real], settings.stop) for ids, real in zip(batch.ids, batch.real, strict=True)]
    starts: list[list[int]] = [[] for _ in rows]  # of each token, the characters before it
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

    `text` has become certain with it; `offset` counts the continuation's characters before the token's own. `finish` is
    "stop" (an end token or a stop text) or "length" on the last one.
    """

    step: Step
    id: int
    text: str
    offset: int
    finish: str | None


class TextStream:
    """Tokens to text as they come, behind their prompt.

    A window of recent tokens is decoded twice, with and without the new one, and the difference is the new text: so a
    tokenizer whose text depends on the token before (spaces, bytes of one character) gives the text that it gives whole.
    Special tokens are not part of the text, but of what stop texts are looked for in.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens = TokenTexts.of(tokenizer)
        self._stops = [stop for stop in stops if stop]
        self._ids = list(prompt)
        self._from, self._read = 0, len(self._ids)
        self._held = ""
        self._shown: list[bool] = []  # of each held character, whether it is part of the text
        self.offset = 0  # characters decoded so far, held ones too
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
        """What was held back, when nothing follows."""
        self._hold(self._pending(), shown=True)
        self._read = len(self._ids)
        return self._taken(len(self._held))

    def _pending(self) -> str:
        """The text of the tokens that were not read yet."""
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
        """Take out what no stop text can begin in; all before a stop text that is whole."""
        if not self._stops:
            return self._taken(len(self._held))
        # Looked for both in what is shown and in that with its special tokens.
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
    """How many characters at the end of `text` begin `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
