"""Forms of an answer: by value, as a handle, as plain data, as a tensor or a slice of it, as a summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import ArgumentError, did_you_mean
from neuroscope.results import Result, plain
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope_bridge.wire.errors import ProtocolError
from neuroscope_bridge.wire.messages import FORMS, shown

if TYPE_CHECKING:
    from neuroscope_bridge.host.session import Session


def check_form(wanted: Mapping[str, Any]) -> None:
    """Raise `ProtocolError` for anything other than a form and a slice, before anything runs."""
    for key in wanted:
        if key not in ("form", "slice"):
            raise ProtocolError(f"answer has no field {shown(key)}.", remedy=did_you_mean(shown(key), ("form", "slice")))
    form = wanted.get("form", "auto")
    if form not in FORMS:
        raise ProtocolError(f"There is no form {shown(form)}.", remedy=did_you_mean(shown(form), FORMS, listing="Forms"))
    if wanted.get("slice") is not None:
        if form not in ("tensor", "summary"):
            raise ProtocolError(f"A slice needs the form tensor or summary, not {form}.")
        _indices(wanted["slice"])


def answer(session: Session, value: Any, wanted: Mapping[str, Any]) -> Any:
    """`value` in the form that `wanted` names."""
    match wanted.get("form", "auto"):
        case "handle":
            return session.exporter.handle(value)
        case "value":
            return value if isinstance(value, np.ndarray) else plain(value)
        case "tensor":
            return _sliced(value, wanted.get("slice"))
        case "summary":
            if isinstance(value, Result):
                return value.summary()
            return summary(_sliced(value, wanted.get("slice")))
        case "string":
            return session.workspace.print_string(value)
    return session.exporter.value(value)


def summary(array: NDArray[Any]) -> dict[str, Any]:
    """An array in a few numbers; nil without elements."""
    there = array.size > 0
    wide = array.astype(np.float64)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "mean": float(wide.mean()) if there else None,
        "std": float(wide.std()) if there else None,
        "min": float(wide.min()) if there else None,
        "max": float(wide.max()) if there else None,
        "norm": float(np.linalg.norm(wide)) if there else None,
    }


def _sliced(value: Any, wanted: Any) -> NDArray[Any]:
    if isinstance(value, ActivationTensor):
        array = value.numpy()
    elif isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, (list, tuple)):
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                "This collection is not a tensor.", remedy="Its elements must be numbers, evenly nested."
            ) from error
    else:
        raise ArgumentError(f"A {type(value).__name__} is not a tensor.", remedy="Ask for it in the form value or summary.")
    if wanted is None:
        return array
    try:
        return np.asarray(array[_indices(wanted)])
    except IndexError as error:
        raise ArgumentError(
            f"The slice {shown(wanted)} does not fit the shape {array.shape}.", remedy="One entry per axis, zero-based."
        ) from error


def _indices(wanted: Any) -> tuple[Any, ...]:
    if not isinstance(wanted, list):
        raise ProtocolError("A slice must be an array with one entry per axis.")
    return tuple(_index(entry) for entry in wanted)


def _index(entry: Any) -> Any:
    def whole(part: Any) -> bool:
        return isinstance(part, int) and not isinstance(part, bool)

    if entry is None:
        return slice(None)
    if whole(entry):
        return entry
    if isinstance(entry, list) and 2 <= len(entry) <= 3 and all(part is None or whole(part) for part in entry):
        if entry[2:] and entry[2] == 0:
            raise ProtocolError("A slice cannot have a step of 0.")
        return slice(*entry)
    raise ProtocolError(
        f"{shown(entry)} is not a slice of an axis.", remedy="nil, an integer, [start, stop] or [start, stop, step]"
    )
