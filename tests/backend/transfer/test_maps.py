"""Alignment by characters, and maps between streams: known maps are found, and where there is none, none is."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from neuroscope.engines.protocol import Port
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.errors import ArgumentError, CircuitError, DatasetError
from neuroscope.features.neurons import Neuron, NeuronSet
from neuroscope.features.texts import Text
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.safety.probe import Probe
from neuroscope.transfer import alignment, maps
from neuroscope.transfer.alignment import behind, of_ids, spelled
from neuroscope.transfer.circuits import CircuitTransfer
from neuroscope.transfer.readings import read_by
from tests import tiny


def words(n: int, length: int = 12, seed: int = 0) -> list[Text]:
    random = np.random.default_rng(seed)
    texts = [" ".join(f"w{word}" for word in random.integers(3, tiny.VOCABULARY, length)) for _ in range(n)]
    return [Text(text, text) for text in texts]


def halving() -> PreTrainedTokenizerFast:
    """A tokenizer that reads `w12` as `w`, `12`."""
    known = {"<pad>": 0, "<s>": 1, "</s>": 2, **{str(index): index for index in range(3, tiny.VOCABULARY - 1)}, "w": 96}
    tokens = Tokenizer(models.WordLevel(known, unk_token="<pad>"))
    split = pre_tokenizers.Split(Regex("w"), "isolated")
    tokens.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), split])
    return PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def turned(turn: np.ndarray) -> tuple[TransformerModel, TransformerModel]:
    """A Llama without norm gains, and the same with its stream multiplied by an orthogonal matrix from the right."""
    plain = tiny.hf_model("llama")
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
        other, q = copy.deepcopy(plain), torch.as_tensor(turn, dtype=torch.float32)
        for name, parameter in other.named_parameters():
            if any(part in name for part in ("o_proj", "down_proj")):
                parameter.copy_(q.T @ parameter)
            elif "norm" not in name:
                parameter.copy_(parameter @ q)
    return tuple(  # type: ignore[return-value]
        TransformerModel(TorchEngine(model), tiny.tokenizer(), name, name)
        for model, name in ((plain, "plain"), (other, "turned"))
    )


def permuted(source: TransformerModel) -> tuple[TransformerModel, list[int]]:
    """A Llama with its key-value heads (each with the query heads that it serves) and its neurons in another order, layer by layer.

    And by query head of the source, which one of the other model it is.
    """
    engine: Any = source.engine
    model = copy.deepcopy(engine.model)
    anatomy = source.architecture
    groups = np.arange(anatomy.key_value_heads)[::-1]
    heads = (groups[:, None] * anatomy.group + np.arange(anatomy.group)[::-1]).reshape(-1)

    def rows(units: np.ndarray, size: int) -> torch.Tensor:
        return torch.as_tensor((units[:, None] * size + np.arange(size)).reshape(-1))

    with torch.no_grad():
        for number, layer in enumerate(model.model.layers):
            queries, keys = rows(heads, anatomy.d_head), rows(groups, anatomy.d_head)
            neurons = torch.as_tensor(np.random.default_rng(number).permutation(anatomy.d_mlp))
            for projection, order in (
                (layer.self_attn.q_proj, queries),
                (layer.self_attn.k_proj, keys),
                (layer.self_attn.v_proj, keys),
            ):
                projection.weight.copy_(projection.weight[order].clone())
            layer.self_attn.o_proj.weight.copy_(layer.self_attn.o_proj.weight[:, queries].clone())
            for projection in (layer.mlp.gate_proj, layer.mlp.up_proj):
                projection.weight.copy_(projection.weight[neurons].clone())
            layer.mlp.down_proj.weight.copy_(layer.mlp.down_proj.weight[:, neurons].clone())
    return TransformerModel(TorchEngine(model), source.tokenizer, "permuted", "permuted"), np.argsort(heads).tolist()


def orthogonal(width: int = 32) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(3).normal(size=(width, width)))[0]


# --- alignment ----------------------------------------------------------------------------------------------------------


def test_tokens_of_two_tokenizers_are_aligned_where_they_end() -> None:
    whole, half = tiny.model(), TransformerModel(tiny.engine("gpt2"), halving(), "halves", "halves")
    mine, other = spelled(whole, "w12 w7 w33"), spelled(half, "w12 w7 w33")
    assert mine.ends.tolist() == [3, 6, 10]
    assert other.ends.tolist() == [1, 3, 5, 6, 8, 10]
    at, exact = behind(mine, other)
    assert at.tolist() == [-1, 3, 5]
    assert exact.tolist() == [False, True, True]
    at, exact = behind(other, mine)
    assert at.tolist() == [-1, -1, -1, 1, 1, 2]  # `w` of w33 sees no more than w7
    assert exact.tolist() == [False, False, False, True, False, True]


@pytest.mark.parametrize("text", ["Une naïve idée: 12 + 30 = 42.", "Grüße 🙂🙃 aus Zürich", "a"])
@pytest.mark.parametrize("engine", tiny.ENGINES)
def test_ends_by_decoding_are_those_of_the_tokenizer_and_never_run_ahead(
    engine: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TransformerModel.from_hugging_face("bundled:gpt2-medium", engine=engine)
    fast = spelled(model, text)
    assert alignment._offsets(model.tokenizer, text, fast.ids) is not None
    monkeypatch.setattr(alignment, "_offsets", lambda *_: None)
    slow = of_ids(model, fast.ids)
    assert slow.text == text
    whole = [end for end, after in zip(slow.ends, [*slow.ends[1:], len(text) + 1], strict=True) if end < after]
    assert set(whole) <= set(fast.ends.tolist())
    assert slow.ends[-1] == fast.ends[-1] == len(text)


# --- ridge --------------------------------------------------------------------------------------------------------------


def test_a_rotation_with_a_shift_is_found() -> None:
    random, turn = np.random.default_rng(0), orthogonal()
    x, held = random.normal(size=(400, 32)), random.normal(size=(100, 32))
    found = maps.ridge(x, x @ turn + 5.0, held, held @ turn + 5.0)
    assert np.abs(found.matrix - turn).max() < 1e-4
    assert np.abs(found(held) - held @ turn - 5.0).max() < 1e-4


def test_where_nothing_is_shared_the_penalty_is_the_largest() -> None:
    random = np.random.default_rng(0)
    x, y, held_x, held_y = (random.normal(size=(n, 32)) for n in (80, 80, 80, 80))
    found = maps.ridge(x, y, held_x, held_y)
    assert found.penalty == max(maps._PENALTIES)
    assert ((held_y - found(held_x)) ** 2).sum() > 0.95 * ((held_y - held_y.mean(0)) ** 2).sum()


# --- models -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", tiny.ENGINES)
def test_a_model_is_mapped_to_itself_by_the_identity(engine: str) -> None:
    model = tiny.model(on=engine)
    found = maps.fit(model, model, 1, 1, words(90), 0)
    assert np.abs(found.there.matrix - np.eye(32)).max() < 1e-6
    for quality in (found.raw, found.standardised, found.round_trip, found.substituted):
        assert quality.value == pytest.approx(1, abs=1e-6)
    assert found.aligned == 1
    assert found.templates == [54, 18, 18]


def test_a_turned_stream_is_turned_back() -> None:
    turn = orthogonal()
    plain, other = turned(turn)
    text = words(1)[0].text
    ops = plain.engine.ops
    assert np.abs(ops.to_numpy(plain.run(text).logits) - ops.to_numpy(other.run(text).logits)).max() < 1e-4
    found = maps.fit(plain, other, 2, 2, words(90), 0)
    assert np.abs(found.there.matrix - turn).max() < 1e-4
    assert np.abs(found.back.matrix - turn.T).max() < 1e-4
    assert found.substituted.value == pytest.approx(1, abs=1e-4)


def test_a_probe_is_carried_by_the_map_back() -> None:
    plain, other = turned(orthogonal())
    transfer = CircuitTransfer(plain, other, texts=[text.text for text in words(90)])
    positive, negative = ([f"w{3 + at} w40 w{end}" for at in range(8)] for end in (41, 51))
    probe = Probe.train("end", positive, negative, plain, 1, reading="tokens").calibrate(negative, plain, 0.2)
    carried = transfer.map(probe)
    assert (carried.layer, carried.threshold, carried.provenance.weights_hash) == (1, None, other.weights_hash)
    fresh = [text.text for text in words(6, seed=5)]
    wanted = probe.scores(fresh, plain)
    assert carried.scores(fresh, other) == pytest.approx(wanted, abs=1e-3 * np.abs(wanted).max())
    assert probe.through(np.eye(32), np.zeros(32), other, 1).scores(fresh, other) != pytest.approx(wanted, rel=0.1)
    with pytest.raises(DatasetError, match="was trained on"):
        transfer.map(carried)
    with pytest.raises(ArgumentError, match="not the residual stream"):
        transfer.map(Probe.train("end", positive, negative, plain, 1, "attention", reading="tokens"))


def test_what_neurons_read_is_carried_by_the_map_back() -> None:
    turn = orthogonal()
    plain, other = turned(turn)
    transfer = CircuitTransfer(plain, other, texts=[text.text for text in words(90)])
    found = transfer.map(neurons(plain, 1, 3, 7)).numpy()
    gates = [other.weights(f"1.mlp.W_gate[{unit}]").read().reshape(-1) for unit in (3, 7)]
    own = [plain.weights(f"1.mlp.W_gate[{unit}]").read().reshape(-1) for unit in (3, 7)]
    assert np.abs(found - gates).max() < 1e-3 < np.abs(found - np.stack(own)).max()
    with pytest.raises(CircuitError, match="not of turned"):
        CircuitTransfer(other, plain).map(neurons(plain, 1, 3))
    with pytest.raises(ArgumentError, match="no neurons for words"):
        transfer.map(neurons(plain, 1))


@pytest.mark.parametrize(
    ("architecture", "weight"), [("gpt2", "W_in"), ("llama", "W_gate"), ("gemma2", "W_gate"), ("phi3", "W_gate")]
)
def test_what_a_neuron_reads_is_what_goes_through_its_nonlinearity(architecture: str, weight: str) -> None:
    """Its products with two streams differ as the inputs of the nonlinearity do, at the same norm scale."""
    model = tiny.model(architecture)
    engine, ops = model.engine, model.engine.ops
    stream = np.random.default_rng(0).normal(size=(1, 2, 32)).astype(np.float32)
    normed = ops.to_numpy(engine.normalise(1, Port.MLP, ops.asarray(stream)))[0].astype(np.float64)
    columns = np.stack([model.weights(f"1.mlp.{weight}[{unit}]").read().reshape(-1) for unit in (3, 7)])
    bias = model.weights("1.ln2.b").read() if architecture == "gpt2" else 0.0
    centred = stream[0] - (stream[0].mean(-1, keepdims=True) if architecture == "gpt2" else 0.0)
    scale = np.sqrt((centred.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-6)
    inputs = (normed - bias) @ columns.T * scale
    assert np.abs(stream[0] @ read_by(neurons(model, 1, 3, 7), model).T - inputs).max() < 1e-3 * np.abs(inputs).max()


def neurons(model: TransformerModel, layer: int, *units: int) -> NeuronSet:
    found = [Neuron(unit, 0.9, 0.01, 0.01, []) for unit in units]
    return NeuronSet("words", layer, found, 0.9, None, [], [], True, None, provenance(model, "words", 0), model)


def test_another_tokenizer_of_the_same_stream_is_no_help_where_the_context_differs() -> None:
    whole, half = tiny.model(), TransformerModel(tiny.engine("gpt2", seed=5), halving(), "halves", "halves")
    found = maps.fit(half, whole, 1, 1, words(120), 0)
    assert found.aligned == 1  # every word ends where a half ends
    assert found.raw.value < 0.9
    assert found.substituted.value < 0.9


def test_models_that_share_no_text_are_refused() -> None:
    model = tiny.model()
    with pytest.raises(ArgumentError, match="end at the same characters"):
        maps.fit(model, model, 1, 1, words(6), 0)
    with pytest.raises(ArgumentError, match="3 groups"):
        maps.fit(model, model, 1, 1, words(3), 0)


def test_a_direction_is_mapped_and_one_that_is_not_in_the_stream_refused() -> None:
    turn = orthogonal()
    plain, other = turned(turn)
    transfer = CircuitTransfer(plain, other, texts=[text.text for text in words(90)])
    vector = plain.run_with_caching("w5 w6 w7", "1.residual")["1.residual"]
    direction = type(vector)(vector.array[0, 2], plain.engine.ops)
    mapped = other.engine.ops.to_numpy(transfer.map(direction, layer=1, at=1).array)
    assert np.abs(mapped - plain.engine.ops.to_numpy(direction.array) @ turn).max() < 1e-3
    with pytest.raises(ArgumentError, match="behind which layer"):
        transfer.map(direction)
    with pytest.raises(ArgumentError, match="32 numbers"):
        transfer.map(vector, layer=1)
