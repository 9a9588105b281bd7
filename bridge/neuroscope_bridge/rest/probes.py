"""Probes of requests: trained or sent once, registered by name, and read at every token of a generation that names one."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope import places
from neuroscope.engines.sites import Site
from neuroscope.errors import ArgumentError, NeuroScopeError, did_you_mean

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel
    from neuroscope.safety.probe import Probe
    from neuroscope_bridge.rest.generation import GeneratedToken


class ProbeNotFoundError(NeuroScopeError):
    """No probe of this name is registered."""

    code = "not-found"


@dataclass(frozen=True)
class Watch:
    """A probe that reads along a generation of one model."""

    probe: Probe
    model: TransformerModel

    @property
    def site(self) -> Site:
        return self.probe.site

    def opening(self) -> dict[str, Any]:
        """The probe's name, and the threshold of its readings (None before it was calibrated)."""
        return {"name": self.probe.name, "threshold": self.probe.threshold}


class Along:
    """A probe's scores along one generation, step by step."""

    def __init__(self, watch: Watch, prompt: Sequence[int]) -> None:
        self.watch, self._prompt = watch, prompt
        self._last: int | None = None
        self._scores: list[float] = []
        self._read: list[bool] = []

    def add(self, piece: GeneratedToken) -> dict[str, Any]:
        """Scores of the positions that a step ran, whether the probe is read at each, and the first one's number.

        The first step runs the prompt, each later one the token that the step before chose.
        """
        ids = np.array(self._prompt if self._last is None else [self._last])
        first, self._last = len(self._scores), piece.id
        probe, model = self.watch.probe, self.watch.model
        values = model.engine.ops.to_numpy(piece.step.activations[self.watch.site])[0].astype(np.float64)
        scores = np.round(probe.values(values), 4).tolist()
        read = probe.read_at(model, ids, first).tolist()
        self._scores += scores
        self._read += read
        return {"first": first, "scores": scores, "read": read}

    def whole(self) -> dict[str, Any]:
        """All of them: every token but the last, which chose none."""
        return {**self.watch.opening(), "scores": self._scores, "read": self._read}


class ProbeRegistry:
    """Registered probes by name. Thread-safe."""

    _MOST = 1000

    def __init__(self) -> None:
        self._probes: dict[str, Probe] = {}
        self._lock = threading.Lock()

    def add(self, probe: Probe) -> None:
        """Register a probe under its name. Raises `ArgumentError` for a name in use."""
        with self._lock:
            if probe.name in self._probes:
                raise ArgumentError(
                    f"A probe {probe.name!r} already exists.", remedy="DELETE it first, or choose another name."
                )
            if len(self._probes) >= self._MOST:
                raise ArgumentError(f"More than {self._MOST} probes cannot be registered.", remedy="DELETE some.")
            self._probes[probe.name] = probe

    def remove(self, name: str) -> None:
        """Remove a probe. Raises `ProbeNotFoundError`."""
        self.named(name)
        with self._lock:
            self._probes.pop(name, None)

    def named(self, name: str) -> Probe:
        """The probe of a name. Raises `ProbeNotFoundError` with the nearest."""
        known = self.all()
        if name not in known:
            raise ProbeNotFoundError(
                f"No probe {name!r} is registered.", remedy=did_you_mean(name, known, listing="Registered")
            )
        return known[name]

    def all(self) -> Mapping[str, Probe]:
        with self._lock:
            return dict(self._probes)

    def watch(self, name: str, model: TransformerModel) -> Watch:
        """A registered probe for a generation. Raises `DatasetError` if it was trained on other weights than the model's."""
        probe = self.named(name)
        probe.check(model)
        return Watch(probe, model)


def read_file(data: bytes) -> Probe:
    """The probe in the bytes of a `.probe` file. Raises `DatasetError` for other bytes."""
    from neuroscope.safety.probe import Probe

    with places.own(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sent.probe"
        path.write_bytes(data)
        return Probe.load(str(path))


def described(probe: Probe) -> dict[str, Any]:
    """A probe in a list."""
    rate = probe.false_positives
    return {
        "name": probe.name,
        "object": "probe",
        "layer": probe.layer,
        "component": probe.component,
        "reading": probe.reading,
        "threshold": probe.threshold,
        "false_positives": None if rate is None else rate.as_dictionary(),
        "model": probe.provenance.title,
    }
