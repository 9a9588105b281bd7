"""One model on several devices: the same numbers as on one, with nothing but the stream crossing, and errors for what cannot be.

The devices are pretended (`tests.pretend`): an operation on arrays of two of them raises, as on GPUs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.graph import Graph
from neuroscope.engines.devices import AUTO, Devices, shares
from neuroscope.engines.protocol import Engine, LogitRequest, TokenBatch
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.engines.tuning import StepSettings
from neuroscope.engines.weights import WeightSite
from neuroscope.errors import ArgumentError
from neuroscope.models.model import TransformerModel
from neuroscope.models.verify import every_site
from neuroscope.provenance import provenance
from tests import pretend, tiny
from tests.backend.circuits.pairs import random_pairs
from tests.backend.engines.test_engine import (  # noqa: F401
    PROMPTS,
    batch,
    test_a_run_behind_a_prefix_equals_the_whole_run,
    test_a_run_resumed_or_stopped_at_a_layer_calls_only_its_blocks,
    test_an_edit_reaches_only_its_head_position_and_rows,
    test_captures_have_the_documented_shapes,
    test_every_component_can_be_edited_and_matters,
    test_gradients_equal_finite_differences,
    test_only_the_logits_asked_for_are_computed,
    test_positions_count_real_tokens_under_either_padding,
    test_the_stream_is_the_sum_of_what_is_written_to_it,
)

#: No layer visits, or two of the three.
RESTING = ((), (1, 2))
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folders() -> dict[str, str]:
    """Saved models. transformers' loader is imported by loading one before any device is pretended, since it makes its tensors below them."""
    found = {name: str(tiny.saved(name)) for name in ("gpt2", "gpt_oss")}
    TransformerModel.from_hugging_face(found["gpt_oss"], engine="torch")
    return found


@pytest.fixture
def copied(folders: dict[str, str]) -> Iterator[Counter[tuple[str, str]]]:
    with pretend.devices() as counted:
        yield counted


@pytest.fixture
def engine(copied: Counter[tuple[str, str]]) -> Engine:
    """For the suite of every engine (imported above)."""
    return pretend.engine(tiny.hf_model("llama"))


def largest(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(abs(found.cpu() - expected).max())


@pytest.mark.parametrize("resting", RESTING, ids=["split", "visiting"])
@pytest.mark.parametrize("architecture", ["gpt2", "qwen3", "gemma3", "gpt_oss"])
def test_activations_and_gradients_are_those_of_one_device(
    architecture: str, resting: tuple[int, ...], copied: Counter[tuple[str, str]]
) -> None:
    one, two = tiny.engine(architecture), pretend.engine(tiny.hf_model(architecture), resting)
    prompts, sites = TokenBatch.of(PROMPTS), every_site(one)
    expected, found = (engine.forward(prompts, capture=sites) for engine in (one, two))
    for site in sites:
        assert str(found[site].device) == pretend.FIRST
        assert largest(found[site], expected[site]) < TOLERANCE, site
    request = LogitRequest.last(prompts, np.array([[3, 8], [4, 5]]))
    wanted, got = (
        engine.gradients(prompts, lambda logits: logits[:, 0] - logits[:, 1], sites[:-1], logits=request)
        for engine in (one, two)
    )
    for site in sites[:-1]:
        assert largest(got.gradients[site], wanted.gradients[site]) < TOLERANCE, site
        assert largest(got.values[site], wanted.values[site]) < TOLERANCE, site


def test_only_the_stream_and_what_goes_with_it_cross_a_border(copied: Counter[tuple[str, str]]) -> None:
    engine = pretend.engine(tiny.hf_model("llama"))
    assert {str(tensor.device) for tensor in engine.layers[2].parameters()} == {pretend.SECOND}
    copied.clear()
    run = engine.forward(TokenBatch.of(PROMPTS))
    # The stream, the positions and two halves of the rotation, once for both layers there; back come the stream, and the run's residual.
    assert copied[pretend.FIRST, pretend.SECOND] == 4
    assert copied[pretend.SECOND, pretend.FIRST] == 2
    assert run.block_calls == 3
    engine.layers[2].to(pretend.FIRST)
    with pytest.raises(RuntimeError, match="same device"):  # the devices are no mere names
        engine.forward(TokenBatch.of(PROMPTS))


def test_visiting_weights_come_for_each_run_and_again_for_gradients(copied: Counter[tuple[str, str]]) -> None:
    engine = pretend.engine(tiny.hf_model("llama"), resting=(2,))
    weights = len(list(engine.layers[2].parameters()))
    prompts, request = TokenBatch.of(PROMPTS), LogitRequest.last(TokenBatch.of(PROMPTS), np.array([[3], [4]]))
    copied.clear()
    engine.forward(prompts)
    assert copied["cpu", pretend.SECOND] == weights
    copied.clear()
    engine.gradients(prompts, lambda logits: logits[:, 0], [every_site(engine)[0]], logits=request)
    assert copied["cpu", pretend.SECOND] >= 2 * weights - 2  # a norm's gain may not be needed again
    assert {str(tensor.device) for tensor in engine.layers[2].parameters()} == {"cpu"}


def test_circuits_score_and_run_as_on_one_device(copied: Counter[tuple[str, str]]) -> None:
    engines: list[TorchEngine] = [tiny.engine("qwen3"), pretend.engine(tiny.hf_model("qwen3"), resting=(2,))]
    pairs = random_pairs()
    expected, found = (edge_scores(engine, pairs, method="eap_ig", steps=2) for engine in engines)
    there = Graph.of(engines[0].anatomy).valid
    np.testing.assert_allclose(found[there], expected[there], atol=1e-4 * abs(expected).max())
    some = there & (np.random.default_rng(0).random(there.shape) < 0.5)
    expected, found = (CircuitEvaluation(engine, pairs).metric(some) for engine in engines)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("resting", RESTING, ids=["split", "visiting"])
def test_weights_are_written_restored_and_trained_where_they_lie(
    resting: tuple[int, ...], copied: Counter[tuple[str, str]]
) -> None:
    engines = [tiny.engine("gpt2"), pretend.engine(tiny.hf_model("gpt2"), resting)]
    prompts = TokenBatch.of(PROMPTS)
    plain = engines[1].forward(prompts).logits
    for engine in engines:
        view = engine.weights("2.mlp.W_out[5]")
        before = view.snapshot()
        view.write(view.read() * 3)
        assert largest(engine.forward(prompts).logits, plain.cpu()) > 1e-3
        view.restore(before)
        assert not engine.changed_weights()
    assert largest(engines[1].forward(prompts).logits, plain.cpu()) == 0
    sites = [WeightSite.parse(site) for site in ("0.attn.W_Q[1]", "2.mlp.W_out[5]")]
    trained = []
    for engine in (engine.copy() for engine in engines):
        tuner = engine.tuner(sites, StepSettings(learning_rate=0.01))
        assert isinstance(engine, TorchEngine)

        def losses(engine: TorchEngine = engine) -> list[torch.Tensor]:
            return [-engine.forward(prompts, logits=LogitRequest.last(prompts)).logits.log_softmax(-1)[:, 7].mean()]

        first = tuner.step(losses, [1.0])
        trained.append([*first, *tuner.step(losses, [1.0])])
        assert trained[-1][1] < trained[-1][0]
        assert len(engine.changed_weights()) == 0  # optimiser steps are recorded by whoever trains
    assert trained[0] == pytest.approx(trained[1], abs=1e-5)


def test_a_model_loads_onto_devices_by_name_and_verifies(folders: dict[str, str], copied: Counter[tuple[str, str]]) -> None:
    model = TransformerModel.from_hugging_face(folders["gpt_oss"], engine="torch", devices=[pretend.FIRST, pretend.SECOND])
    assert model.device == f"{pretend.FIRST}, {pretend.SECOND}"
    assert model.verify().passed
    assert provenance(model, None, 0).device == model.device
    alone = TransformerModel.from_hugging_face(folders["gpt_oss"], engine="torch", device="cpu")
    assert model.generate("w5 w17 w40", max_tokens=3) == alone.generate("w5 w17 w40", max_tokens=3)


def test_layers_that_fit_nowhere_visit(folders: dict[str, str], copied: Counter[tuple[str, str]]) -> None:
    model = TransformerModel.from_hugging_face(folders["gpt2"], engine="torch", max_memory={pretend.FIRST: "140 KB"})
    assert model.device == f"{pretend.FIRST} (2 layers visiting from main memory)"
    expected = TransformerModel.from_hugging_face(folders["gpt2"], engine="torch").logits("w5 w17 w40").numpy()
    np.testing.assert_allclose(model.logits("w5 w17 w40").numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("sizes", "outside", "limits", "expected"),
    [
        ([1] * 6, 0, [None, None], [0, 0, 0, 1, 1, 1]),
        ([1] * 6, 2, [None, None], [0, 0, 1, 1, 1, 1]),
        ([1] * 7, 0, [None, None, None], [0, 0, 1, 1, 1, 2, 2]),
        ([1] * 3, 50, [None, None, None], [0, 1, 2]),  # each gets a layer, however large the rest
        ([9, 1, 1], 0, [None, None], [0, 1, 1]),
        ([2] * 4, 1, [5, 100], [0, 0, 1, 1]),
        ([2] * 4, 1, [5, 2], [0, 0, None, None]),  # the second keeps its room for visitors
        ([2] * 4, 0, [8], [0, 0, 0, 0]),
        ([2] * 4, 0, [7], [0, 0, None, None]),
    ],
)
def test_layers_are_shared_out(sizes: list[int], outside: int, limits: list[int | None], expected: list[int | None]) -> None:
    assert shares(sizes, outside, limits) == expected


def test_auto_without_a_gpu_is_the_cpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert TransformerModel.from_hugging_face(str(tiny.saved("gpt2")), engine="torch", device=AUTO).device == "cpu"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"devices": ["cpu", "lazy:0", "lazy:1", "lazy:2"]}, "4 devices are more than the model's 3 layers.*at most 3"),
        ({"devices": ["cpu", "cuda:97"]}, "'cuda:97' cannot be used.*Devices here: cpu"),
        ({"device": "cuda:97"}, "'cuda:97' cannot be used.*Devices here: cpu"),
        ({"device": "tpu"}, "'tpu' cannot be used"),
        ({"devices": ["cpu", "cpu"]}, "named twice"),
        ({"device": "cpu", "devices": ["cpu", "lazy:0"]}, "Give one of the two"),
        ({"devices": "cpu"}, "a list"),
        ({"devices": ["cpu", "lazy:0"], "max_memory": {"lazy:1": 5}}, "names 'lazy:1'"),
        ({"max_memory": {"cpu": "ten"}}, "not a size.*'10GiB'"),
        ({"max_memory": {"cpu": "3 KB"}}, "embedding, final norm and unembedding need"),
        ({"max_memory": {"cpu": "40 KB"}}, "too few for a layer"),
    ],
)
def test_devices_that_cannot_be_are_refused(
    asked: dict[str, object], says: str, folders: dict[str, str], copied: Counter[tuple[str, str]]
) -> None:
    with pytest.raises(ArgumentError, match=f"(?s){says}"):
        TransformerModel.from_hugging_face(folders["gpt2"], engine="torch", **asked)  # type: ignore[arg-type]


@tiny.needs_mlx
def test_mlx_has_one_device() -> None:
    with pytest.raises(ArgumentError, match="one device"):
        TransformerModel.from_hugging_face(str(tiny.saved("gpt2")), engine="mlx", devices=["cpu", "gpu"])


def test_sizes_in_words_are_bytes() -> None:
    assert Devices.of(max_memory={"cpu": "1.5 GiB", "cuda:0": 7}).limits == (("cpu", 3 * 2**29), ("cuda:0", 7))
