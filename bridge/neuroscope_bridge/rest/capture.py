"""Activations captured during a generation, limited to what was requested and to the largest size.

The prompt's tokens run in the first step, each generated token in the step after the one that chose it; so N tokens after a
prompt of P have activations for P + N - 1 positions. Positions are the first axis of every array, except attention patterns and
scores, whose first axis is the head unless one head was requested. Keys later than a step are zero there. Logits start at the
prompt's last token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.engines.protocol import ArrayOps, Step
from neuroscope.engines.sites import ATTENTION_MATRICES, PER_HEAD, PER_KEY_VALUE_HEAD, Component
from neuroscope.errors import SiteError
from neuroscope_bridge.rest.errors import TooLargeError
from neuroscope_bridge.rest.hooks import Capture, vector_width

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

Floats = NDArray[Any]

#: Bytes of a number in each encoding, in JSON with its comma.
_JSON_BYTES = 14
_BASE64 = 4 / 3


@dataclass(frozen=True)
class Captured:
    """One hook's activations: an array, or only its statistics. `first` is the position of the first row."""

    capture: Capture
    axes: tuple[str, ...]
    first: int
    shape: tuple[int, ...]
    array: Floats | None
    statistics: dict[str, float] | None

    def about(self) -> dict[str, Any]:
        """Everything except the values."""
        site, spec = self.capture.site, self.capture.spec
        return {
            "site": str(site),
            "layer": site.layer,
            "component": site.component.value,
            "axes": list(self.axes),
            "shape": list(self.shape),
            "dtype": spec.dtype,
            "first_position": self.first,
            **({"statistics": self.statistics} if self.statistics is not None else {}),
        }


def check_size(model: TransformerModel, captures: Sequence[Capture], prompt: int, new: int, encoding: str, most: int) -> int:
    """The size of an answer in bytes. Raises `TooLargeError`, before computing, for one that would be too large."""
    total = 0.0
    for capture in captures:
        numbers = _numbers(model, capture, prompt, new)
        size = {"json": _JSON_BYTES, "npy": _item(capture) * _BASE64}.get(encoding, _item(capture))
        total += numbers * size
    if total > most:
        raise TooLargeError(
            f"The activations of {len(captures)} hooks over up to {prompt + new - 1} positions would take "
            f"{total / 2**20:,.0f} MiB as {encoding}, but {most / 2**20:,.0f} MiB are allowed.",
            remedy="Request fewer layers, `positions`, `features`, a `head`, dtype float16, `statistics_only`, fewer "
            "max_tokens, or Accept: application/msgpack.",
        )
    return math.ceil(total)


def _item(capture: Capture) -> int:
    return 2 if capture.spec.dtype == "float16" else 4


def _numbers(model: TransformerModel, capture: Capture, prompt: int, new: int) -> int:
    spec, site = capture.spec, capture.site
    if spec.statistics_only:
        return 16
    first, end = _span(spec.positions, prompt)
    positions = max(0, int(min(end, prompt + new - 1)) - first)
    width = prompt + new - 1 if site.component in ATTENTION_MATRICES else vector_width(site, model)
    if spec.features is not None:
        width = len(spec.features)
    if site.neuron is not None:
        return positions
    anatomy = model.architecture
    heads = anatomy.heads if site.component in PER_HEAD else anatomy.key_value_heads
    per_head = site.head is None and (site.component in PER_HEAD or site.component in PER_KEY_VALUE_HEAD)
    return positions * width * (heads if per_head else 1)


def _span(positions: str | list[int | None], prompt: int) -> tuple[int, float]:
    """The first requested position, and the first after the last."""
    match positions:
        case "all":
            return 0, math.inf
        case "prompt":
            return 0, prompt
        case "generated":
            return prompt, math.inf
        case "last":
            return prompt - 1, prompt
        case [start, stop]:
            return start or 0, math.inf if stop is None else stop
    raise AssertionError(positions)


class Gatherer:
    """One hook's activations, step by step."""

    def __init__(self, capture: Capture, model: TransformerModel, prompt: int) -> None:
        self.capture = capture
        self._ops: ArrayOps = model.engine.ops
        self._prompt = prompt
        self._span = _span(capture.spec.positions, prompt)
        self._parts: list[Floats] = []
        self._first: int | None = None
        self._statistics = _Statistics() if capture.spec.statistics_only else None
        site, spec = capture.site, capture.spec
        self._matrix = site.component in ATTENTION_MATRICES
        self._axis = 1 if self._matrix and site.head is None else 0
        self.axes = _axes(capture)
        if spec.features is not None and not self._matrix:
            width = vector_width(site, model)
            if site.neuron is not None or max(spec.features) >= width:
                raise SiteError(
                    f"There are no features {max(spec.features)} of {site}: it is {width} wide.",
                    site=site,
                    remedy=f"Features run from 0 to {width - 1}; a single neuron has no features.",
                )

    def add(self, step: Step) -> Captured | None:
        """Add a step. Return its part, or None if none of its positions was requested."""
        whole = self._ops.to_numpy(step.activations[self.capture.site])[0]
        first = 0 if step.index == 0 else self._prompt + step.index - 1
        if self.capture.site.component is Component.LOGITS:  # computed only where the next token is chosen
            whole, first = whole[None], self._prompt + step.index - 1
        count = whole.shape[self._axis]
        spec = self.capture.spec
        low = max(0, self._span[0] - first)
        high = int(min(count, self._span[1] - first))
        if low >= high:
            return None
        if high - low < count:
            whole = whole.take(range(low, high), axis=self._axis)
        if spec.features is not None:
            if self._matrix:
                keys = [key for key in spec.features if key < whole.shape[-1]]
                picked = np.zeros((*whole.shape[:-1], len(spec.features)), whole.dtype)
                picked[..., [spec.features.index(key) for key in keys]] = whole[..., keys]
                whole = picked
            else:
                whole = whole[..., spec.features]
        start = first + low
        if self._first is None:
            self._first = start
        if self._statistics is not None:
            self._statistics.add(whole, self._axis)
            own = _Statistics()
            own.add(whole, self._axis)
            return Captured(self.capture, self.axes, start, whole.shape, None, own.answer())
        # a copy: the engine's array may be a view of a larger one
        array = whole.astype(spec.dtype, copy=True)
        return Captured(self.capture, self.axes, start, array.shape, array, None)

    def keep(self, captured: Captured | None) -> None:
        """Store a step's part for `whole`."""
        if captured is not None and captured.array is not None:
            self._parts.append(captured.array)

    def whole(self) -> Captured:
        """All stored parts as one array."""
        first = self._first or 0
        if self._statistics is not None:
            shape = self._statistics.shape
            return Captured(self.capture, self.axes, first, shape, None, self._statistics.answer())
        if not self._parts:
            array = np.zeros((0,), self.capture.spec.dtype)
        elif self._matrix and self.capture.spec.features is None:
            width = max(part.shape[-1] for part in self._parts)
            parts = [np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])]) for part in self._parts]
            array = np.concatenate(parts, axis=self._axis)
        else:
            array = np.concatenate(self._parts, axis=self._axis)
        return Captured(self.capture, self.axes, first, array.shape, array, None)


def _axes(capture: Capture) -> tuple[str, ...]:
    site = capture.site
    if site.component in ATTENTION_MATRICES:
        return ("position", "key") if site.head is not None else ("head", "position", "key")
    if site.component in PER_HEAD or site.component in PER_KEY_VALUE_HEAD:
        return ("position", "feature") if site.head is not None else ("position", "head", "feature")
    if site.neuron is not None:
        return ("position",)
    return ("position", "token" if site.component is Component.LOGITS else "feature")


class _Statistics:
    """Running mean, standard deviation, extremes and norms."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = self._squares = self._norms = 0.0
        self._positions = 0
        self._least, self._most = math.inf, -math.inf
        self._shape: tuple[int, ...] = (0,)

    def add(self, part: Floats, axis: int) -> None:
        numbers = part.astype(np.float64)
        self._count += numbers.size
        self._sum += float(numbers.sum())
        self._squares += float((numbers**2).sum())
        rows = np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1)
        self._norms += float(np.linalg.norm(rows, axis=1).sum())
        self._positions += numbers.shape[axis]
        self._least = min(self._least, float(numbers.min()))
        self._most = max(self._most, float(numbers.max()))
        shape = list(part.shape)
        shape[axis] = self._positions
        self._shape = tuple(shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def answer(self) -> dict[str, float]:
        if self._count == 0:
            return {"count": 0}
        mean = self._sum / self._count
        return {
            "count": self._count,
            "mean": mean,
            "std": math.sqrt(max(self._squares / self._count - mean**2, 0.0)),
            "min": self._least,
            "max": self._most,
            "norm": math.sqrt(self._squares),
            "mean_norm": self._norms / self._positions,
        }
