"""`.circuit` files: a circuit with its figures, protected by a hash.

A safetensors file. Tensors: `edges` (n, 2) as receiver and source, `scores` (n,), `means` (sources, d_model), and the held-out
pairs (`clean`, `corrupt`, `lengths`, `answers`, `wrongs`). Metadata: `format`, `header` (JSON: name, version, task, model with
its weights' hash, graph, figures, roles) and `sha256` over header and tensors. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.curve import CurvePoint
from neuroscope.circuits.effect import Effect
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.judging import Control
from neuroscope.circuits.roles import Role
from neuroscope.engines.protocol import TokenBatch
from neuroscope.errors import CircuitError
from neuroscope.files import write_whole
from neuroscope.results import Provenance, plain
from neuroscope.tasks.metrics import PromptMetric
from neuroscope.tasks.pairs import PairBatch
from neuroscope.tasks.statistics import Estimate

FORMAT = "1"
SUFFIX = ".circuit"

Tensors = Mapping[str, NDArray[Any]]
_FIGURES = (
    "faithfulness", "held_out_faithfulness", "completeness", "minimality", "clean_metric", "corrupt_metric",
    "random_circuit_faithfulness",
)  # fmt: skip


@dataclass(frozen=True)
class CircuitFile:
    """The content of a `.circuit` file, checked against its hash."""

    path: Path
    header: Mapping[str, Any]
    tensors: Tensors

    @property
    def name(self) -> str:
        return str(self.header["name"])

    @property
    def version(self) -> int:
        return int(self.header["version"])

    def circuit(self) -> Circuit:
        """The circuit; its model is loaded on first use."""
        header, tensors = self.header, self.tensors
        graph = Graph(**header["graph"])
        mask, scores = np.zeros_like(graph.valid), np.zeros(graph.valid.shape)
        receivers, sources = tensors["edges"].T
        if len(receivers) and (receivers.max() >= graph.receivers or sources.max() >= graph.sources):
            raise _refused(self.path, "it names edges that its graph does not have")
        mask[receivers, sources] = True
        scores[receivers, sources] = tensors["scores"]
        figures: dict[str, Any] = {name: Estimate.from_dictionary(header["figures"][name]) for name in _FIGURES}
        return Circuit(
            task=header["task"],
            **figures,
            **_judgement(header),
            roles=[Role.from_dictionary(role) for role in header["roles"]],
            curve=[
                CurvePoint(**{**point, "faithfulness": Estimate.from_dictionary(point["faithfulness"])})
                for point in header["curve"]
            ],
            method=header["method"],
            ablation=header["ablation"],
            metric=header["metric"],
            provenance=Provenance(**header["provenance"]),
            _graph=graph,
            _mask=mask,
            _scores=scores,
            _pairs=self._pairs(),
            _chosen_by=frozenset(header.get("chosen_by", ())),
            _means=tensors["means"],
        )

    def _pairs(self) -> PairBatch:
        tensors = self.tensors
        real = np.arange(tensors["clean"].shape[1])[None] < tensors["lengths"][:, None]
        metric = PromptMetric(self.header["metric"], tensors["answers"].astype(np.int64), tensors["wrongs"].astype(np.int64))
        clean, corrupt = (TokenBatch(tensors[name].astype(np.int64), real) for name in ("clean", "corrupt"))
        return PairBatch(clean, corrupt, metric, tuple(frozenset(row) for row in self.header.get("units", ())))


def _judgement(header: Mapping[str, Any]) -> dict[str, Any]:
    """The fields about doubts, which older files lack."""
    found: dict[str, Any] = {
        name: header[name] for name in ("exists", "reason", "doubts", "cmd", "worst_completeness", "shared") if name in header
    }
    if header.get("closeness"):
        found["closeness"] = Estimate.from_dictionary(header["closeness"])
    if header.get("effect"):
        found["effect"] = Effect(**{**header["effect"], "gap": Estimate.from_dictionary(header["effect"]["gap"])})
    found["controls"] = [
        Control(
            kind=control["kind"],
            **{name: Estimate.from_dictionary(control[name]) for name in ("faithfulness", "closeness", "as_close")},
        )
        for control in header.get("controls", ())
    ]
    return found


def write(
    circuit: Circuit,
    path: str | Path,
    *,
    name: str | None = None,
    version: int = 1,
    quality: Mapping[str, Any] | None = None,
    note: str = "",
) -> Path:
    """Write a circuit, whole or not at all. Adds the suffix `.circuit` if missing.

    quality: a quality report as data. note: a description in a sentence.

    Raises `CircuitError` if the file cannot be written.
    """
    target = Path(path).expanduser()
    target = target if target.suffix == SUFFIX else target.with_name(target.name + SUFFIX)
    edges = np.argwhere(circuit.mask).astype(np.int32)
    pairs = circuit.pairs
    found: dict[str, NDArray[Any]] = {
        "edges": edges,
        "scores": circuit._scores[edges[:, 0], edges[:, 1]],
        "means": circuit.means,
        "clean": pairs.clean.ids.astype(np.int32),
        "corrupt": pairs.corrupt.ids.astype(np.int32),
        "lengths": pairs.clean.lengths.astype(np.int32),
        "answers": pairs.metric.answers.astype(np.int32),
        "wrongs": pairs.metric.wrongs.astype(np.int32),
    }
    tensors = {key: np.ascontiguousarray(value) for key, value in found.items()}
    header = json.dumps(_header(circuit, name or target.stem, version, quality, note), ensure_ascii=False, sort_keys=True)
    metadata = {"format": FORMAT, "header": header, "sha256": _digest(header, tensors)}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, save(tensors, metadata))
    except OSError as error:
        raise CircuitError(f"The circuit cannot be written to {target}: {error}", remedy="Choose another path.") from error
    return target


def read(path: str | Path) -> CircuitFile:
    """Read a file and check it. Raises `CircuitError` if it is missing, foreign, newer or changed."""
    source = Path(path).expanduser()
    if not source.is_file():
        raise CircuitError(f"There is no circuit file {source}.", remedy="`neuroscope library list` shows the circuits here.")
    try:
        with safe_open(source, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dictionary
    except (SafetensorError, OSError) as error:
        raise _refused(source, f"it is not a circuit file, or truncated ({error})") from error
    if "header" not in metadata or "sha256" not in metadata:
        raise _refused(source, "it holds tensors but no circuit")
    if metadata.get("format") != FORMAT:
        raise _refused(source, f"it has format {metadata.get('format')!r}, and this version reads {FORMAT!r}")
    if _digest(metadata["header"], tensors) != metadata["sha256"]:
        raise _refused(source, "its contents do not match its hash: it was changed after it was written")
    return CircuitFile(source, json.loads(metadata["header"]), tensors)


def _header(circuit: Circuit, name: str, version: int, quality: Mapping[str, Any] | None, note: str) -> dict[str, Any]:
    graph, provenance = circuit.graph, circuit.provenance
    return {
        "name": name,
        "version": version,
        "note": note,
        "quality": plain(quality),
        "task": circuit.task,
        "method": circuit.method,
        "ablation": circuit.ablation,
        "metric": circuit.metric,
        "graph": {
            "layers": graph.layers,
            "heads": graph.heads,
            "key_value_heads": graph.key_value_heads,
            "parallel": graph.parallel,
        },
        "provenance": _fields(provenance),
        "figures": {figure: plain(getattr(circuit, figure)) for figure in _FIGURES},
        "exists": circuit.exists,
        "reason": circuit.reason,
        "doubts": list(circuit.doubts),
        "effect": _fields(circuit.effect),
        "closeness": plain(circuit.closeness),
        "cmd": circuit.cmd,
        "worst_completeness": circuit.worst_completeness,
        "controls": [_fields(control) for control in circuit.controls],
        "shared": list(circuit.shared),
        "chosen_by": sorted(circuit.chosen_by),
        "units": [sorted(row) for row in circuit.pairs.units],
        "roles": plain(circuit.roles),
        "curve": [_fields(point) for point in circuit.curve],
    }


def _fields(value: Any) -> dict[str, Any] | None:
    """A dataclass as a dictionary of its fields."""
    return None if value is None else {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}


def _digest(header: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key}:{value.dtype}:{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _refused(path: Path, reason: str) -> CircuitError:
    return CircuitError(f"{path} is refused: {reason}.", remedy="Get the file again from its source.")
