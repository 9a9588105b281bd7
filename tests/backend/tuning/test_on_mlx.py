"""Training on MLX: each objective's gradient is torch's, and steps go where torch's go."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from neuroscope.engines.protocol import Engine, LogitRequest, TokenBatch
from neuroscope.engines.tuning import StepSettings
from neuroscope.engines.weights import WeightSite
from neuroscope.errors import NonFiniteActivationError, WeightError
from neuroscope.models.model import TransformerModel
from neuroscope.tuning.objectives import OBJECTIVES, Coherence, Preservation, TaskItems
from neuroscope.tuning.trainer import CircuitAwareTrainer
from tests import tiny
from tests.backend.circuits.pairs import random_pairs
from tests.backend.tuning import made

pytestmark = tiny.needs_mlx

ROWS = np.arange(3)
BATCH = TokenBatch.of([[5, 6, 7, 8], [9, 10, 11, 12], [20, 21, 22]])
SETTINGS = StepSettings(learning_rate=1e-2, weight_decay=0.1)
SITES = ("0.attn.W_V[1]", "1.attn.W_Q[1]", "1.attn.W_K[0]", "1.attn.W_O[2]", "2.mlp.W_in", "2.mlp.W_out[3]")


@cache
def model(architecture: str, on: str) -> TransformerModel:
    return tiny.model(architecture, on=on)


def sites(engine: Engine) -> list[WeightSite]:
    return [WeightSite.parse(site) for site in SITES]


def gradients(engine: Any, losses: Callable[[], Any], wanted: Any) -> dict[WeightSite, np.ndarray]:
    """The gradient of each weight, as `weights(site).read()` has it."""
    found = engine.tuner(wanted, StepSettings()).gradients(lambda: [losses()], [1.0])
    answer = {}
    for site in sites(engine):
        checked = engine.weights(site).checked_site
        stored = engine.parameters.stored(checked)
        name = next(name for name in found if name.endswith(f".{checked.layer}.{stored.path}"))
        answer[site] = stored.view(found[name], np.transpose)[checked.index(engine.anatomy)]
    return answer


def task(own: TransformerModel, of: TransformerModel) -> Callable[[], Any]:
    items = TaskItems(of, list(made.dataset(3)))
    return lambda: items.loss(own.engine, ROWS)


def coherence(own: TransformerModel, of: TransformerModel) -> Callable[[], Any]:
    # A circuit is judged on torch, and says the same on both engines: its edges are what counts here.
    circuit = made.circuit(model(of.name.removeprefix("tiny "), "torch"), *made.NODES)
    objective = Coherence(of.engine, circuit, random_pairs(3))
    return lambda: objective.loss(own.engine, ROWS)


def preservation(own: TransformerModel, of: TransformerModel) -> Callable[[], Any]:
    text = TokenBatch.of([[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15]])
    kept = Preservation(of.engine, text)
    return lambda: kept.loss(own.engine, ROWS)


@pytest.mark.parametrize("objective", [task, coherence, preservation])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_gradients_are_those_of_torch(architecture: str, objective: Any) -> None:
    found = []
    for on in ("mlx", "torch"):
        of = model(architecture, on)
        own = TransformerModel(of.engine.copy(), of.tokenizer, of.name, of.loaded_hash)
        moved = own.engine.weights("0.mlp.W_in")  # so that preservation has a gradient
        moved.write(moved.read() + np.random.default_rng(0).normal(0, 0.2, moved.shape))
        found.append(gradients(own.engine, objective(own, of), sites(own.engine)))
    for site, theirs in found[1].items():
        scale = np.abs(theirs).max()
        assert scale > 1e-6
        assert np.abs(found[0][site] - theirs).max() < 5e-5 * scale, site


def losses(engine: Engine, targets: tuple[int, ...]) -> Callable[[], Any]:
    def found() -> list[Any]:
        logs = engine.ops.log_softmax(engine.forward(BATCH, logits=LogitRequest.last(BATCH)).logits)
        return [-(logs * engine.ops.one_hot(np.array(targets), tiny.VOCABULARY)).sum(-1).mean()]

    return found


def bits(engine: Any) -> dict[str, bytes]:
    return {name: np.array(array).tobytes() for name, array in engine.parameters.arrays().items()}


TARGETS = ((3, 4, 5), (6, 7, 8), (3, 4, 5))


@pytest.mark.parametrize("architecture", ["gpt2", "phi3", "gpt_oss"])
def test_numbers_outside_the_tuned_weights_keep_their_bits_through_decay_and_momentum(architecture: str) -> None:
    source: Any = model(architecture, "mlx").engine
    engine, before = source.copy(), bits(source)
    tuner = engine.tuner(sites(engine), SETTINGS)
    assert tuner.numbers == sum(np.prod(engine.weights(site).shape) for site in sites(engine))
    for targets in TARGETS:
        tuner.step(losses(engine, targets), [1.0])
    assert bits(source) == before  # the copy shares its arrays
    for site in sites(engine):
        assert (engine.weights(site).read() != source.weights(site).read()).mean() > 0.9
        engine.weights(site).write(source.weights(site).read())
    assert bits(engine) == before  # with the tuned weights put back, every bit is as it was
    for name, array in tuner.state().items():
        if name.endswith("/m"):
            assert 0 < np.count_nonzero(array) <= array.size
    assert sum(np.count_nonzero(array) for name, array in tuner.state().items() if name.endswith("/m")) <= tuner.numbers


@pytest.mark.parametrize("all_weights", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_steps_go_where_those_of_torch_go(architecture: str, all_weights: bool) -> None:
    found = []
    for on in ("mlx", "torch"):
        engine = model(architecture, on).engine.copy()
        tuner = engine.tuner(None if all_weights else sites(engine), SETTINGS)
        told = [tuner.step(losses(engine, targets), [0.5])[0] for targets in TARGETS]
        found.append((told, tuner.numbers, [engine.weights(site).read() for site in ("embed.W_E", *SITES)]))
    (ours, count, mine), (theirs, numbers, others) = found
    assert ours == pytest.approx(theirs, abs=2e-4)
    assert count == numbers
    moved = model(architecture, "torch").engine.weights(SITES[-1]).read() - others[-1]
    for one, other in zip(mine, others, strict=True):
        assert np.abs(one - other).max() < 0.02 * np.abs(moved).max()


def test_a_state_that_was_kept_goes_on_with_the_same_bits() -> None:
    source = model("gpt2", "mlx").engine
    one, other = source.copy(), source.copy()
    first = one.tuner(sites(one), SETTINGS)
    for targets in TARGETS:
        first.step(losses(one, targets), [1.0])
    second = other.tuner(sites(other), SETTINGS)
    second.restore(first.state())
    for targets in TARGETS:
        first.step(losses(one, targets), [1.0])
        second.step(losses(other, targets), [1.0])
    assert bits(one) == bits(other)


def test_a_loss_that_is_no_number_and_one_that_fails_change_nothing() -> None:
    engine = model("gpt2", "mlx").engine.copy()
    tuner, before = engine.tuner(sites(engine), SETTINGS), bits(engine)
    with pytest.raises(NonFiniteActivationError, match="learning rate"):
        tuner.step(lambda: [losses(engine, TARGETS[0])()[0] * float("nan")], [1.0])
    with pytest.raises(ZeroDivisionError):
        tuner.step(lambda: [losses(engine, TARGETS[0])()[0] * (1 // 0)], [1.0])
    assert bits(engine) == before
    assert np.isfinite(np.array(engine.forward(BATCH).logits)).all()


def test_a_circuit_is_trained_and_the_training_comes_off() -> None:
    own = model("gpt2", "mlx")
    before, circuit = bits(own.engine), made.circuit(model("gpt2", "torch"), *made.NODES)
    settings: dict[str, Any] = {"steps": 8, "every": 4, "batch": 8, "items": (24, 12, 12), "learning_rate": 1e-2}
    one = CircuitAwareTrainer(own, circuit, **settings, keeping=[], controls=False)
    for objective in OBJECTIVES:
        one.add_objective(objective, 1 / 3)
    new = one.train(made.dataset())
    training = one.training
    assert training.provenance.engine == "mlx"
    points = [point.held_out["task_performance"] for point in training.curves]
    assert points[-1] < 0.7 * points[0]
    assert set(new.changed_weights) == {name.partition("[")[0] for name in training.parameters}
    new.revert(training.edit)
    assert bits(own.engine) == bits(new.engine) == before


def test_quantised_weights_are_refused() -> None:
    import mlx.nn as nn

    engine: Any = model("llama", "mlx").engine.copy()
    nn.quantize(engine.model, group_size=32, bits=4, class_predicate=lambda path, _: path.endswith("v_proj"))
    for wanted in (None, sites(engine)[:1]):
        with pytest.raises(WeightError, match="quantised"):
            engine.tuner(wanted, SETTINGS)
