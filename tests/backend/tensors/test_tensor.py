"""ActivationTensors behave alike on every engine, and on none."""

from __future__ import annotations

import numpy as np
import pytest

from neuroscope.engines import host_ops
from neuroscope.engines.protocol import ArrayOps
from neuroscope.errors import ArgumentError
from neuroscope.tensors.tensor import ActivationTensor
from tests import tiny

VALUES = np.arange(6, dtype=np.float64).reshape(2, 3) - 2


@pytest.fixture(params=[*tiny.ENGINES, "none"])
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
    unit = tensor[1]
    tensor[1] = unit * 1.5
    assert unit.tolist() == VALUES[:, 1].tolist()
    assert tensor.tolist() == (VALUES * [1, 1.5, 1]).tolist()
    kept = tensor.copy()
    tensor[0] = 9
    assert kept[0].tolist() == VALUES[:, 0].tolist()


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
