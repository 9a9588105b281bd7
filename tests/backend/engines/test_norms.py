"""Closed-form gradients of normalisations against automatic differentiation."""

from __future__ import annotations

import pytest
import torch

from neuroscope.engines.protocol import Port
from tests import tiny


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("port", list(Port))
def test_gradients_pass_a_norm_as_automatic_differentiation_says(architecture: str, port: Port) -> None:
    engine = tiny.engine(architecture)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 32, generator=random) * 3 + 0.5
    gradient = torch.randn(2, 5, 4, 32, generator=random)
    found = engine.normalise_gradient(1, port, x, gradient)
    for reader in range(4):
        entry = x.clone().requires_grad_(True)
        with engine._norm(1, port) as (norm, _):
            (expected,) = torch.autograd.grad(norm(entry), entry, gradient[:, :, reader])
        assert torch.allclose(found[:, :, reader], expected, atol=1e-5)
