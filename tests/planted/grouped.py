"""Grouped queries, in the Llama architecture: four heads, two of which share keys and values.

A prompt holds three cards (a colour and a shape each), three targets (a shape and a name each), and a question (a colour). The
answer is the name of the target that has the shape of the card of that colour. Layer 0, head 2 (of key-value head 1) looks
from the question at the card and writes its shape; layer 1, heads 0 and 1 (both of key-value head 0) look at the target
of that shape and write its name, with different weights. In the corrupt prompt the question has another colour,
or two cards have changed colours or shapes, or two targets shapes or names, so that each read matters on some pairs.

One large constant dimension keeps the norm's scale. Keys use the dimensions that the rotary embedding turns by next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Example
from tests.planted.circuit import Planted, words
from tests.planted.handset import CONSTANT, Matrix

COLOURS, SHAPES, NAMES = ("red", "green", "blue"), ("round", "square", "long"), ("Ann", "Bob", "Cleo")
CARDS = [f"{colour}-{shape}" for colour, shape in product(COLOURS, SHAPES)]
TARGETS = [f"{shape}-{name}" for shape, name in product(SHAPES, NAMES)]
QUESTIONS = [f"{colour}?" for colour in COLOURS]
FILLERS = [f"f{number}" for number in range(8)]
VOCABULARY = ["^", *NAMES, *CARDS, *TARGETS, *QUESTIONS, *FILLERS]
LAYERS, HEADS, GROUPS, D_HEAD, NOISE = 3, 4, 2, 32, 8
WIDTH, STILL = 64, 8  # the head's dimensions from STILL on hardly turn
_PARTS = {"colour": 0, "shape": 3, "asked": 6, "of": 9, "name": 12, "found": 15, "answer": 18, "filler": 21}
_NOISE, _ONE = 40, WIDTH - 1

EDGES = {
    ("embedding", "0.query[2]"),
    ("embedding", "0.key[1]"),
    ("embedding", "0.value[1]"),
    ("0.headOutput[2]", "1.query[0]"),
    ("0.headOutput[2]", "1.query[1]"),
    ("embedding", "1.key[0]"),
    ("embedding", "1.value[0]"),
    ("1.headOutput[0]", "logits"),
    ("1.headOutput[1]", "logits"),
}


def planted(n: int = 60, *, seed: int = 0) -> Planted:
    config = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=GROUPS, head_dim=D_HEAD, max_position_embeddings=16, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e12}, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config).double().eval()
    random = np.random.default_rng(100 + seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        scale = CONSTANT / np.sqrt(WIDTH)
        for layer in model.model.layers:
            layer.input_layernorm.weight.fill_(scale)
            layer.post_attention_layernorm.weight.fill_(scale)
        model.model.norm.weight.fill_(scale)
        model.model.embed_tokens.weight.copy_(torch.tensor(_embedding()))
        one = _into(np.full((1, 1), 1 / CONSTANT), _ONE)
        _query(model, 0, 2, {"asked": 6.0})
        _key_value(model, 0, 1, key="colour", value="shape")
        _output(model, 0, 2, "found", 1.0)
        for head, gain in ((0, 0.6), (1, 0.4)):
            _query(model, 1, head, {"found": 6.0})
            _output(model, 1, head, "answer", gain)
        _key_value(model, 1, 0, key="of", value="name")
        model.lm_head.weight[1 : 1 + len(NAMES), _PARTS["answer"] : _PARTS["answer"] + 3] = 8 * torch.eye(3).double()
        _distract(model, random, one)
    name = "grouped queries"
    found = TransformerModel(TorchEngine(model), words(VOCABULARY), name, f"planted {name}")
    return Planted(name, found, _examples(n, np.random.default_rng(seed)), frozenset(EDGES))


def _embedding() -> Matrix:
    found = np.zeros((len(VOCABULARY), WIDTH))
    found[:, _ONE] = CONSTANT

    def mark(word: str, part: str, index: int) -> None:
        found[VOCABULARY.index(word), _PARTS[part] + index] = 1

    for card in CARDS:
        colour, shape = card.split("-")
        mark(card, "colour", COLOURS.index(colour))
        mark(card, "shape", SHAPES.index(shape))
    for target in TARGETS:
        shape, name = target.split("-")
        mark(target, "of", SHAPES.index(shape))
        mark(target, "name", NAMES.index(name))
    for index, question in enumerate(QUESTIONS):
        mark(question, "asked", index)
    for index, filler in enumerate(FILLERS):
        mark(filler, "filler", index)
    return found


def _into(matrix: Matrix, first: int) -> Matrix:
    found = np.zeros((WIDTH, matrix.shape[1]))
    found[first : first + len(matrix)] = matrix
    return found


def _query(model: Any, layer: int, head: int, parts: Mapping[str, float]) -> None:
    weight = model.model.layers[layer].self_attn.q_proj.weight
    for part, sharpness in parts.items():
        rows = head * D_HEAD + STILL
        weight[rows : rows + 3, _PARTS[part] : _PARTS[part] + 3] = torch.eye(3).double() * sharpness * np.sqrt(D_HEAD)


def _key_value(model: Any, layer: int, group: int, *, key: str, value: str) -> None:
    attention, rows = model.model.layers[layer].self_attn, group * D_HEAD
    attention.k_proj.weight[rows + STILL : rows + STILL + 3, _PARTS[key] : _PARTS[key] + 3] = torch.eye(3).double()
    attention.v_proj.weight[rows : rows + 3, _PARTS[value] : _PARTS[value] + 3] = torch.eye(3).double()


def _output(model: Any, layer: int, head: int, part: str, gain: float) -> None:
    columns = slice(head * D_HEAD, head * D_HEAD + 3)
    model.model.layers[layer].self_attn.o_proj.weight[_PARTS[part] : _PARTS[part] + 3, columns] = gain * torch.eye(3).double()


def _distract(model: Any, random: np.random.Generator, one: Matrix) -> None:
    """Heads, key-value heads and MLPs that the circuit does not use read at random, and write into the noise."""
    used_heads, used_groups = {(0, 2), (1, 0), (1, 1)}, {(0, 1), (1, 0)}

    def noise(rows: int) -> torch.Tensor:
        return torch.tensor(random.normal(0, 0.4, (rows, _ONE)))

    for number, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        for group in range(GROUPS):
            if (number, group) not in used_groups:
                rows = slice(group * D_HEAD, (group + 1) * D_HEAD)
                attention.k_proj.weight[rows, :_ONE] = noise(D_HEAD)
                attention.v_proj.weight[rows, :_ONE] = noise(D_HEAD)
        for head in range(HEADS):
            if (number, head) not in used_heads:
                rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
                attention.q_proj.weight[rows, :_ONE] = noise(D_HEAD)
                out = torch.tensor(random.normal(0, 1 / np.sqrt(D_HEAD), (NOISE, D_HEAD)))
                attention.o_proj.weight[_NOISE : _NOISE + NOISE, rows] = out
        mlp.gate_proj.weight[:, :_ONE] = noise(48)
        mlp.up_proj.weight[:, :_ONE] = noise(48)
        mlp.down_proj.weight[_NOISE : _NOISE + NOISE] = torch.tensor(random.normal(0, 1 / np.sqrt(48), (NOISE, 48)))


def _examples(n: int, random: np.random.Generator) -> list[Example]:
    kinds = ("question", "colours", "shapes", "of", "names")
    found: list[Example] = []
    seen: set[str] = set()
    while len(found) < n:
        kind = kinds[len(found) % len(kinds)]
        colours, shapes, of, names = (list(random.permutation(3)) for _ in range(4))
        asked, other = (int(index) for index in random.permutation(3)[:2])  # which cards are asked for
        fillers = [FILLERS[index] for index in random.permutation(len(FILLERS))[:2]]
        clean = _prompt(colours, shapes, of, names, colours[asked], fillers)
        changed = {"colours": list(colours), "shapes": list(shapes), "of": list(of), "names": list(names)}
        question = colours[other] if kind == "question" else colours[asked]
        targets = of.index(shapes[asked]), of.index(shapes[other])
        if kind != "question":
            one, two = (asked, other) if kind in ("colours", "shapes") else targets
            changed[kind][one], changed[kind][two] = changed[kind][two], changed[kind][one]
        corrupt = _prompt(changed["colours"], changed["shapes"], changed["of"], changed["names"], question, fillers)
        if clean not in seen and corrupt not in seen:
            seen |= {clean, corrupt}
            answer, wrong = (NAMES[names[target]] for target in targets)
            found.append(Example(clean, corrupt, answer=answer, wrong=wrong))
    return found


def _prompt(colours: list[int], shapes: list[int], of: list[int], names: list[int], asked: int, fillers: list[str]) -> str:
    cards = [f"{COLOURS[colour]}-{SHAPES[shape]}" for colour, shape in zip(colours, shapes, strict=True)]
    targets = [f"{SHAPES[shape]}-{NAMES[name]}" for shape, name in zip(of, names, strict=True)]
    return " ".join(["^", *cards, fillers[0], *targets, fillers[1], f"{COLOURS[asked]}?"])
