"""Extensions of weights: arithmetic."""

from __future__ import annotations

from typing import cast

from neuroscope.engines import host_ops
from neuroscope.engines.weights import WeightView
from neuroscope.extensions import extends
from neuroscope.tensors.tensor import ActivationTensor


@extends(WeightView)
class TensorsOfWeights:
    """A weight as a tensor."""

    def tensor(self) -> ActivationTensor:
        """A float32 copy."""
        ops = host_ops()
        return ActivationTensor(ops.asarray(cast(WeightView, self).read()), ops)
