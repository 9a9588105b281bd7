"""Tiny random models with a circuit of chosen nodes, and a task of words that they can be taught."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.graph import Graph
from neuroscope.engines.sites import Site
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Dataset
from tests import tiny
from tests.backend.circuits.pairs import pairs_with_an_effect

NODES = ("1.headOutput[1]", "1.headOutput[2]", "2.mlpOutput")


def circuit(model: TransformerModel, *nodes: str, task: str = "words") -> Circuit:
    """All edges among the nodes, the embedding and the logits, judged on random pairs."""
    graph = Graph.of(model.architecture)
    sources = [0, *(graph.source_of(Site.parse(node)) for node in nodes)]
    receivers = [graph.logits, *(int(r) for source in sources for r in graph.node_receivers(source))]
    mask = np.zeros_like(graph.valid)
    mask[np.ix_(receivers, sources)] = graph.valid[np.ix_(receivers, sources)]
    return dataclasses.replace(_judged(model, mask.tobytes(), mask.shape), task=task)


def empty(model: TransformerModel) -> Circuit:
    found = circuit(model, *NODES)
    return dataclasses.replace(found, _mask=found.mask & False)


@cache
def _judged(model: TransformerModel, mask: bytes, shape: tuple[int, int]) -> Circuit:
    finder = CircuitFinder(model, random_circuits=1, minimality_sample=2)
    edges = np.frombuffer(mask, dtype=np.bool_).reshape(shape)
    return finder.judge("words", edges, edges.astype(float), pairs_with_an_effect(model))


def dataset(n: int = 60, answer: str = " w9") -> Dataset:
    """Three words of its own for each example, and one answer for all."""
    random = np.random.default_rng(0)
    words = [" ".join(f"w{w}" for w in random.integers(10, tiny.VOCABULARY, 3)) for _ in range(n)]
    return Dataset.from_examples(
        [{"clean": text, "answer": answer, "units": [f"item:{i}"]} for i, text in enumerate(words)], "words"
    )
