"""Edits as transactions: applied whole and verified, or not at all; taken back bit for bit.

Every set of loaded weights has one ledger, whatever number of model objects runs on it. An edit applies to the weights that it was
made for: as they are now, or as they were before edits that touch other weights. Edits that share no number come off in any order;
of those that do, the last comes off first.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.editing.edit import WeightEdit
from neuroscope.engines.protocol import Engine, TokenBatch
from neuroscope.engines.weights import WeightSnapshot
from neuroscope.errors import ArgumentError, EditError

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

#: Tokens of the run that shows whether an edited model still computes numbers.
_CHECKED_TOKENS = 8


@dataclass(frozen=True)
class Applied:
    """An edit on the weights: what they were before, bit for bit, and the hash of the whole model then.

    here: the edit in the precision of the model's weights, which is another where it was made in another.
    """

    edit: WeightEdit
    here: WeightEdit
    before: Mapping[str, WeightSnapshot]
    weights_hash: str


_ledgers: weakref.WeakKeyDictionary[Engine, list[Applied]] = weakref.WeakKeyDictionary()


def ledger(model: TransformerModel) -> list[Applied]:
    """The edits on the model's weights, the oldest first."""
    return _ledgers.setdefault(model.engine, [])


def apply(model: TransformerModel, edit: WeightEdit, *, again: bool = False) -> None:
    """Apply an edit: snapshot, write, verify, note. Whatever fails, every bit is as it was, an interrupt included.

    Raises `EditError` for an edit of other weights, one that is applied already, and one after which the model no longer computes
    numbers; `SiteError` and `WeightError` for weights that the model does not have or that cannot be written. again: it was applied before,
    and only the weights that it touches must be those it was made for.
    """
    with model.engine.exclusive(), _uninterrupted() as end_if_interrupted:
        applied = ledger(model)
        if not again:
            _check_fits(model, edit, applied)
        here = edit.here(model)
        now = Applied(edit, here, {name: model.weights(name).snapshot() for name in edit.deltas}, model.weights_hash)
        after = edit.results(model)
        for weight in here.weights:
            if (now.before[weight.name].digest, after[weight.name].digest) != (weight.before, weight.after):
                raise EditError(
                    f"{weight.name} is not what {edit.title!r} was made for.", site=weight.name, remedy="Make the edit anew."
                )
        with _restoring(model, now.before):
            for name, snapshot in after.items():
                model.weights(name).restore(snapshot)
            _verify(model, here)
            end_if_interrupted()
        applied.append(now)


def revert(model: TransformerModel, edit: WeightEdit) -> None:
    """Take an edit back: its weights are, bit for bit, what they were.

    Raises `EditError` for an edit that is not applied, one that another lies above (it names that one), and where its weights were
    written by others since.
    """
    with model.engine.exclusive(), _uninterrupted():
        applied = ledger(model)
        at = _place(model, edit, applied)
        for above in applied[at + 1 :]:
            shared = _shared(model, edit, above.edit)
            if shared:
                raise EditError(
                    f"{above.edit.title!r} lies above {edit.title!r}: both touch {shared}.",
                    site=shared,
                    remedy=f"Revert {above.edit.title!r} first.",
                )
        for weight in applied[at].here.weights:
            if model.weights(weight.name).snapshot().digest != weight.after:
                raise EditError(
                    f"{weight.name} was written after {edit.title!r} was applied, so taking the edit back would undo that too.",
                    site=weight.name,
                    remedy="Restore what you wrote from its own snapshot first, or load the model anew.",
                )
        current = {name: model.weights(name).snapshot() for name in edit.deltas}
        with _restoring(model, current):
            for name, snapshot in applied[at].before.items():
                model.weights(name).restore(snapshot)
        del applied[at]


@contextmanager
def applied_for_now(model: TransformerModel, edit: WeightEdit) -> Iterator[None]:
    """The edit on the model while the block runs. Afterwards every bit is as it was, whatever ended the block.

    Raises what `apply` raises. An edit that is on the model already is left there.
    """
    if any(entry.edit is edit for entry in ledger(model)):
        yield
        return
    try:
        apply(model, edit)
        yield
    finally:
        if any(entry.edit is edit for entry in ledger(model)):
            revert(model, edit)


@contextmanager
def unedited(model: TransformerModel) -> Iterator[None]:
    """The model without its edits while the block runs; afterwards they are applied again, whatever ended the block.

    Raises what `revert` raises.
    """
    entries = [entry.edit for entry in ledger(model)]
    try:
        for edit in entries[::-1]:
            revert(model, edit)
        yield
    finally:
        there = [entry.edit for entry in ledger(model)]
        for edit in entries[len(there) :]:
            apply(model, edit, again=True)


_watchers: weakref.WeakKeyDictionary[Engine, list[Callable[[], bool]]] = weakref.WeakKeyDictionary()


def watch(model: TransformerModel, watcher: Callable[[], bool]) -> None:
    """Call a function after every edit that a user applies or reverts, until it answers that it is done for."""
    _watchers.setdefault(model.engine, []).append(watcher)


def changed(model: TransformerModel) -> None:
    """Tell those who watch that edits were applied or reverted."""
    watchers = _watchers.get(model.engine, [])
    watchers[:] = [watcher for watcher in watchers if watcher()]


def _check_fits(model: TransformerModel, edit: WeightEdit, applied: list[Applied]) -> None:
    if any(entry.edit is edit for entry in applied):
        raise EditError(f"{edit.title!r} is applied already.", remedy="`model edits` lists what is.")
    made_for = edit.provenance.weights_hash
    if model.weights_hash == made_for:
        return
    since = next((at for at, entry in enumerate(applied) if entry.weights_hash == made_for), None)
    if since is None:
        raise EditError(
            f"{edit.title!r} was made for {edit.provenance.title} (weights {made_for[:12]}…), not for {model.title} as it is "
            f"(weights {model.weights_hash[:12]}…).",
            remedy="Make the edit on these weights, or load the model and revert the edits that it did not have.",
        )
    for entry in applied[since:]:
        shared = _shared(model, edit, entry.edit)
        if shared:
            raise EditError(
                f"{edit.title!r} was made before {entry.edit.title!r} was applied, and both touch {shared}.",
                site=shared,
                remedy=f"Make it anew, or revert {entry.edit.title!r} first.",
            )


def _shared(model: TransformerModel, one: WeightEdit, other: WeightEdit) -> str | None:
    """A weight of `one` that shares numbers with one of `other`."""
    others = [model.weights(name) for name in other.deltas]
    return next((name for name in one.deltas if any(model.weights(name).overlaps(view) for view in others)), None)


def _place(model: TransformerModel, edit: WeightEdit, applied: list[Applied]) -> int:
    for at, entry in enumerate(applied):
        if entry.edit is edit or entry.edit.weights == edit.weights:
            return at
    raise EditError(
        f"{edit.title!r} is not applied to {model.title}.",
        remedy="Applied are: " + ", ".join(repr(entry.edit.title) for entry in applied) + "." if applied else "No edit is.",
    )


def _verify(model: TransformerModel, edit: WeightEdit) -> None:
    """Raise `EditError` unless the weights hold the edit and the model computes numbers with it."""
    for weight in edit.weights:
        if model.weights(weight.name).snapshot().digest != weight.after:
            raise EditError(f"{weight.name} did not take {edit.title!r} as it was written.", site=weight.name)
    tokens = np.arange(min(_CHECKED_TOKENS, model.architecture.vocabulary))[None]
    run = model.engine.forward(TokenBatch(tokens, np.ones_like(tokens, dtype=np.bool_)))
    if not model.engine.ops.is_finite(run.logits):
        raise EditError(
            f"With {edit.title!r} the logits of {model.title} are NaN or infinite.", remedy="Make a smaller change."
        )


@contextmanager
def _restoring(model: TransformerModel, before: Mapping[str, WeightSnapshot]) -> Iterator[None]:
    """Put the weights back where the block fails."""
    try:
        yield
    except BaseException as error:
        lost = []
        for name, snapshot in before.items():
            try:
                model.weights(name).restore(snapshot)
            except Exception as another:  # the others are put back all the same
                lost.append(f"{name} ({another})")
        if lost:
            raise EditError(
                f"An edit failed ({error}), and these weights could not be put back: {', '.join(lost)}.",
                remedy="Load the model anew.",
            ) from error
        raise


@contextmanager
def _uninterrupted() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C and termination wait until the block has ended, or calls the function that it gets.

    Only the main thread gets them as exceptions, so elsewhere there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    waiting: list[tuple[int, Any]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = [number for number, handler in handlers.items() if callable(handler)]

    def end_if_interrupted() -> None:
        if waiting:
            number, frame = waiting.pop(0)
            handlers[signal.Signals(number)](number, frame)  # type: ignore[operator, misc]

    try:
        for number in held:
            signal.signal(number, lambda number, frame: waiting.append((number, frame)))
        yield end_if_interrupted
    finally:
        for number in held:
            signal.signal(number, handlers[number])
        end_if_interrupted()


def as_edit(proposed: object) -> WeightEdit:
    """The edit of whatever proposes one. Raises `ArgumentError` for anything else."""
    found = getattr(proposed, "edit", None)
    if not isinstance(found, WeightEdit):
        raise ArgumentError(
            f"{proposed!r} is not an edit.", remedy="Give what KnowledgeEditor, WeightTransform or `WeightEdit load:` answers."
        )
    return found
