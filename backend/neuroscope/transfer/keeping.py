"""Installed circuits within a saved model: `installed/N.circuit`, and beside it `installed/N.installation` with the map and the figures.

A loaded installation acts as the saved one did. Its source is loaded by name when a run first needs it, and has to have the weights that the
circuit was found on; it is never downloaded, and with gate 0 never needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from neuroscope import events, places
from neuroscope.circuits import storage
from neuroscope.circuits.circuit import Circuit
from neuroscope.errors import CircuitError
from neuroscope.models.model import TransformerModel
from neuroscope.results import Provenance, plain
from neuroscope.sealed import SealedFiles, Tensors
from neuroscope.tasks.statistics import Estimate
from neuroscope.transfer.carrier import Carrier, writing
from neuroscope.transfer.installation import CircuitInstallation, GateTrial, hook_name, installed_on, remember
from neuroscope.transfer.maps import Affine, Numbers, StreamMap

FILES = SealedFiles("installation", ".installation", "1", CircuitError)
_FOLDER = "installed"
_MAPS, _PARTS = ("there", "back"), ("matrix", "entry", "exit", "penalty")
_ESTIMATES = ("before", "after", "difference", "at_tried", "source_accuracy", "circuit_accuracy", "unrelated_kl", "tried_kl")
_OF_MAPS = ("raw", "standardised", "round_trip", "substituted")


class _Later:
    """`Writer` of a circuit whose model is loaded when something is first written."""

    def __init__(self, circuit: Circuit, target: TransformerModel, layer: int, matrix: Numbers) -> None:
        self._circuit, self._target, self._layer, self._matrix = circuit, target, layer, matrix
        self._carrier: Carrier | None = None

    def added(self, rows: Sequence[Sequence[int]]) -> list[Numbers]:
        """See `Writer`."""
        if self._carrier is None:
            with places.confined(places.offline()):  # a stranger's folder may name any model
                self._carrier = Carrier(self._circuit, self._circuit.mask, self._target, self._layer, self._matrix)
        return self._carrier.added(rows)


class Installations:
    """`saving.Keeper` of the circuits of other models that are installed."""

    def write(self, model: TransformerModel, folder: Path) -> None:
        """A notice names an installation whose circuit no file can hold."""
        for number, one in enumerate(installed_on(model)):
            (folder / _FOLDER).mkdir(exist_ok=True)
            try:
                storage.write(one.circuit, folder / _FOLDER / f"{number}.circuit")
            except CircuitError as error:
                events.notice(f"The installed circuit for {one.task} is not saved: {error}", "warning")
                continue
            maps = {kind: getattr(one.map_r2, kind) for kind in _MAPS}
            tensors = {f"{kind}/{part}": np.asarray(getattr(found, part)) for kind, found in maps.items() for part in _PARTS}
            FILES.write(folder / _FOLDER / f"{number}.installation", _figures(one), tensors)

    def read(self, model: TransformerModel, folder: Path, *, allow_imports: Sequence[str] = ()) -> None:
        """Raises `CircuitError` for files that were changed, or that do not fit the model."""
        for path in sorted((folder / _FOLDER).glob("*.installation"), key=lambda path: (len(path.stem), path.stem)):
            source, header, tensors = FILES.read(path, absent="Save the model again.")
            circuit = storage.read(path.with_suffix(".circuit")).circuit()
            with FILES.understood(source):
                found = _understood(model, circuit, header, tensors)
            model.hook_manager.add_hook(found._hook)
            remember(found)


def _figures(one: Any) -> dict[str, Any]:
    return {
        field.name: _figures(getattr(one, field.name))
        if field.name in ("map_r2", "provenance", "source_provenance")
        else plain(getattr(one, field.name))
        for field in fields(one)
        if not field.name.startswith("_")
    }


def _understood(model: TransformerModel, circuit: Circuit, header: Mapping[str, Any], tensors: Tensors) -> CircuitInstallation:
    quality = dict(header["map_r2"])
    there, back = (_affine(tensors, kind) for kind in _MAPS)
    layer, gate = model.architecture.checked_layer(header["layer"]), float(header["gate"])
    widths = circuit.means.shape[1], model.architecture.d_model
    if there.matrix.shape != widths or not np.isfinite(there.matrix).all() or not np.isfinite(gate):
        raise ValueError(f"a map {there.matrix.shape} where {widths} are the widths")
    found = StreamMap(
        **quality | {name: Estimate.from_dictionary(quality[name]) for name in _OF_MAPS}, _there=there, _back=back
    )
    writer = _Later(circuit, model, found.source_layer, there.matrix)
    return CircuitInstallation(
        **dict(header)
        | {name: Estimate.from_dictionary(header[name]) for name in _ESTIMATES}
        | {"controls": {kind: Estimate.from_dictionary(each) for kind, each in header["controls"].items()}}
        | {"provenance": Provenance(**header["provenance"]), "source_provenance": Provenance(**header["source_provenance"])}
        | {"trials": [_trial(each) for each in header["trials"]], "map_r2": found},
        _hook=writing(writer, layer, gate, hook_name(header["task"], layer)),
        _target=model,
        _circuit=circuit,
    )


def _affine(tensors: Tensors, kind: str) -> Affine:
    matrix, entry, exit_, penalty = (tensors[f"{kind}/{part}"] for part in _PARTS)
    return Affine(matrix, entry, exit_, penalty.item())


def _trial(data: Mapping[str, Any]) -> GateTrial:
    return GateTrial(data["gate"], Estimate.from_dictionary(data["difference"]), data["pValue"])
