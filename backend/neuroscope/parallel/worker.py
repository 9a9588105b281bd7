"""What a worker does: load the model of a chunk, once, check that it is the right one, and compute."""

from __future__ import annotations

import hashlib
import pickle
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from neuroscope import events
from neuroscope.engines.weights import WeightSnapshot
from neuroscope.errors import ArgumentError
from neuroscope.models.model import TransformerModel
from neuroscope.remedies import Remedy


@dataclass(frozen=True)
class Chunk:
    """`function(model, *arguments)`, with all that finds the model again.

    function: of a module, so that it travels by name. recipe: arguments of `TransformerModel.from_hugging_face`; None for a model that was
    made in memory. changes: the bits of weights that were written since. token: names the model in this very process.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    title: str
    weights_hash: str
    recipe: Mapping[str, Any] | None
    changes: tuple[WeightSnapshot, ...]
    token: str


@dataclass
class _Loaded:
    model: TransformerModel
    originals: dict[str, WeightSnapshot] = field(default_factory=dict)


#: Models of this process that gave work out, by token: threads use the model itself.
_here: weakref.WeakValueDictionary[str, TransformerModel] = weakref.WeakValueDictionary()
#: What was made for chunks of a model, by kind.
_kept: weakref.WeakKeyDictionary[TransformerModel, dict[str, tuple[str, Any]]] = weakref.WeakKeyDictionary()
#: The model that this worker loaded last, by recipe.
_loaded: dict[str, _Loaded] = {}


def offer(token: str, model: TransformerModel) -> None:
    """Let chunks with this token that run in this process use the model itself."""
    _here[token] = model


def run(chunk: Chunk) -> Any:
    """The value of a chunk. Raises `ArgumentError` where this worker has no such model, or another version of it."""
    with events.quietly():
        return chunk.function(_model(chunk), *chunk.arguments)


def kept(model: TransformerModel, what: str, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """What many chunks of one job need of a model, made at the first: the last of its kind for the model's weights as they are."""
    digest = hashlib.sha256(pickle.dumps((model.weights_hash, key))).hexdigest()
    held = _kept.setdefault(model, {})
    found = held.get(what)
    if found is None or found[0] != digest:
        held[what] = found = digest, make()
    return found[1]


def _model(chunk: Chunk) -> TransformerModel:
    own = _here.get(chunk.token)
    if own is not None:
        with own.engine.exclusive():  # another thread's chunk may be changing weights for now
            if own.weights_hash == chunk.weights_hash:
                return own
    if chunk.recipe is None:
        raise ArgumentError(
            f"{chunk.title} was made in memory, so a worker in another process cannot load it.",
            remedy=Remedy(
                "Save the model and load it with from_pretrained, or work in threads.",
                smalltalk="Save the model and load it with fromHuggingFace:, or work in threads.",
            ),
        )
    key = repr(sorted(chunk.recipe.items()))
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = _Loaded(TransformerModel.from_hugging_face(**chunk.recipe))
    found = _loaded[key]
    if found.model.weights_hash != chunk.weights_hash:
        _change(found, chunk.changes)
    if found.model.weights_hash != chunk.weights_hash:
        raise ArgumentError(
            f"A worker has another version of {chunk.title}: its weights are {found.model.weights_hash[:12]}…, not "
            f"{chunk.weights_hash[:12]}….",
            remedy="Give every worker the same files of the model.",
        )
    return found.model


def _change(found: _Loaded, changes: tuple[WeightSnapshot, ...]) -> None:
    """Write the changes over the weights as they were loaded."""
    for name, original in found.originals.items():
        found.model.weights(name).restore(original)
    for snapshot in changes:
        view = found.model.weights(snapshot.name)
        view.dequantise()  # it was, where it was changed
        found.originals.setdefault(snapshot.name, view.snapshot())
        view.restore(snapshot)
