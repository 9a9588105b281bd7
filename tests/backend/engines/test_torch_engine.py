"""What is the torch engine's own: it leaves no hook behind, and its verification and its errors name what is wrong."""

from __future__ import annotations

import pytest
import torch

from neuroscope.engines.protocol import TokenBatch
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
