"""The torch engine on every architecture: parity, capture, edits, resuming, prefixes, gradients, generation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from neuroscope.errors import ArgumentError, InertHookError, NonFiniteActivationError, ParityError, SiteError
from neuroscope.models.engines.protocol import Edit, GenerationSettings, LogitRequest, TokenBatch
from neuroscope.models.engines.torch_engine import TorchEngine
from neuroscope.models.model import TransformerModel
from neuroscope.models.sites import ATTENTION_MATRICES, Component, Site
from neuroscope.models.verify import every_site
from tests import tiny

PROMPTS = [[5, 17, 40, 8, 77, 23, 60, 11, 9], [31, 7, 52, 66, 13, 90]]
LOGIT_TOLERANCE = 1e-4


@pytest.fixture(params=tiny.ARCHITECTURES)
def engine(request: pytest.FixtureRequest) -> Iterator[TorchEngine]:
    return tiny.engine(request.param)


@pytest.fixture
def batch() -> TokenBatch:
    return TokenBatch.of(PROMPTS)


def largest(a: Any, b: Any) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_verify_proves_parity_of_every_architecture(architecture: str) -> None:
    report = tiny.model(architecture).verify()
    assert len(report.checks) == 11
    assert report.passed


def test_verify_finds_a_model_that_does_not_run_as_it_does_bare() -> None:
    model = tiny.model("llama")
    handle = model.engine.model.model.register_forward_hook(  # type: ignore[attr-defined]
        lambda _, __, out: type(out)(last_hidden_state=out.last_hidden_state * 1.01)
    )
    with pytest.raises(ParityError, match="logits equal the bare model's"):
        model.verify()
    handle.remove()


def test_captures_have_the_documented_shapes(engine: TorchEngine, batch: TokenBatch) -> None:
    a = engine.anatomy
    run = engine.forward(batch, capture=every_site(engine))
    rows, positions = batch.ids.shape
    expected = {
        Component.MLP: (rows, positions, a.neurons),
        Component.QUERY: (rows, positions, a.heads, a.d_head),
        Component.KEY: (rows, positions, a.key_value_heads, a.d_head),
        Component.VALUE: (rows, positions, a.key_value_heads, a.d_head),
        Component.HEAD_OUTPUT: (rows, positions, a.heads, a.d_head),
        Component.ATTENTION_SCORES: (rows, a.heads, positions, positions),
        Component.ATTENTION_PATTERN: (rows, a.heads, positions, positions),
        Component.ROUTER: (rows, positions, a.experts),
        Component.LOGITS: (rows, positions, a.vocabulary),
    }
    for site, value in run.activations.items():
        assert tuple(value.shape) == expected.get(site.component, (rows, positions, a.d_model)), site


def test_the_stream_is_the_sum_of_what_is_written_to_it(engine: TorchEngine, batch: TokenBatch) -> None:
    kinds = (Component.RESIDUAL_PRE, Component.ATTENTION, Component.MLP_OUTPUT, Component.RESIDUAL)
    sites = [Site(layer, kind) for layer in range(tiny.LAYERS) for kind in kinds]
    run = engine.forward(batch, capture=sites, logits=None)
    for layer in range(tiny.LAYERS):
        before, attention, mlp, after = (run[Site(layer, kind)] for kind in kinds)
        assert largest(before + attention + mlp, after) < 1e-4


def test_every_component_can_be_edited_and_matters(engine: TorchEngine, batch: TokenBatch) -> None:
    plain = engine.forward(batch).logits
    for site in every_site(engine):
        if site.layer not in (1, None):
            continue
        changed = engine.forward(batch, edits=[Edit(site, lambda value, _: value * (1 + torch.rand_like(value)))]).logits
        assert largest(changed, plain) > 1e-5, site


def test_an_edit_reaches_only_its_head_position_and_rows(engine: TorchEngine, batch: TokenBatch) -> None:
    site = Site(1, Component.HEAD_OUTPUT, head=2, position=3)
    whole = Site(1, Component.HEAD_OUTPUT)
    before = engine.forward(batch, capture=[whole])[whole]
    edit = Edit(site, lambda value, _: value + 1, rows=slice(0, 1))
    run = engine.forward(batch, edits=[edit], capture=[whole, site])
    difference = run[whole] - before
    assert torch.allclose(difference[0, 3, 2], torch.ones(engine.anatomy.d_head), atol=1e-5)
    difference[0, 3, 2] = 0
    assert difference.abs().max() == 0
    assert tuple(run[site].shape) == (2, engine.anatomy.d_head)


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_count_real_tokens_under_either_padding(engine: TorchEngine, side: str) -> None:
    batch = TokenBatch.of(PROMPTS, side=side)
    site = Site(0, Component.RESIDUAL, position=-1)
    found = engine.forward(batch, capture=[site], logits=None)[site]
    for row, prompt in enumerate(PROMPTS):
        single = engine.forward(TokenBatch.of([prompt]), capture=[site], logits=None)[site]
        assert largest(found[row], single[0]) < LOGIT_TOLERANCE


def test_a_run_resumed_or_stopped_at_a_layer_calls_only_its_blocks(engine: TorchEngine, batch: TokenBatch) -> None:
    site = Site(1, Component.RESIDUAL_PRE)
    whole = engine.forward(batch, capture=[site])
    stopped = engine.forward(batch, capture=[site], stop=2, logits=None)
    assert stopped.block_calls == 2
    assert largest(stopped[site], whole[site]) == 0
    resumed = engine.forward(batch, start=1, residual=whole[site])
    assert resumed.block_calls == tiny.LAYERS - 1
    assert largest(resumed.logits, whole.logits) < LOGIT_TOLERANCE


def test_a_run_behind_a_prefix_equals_the_whole_run(engine: TorchEngine) -> None:
    batch = TokenBatch.of([PROMPTS[0], PROMPTS[0][::-1]])
    site = Site(2, Component.HEAD_OUTPUT, position=-1)
    whole = engine.forward(batch, capture=[site], logits=LogitRequest.last(batch))
    prefix = engine.prefix(batch, 4)
    assert prefix is not None
    behind = engine.forward(batch, capture=[site], logits=LogitRequest.last(batch), prefix=prefix)
    assert largest(behind.logits, whole.logits) < LOGIT_TOLERANCE
    assert largest(behind[site], whole[site]) < LOGIT_TOLERANCE
    twice = batch.repeat(2)
    again = engine.forward(twice, logits=LogitRequest.last(twice), prefix=prefix.repeat(2))
    assert largest(again.logits, torch.cat([whole.logits, whole.logits])) < LOGIT_TOLERANCE


def test_only_the_logits_asked_for_are_computed(engine: TorchEngine, batch: TokenBatch) -> None:
    whole = engine.forward(batch).logits
    tokens = np.array([[3, 8], [90, 4]])
    some = engine.forward(batch, logits=LogitRequest.last(batch, tokens)).logits
    last = whole[torch.arange(2), torch.as_tensor(batch.column(-1))]
    assert tuple(some.shape) == (2, 2)
    assert largest(some, last.gather(1, torch.as_tensor(tokens))) < LOGIT_TOLERANCE


def test_gradients_equal_finite_differences(engine: TorchEngine) -> None:
    batch = TokenBatch.of([PROMPTS[0]])
    request = LogitRequest.last(batch, np.array([[3, 8]]))
    sites = [
        Site(None, Component.EMBEDDING),
        *(Site(1, kind) for kind in Component if kind not in (Component.EMBEDDING, Component.LOGITS, Component.ROUTER)),
    ]
    found = engine.gradients(batch, lambda logits: logits[:, 0] - logits[:, 1], sites, logits=request)
    random = torch.Generator().manual_seed(1)
    for site in sites:
        gradient = found.gradients[site]
        if site.component in ATTENTION_MATRICES:
            gradient = gradient.tril()  # what the mask hides has no effect
        direction = torch.randn(gradient.shape, generator=random) * (gradient != 0)
        step = 2e-2 / (direction.norm() + 1e-9)

        def metric(sign: float, site: Site = site, direction: Any = direction, step: Any = step) -> float:
            edit = Edit(site, lambda value, _: value + sign * step * direction)
            logits = engine.forward(batch, edits=[edit], logits=request).logits
            return float(logits[0, 0] - logits[0, 1])

        slope = (metric(1) - metric(-1)) / (2 * float(step))
        expected = float((gradient * direction).sum())
        assert slope == pytest.approx(expected, rel=0.1, abs=0.02), site


def test_a_site_the_metric_does_not_depend_on_is_an_error_not_a_zero(batch: TokenBatch) -> None:
    engine = tiny.engine("gpt2")
    with pytest.raises(InertHookError, match=r"1\.residual"):
        engine.gradients(batch, lambda logits: torch.ones(2, requires_grad=True) * 1.0, [Site(1, Component.RESIDUAL)])


def test_neurons_of_experts_that_were_not_routed_are_zero() -> None:
    engine = tiny.engine("gpt_oss")
    batch = TokenBatch.of([PROMPTS[0]])
    run = engine.forward(batch, capture=[Site(1, Component.MLP), Site(1, Component.ROUTER)], logits=None)
    router, neurons = run["1.router"][0], run["1.mlp"][0].unflatten(-1, (4, 48))
    assert ((router != 0).sum(-1) == 2).all()
    assert torch.allclose(router.sum(-1), torch.ones(len(PROMPTS[0])), atol=1e-6)
    assert (neurons[router == 0] == 0).all()
    assert (neurons[router != 0].abs().sum(-1) > 0).all()


def test_generation_stops_at_end_tokens_row_by_row() -> None:
    engine = tiny.engine("llama")
    batch = TokenBatch.of([PROMPTS[0], PROMPTS[1]], side="left")
    free = [step.tokens for step in engine.generate(batch, GenerationSettings(max_tokens=5))]
    end = int(free[1][0])
    ended = [step.tokens for step in engine.generate(batch, GenerationSettings(max_tokens=5, end_tokens=(end,)))]
    first = next(index for index, tokens in enumerate(ended) if tokens[0] == end)
    assert all(tokens[0] == -1 for tokens in ended[first + 1 :])


def test_sampling_repeats_with_its_seed_and_differs_with_another() -> None:
    engine = tiny.engine("gpt2")
    batch = TokenBatch.of([PROMPTS[0]])

    def sample(seed: int) -> list[int]:
        settings = GenerationSettings(max_tokens=12, temperature=1.0, top_p=0.9, seed=seed)
        return [int(step.tokens[0]) for step in engine.generate(batch, settings)]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda e, b: e.forward(b, capture=[Site(7, Component.MLP)]), SiteError, "Layers run from 0 to 2"),
        (lambda e, b: e.forward(b, stop=1, capture=[Site(2, Component.MLP)], logits=None), SiteError, "only layers 0 … 0 run"),
        (lambda e, b: e.forward(b, start=1), ArgumentError, "needs the residual stream"),
        (lambda e, b: e.forward(TokenBatch.of([[1, 500]])), ArgumentError, "outside the vocabulary of 97"),
        (lambda e, b: e.forward(TokenBatch.of([[1] * 200])), ArgumentError, "context of 128"),
        (lambda e, b: list(e.generate(b, GenerationSettings(max_tokens=2))), ArgumentError, "padded on the left"),
        (
            lambda e, b: list(e.generate(b.take([0]), GenerationSettings(max_tokens=500))),
            ArgumentError,
            "at most 119 new tokens",
        ),
        (lambda e, b: GenerationSettings(max_tokens=0), ArgumentError, "at least 1"),
        (lambda e, b: TokenBatch.of([]), ArgumentError, "at least one row"),
    ],
)
def test_bad_requests_say_what_would_be_right(call: Any, error: type[Exception], says: str, batch: TokenBatch) -> None:
    with pytest.raises(error) as caught:
        call(tiny.engine("gpt2"), batch)
    assert says in str(caught.value)


def test_nan_weights_are_reported_with_the_layer_where_they_begin() -> None:
    model: TransformerModel = tiny.model("gpt2")
    with torch.no_grad():
        model.engine.layers[1].mlp.c_fc.weight[0, 0] = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(NonFiniteActivationError, match=r"from 1\.residual on"):
        model.logits("w5 w17 w40")


def test_a_run_without_taps_leaves_no_hook_behind(engine: TorchEngine, batch: TokenBatch) -> None:
    engine.forward(batch, capture=every_site(engine))
    for module in engine.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in module.__dict__
    assert engine.model.config._attn_implementation != "neuroscope"
