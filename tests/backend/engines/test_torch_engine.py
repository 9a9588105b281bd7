"""What is the torch engine's own: it leaves no hook behind, and its verification and its errors name what is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.activations import NewGELUActivation

from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.torch.gelu import _Gelu
from neuroscope.errors import NonFiniteActivationError, ParityError
from neuroscope.models.model import TransformerModel
from neuroscope.models.verify import every_site
from tests import tiny


def test_verify_finds_a_model_that_does_not_run_as_it_does_bare() -> None:
    model = tiny.model("llama")
    handle = model.engine.model.model.register_forward_hook(  # type: ignore[attr-defined]
        lambda _, __, out: type(out)(last_hidden_state=out.last_hidden_state * 1.01)
    )
    with pytest.raises(ParityError, match="logits equal the bare model's"):
        model.verify()
    handle.remove()


def test_nan_weights_are_reported_with_the_layer_where_they_begin() -> None:
    model: TransformerModel = tiny.model("gpt2")
    with torch.no_grad():
        model.engine.layers[1].mlp.c_fc.weight[0, 0] = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(NonFiniteActivationError, match=r"from 1\.residual on"):
        model.logits("w5 w17 w40")


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_run_without_taps_leaves_no_hook_behind(architecture: str) -> None:
    engine, batch = tiny.engine(architecture), TokenBatch.of([[5, 17, 40, 8], [31, 7]])
    engine.forward(batch, capture=every_site(engine))
    for module in engine.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in module.__dict__
    assert engine.model.config._attn_implementation != "neuroscope"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_gelu_is_the_one_that_is_spelt_out(dtype: torch.dtype) -> None:
    fused, spelt = _Gelu(), NewGELUActivation()
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    true = spelt(x)
    with torch.no_grad():
        found = fused(x.to(dtype))
        error = (found.double() - true).abs().max()
        assert error < 4 * torch.finfo(dtype).eps * 12
        assert error <= 2 * (nn.functional.gelu(x.to(dtype), approximate="tanh").double() - true).abs().max()
    slope = x.to(dtype).detach().clone().requires_grad_()
    fused(slope).sum().backward()
    along = x.detach().clone().requires_grad_()
    spelt(along).sum().backward()
    assert torch.allclose(slope.grad.double(), along.grad, atol=1e-5 if dtype is torch.float32 else 1e-12)  # type: ignore[union-attr, arg-type]
