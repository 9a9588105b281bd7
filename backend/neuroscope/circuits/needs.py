"""How much memory scoring a circuit's edges takes, from a model's shape alone.

The weights are there all the time. While one batch of pairs is scored by EAP-IG on K inputs each (`attribution`) there are besides

1. what is kept of the pairs' two runs, what every head writes in the corrupt one, and the K inputs;
2. then what the backward pass needs of all layers: queries, keys, values and what the MLP computes, at every token of every input;
3. then the gradients at all receivers, every source's difference, and one input's gradients of one layer's heads at the width of the stream.

2 and 3 are not there at the same time, so the larger counts. How many arrays of which width a layer keeps for its backward pass was counted
with torch's profiler, on Llama and gpt-oss: torch keeps no input of a frozen matrix. Tests hold the sums against measured peaks, within 15 %.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuroscope.circuits.graph import Graph
from neuroscope.engines.anatomy import Anatomy
from neuroscope.errors import ArgumentError
from neuroscope.results import Result
from neuroscope.vocabulary import public

#: Bytes of a number in which sums and differences are computed.
_WIDE = 4
#: Arrays at the width of the stream, for each receiver, while one input's gradients are brought to the stream.
_AT_STREAM = 5.125
_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


@public
@dataclass(frozen=True)
class MemoryNeed(Result):
    """Bytes that one batch of EAP-IG takes on one device: the weights, what is kept of the runs, and the larger of its two stages.

    capture: of the pairs' clean and corrupt run, as a circuit keeps them.
    """

    weights: int
    capture: int
    backward: int
    contraction: int
    pairs: int
    tokens: int
    steps: int

    @property
    def peak(self) -> int:
        """All that is there at once, at most."""
        return self.weights + self.capture + max(self.backward, self.contraction)

    def print_string(self) -> str:
        return f"a MemoryNeed({self.peak / 2**30:.2f} GiB, {self.weights / 2**30:.2f} of them weights)"

    def summary(self) -> str:
        def told(size: int) -> str:
            return f"{size / 2**30:8.2f} GiB" if size >= 1 << 30 else f"{size / 2**20:8.1f} MiB"

        return "\n".join(
            [
                f"EAP-IG, {self.pairs} pairs of {self.tokens} tokens in {self.steps} steps: {told(self.peak).strip()}",
                f"  weights               {told(self.weights)}",
                f"  kept of the runs      {told(self.capture)}",
                f"  backward pass         {told(self.backward)}",
                f"  contraction           {told(self.contraction)}",
            ]
        )


def memory_needed(
    anatomy: Anatomy, weights: int, *, pairs: int, tokens: int, steps: int = 5, shared: int = 0, dtype: str = "float32"
) -> MemoryNeed:
    """What scoring so many pairs at once takes.

    weights: bytes. tokens: of each prompt, of which clean and corrupt share the first `shared`. dtype: the model's. Counted for models
    with separate queries, keys and values and a gated MLP (Llama, Qwen, Mistral, gpt-oss). Raises `ArgumentError` for numbers that
    cannot be.
    """
    if min(pairs, tokens, steps) < 1 or not 0 <= shared < tokens or dtype not in _SIZES:
        raise ArgumentError(
            f"There is no batch of {pairs} pairs of {tokens} tokens ({shared} shared) in {steps} steps and {dtype}.",
            remedy=f"Give at least one of each, and one of the types {', '.join(_SIZES)}.",
        )
    a, graph, size = anatomy, Graph.of(anatomy), _SIZES[dtype]
    wide = max(_WIDE, size)
    d, heads, layers = a.d_model, a.heads * a.d_head, a.layers
    projected = heads + 2 * a.key_value_heads * a.d_head
    rest = pairs * (tokens - shared)  # tokens that differ
    prefix = layers * pairs * shared * 2 * a.key_value_heads * a.d_head * size
    kept = 2 * rest * (layers * (3 * d + heads) + d) * size
    capture = kept + prefix + layers * rest * a.heads * d * wide + steps * rest * d * wide
    neurons = a.d_mlp * max(a.experts_per_token, 1)
    layer: float = 5 * heads + 4 * neurons + d
    once: float = 4.5 * d + 3.4 * heads
    if a.experts:
        layer += 2 * neurons + (a.experts_per_token + 1.2) * d
        once = 4 * neurons + d
    if a.attention_sinks:
        layer += a.heads * tokens  # attention's matrices, which are kept where there are sinks
    halved = 4 * d * (wide - size) // wide  # norms compute in float32, which is kept besides
    backward = steps * rest * size * (layers * (layer + halved) + once)
    gradients = 2 * steps * rest * size * (layers * (projected + 2 * d) + d)
    differences = graph.sources * rest * d * wide
    contraction = gradients + differences + _AT_STREAM * rest * (a.heads + 2 * a.key_value_heads) * d * wide
    return MemoryNeed(weights, int(capture), int(backward), int(contraction), pairs, tokens, steps)
