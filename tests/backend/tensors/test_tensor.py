"""ActivationTensors behave alike on every engine, and on none."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
import torch

from neuroscope.engines import host_ops
from neuroscope.engines.protocol import ArrayOps
from neuroscope.errors import ArgumentError
from neuroscope.tensors.tensor import ActivationTensor
from tests import tiny

VALUES = np.arange(6, dtype=np.float64).reshape(2, 3) - 2


@pytest.fixture(scope="module", params=[*tiny.ENGINES, "none"])
def ops(request: pytest.FixtureRequest) -> ArrayOps:
    return host_ops() if request.param == "none" else tiny.engine_on(request.param, "gpt2").ops


@pytest.fixture
def tensor(ops: ArrayOps) -> ActivationTensor:
    return ActivationTensor(ops.asarray(VALUES), ops)


def test_arithmetic_broadcasts_and_takes_numbers_lists_and_tensors(tensor: ActivationTensor) -> None:
    assert ((tensor * 2 - tensor / 4 + 1) - 1).tolist() == (VALUES * 2 - VALUES / 4).tolist()
    assert (1 - tensor).tolist() == (1 - VALUES).tolist()
    assert (tensor * [1, 2, 3]).tolist() == (VALUES * [1, 2, 3]).tolist()
    assert (tensor + np.ones(3)).tolist() == (VALUES + 1).tolist()
    assert (-tensor).abs().tolist() == abs(VALUES).tolist()
    with pytest.raises(ArgumentError, match="cannot be broadcast together"):
        tensor * [1, 2]


def test_tensors_of_other_engines_take_part(tensor: ActivationTensor) -> None:
    elsewhere = ActivationTensor(host_ops().asarray(VALUES), host_ops())
    assert (tensor + elsewhere).tolist() == (2 * VALUES).tolist()
    assert (elsewhere * tensor).tolist() == (VALUES * VALUES).tolist()


def test_what_was_read_does_not_change_when_the_tensor_is_written(tensor: ActivationTensor) -> None:
    unit = tensor[:, 1]
    tensor[..., 1] = unit * 1.5
    assert unit.tolist() == VALUES[:, 1].tolist()
    assert tensor.tolist() == (VALUES * [1, 1.5, 1]).tolist()
    kept = tensor.copy()
    tensor[0] = 9
    assert kept[0].tolist() == [-2, -1.5, 0]
    assert tensor[0].tolist() == [9, 9, 9]
    units = kept.by_unit
    units[2] = 7
    assert [unit.tolist() for unit in units] == [[-2, 1], [-1.5, 3], [7, 7]]
    assert kept[0].by_unit[2] == 7
    for wrong in (3, -1, True, 0.5):
        with pytest.raises(ArgumentError, match="units run from 0 to 2"):
            units[wrong]  # type: ignore[index]


INDICES: list[Any] = [
    0, -1, slice(1), slice(None, None, -1), (1, 2), (..., 2), (slice(None), [2, 0]), None, (None, 1), ([0, 1, 1], [2, 0, -1]),
    VALUES > 0, np.array([True, False]), (1, slice(None, None, 2)), [], np.array([[1, 0]]), (slice(5, 9),), np.int64(1),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_an_index_gives_what_it_gives_in_numpy(tensor: ActivationTensor, index: Any) -> None:
    assert np.array_equal(np.asarray(tensor[index]), VALUES[index])
    values = VALUES.copy()
    if not (isinstance(index, slice) and index.step == -1):
        tensor[index], values[index] = 5, 5
        assert np.array_equal(tensor.numpy(), values)


@pytest.mark.parametrize(
    "index", [2, -3, (0, 3), (0, 0, 0), [5], 1.5, "residual", True, np.array([True, False, True])], ids=repr
)
def test_an_index_that_does_not_fit_is_refused_with_the_shape(tensor: ActivationTensor, index: Any) -> None:
    with pytest.raises(IndexError, match=r"does not fit the shape \(2, 3\)|no index"):
        tensor[index]


def test_comparison_reduction_and_iteration_are_numpys(tensor: ActivationTensor) -> None:
    assert (tensor == VALUES).all()
    assert (tensor > 0).tolist() == (VALUES > 0).tolist()
    assert (tensor != 1).sum() == 5
    assert tensor[tensor >= 2].tolist() == [2, 3]
    assert [row.tolist() for row in tensor] == VALUES.tolist()
    assert len(tensor) == 2
    for name in ("mean", "sum", "max", "min", "std", "argmax"):
        assert getattr(tensor, name)() == pytest.approx(getattr(VALUES, name)())
        for axis in (0, 1, -1):
            assert np.allclose(getattr(tensor, name)(axis=axis), getattr(VALUES, name)(axis=axis)), (name, axis)
            assert np.allclose(getattr(np, name)(tensor, axis=axis), getattr(VALUES, name)(axis=axis)), (name, axis)
    assert np.allclose(tensor.norm(axis=1), np.linalg.norm(VALUES, axis=1))
    assert tensor.sum(axis=1, keepdims=True).shape == (2, 1)
    assert np.allclose(tensor.softmax().sum(axis=-1), 1)
    assert np.allclose(2 / (tensor**2 + 1) @ tensor.T, 2 / (VALUES**2 + 1) @ VALUES.T)
    assert (tensor.shape, tensor.ndim, tensor.size) == ((2, 3), 2, 6)
    assert tensor.same(VALUES)
    assert not tensor.same(VALUES[0])
    with pytest.raises(ArgumentError, match="neither true nor false"):
        bool(tensor == VALUES)
    with pytest.raises(ArgumentError, match="axis 2 is out of bounds"):
        tensor.mean(axis=2)
    with pytest.raises(TypeError):
        operator.lt(tensor, "x")


def test_a_tensor_goes_to_numpy_and_torch_and_over_dlpack(tensor: ActivationTensor) -> None:
    assert isinstance(tensor.torch(), torch.Tensor)
    for found in (np.asarray(tensor), tensor.torch(), torch.from_dlpack(tensor)):
        assert np.array_equal(np.asarray(found), VALUES)
    copied = tensor.numpy()
    copied[:] = 0
    assert tensor.same(VALUES)


def test_padding_is_left_out_of_every_reduction(ops: ArrayOps) -> None:
    real = np.array([[True, True, False], [True, False, False]])
    padded = ActivationTensor(ops.asarray(np.where(real, VALUES, 99.0)), ops, real)
    cells = VALUES[real]
    assert padded.mean() == pytest.approx(cells.mean())
    assert padded.std() == pytest.approx(cells.std())
    assert padded.norm() == pytest.approx(np.linalg.norm(cells))
    assert padded.max() == cells.max()
    assert padded.sum(axis=1).tolist() == [VALUES[0, :2].sum(), VALUES[1, 0]]
    assert padded.mean(axis=1).tolist() == [VALUES[0, :2].mean(), VALUES[1, 0]]
    assert padded.norm(axis=1).tolist() == [pytest.approx(np.hypot(-2, -1)), 1]
    by_position = padded.mean(axis=0)
    assert by_position[:2].tolist() == [VALUES[:, 0].mean(), VALUES[0, 1]]
    assert np.isnan(by_position[2])
    assert by_position.mean() == pytest.approx(np.mean([VALUES[:, 0].mean(), VALUES[0, 1]]))
    assert padded[0].mean() == VALUES[0, :2].mean()
    assert (padded > -100).sum() == 3
    assert padded.argmax() == 3


def test_the_operations_agree_with_numpy(ops: ArrayOps) -> None:
    a = ops.asarray(VALUES)
    expected = {
        "log_softmax": VALUES - np.log(np.exp(VALUES).sum(-1, keepdims=True)),
        "exp": np.exp(VALUES),
        "einsum": VALUES @ VALUES.T,
        "repeat": np.tile(VALUES, (2, 1)),
        "transpose": VALUES.T,
        "stack": np.stack([VALUES, VALUES], 1),
        "concatenate": np.concatenate([VALUES, VALUES], 1),
        "where": np.where(VALUES > 0, VALUES, 0),
        "one_hot": np.eye(4)[[3, 1]],
    }
    found = {
        "log_softmax": ops.log_softmax(a),
        "exp": ops.exp(a),
        "einsum": ops.einsum("ij,kj->ik", a, a),
        "repeat": ops.repeat(a, 2),
        "transpose": ops.transpose(a, (1, 0)),
        "stack": ops.stack([a, a], 1),
        "concatenate": ops.concatenate([a, a], 1),
        "where": ops.where(a > 0, a, ops.zeros((2, 3))),
        "one_hot": ops.one_hot([3, 1], 4),
    }
    for name, value in expected.items():
        assert np.allclose(ops.to_numpy(found[name]), value, atol=1e-6), name
    assert ops.equal(a, ops.copy(a))
    assert not ops.equal(a, ops.exp(a))
    assert ops.is_finite(a)
    assert not ops.is_finite(ops.asarray(np.full(2, np.inf)))
