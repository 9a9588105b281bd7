"""Random circuits as controls of a found one.

A uniform random set of edges is not a control: almost none of its edges lie on a path from the embedding to the logits, so
after pruning nothing is left and its faithfulness is 0 for any model. Every control here is alive: each of its edges lies on
such a path. For a circuit of n edges:

    connected   n random edges of the whole graph: edges are added in random order until n of them lie on a path; these are a
                uniformly random set of edges, pruned. Does any circuit of this size suffice?
    rewired     the circuit's nodes with n random edges among them (and embedding and logits), each node still reading and
                writing. Drawn uniformly by a Markov chain that exchanges one edge at a time. Do the edges matter, or only the
                nodes?
    degrees     every source keeps its out-degree, every receiver its in-degree. A Markov chain of swaps, s → c and t → d
                becoming s → d and t → c (Maslov & Sneppen 2002). Do the edges matter, given the degrees?

A set of edges is alive if and only if every source that is read, except the embedding, has an edge into one of its receivers,
and every receiver with an edge, except the logits, belongs to a head or an MLP that is read: since edges are causal, following
them backwards ends at the embedding and forwards at the logits.

Sources: Maslov & Sneppen 2002, "Specificity and Stability in Topology of Protein Networks"; Conmy et al. 2023 for random
circuits as controls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from neuroscope.circuits.graph import Graph
from neuroscope.engines.protocol import BoolArray, IntArray
from neuroscope.engines.sites import Component
from neuroscope.errors import CircuitError

#: Exchanges tried per edge of the circuit: after 10, an edge that could leave has stayed with probability e⁻¹⁰.
_MOVES = 10
#: Longest chain: for a circuit of this size, a few per cent of it remain.
_LONGEST = 400_000
#: Draws for a size that a single path may exceed.
_DRAWS = 200
#: Draws of the same circuit after which it counts as the only one of its kind.
_AGAIN = 5

#: Makes a control for a circuit: another mask of as many edges, or None.
Control = Callable[[Graph, BoolArray, np.random.Generator], BoolArray | None]


def connected_random(graph: Graph, edges: int, random: np.random.Generator) -> BoolArray:
    """A mask (receivers, sources) of `edges` random edges, each on a path from the embedding to the logits.

    Raises `CircuitError` if the graph has fewer edges, or for less than one.
    """
    if not 1 <= edges <= graph.edges:
        raise CircuitError(
            f"There is no random circuit of {edges} edges: the graph has {graph.edges}.",
            remedy="Use from 1 to as many edges as the graph has.",
        )
    found = _arrived(graph, graph.valid, edges, random)
    nearest = found
    for _ in range(_DRAWS):
        if int(found.sum()) == edges:
            return found
        # Every path is longer than `edges`. Paths among few nodes are short.
        nodes = 1 + random.permutation(graph.sources - 1)[: random.integers(1, max(2, edges))]
        found = _arrived(graph, _among(graph, nodes), edges, random)
        nearest = min(nearest, found, key=lambda mask: abs(int(mask.sum()) - edges))
    return nearest


def rewired(graph: Graph, mask: BoolArray, random: np.random.Generator) -> BoolArray | None:
    """Random edges among the nodes of the circuit `mask`, as many as it has, with every node still reading and writing.

    None if no other set of edges exists or was found: too few nodes, or the circuit has all edges among them.
    """
    mask = graph.pruned(mask)
    pool = np.flatnonzero(_among(graph, np.array(graph.nodes(mask), dtype=np.int64)))
    return _walked(graph, mask, random, _Exchange(graph, mask, pool)) if 0 < int(mask.sum()) < len(pool) else None


def degree_preserving(graph: Graph, mask: BoolArray, random: np.random.Generator) -> BoolArray | None:
    """The circuit `mask` with its edges swapped, keeping the out-degree of every source and the in-degree of every receiver.

    None if no swap is possible, as for the full graph or a single path.
    """
    mask = graph.pruned(mask)
    return _walked(graph, mask, random, _Swap(graph, mask)) if 0 < int(mask.sum()) < graph.edges else None


def _connected(graph: Graph, mask: BoolArray, random: np.random.Generator) -> BoolArray | None:
    mask = graph.pruned(mask)
    edges = int(mask.sum())
    if 0 < edges < graph.edges:
        for _ in range(_AGAIN):
            found = connected_random(graph, edges, random)
            if not np.array_equal(found, mask):
                return found
    return None


#: The kinds of control: name → function of a circuit's mask.
CONTROLS: Mapping[str, Control] = MappingProxyType({"connected": _connected, "rewired": rewired, "degrees": degree_preserving})


def _arrived(graph: Graph, pool: BoolArray, edges: int, random: np.random.Generator) -> BoolArray:
    """About `edges` of the pool's edges: those that lie on a path first when edges are added in random order."""
    ranks = np.full(pool.shape, np.inf)
    ranks[pool] = random.permutation(int(pool.sum()))
    times = _arrivals(graph, ranks)
    order = np.sort(times[np.isfinite(times)])
    if len(order) <= edges:
        return np.isfinite(times)
    now = order[edges - 1]
    above: BoolArray = times <= now
    if int(above.sum()) == edges:
        return above
    # The last arrival completed a path of several edges. Leave it out, and add the next ones that attach at both ends.
    below: BoolArray = times < now
    missing = edges - int(below.sum())
    reached: BoolArray = np.asarray(below.any(0))
    leads: BoolArray = np.asarray(below.any(1))
    reached[0] = leads[graph.logits] = True
    for source in range(1, graph.sources):
        if reached[source]:
            leads[graph.node_receivers(source)] = True
    attach = np.flatnonzero(pool & ~below & reached[None, :] & leads[:, None])
    if len(attach) >= missing:
        filled = below.copy()
        filled.reshape(-1)[attach[np.argsort(ranks.reshape(-1)[attach])[:missing]]] = True
        return filled
    return _trimmed(graph, above, edges, random)


def _arrivals(graph: Graph, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The time at which each edge (receivers, sources) lies on a path, if edges arrive in the order of their ranks.

    That is the largest rank on the best path through the edge; infinite for edges that never do.
    """
    shared = np.arange(graph.heads) // (graph.heads // graph.key_value_heads)
    into = np.full(graph.sources, np.inf)  # when a source is reached from the embedding
    into[0] = -1
    for layer in range(graph.layers):
        before = graph.sources_before(layer)
        first = graph.receiver(layer, Component.QUERY)
        receivers = slice(first, first + graph.receivers_per_layer - 1)
        reads = np.maximum(ranks[receivers, :before], into[:before]).min(1)
        query, key, value = np.split(reads, [graph.heads, graph.heads + graph.key_value_heads])
        into[before : before + graph.heads] = np.minimum(query, np.minimum(key[shared], value[shared]))
        mlp = graph.mlp(layer)
        into[mlp] = np.maximum(ranks[graph.receiver(layer, Component.MLP_INPUT), :mlp], into[:mlp]).min()
    out = np.full(graph.receivers, np.inf)  # when a receiver leads to the logits
    out[graph.logits] = -1
    for layer in reversed(range(graph.layers)):
        mlp, receiver = graph.mlp(layer), graph.receiver(layer, Component.MLP_INPUT)
        out[receiver] = np.maximum(ranks[receiver + 1 :, mlp], out[receiver + 1 :]).min()
        heads = slice(graph.head(layer, 0), mlp)
        writes = np.maximum(ranks[receiver:, heads], out[receiver:, None]).min(0)
        out[graph.rows(layer, Component.QUERY)] = writes
        groups = writes.reshape(graph.key_value_heads, -1).min(1)
        out[graph.rows(layer, Component.KEY)] = out[graph.rows(layer, Component.VALUE)] = groups
    return np.maximum(ranks, np.maximum(into[None, :], out[:, None]))


def _trimmed(graph: Graph, mask: BoolArray, edges: int, random: np.random.Generator) -> BoolArray:
    """`mask` without random edges that no other edge needs, until `edges` are left or none can be removed."""
    mask, left = mask.copy(), int(mask.sum())
    for edge in random.permutation(np.flatnonzero(mask)):
        if left <= edges:
            break
        mask.reshape(-1)[edge] = False
        if int(graph.pruned(mask).sum()) == left - 1:
            left -= 1
        else:
            mask.reshape(-1)[edge] = True
    return mask


def _among(graph: Graph, nodes: IntArray) -> BoolArray:
    """All edges among some sources, the embedding and the logits."""
    sources, receivers = np.zeros(graph.sources, dtype=np.bool_), np.zeros(graph.receivers, dtype=np.bool_)
    sources[0] = receivers[graph.logits] = True
    for source in nodes.tolist():
        sources[source] = True
        receivers[graph.node_receivers(source)] = True
    found: BoolArray = graph.valid & sources[None, :] & receivers[:, None]
    return found


class _Exchange:
    """A step of the chain: one edge is replaced by one of the pool, if every node still reads and writes."""

    def __init__(self, graph: Graph, mask: BoolArray, pool: IntArray) -> None:
        self.width = graph.sources
        self.edges: list[int] = np.flatnonzero(mask).tolist()
        self.free: list[int] = np.setdiff1d(pool, self.edges).tolist()
        nodes = graph.nodes(mask)
        self.readers = _readers(graph, frozenset(nodes))
        self.written: list[int] = mask.sum(0).tolist()
        self.written[0] = len(self.edges) + 1  # the embedding may lose any edge
        self.read = [0] * graph.sources
        for source in nodes:
            self.read[source] = int(mask[graph.node_receivers(source)].sum())

    @property
    def partners(self) -> int:
        return len(self.free)

    def step(self, first: int, second: int) -> None:
        gone, new = self.edges[first], self.free[second]
        receiver, source = divmod(gone, self.width)
        other, writer = divmod(new, self.width)
        if self.written[source] == 1 and writer != source:
            return
        kept = self.readers[other]
        for reader in self.readers[receiver]:
            if self.read[reader] == 1 and reader not in kept:
                return
        self.edges[first], self.free[second] = new, gone
        if source:
            self.written[source] -= 1
        if writer:
            self.written[writer] += 1
        for reader in self.readers[receiver]:
            self.read[reader] -= 1
        for reader in kept:
            self.read[reader] += 1


class _Swap:
    """A step of the chain: two edges exchange their receivers, if both new edges exist and are free."""

    def __init__(self, graph: Graph, mask: BoolArray) -> None:
        self.width = graph.sources
        self.edges: list[int] = np.flatnonzero(mask).tolist()
        self.taken = set(self.edges)
        self.valid: list[bool] = graph.valid.reshape(-1).tolist()

    @property
    def partners(self) -> int:
        return len(self.edges)

    def step(self, first: int, second: int) -> None:
        one, two = self.edges[first], self.edges[second]
        shift = one % self.width - two % self.width
        new, other = one - shift, two + shift
        if shift and self.valid[new] and self.valid[other] and new not in self.taken and other not in self.taken:
            self.taken -= {one, two}
            self.taken |= {new, other}
            self.edges[first], self.edges[second] = new, other


def _walked(graph: Graph, mask: BoolArray, random: np.random.Generator, chain: _Exchange | _Swap) -> BoolArray | None:
    """The state of the chain after its moves; if that is the circuit itself, it continues for a while."""
    start = set(chain.edges)
    for _ in range(_AGAIN):
        moves = min(_LONGEST, max(200, _MOVES * len(start)))
        firsts = random.integers(0, len(chain.edges), moves).tolist()
        seconds = random.integers(0, chain.partners, moves).tolist()
        for first, second in zip(firsts, seconds, strict=True):
            chain.step(first, second)
        if set(chain.edges) != start:
            found = np.zeros_like(mask)
            found.reshape(-1)[chain.edges] = True
            return found
    return None


@functools.lru_cache(maxsize=64)
def _readers(graph: Graph, nodes: frozenset[int]) -> tuple[tuple[int, ...], ...]:
    """For each receiver, the nodes that read it."""
    found: list[list[int]] = [[] for _ in range(graph.receivers)]
    for source in nodes:
        for receiver in graph.node_receivers(source).tolist():
            found[receiver].append(source)
    return tuple(tuple(readers) for readers in found)
