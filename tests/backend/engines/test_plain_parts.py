"""The parts of engines that need no model: choosing tokens, lengths, masks, memory, shares of devices, numbers as bits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from neuroscope.engines import decoder
from neuroscope.engines.checks import _merges
from neuroscope.engines.devices import Devices, shares
from neuroscope.engines.lengths import new_tokens
from neuroscope.engines.numpy_ops import NumpyOps
from neuroscope.engines.parameters import decoded, encoded
from neuroscope.engines.precision import checked, tolerance
from neuroscope.engines.protocol import GenerationSettings, TokenBatch
from neuroscope.engines.sampling import choose
from neuroscope.engines.spans import Span, left_padded
from neuroscope.errors import ArgumentError, NonFiniteActivationError
from tests import tiny


def drawn(logits: list[float], count: int = 4000, **settings: Any) -> np.ndarray:
    """The share of each token among `count` choices."""
    rows = np.tile(np.array(logits), (count, 1))
    found = choose(rows, GenerationSettings(**settings), np.random.default_rng(0))
    return np.bincount(found, minlength=len(logits)) / count


def test_tokens_are_drawn_by_their_probability() -> None:
    logits = [1.0, 3.0, 0.0, 2.0]
    assert drawn(logits, temperature=0).tolist() == [0, 1, 0, 0]
    assert drawn(logits, temperature=1) == pytest.approx(softmax(logits), abs=0.03)
    assert drawn(logits, temperature=2) == pytest.approx(softmax(np.array(logits) / 2), abs=0.03)
    # The nucleus: the fewest likeliest tokens whose probabilities reach top_p.
    share = softmax(logits)
    kept = np.where(np.isin(np.arange(4), [1, 3]), share, 0)
    assert drawn(logits, temperature=1, top_p=share[1] + 1e-6) == pytest.approx(kept / kept.sum(), abs=0.03)
    assert drawn(logits, temperature=1, top_p=share[1] - 1e-6).tolist() == [0, 1, 0, 0]
    assert drawn([5000.0, 4999.0], temperature=1) == pytest.approx(softmax([1, 0]), abs=0.03)
    for bad in (np.nan, np.inf):
        with pytest.raises(NonFiniteActivationError):
            choose(np.array([[0.0, bad]]), GenerationSettings(temperature=0), np.random.default_rng(0))


def test_a_continuation_fits_behind_its_prompt() -> None:
    assert new_tokens(0, 50, None, 30) == 30
    assert new_tokens(0, 50, 200, 30) == 200
    assert new_tokens(64, 50, None, 30) == 14
    assert new_tokens(64, 50, None, 3) == 3
    assert new_tokens(64, 50, 14, 3) == 14
    assert new_tokens(64, 63, None, 3) == 1
    with pytest.raises(ArgumentError, match="exceed the model's context of 64"):
        new_tokens(64, 50, 15, 3)
    with pytest.raises(ArgumentError, match="fill the model's context"):
        new_tokens(64, 64, None, 3)


def test_a_tolerance_grows_with_rounding_and_as_a_random_walk_over_layers() -> None:
    assert tolerance("float32", 4) == 1e-4
    assert tolerance("bfloat16", 4) == pytest.approx(32 / 128)
    assert tolerance("bfloat16", 1) == tolerance("bfloat16", 4)
    assert tolerance("float16", 64) == pytest.approx(32 / 1024 * 4)
    assert tolerance("float64", 4) == 1e-4
    with pytest.raises(ArgumentError, match="no floating type 'float8'"):
        checked("float8")


LEFT = TokenBatch.of([[5, 6, 7], [8]], side="left")
RIGHT = TokenBatch.of([[5, 6, 7], [8]])


@pytest.mark.parametrize("batch", [LEFT, RIGHT])
@pytest.mark.parametrize("window", [None, 1, 2, 3])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_query_sees_the_real_keys_of_its_window_up_to_itself(batch: TokenBatch, window: int | None, first: int) -> None:
    span = Span(batch, TokenBatch(batch.ids[:, first:], np.ones((2, 3 - first), dtype=bool)), first, None)
    mask = span.masks([window])[window]
    shown = np.ones((1, 1, 3 - first, 3), dtype=bool) if mask is None else mask
    for row in range(2):
        for query in range(first, 3):
            for key in range(3):
                if not batch.real[row, query]:
                    continue
                seen = key <= query and (window is None or key > query - window)
                seen = seen and (bool(batch.real[row, key]) or batch is RIGHT)
                if mask is None and key > query:
                    continue  # the engine's own causal mask
                assert bool(shown[min(row, len(shown) - 1), 0, query - first, key]) == seen, (row, query, key)
    assert left_padded(batch) == (batch is LEFT)
    if batch is LEFT and mask is not None:
        assert all(mask[1, 0, query - first, query] for query in range(first, 3))


def test_no_mask_is_made_where_none_is_needed() -> None:
    whole = TokenBatch.of([[5, 6, 7]])
    assert Span(whole, whole, 0, None).masks([None, 3, 2])[None] is None
    assert Span(whole, whole, 0, None).masks([None, 3, 2])[3] is None
    assert Span(whole, whole, 0, None).masks([2])[2] is not None
    last = TokenBatch(whole.ids[:, 2:], whole.real[:, 2:])
    assert Span(whole, last, 2, None).masks([None])[None] is None
    assert Span(whole, TokenBatch(whole.ids[:, 1:], whole.real[:, 1:]), 1, None).masks([])[None] is not None


def test_positions_count_from_the_first_real_token() -> None:
    assert Span(LEFT, LEFT, 0, None).positions().tolist() == [[0, 1, 2], [0, 0, 0]]
    assert Span(RIGHT, RIGHT, 0, None).positions().tolist() == [[0, 1, 2]]
    step = TokenBatch(np.array([[9], [9]]), np.ones((2, 1), dtype=bool))
    assert Span(LEFT, step, 3, None).positions().tolist() == [[3], [1]]
    assert Span(RIGHT, step, 3, None).positions().tolist() == [[3]]


def test_tokens_are_those_of_the_model_and_fit_its_context() -> None:
    anatomy: Any = SimpleNamespace(vocabulary=8, context=3)
    Span(RIGHT, TokenBatch.of([[0, 7, 7]]), 0, None).check_tokens(anatomy)
    with pytest.raises(ArgumentError, match=r"Token id 8 .* of 8"):
        Span(RIGHT, RIGHT, 0, None).check_tokens(anatomy)
    with pytest.raises(ArgumentError, match="Token id -2"):
        Span(RIGHT, TokenBatch(np.array([[9, -2]]), np.ones((1, 2), dtype=bool)), 0, None).check_tokens(anatomy)
    with pytest.raises(ArgumentError, match="4 tokens exceed the model's context of 3"):
        Span(RIGHT, TokenBatch.of([[1, 2, 3]]), 1, None).check_tokens(anatomy)
    Span(RIGHT, TokenBatch.of([[1] * 9]), 0, None).check_tokens(SimpleNamespace(vocabulary=8, context=0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "outside", "limits", "expected"),
    [
        ([4, 4, 4], 2, [6, 4, 4], [0, 1, 2]),
        ([4, 4, 4], 2, [10, 4], [0, 0, 1]),
        ([4, 4, 4], 2, [10, 7], [0, 0, 1]),
        ([4, 4, 4], 2, [6, None], [0, 1, 1]),
        ([4, 4, 4], 2, [6, 4], [0, None, None]),
        ([4, 4, 4, 4], 0, [8, 8], [0, 0, 1, 1]),
        ([4, 4, 4, 4, 4], 0, [8, 8], [0, 0, 1, None, None]),
        ([4, 4], 0, [None], [0, 0]),
        ([4, 4, 4, 4], 0, [None, None], [0, 0, 1, 1]),
        ([4, 4, 4, 4], 8, [None, None], [0, 1, 1, 1]),
        ([9, 1, 1], 0, [None, None, None], [0, 1, 2]),
        ([1, 1, 9], 0, [None, None], [0, 0, 1]),
    ],
)
def test_layers_fill_devices_in_order(sizes: list[int], outside: int, limits: list[Any], expected: list[Any]) -> None:
    assert shares(sizes, outside, limits) == expected


def test_limits_that_hold_nothing_are_refused() -> None:
    shares([4, 4], 8, [8, 12])
    for sizes, outside, limits, says in (
        ([4, 4], 9, [8, 12], "may hold 8 bytes"),
        ([4], 0, [8, 8], "2 devices are more than the model's 1 layers"),
        ([4, 4], 0, [3, 3], "too few for a layer of 4 to visit"),
    ):
        with pytest.raises(ArgumentError, match=says):
            shares(sizes, outside, limits)
    assert shares([4, 4], 0, [3, 4]) == [None, None]
    assert Devices.of("auto").split
    assert not Devices.of("cpu").split
    assert Devices.of(max_memory={"a": "1.5KiB", "b": 7}) == Devices(None, ("a", "b"), (("a", 1536), ("b", 7)))
    assert Devices.of("a", max_memory={"a": "2 kb"}) == Devices(None, ("a",), (("a", 2000),))
    assert Devices.of(devices=["a"]) == Devices("a")
    for arguments in ({"max_memory": {"a": 0}}, {"max_memory": {"a": "x"}}, {"devices": ["a", "a"]}, {"devices": "a"}):
        with pytest.raises(ArgumentError):
            Devices.of(**arguments)  # type: ignore[arg-type]


def test_operations_of_numpy_are_those_of_scipy() -> None:
    ops, values = NumpyOps(), np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    assert ops.log_softmax(values) == pytest.approx(log_softmax(values, axis=-1), abs=1e-6)
    assert ops.log_softmax(np.array([[1e4, 0.0]]))[0].tolist() == [0, -1e4]
    assert ops.exp(values) == pytest.approx(np.exp(values))
    assert ops.one_hot([[2, 0]], 3).tolist() == [[[0, 0, 1], [1, 0, 0]]]
    assert ops.repeat(values, 2).tolist() == [*values.tolist(), *values.tolist()]
    assert (ops.asarray(np.arange(3)).dtype, ops.asarray(np.ones(2)).dtype) == (np.dtype("int64"), np.dtype("float32"))
    assert ops.wide(np.ones(2, np.float16)).dtype == np.float32
    assert ops.wide(np.ones(2, np.float64)).dtype == np.float64
    assert ops.precise([1]).dtype == ops.zeros((2, 2)).dtype == np.float32
    assert ops.einsum("ij,kj->ik", values, values) == pytest.approx(values @ values.T)
    assert ops.concatenate([values, values], 1).shape == (2, 6)
    assert ops.stack([values, values], 1).shape == (2, 2, 3)
    assert ops.transpose(values, (1, 0)).shape == (3, 2)
    assert ops.where(values > 0, values, 0).min() == 0
    copied = ops.copy(values)
    copied[0, 0] += 1
    assert not ops.equal(copied, values)
    assert ops.equal(ops.settled(ops.to_numpy(values)), values)
    assert ops.is_finite(values)
    assert not ops.is_finite(np.array([1, np.nan]))


def test_bits_are_those_of_torch() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(size=200) * 10.0 ** random.integers(-8, 8, 200), [0, 1 + 2**-9, 1 + 3 * 2**-9, 7e4]])
    for name in ("bfloat16", "float16", "float32", "float64"):
        theirs = torch.tensor(values).to(getattr(torch, name) if name != "bfloat16" else torch.float32).to(getattr(torch, name))
        bits = encoded(values, name)
        assert bits.itemsize == theirs.element_size()
        assert np.array_equal(decoded(bits, name), theirs.double().numpy().astype(decoded(bits, name).dtype))


def test_rows_that_run_at_once_fit_a_part_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny.engine("gpt2")
    a = engine.anatomy
    floats = 10 * (12 * 32 + 4 * a.d_mlp + 4 * 32 + 2 * 4 * 10)
    assert engine._rows_within(10, 4, floats * 4 * 2 * 7) == 7
    assert engine._rows_within(10, 4, floats * 4 * 2 * 7 - 1) == 6
    assert engine._rows_within(10, 2, floats * 4 * 2 * 7) == 14
    assert engine._rows_within(10, 4, 5) == 1
    monkeypatch.setattr(decoder, "_free_host_bytes", lambda: floats * 4 * 4 * 9)
    assert engine._rows_within(10, 4, None) == 9
    monkeypatch.setattr(decoder, "_free_host_bytes", lambda: 10**15)
    assert engine._rows_within(10, 4, None) == decoder._CPU_TOKENS_PER_PASS // 10
    assert engine._rows_within(10**9, 4, None) == 1
    mixture = tiny.engine("gpt_oss").anatomy
    routed = 4 * mixture.d_mlp * mixture.experts_per_token
    floats = 10 * (12 * mixture.d_model + routed + 4 * mixture.heads * mixture.d_head + 2 * mixture.heads * 10)
    assert tiny.engine("gpt_oss")._rows_within(10, 4, floats * 4 * 2 * 3) == 3


def test_shapes_merge_by_multiplying_neighbours() -> None:
    assert _merges((2, 3, 4), (6, 4))
    assert _merges((2, 3, 4), (2, 12))
    assert _merges((2, 3), (2, 3))
    assert not _merges((2, 3, 4), (8, 3))
    assert not _merges((2, 3), (2,))
    assert not _merges((2,), (2, 3))
