"""Steps change the tuned weights as AdamW does, and no other bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from neuroscope.engines.protocol import LogitRequest, TokenBatch
from neuroscope.engines.tuning import StepSettings
from neuroscope.engines.weights import Weight, WeightSite
from neuroscope.errors import ArgumentError, NonFiniteActivationError
from tests import tiny

SETTINGS = StepSettings(learning_rate=1e-2, weight_decay=0.1)
BATCH = TokenBatch.of([[5, 6, 7, 8], [9, 10, 11, 12], [20, 21, 22]])
SITES = ("1.attn.W_Q[1]", "1.attn.W_O[1]", "1.attn.W_K[0]", "1.attn.W_V[0]", "2.mlp.W_out[3]", "0.mlp.W_in[5]")


def descent(engine: Any, targets: Sequence[int] = (3, 4, 5)) -> Callable[[], list[torch.Tensor]]:
    def losses() -> list[torch.Tensor]:
        logits = engine.forward(BATCH, logits=LogitRequest.last(BATCH)).logits
        return [torch.nn.functional.cross_entropy(logits, torch.tensor(list(targets)))]

    return losses


def bits(engine: Any) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in engine.model.named_parameters()}


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "phi3", "gpt_oss", "gpt_neox"])
def test_numbers_outside_the_tuned_weights_keep_their_bits_through_decay_and_momentum(architecture: str) -> None:
    source = tiny.engine(architecture)
    engine = source.copy()
    sites = [WeightSite.parse(site) for site in SITES]
    tuner = engine.tuner(sites, SETTINGS)
    assert tuner.numbers == sum(np.prod(engine.weights(site).shape) for site in sites)
    before = {name: value.detach().clone() for name, value in engine.model.named_parameters()}
    for targets in ((3, 4, 5), (6, 7, 8), (3, 4, 5)):
        tuner.step(descent(engine, targets), [1.0])
    changed = sum(int((value.detach() != before[name]).sum()) for name, value in engine.model.named_parameters())
    assert 0.9 * tuner.numbers < changed <= tuner.numbers
    for site in sites:
        assert (engine.weights(site).read() != source.weights(site).read()).mean() > 0.9
        after = engine.weights(site).read()
        engine.weights(site).write(source.weights(site).read())
        assert not np.array_equal(after, engine.weights(site).read())
    assert bits(engine) == bits(source)  # with the tuned weights put back, every bit is as it was
    for name, array in tuner.state().items():
        if name.endswith("exp_avg"):
            assert np.count_nonzero(array) < array.size


def test_all_weights_follow_the_trajectory_of_plain_training() -> None:
    engine, plain = tiny.engine("llama"), tiny.hf_model("llama").eval()
    every = [
        WeightSite(layer, weight)
        for weight in Weight
        for layer in (range(tiny.LAYERS) if weight.layered else [None])
        if weight is not Weight.W_POS and _has(engine, WeightSite(layer, weight))
    ]
    by_name, whole = engine.copy(), engine.copy()
    tuners = [by_name.tuner(every, SETTINGS), whole.tuner(None, SETTINGS)]
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        ids, real = torch.tensor(BATCH.ids), torch.tensor(BATCH.real)
        logits = plain(input_ids=ids, attention_mask=real.long()).logits[torch.arange(3), torch.tensor(BATCH.column(-1))]
        torch.nn.functional.cross_entropy(logits, torch.tensor([3, 4, 5])).backward()
        optimiser.step()
        for tuner, own in zip(tuners, (by_name, whole), strict=True):
            tuner.step(descent(own), [1.0])
    assert bits(by_name) == bits(whole)
    for name, value in plain.named_parameters():
        found = dict(whole.model.named_parameters())[name]
        assert torch.allclose(found, value, atol=2e-4), name


def _has(engine: Any, site: WeightSite) -> bool:
    try:
        engine.weights(site)
    except Exception:
        return False
    return True


def test_a_state_that_was_kept_goes_on_with_the_same_bits() -> None:
    source, sites = tiny.engine("gpt2"), [WeightSite.parse(site) for site in SITES]
    one, other = source.copy(), source.copy()
    first = one.tuner(sites, SETTINGS)
    for _ in range(3):
        first.step(descent(one), [1.0])
    second = other.tuner(sites, SETTINGS)
    second.restore(first.state())
    for _ in range(3):
        first.step(descent(one, (6, 7, 8)), [1.0])
        second.step(descent(other, (6, 7, 8)), [1.0])
    assert bits(one) == bits(other)


def test_a_loss_that_is_no_number_changes_nothing() -> None:
    engine = tiny.engine("gpt2").copy()
    tuner, before = engine.tuner([WeightSite.parse(SITES[0])], SETTINGS), bits(engine)
    with pytest.raises(NonFiniteActivationError, match="learning rate"):
        tuner.step(lambda: [descent(engine)()[0] * float("nan")], [1.0])
    assert bits(engine) == before


def test_a_copy_has_weights_of_its_own_and_the_same_record() -> None:
    source = tiny.engine("gpt2")
    source.weights("1.mlp.W_out").write(source.weights("1.mlp.W_out").read() * 2)
    copy = source.copy()
    assert copy.changed_weights() == source.changed_weights() != {}
    before = bits(source)
    copy.weights("0.mlp.W_in").write(copy.weights("0.mlp.W_in").read() * 2)
    assert bits(source) == before
    assert "0.mlp.W_in" not in source.changed_weights()


def test_runs_keep_no_gradients_outside_a_training() -> None:
    engine = tiny.engine("gpt2")
    engine.tuner(None, SETTINGS)
    assert not engine.forward(BATCH).logits.requires_grad
    with engine.differentiable():
        assert engine.forward(BATCH).logits.requires_grad
    assert not engine.forward(BATCH).logits.requires_grad


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 0.0), ("learning_rate", float("inf")), ("weight_decay", 1.0)])
def test_settings_that_cannot_be_are_refused(name: str, value: float) -> None:
    with pytest.raises(ArgumentError, match=r"(?i)" + name.replace("_", " ")):
        StepSettings(**{name: value})
