"""`.circuit` files: a circuit with its figures, protected by a hash.

A sealed file (`sealed`). Tensors: `edges` (n, 2) as receiver and source, `scores` (n,), `means` (sources, d_model), and the held-out
pairs (`clean`, `corrupt`, `lengths`, `answers`, `wrongs`). Header: name, version, task, model with its weights' hash, graph, figures,
roles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.curve import CurvePoint
from neuroscope.circuits.effect import Effect
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.judging import Control
from neuroscope.circuits.roles import Role
from neuroscope.engines.protocol import TokenBatch
from neuroscope.errors import CircuitError
from neuroscope.kinds import misfit
from neuroscope.names import only
from neuroscope.results import Provenance, plain
from neuroscope.sealed import SealedFiles, Tensors
from neuroscope.tasks.metrics import METRICS, PromptMetric
from neuroscope.tasks.pairs import PairBatch
from neuroscope.tasks.statistics import Estimate

FORMAT = "1"
SUFFIX = ".circuit"
FILES = SealedFiles("circuit", SUFFIX, FORMAT, CircuitError)

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
        """The circuit; its model is loaded on first use. Raises `CircuitError` for a content that is damaged anywhere."""
        with FILES.understood(self.path):
            found = self._circuit()
            wrong = misfit(found)
            if wrong is not None:
                raise TypeError(wrong)
        return found

    def _circuit(self) -> Circuit:
        header, tensors = self.header, self.tensors
        graph = Graph(**header["graph"])
        wrong = misfit(graph)
        # Before anything of the graph's size is made.
        if wrong is None and not (1 <= graph.key_value_heads <= graph.heads and graph.sources == len(tensors["means"])):
            wrong = f"a graph of {graph.layers} layers and {graph.heads} heads"
        wrong = wrong or _misshapen(tensors)
        if wrong is not None:
            raise TypeError(wrong)
        mask, scores = np.zeros_like(graph.valid), np.zeros(graph.valid.shape)
        receivers, sources = tensors["edges"].T
        if len(receivers) and (tensors["edges"].min() < 0 or not graph.valid[receivers, sources].all()):
            raise FILES.refused(self.path, "it names edges that its graph does not have")
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
        metric = PromptMetric(
            only("metric", METRICS, listing="Metrics")[self.header["metric"]],
            tensors["answers"].astype(np.int64),
            tensors["wrongs"].astype(np.int64),
        )
        clean, corrupt = (TokenBatch(tensors[name].astype(np.int64), real) for name in ("clean", "corrupt"))
        return PairBatch(clean, corrupt, metric, tuple(frozenset(row) for row in self.header.get("units", ())))


def _misshapen(tensors: Tensors) -> str | None:
    """The first tensor that has not the shape and kind of a circuit's, in words; None if all have."""
    edges, (rows, columns) = len(tensors["edges"]), tensors["clean"].shape
    shapes = {
        "edges": (edges, 2), "scores": (edges,), "means": tensors["means"].shape[:2], "clean": (rows, columns), "corrupt": (rows, columns),
        "lengths": (rows,), "answers": (rows,), "wrongs": (rows,),
    }  # fmt: skip
    for name, shape in shapes.items():
        found, whole = tensors[name], name not in ("scores", "means")
        if found.shape != shape or (found.dtype.kind not in "iu" if whole else found.dtype.kind != "f"):
            return f"{name} {found.dtype} {found.shape}"
        if not np.isfinite(found).all() or (whole and found.size and found.min() < 0):
            return f"{name} holds {found.min()}"
    lengths = tensors["lengths"]
    return f"lengths of {columns} columns" if rows and not (lengths.min() >= 1 and lengths.max() <= columns) else None


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

    Raises `CircuitError` if the file cannot be written, and for a circuit whose metric is a function.
    """
    if circuit.pairs.metric.function is not None:
        raise CircuitError(
            f"The metric of this circuit is {circuit.metric}, which no file can hold.",
            remedy="Find it with a metric by name: logit_difference, probability or kl.",
        )
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
    return FILES.write(path, _header(circuit, name or FILES.path(path).stem, version, quality, note), found)


def read(path: str | Path) -> CircuitFile:
    """Read a file and check it. Raises `CircuitError` that says why it is refused: absent, foreign, newer, changed."""
    found = CircuitFile(*FILES.read(path, absent="`neuroscope library list` shows the circuits here."))
    with FILES.understood(found.path):
        if not (isinstance(found.header["name"], str) and type(found.header["version"]) is int and found.version > 0):
            raise TypeError("its name or version")
    return found


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
