"""What each scoring method makes of circuits that are known by construction (`tests.planted`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score
from tests.planted import CIRCUITS, Planted

from neuroscope.circuits.attribution import chosen_method, edge_scores
from neuroscope.circuits.finder import CircuitFinder

#: Method and integration rule.
METHODS = (
    ("auto", "midpoint"),
    ("eap", "midpoint"),
    ("eap_ig", "midpoint"),
    ("eap_ig", "hanna"),
    ("eap_ig", "paper"),
    ("eap_ig_activations", "midpoint"),
    ("exact", "midpoint"),
)
TARGET = 0.99


@dataclass(frozen=True)
class PlantedRow:
    """auroc: of the edges' |score|. Everything else: of the circuit that the finder answers at a target of 0.99."""

    circuit: str
    method: str
    rule: str
    auroc: float
    edges: int
    precision: float
    recall: float
    closeness: float
    doubts: list[str]


def rows(*, pairs: int, every_method: bool) -> Iterator[PlantedRow]:
    """The default method on every circuit, and with `every_method` the others."""
    for name, build in CIRCUITS.items():
        planted = build(pairs)
        for method, rule in METHODS if every_method else METHODS[:1]:
            yield row(name, planted, method, rule)


def row(name: str, planted: Planted, method: str, rule: str) -> PlantedRow:
    scores = edge_scores(planted.model.engine, planted.pairs.take(slice(0, 24)), method=method, rule=rule)
    valid = planted.graph.valid
    auroc = float(roc_auc_score(planted.truth[valid], np.abs(scores[valid])))
    finder = CircuitFinder(
        planted.model, method=method, rule=rule, target=TARGET, pairs=len(planted.examples), random_circuits=5
    )
    circuit = finder.find_circuit("induction", planted.examples)  # the name of a task; the examples are the circuit's own
    right = int((circuit.mask & planted.truth).sum())
    return PlantedRow(
        circuit=name,
        method=method if method != "auto" else f"auto ({chosen_method('auto', planted.graph, planted.pairs.rows)})",
        rule=rule,
        auroc=auroc,
        edges=circuit.edge_count,
        precision=right / max(1, circuit.edge_count),
        recall=right / int(planted.truth.sum()),
        closeness=circuit.closeness.value,
        doubts=list(circuit.doubts) if circuit.exists else [str(circuit.reason)],
    )
