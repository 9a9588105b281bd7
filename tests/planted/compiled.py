"""A histogram compiled with Tracr (Lindner et al. 2023): how often has the last letter occurred?

The compiled model has one layer with one head, whose softmax is saturated, and one MLP. Here it is layer 0, head 0 of a GPT-2
that also holds distractors; Tracr's residual stream is one part of the stream. The head looks from a letter at the same
letters and at the first token, so the first token gets 1/(1 + count) of its attention; the MLP makes the count of that. In the
corrupt prompt another letter stands last, or at one of the places before.

`histogram.npz` is written by `compile.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuroscope.tasks.dataset import Example
from tests.planted.circuit import Planted
from tests.planted.handset import HandSet, Matrix

_FILE = Path(__file__).parent / "histogram.npz"


def histogram(n: int = 60, *, seed: int = 0) -> Planted:
    with np.load(_FILE) as found:
        arrays = dict(found)
    letters = [str(word) for word in arrays["vocabulary"]]
    counts = [label for label in arrays["residual"] if label.startswith("hist_1:")]
    vocabulary = [*letters, *(label.removeprefix("hist_1:") for label in counts)]
    width, positions = len(arrays["residual"]), len(arrays["pos_embed/embeddings"])
    made = HandSet(vocabulary, positions=positions, parts={"tracr": width}, d_head=width)
    made.embed("tracr", np.r_[arrays["token_embed/embeddings"], np.zeros((len(counts), width))])
    made.embed_positions("tracr", arrays["pos_embed/embeddings"])

    def weight(name: str) -> Matrix:
        module = f"transformer/layer_0/{name}"
        assert not arrays[f"{module}/b"].any(), "the compiled program has no biases"
        return arrays[f"{module}/w"].astype(np.float64)

    key_size = int(arrays["shape"][2])
    out = weight("attn/linear")
    made.head(
        0, 0,
        query={"tracr": weight("attn/query") / np.sqrt(key_size)}, key={"tracr": weight("attn/key")},
        value={"tracr": weight("attn/value") @ out}, writes="tracr",
    )  # fmt: skip
    first = weight("mlp/linear_1")
    made.neurons(0, read={"tracr": first}, bias=np.zeros(first.shape[1]), writes="tracr", out=weight("mlp/linear_2"))
    answers = np.zeros((width, len(vocabulary)))
    for index, label in enumerate(counts):
        answers[list(arrays["residual"]).index(label), len(letters) + index] = 4
    made.answers("tracr", answers)
    edges = {
        ("embedding", "0.query[0]"),
        ("embedding", "0.key[0]"),
        ("0.headOutput[0]", "0.mlpInput"),
        ("0.mlpOutput", "logits"),
    }
    model = made.finished("histogram")
    return Planted("histogram, compiled", model, _examples(n, seed, positions - 1), frozenset(edges))


def outputs() -> tuple[list[list[str]], list[list[str]]]:
    """Prompts, and what Tracr's own model answers behind every letter."""
    with np.load(_FILE) as found:
        return found["prompts"].tolist(), found["outputs"].astype(str).tolist()


def _examples(n: int, seed: int, length: int) -> list[Example]:
    random, letters = np.random.default_rng(seed), list("abcdefghij")
    found: list[Example] = []
    seen: set[str] = set()
    while len(found) < n:
        few = random.permutation(letters)[:4]
        clean = [str(letter) for letter in random.choice(few, length)]
        corrupt = list(clean)
        place = length - 1 if len(found) % 2 else int(random.integers(0, length - 1))
        corrupt[place] = str(random.choice([letter for letter in few if letter != clean[place]]))
        answer, wrong = str(clean.count(clean[-1])), str(corrupt.count(corrupt[-1]))
        texts = [" ".join(["BOS", *prompt]) for prompt in (clean, corrupt)]
        if answer != wrong and not seen & set(texts):
            seen |= set(texts)
            found.append(Example(*texts, answer=answer, wrong=wrong))
    return found
