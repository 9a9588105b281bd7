"""Every engine on every architecture: parity, capture, edits, resuming, prefixes, gradients, generation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuroscope.engines.protocol import Array, Edit, EditScope, Engine, GenerationSettings, LogitRequest, TokenBatch
from neuroscope.engines.sites import ATTENTION_MATRICES, Component, Site
from neuroscope.errors import ArgumentError, InertHookError, SiteError
from neuroscope.models.verify import every_site
from tests import tiny

PROMPTS = [[5, 17, 40, 8, 77, 23, 60, 11, 9], [31, 7, 52, 66, 13, 90]]
LOGIT_TOLERANCE = 1e-4


@pytest.fixture(params=tiny.ARCHITECTURES)
def engine(request: pytest.FixtureRequest, framework: str) -> Engine:
    return tiny.engine_on(framework, request.param)


@pytest.fixture
def batch() -> TokenBatch:
    return TokenBatch.of(PROMPTS)


def largest(a: Array, b: Array) -> float:
    return float(abs(a - b).max())


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_verify_proves_parity_of_every_architecture(architecture: str, framework: str) -> None:
    report = tiny.model(architecture, on=framework).verify()
    assert len(report.checks) == 11
    assert report.passed


def test_captures_have_the_documented_shapes(engine: Engine, batch: TokenBatch) -> None:
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


def test_the_stream_is_the_sum_of_what_is_written_to_it(engine: Engine, batch: TokenBatch) -> None:
    kinds = (Component.RESIDUAL_PRE, Component.ATTENTION, Component.MLP_OUTPUT, Component.RESIDUAL)
    sites = [Site(layer, kind) for layer in range(tiny.LAYERS) for kind in kinds]
    run = engine.forward(batch, capture=sites, logits=None)
    for layer in range(tiny.LAYERS):
        before, attention, mlp, after = (run[Site(layer, kind)] for kind in kinds)
        assert largest(before + attention + mlp, after) < 1e-4


def test_every_component_can_be_edited_and_matters(engine: Engine, batch: TokenBatch) -> None:
    plain = engine.forward(batch).logits
    random = np.random.default_rng(0)

    def louder(value: Array, _: EditScope) -> Array:
        return value * engine.ops.asarray(1 + random.random(tuple(value.shape)))

    for site in every_site(engine):
        if site.layer not in (1, None):
            continue
        changed = engine.forward(batch, edits=[Edit(site, louder)]).logits
        assert largest(changed, plain) > 1e-5, site


def test_an_edit_reaches_only_its_head_position_and_rows(engine: Engine, batch: TokenBatch) -> None:
    site = Site(1, Component.HEAD_OUTPUT, head=2, position=3)
    whole = Site(1, Component.HEAD_OUTPUT)
    before = engine.forward(batch, capture=[whole])[whole]
    edit = Edit(site, lambda value, _: value + 1, rows=slice(0, 1))
    run = engine.forward(batch, edits=[edit], capture=[whole, site])
    difference = engine.ops.to_numpy(run[whole] - before)
    assert np.allclose(difference[0, 3, 2], 1, atol=1e-5)
    difference[0, 3, 2] = 0
    assert abs(difference).max() == 0
    assert tuple(run[site].shape) == (2, engine.anatomy.d_head)


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_count_real_tokens_under_either_padding(engine: Engine, side: str) -> None:
    batch = TokenBatch.of(PROMPTS, side=side)
    site = Site(0, Component.RESIDUAL, position=-1)
    found = engine.forward(batch, capture=[site], logits=None)[site]
    for row, prompt in enumerate(PROMPTS):
        single = engine.forward(TokenBatch.of([prompt]), capture=[site], logits=None)[site]
        assert largest(found[row], single[0]) < LOGIT_TOLERANCE


def test_a_run_resumed_or_stopped_at_a_layer_calls_only_its_blocks(engine: Engine, batch: TokenBatch) -> None:
    site = Site(1, Component.RESIDUAL_PRE)
    whole = engine.forward(batch, capture=[site])
    stopped = engine.forward(batch, capture=[site], stop=2, logits=None)
    assert stopped.block_calls == 2
    assert largest(stopped[site], whole[site]) == 0
    resumed = engine.forward(batch, start=1, residual=whole[site])
    assert resumed.block_calls == tiny.LAYERS - 1
    assert largest(resumed.logits, whole.logits) < LOGIT_TOLERANCE


def test_a_run_behind_a_prefix_equals_the_whole_run(engine: Engine) -> None:
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
    assert largest(again.logits, engine.ops.repeat(whole.logits, 2)) < LOGIT_TOLERANCE


@pytest.mark.parametrize("columns", [1, 5])
def test_behind_a_prefix_with_padding_on_the_left_runs_equal_whole_runs(engine: Engine, columns: int) -> None:
    batch = TokenBatch.of(
        [PROMPTS[0][:6], PROMPTS[0][2:4], PROMPTS[1][:3]], side="left"
    )  # of five columns two rows hold padding only, or nearly
    sites = [Site(1, Component.RESIDUAL, position=-1), Site(2, Component.HEAD_OUTPUT, position=-1)]
    whole = engine.forward(batch, capture=sites, logits=LogitRequest.last(batch))
    prefix = engine.prefix(batch, columns)
    assert prefix is not None
    behind = engine.forward(batch, capture=sites, logits=LogitRequest.last(batch), prefix=prefix)
    assert largest(behind.logits, whole.logits) < LOGIT_TOLERANCE
    assert all(largest(behind[site], whole[site]) < LOGIT_TOLERANCE for site in sites)
    found = engine.gradients(batch, lambda logits: logits[:, 5], sites[:1], logits=LogitRequest.last(batch), prefix=prefix)
    exact = engine.gradients(batch, lambda logits: logits[:, 5], sites[:1], logits=LogitRequest.last(batch))
    assert largest(found.gradients[sites[0]], exact.gradients[sites[0]]) < LOGIT_TOLERANCE


def test_a_prefix_leaves_a_token_of_every_row(engine: Engine) -> None:
    for side, columns in (("left", 4), ("right", 2)):
        with pytest.raises(ArgumentError, match="leaves no token"):
            engine.prefix(TokenBatch.of([PROMPTS[0][:4], PROMPTS[0][2:4]], side=side), columns)


def test_only_the_logits_asked_for_are_computed(engine: Engine, batch: TokenBatch) -> None:
    whole = engine.ops.to_numpy(engine.forward(batch).logits)
    tokens = np.array([[3, 8], [90, 4]])
    last = whole[np.arange(2), batch.column(-1)]
    some = engine.ops.to_numpy(engine.forward(batch, logits=LogitRequest.last(batch, tokens)).logits)
    assert some.shape == (2, 2)
    assert abs(some - np.take_along_axis(last, tokens, 1)).max() < LOGIT_TOLERANCE
    everywhere = engine.ops.to_numpy(engine.forward(batch, logits=LogitRequest(tokens=tokens)).logits)
    assert abs(everywhere[1] - whole[1][:, tokens[1]]).max() < LOGIT_TOLERANCE


def test_gradients_equal_finite_differences(engine: Engine) -> None:
    batch = TokenBatch.of([PROMPTS[0]])
    request = LogitRequest.last(batch, np.array([[3, 8]]))
    sites = [
        Site(None, Component.EMBEDDING),
        *(Site(1, kind) for kind in Component if kind not in (Component.EMBEDDING, Component.LOGITS, Component.ROUTER)),
    ]
    found = engine.gradients(batch, lambda logits: logits[:, 0] - logits[:, 1], sites, logits=request)
    random = np.random.default_rng(1)
    for site in sites:
        gradient = engine.ops.to_numpy(found.gradients[site])
        if site.component in ATTENTION_MATRICES:
            gradient = np.tril(gradient)  # what the mask hides has no effect
        direction = random.standard_normal(gradient.shape) * (gradient != 0)
        step = 2e-2 / (np.linalg.norm(direction) + 1e-9)

        def metric(sign: float, site: Site = site, direction: Any = direction, step: Any = step) -> float:
            edit = Edit(site, lambda value, _: value + engine.ops.asarray(sign * step * direction))
            logits = engine.forward(batch, edits=[edit], logits=request).logits
            return float(logits[0, 0] - logits[0, 1])

        slope = (metric(1) - metric(-1)) / (2 * float(step))
        expected = float((gradient * direction).sum())
        assert slope == pytest.approx(expected, rel=0.1, abs=0.02), site


def test_a_site_the_metric_does_not_depend_on_is_an_error_not_a_zero(framework: str, batch: TokenBatch) -> None:
    engine = tiny.engine_on(framework, "gpt2")
    constant = Edit(Site(2, Component.RESIDUAL), lambda value, _: engine.ops.zeros(tuple(value.shape)))
    with pytest.raises(InertHookError, match=r"1\.residual"):
        engine.gradients(
            batch,
            lambda logits: logits[:, 0],
            [Site(1, Component.RESIDUAL)],
            edits=[constant],
            logits=LogitRequest.last(batch),
        )


def test_a_gradient_that_is_zero_is_no_error(framework: str) -> None:
    engine = tiny.engine_on(framework, "llama")
    batch = TokenBatch.of([[5]])  # a single token attends to itself, whatever the score
    site = Site(1, Component.ATTENTION_SCORES)
    found = engine.gradients(batch, lambda logits: logits[:, 3], [site], logits=LogitRequest.last(batch))
    assert abs(engine.ops.to_numpy(found.gradients[site])).max() == 0


@pytest.mark.parametrize("prompts", [[PROMPTS[0]], [PROMPTS[0] * 5, PROMPTS[1] * 7]], ids=["short", "long"])
def test_neurons_of_experts_that_were_not_routed_are_zero(framework: str, prompts: list[list[int]]) -> None:
    """The long batch is one whose rows mlx-lm sorts by expert."""
    engine = tiny.engine_on(framework, "gpt_oss")
    batch = TokenBatch.of(prompts)
    sites = [Site(1, kind) for kind in (Component.MLP, Component.ROUTER, Component.MLP_OUTPUT)]
    run = engine.forward(batch, capture=sites, logits=None)
    neurons, router, written = (engine.ops.to_numpy(run[site]) for site in sites)
    neurons = neurons.reshape(*router.shape, 48)
    assert ((router != 0).sum(-1) == 2).all()
    assert np.allclose(router.sum(-1), 1, atol=1e-6)
    assert (neurons[router == 0] == 0).all()
    assert (abs(neurons[router != 0]).sum(-1) > 0).all()
    untapped = engine.ops.to_numpy(engine.forward(batch, capture=[sites[2]], logits=None)[sites[2]])
    assert abs(untapped - written)[batch.real].max() < LOGIT_TOLERANCE


def test_a_router_edit_can_send_a_token_to_more_experts(framework: str) -> None:
    engine = tiny.engine_on(framework, "gpt_oss")
    batch = TokenBatch.of([PROMPTS[0]])
    everyone = Edit(Site(1, Component.ROUTER), lambda value, _: value * 0 + 0.25)
    run = engine.forward(batch, capture=[Site(1, Component.MLP)], edits=[everyone], logits=None)
    neurons = engine.ops.to_numpy(run["1.mlp"]).reshape(1, -1, 4, 48)
    assert (abs(neurons).sum(-1) > 0).all()


def test_generation_stops_at_end_tokens_row_by_row(framework: str) -> None:
    engine = tiny.engine_on(framework, "llama")
    batch = TokenBatch.of([PROMPTS[0], PROMPTS[1]], side="left")
    free = [step.tokens for step in engine.generate(batch, GenerationSettings(max_tokens=5))]
    end = int(free[1][0])
    ended = [step.tokens for step in engine.generate(batch, GenerationSettings(max_tokens=5, end_tokens=(end,)))]
    first = next(index for index, tokens in enumerate(ended) if tokens[0] == end)
    assert all(tokens[0] == -1 for tokens in ended[first + 1 :])


def test_sampling_repeats_with_its_seed_and_differs_with_another(framework: str) -> None:
    engine = tiny.engine_on(framework, "gpt2")
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
def test_bad_requests_say_what_would_be_right(
    call: Any, error: type[Exception], says: str, batch: TokenBatch, framework: str
) -> None:
    with pytest.raises(error) as caught:
        call(tiny.engine_on(framework, "gpt2"), batch)
    assert says in str(caught.value)
