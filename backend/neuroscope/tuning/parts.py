"""The weights that a circuit holds, and random circuits of as many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from neuroscope.circuits.circuit import Circuit
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.weights import Weight, WeightSite
from neuroscope.errors import ArgumentError, CircuitError, SiteError
from neuroscope.features.neurons import NeuronSet
from neuroscope.models.model import TransformerModel

_OF_QUERY_HEADS = (Weight.W_Q, Weight.B_Q, Weight.W_O, Weight.SINKS)
_OF_KEY_VALUE_HEADS = (Weight.W_K, Weight.B_K, Weight.W_V, Weight.B_V)
_OF_NEURONS = (Weight.W_GATE, Weight.B_GATE, Weight.W_IN, Weight.B_IN, Weight.W_OUT)
_OF_MLPS = (*_OF_NEURONS, Weight.B_OUT, Weight.W_ROUTER, Weight.B_ROUTER)
_DRAWS = 200


@dataclass(frozen=True)
class CircuitWeights:
    """Weights by name, each once, and what else of the model uses them.

    A head holds its slices of W_Q, W_K, W_V, W_O and their biases; an MLP all of its matrices and biases (in a mixture of experts all
    experts and the router); a neuron its columns and row. Embeddings, norms and the bias that all heads of a layer share (b_O) belong
    to no circuit.
    """

    nodes: tuple[str, ...]
    sites: tuple[WeightSite, ...]
    numbers: int
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [str(site) for site in self.sites]


def targets(given: object, model: TransformerModel) -> tuple[list[Circuit], list[NeuronSet]]:
    """Circuits and sets of neurons of a model: one, several, or the last one that a finder found.

    Raises `ArgumentError` for anything else, and `CircuitError` for a finder that found none, a circuit that does not exist or has no
    component, and one of another model.
    """
    several = given if isinstance(given, (list, tuple)) else [given]
    circuits, neurons = [], []
    for one in several:
        found = getattr(one, "last_circuit", one)
        if isinstance(found, NeuronSet):
            neurons.append(found)
            continue
        if not isinstance(found, Circuit):
            raise ArgumentError(
                f"CircuitAwareTrainer trains circuits, not {found!r}.",
                remedy="Give a CircuitFinder that found one, a Circuit, or a NeuronSet.",
            )
        found.check(model)
        if not found.nodes:
            raise CircuitError(
                f"The circuit for {found.task} is empty" + (f": {found.reason}." if found.reason else "."),
                remedy="Train the circuit of a task that the model can do.",
            )
        circuits.append(found)
    if not circuits and not neurons:
        raise ArgumentError("There is no circuit to train.", remedy="Find one with CircuitFinder.")
    for set_ in neurons:
        if set_.provenance.weights_hash != model.weights_hash:
            raise CircuitError(
                f"The neurons of {set_.provenance.title} are not of {model.title} as it is.", remedy="Find them on this model."
            )
    return circuits, neurons


def weights_of(model: TransformerModel, nodes: Iterable[Site], neurons: Iterable[NeuronSet] = ()) -> CircuitWeights:
    """The weights of heads (`5.headOutput[3]`), MLPs (`5.mlpOutput`) and neurons."""
    anatomy, found, notes, wanted = model.architecture, dict[WeightSite, None](), dict[str, None](), list(nodes)
    heads = {(site.layer, site.head) for site in wanted if site.component is Component.HEAD_OUTPUT}
    for site in wanted:
        if site.component is Component.HEAD_OUTPUT:
            assert site.head is not None
            shared = site.head // anatomy.group
            parts = [WeightSite(site.layer, w, unit=site.head) for w in _OF_QUERY_HEADS]
            parts += [WeightSite(site.layer, w, unit=shared) for w in _OF_KEY_VALUE_HEADS]
            group = range(shared * anatomy.group, (shared + 1) * anatomy.group)
            others = [head for head in group if (site.layer, head) not in heads]
            if others:
                notes[
                    f"{site.layer}.attn.W_K[{shared}] and W_V[{shared}] are trained, and serve heads outside the circuit too: "
                    f"{', '.join(f'{site.layer}.{head}' for head in others)}"
                ] = None
        else:
            parts = [WeightSite(site.layer, w) for w in _OF_MLPS]
        found.update(dict.fromkeys(part for part in parts if _has(model, part)))
    mlps = {site.layer for site in wanted if site.component is Component.MLP_OUTPUT}
    names = [str(site) for site in wanted]
    for set_ in neurons:
        names.append(f"{len(set_.neurons)} neurons of layer {set_.layer}")
        if set_.layer not in mlps:
            parts = [WeightSite(set_.layer, w, unit=neuron.id) for neuron in set_.neurons for w in _OF_NEURONS]
            found.update(dict.fromkeys(part for part in parts if _has(model, part)))
    sites = tuple(found)
    return CircuitWeights(tuple(names), sites, sum(size(model, site) for site in sites), tuple(notes))


def random_nodes(model: TransformerModel, nodes: Sequence[Site], seed: int) -> list[Site] | None:
    """As many heads and as many MLPs as `nodes` has, drawn from the whole model, with as many weights or as nearly so as 200 draws
    give; None where `nodes` is all there is of both.
    """
    anatomy, random = model.architecture, np.random.default_rng([seed, 18])
    heads = [Site(layer, Component.HEAD_OUTPUT, head=head) for layer in range(anatomy.layers) for head in range(anatomy.heads)]
    mlps = [Site(layer, Component.MLP_OUTPUT) for layer in range(anatomy.layers)]
    count = sum(site.component is Component.HEAD_OUTPUT for site in nodes)
    if len(nodes) == len(heads) + len(mlps):
        return None
    wanted = weights_of(model, nodes).numbers
    best: tuple[int, list[Site]] | None = None
    for _ in range(_DRAWS if anatomy.group > 1 else 1):
        drawn = [heads[at] for at in sorted(random.choice(len(heads), count, replace=False))]
        drawn += [mlps[at] for at in sorted(random.choice(len(mlps), len(nodes) - count, replace=False))]
        off = abs(weights_of(model, drawn).numbers - wanted)
        if best is None or off < best[0]:
            best = off, drawn
        if off == 0:
            break
    assert best is not None
    return best[1]


def _has(model: TransformerModel, site: WeightSite) -> bool:
    try:
        model.weights(site)
    except SiteError:
        return False
    return True


def size(model: TransformerModel, site: WeightSite) -> int:
    """How many numbers a weight has."""
    return int(np.prod(model.weights(site).shape, dtype=np.int64))
