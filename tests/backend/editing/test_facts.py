"""Facts in a small random model: keys and values hold in the running model, and an edit changes what it says it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuroscope.editing import methods, targets
from neuroscope.editing.edit import WeightEdit
from neuroscope.editing.keys import Memory, keys_at, memory, moments
from neuroscope.editing.statements import Fact, subject_token
from neuroscope.editing.targets import Search
from neuroscope.editing.transactions import applied_for_now
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import EditError
from neuroscope.models.model import TransformerModel
from tests import tiny

LAYER = 1
PROMPTS = ["w5 w6 w7 w8 w9", "w30 w31 w6 w7 w40", "w50 w7 w8"]
COLUMNS = [2, 3, 1]
KEPT, KEPT_COLUMNS = ["w5 w6 w11 w8", "w60 w61 w62", "w12 w13 w14"], [2, 2, 1]


@pytest.fixture(params=["gpt2", "gpt_oss", "llama"])
def model(request: pytest.FixtureRequest, framework: str) -> TransformerModel:
    return tiny.model(request.param, on=framework)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("NEUROSCOPE_CACHE", str(tmp_path))


def written(model: TransformerModel, texts: list[str], columns: list[int]) -> np.ndarray:
    """What the layer's MLP writes at one token of each text."""
    site = Site(LAYER, Component.MLP_OUTPUT)
    run = model.run(texts, [site], logits=None)
    return np.asarray(model.engine.ops.to_numpy(run[site]))[np.arange(len(texts)), columns].astype(np.float64)


def place_of(model: TransformerModel) -> Memory:
    return memory(model, LAYER, model.encode([*PROMPTS, *KEPT]), [*COLUMNS, *KEPT_COLUMNS])


def test_a_key_times_the_output_matrix_is_what_the_mlp_writes(model: TransformerModel) -> None:
    place = place_of(model)
    keys = keys_at(model, place, PROMPTS, COLUMNS)
    matrix = np.concatenate([model.weights(name).read() for name in place.names]).astype(np.float64)
    difference = written(model, PROMPTS, COLUMNS) - keys @ matrix
    if not model.architecture.experts:  # what is left is the bias, the same at every token
        np.testing.assert_allclose(difference, difference[:1].repeat(len(PROMPTS), 0), atol=1e-5)
        return
    router = Site(LAYER, Component.ROUTER)
    run = model.run(PROMPTS, [router], logits=None)
    weights = np.asarray(model.engine.ops.to_numpy(run[router]))[np.arange(len(PROMPTS)), COLUMNS]
    np.testing.assert_allclose(difference, weights @ model.weights(f"{LAYER}.mlp.b_out").read(), atol=1e-5)


@pytest.mark.parametrize("method", methods.METHODS)
def test_an_edit_adds_the_value_at_its_keys_and_nothing_at_what_is_kept(model: TransformerModel, method: str) -> None:
    place, random = place_of(model), np.random.default_rng(0)
    keys, kept = keys_at(model, place, PROMPTS, COLUMNS), keys_at(model, place, KEPT, KEPT_COLUMNS)
    added = random.normal(size=(len(PROMPTS), model.architecture.d_model))
    moment = moments(model, place, texts=[" ".join(f"w{n}" for n in random.integers(3, 97, 40)) for _ in range(30)])
    settings = methods.Settings(regularisation=1e-9, threshold=2.0, ridge=1e-12)  # so mild that every method is exact
    change = methods.change(method, keys, added, moment, kept=kept, settings=settings)
    before, before_kept = written(model, PROMPTS, COLUMNS), written(model, KEPT, KEPT_COLUMNS)
    edit = WeightEdit.planned(model, place.deltas(change), title="values", method=method)
    with applied_for_now(model, edit):
        np.testing.assert_allclose(written(model, PROMPTS, COLUMNS) - before, added, atol=1e-4)
        np.testing.assert_allclose(written(model, KEPT, KEPT_COLUMNS), before_kept, atol=1e-5)


def test_only_routed_experts_change(framework: str) -> None:
    model = tiny.model("gpt_oss", on=framework)
    place = memory(model, LAYER, model.encode(PROMPTS[:1]), COLUMNS[:1])
    assert len(place.experts) == model.architecture.experts_per_token
    keys = keys_at(model, place, PROMPTS[:1], COLUMNS[:1])
    change = methods.change("rome", keys, np.ones((1, 32)), np.eye(keys.shape[1]))
    edit = WeightEdit.planned(model, place.deltas(change), title="one fact", method="rome")
    before = {e: model.weights(f"{LAYER}.mlp.experts[{e}].W_out").snapshot() for e in range(model.architecture.experts)}
    with applied_for_now(model, edit):
        changed = [e for e, kept in before.items() if model.weights(f"{LAYER}.mlp.experts[{e}].W_out").snapshot() != kept]
    assert tuple(changed) == place.experts


def test_moments_are_the_mean_of_every_key_but_the_first(model: TransformerModel) -> None:
    place = place_of(model)
    found = moments(model, place, texts=PROMPTS)
    rows = [keys_at(model, place, [text], [at])[0] for text in PROMPTS for at in range(1, len(text.split()))]
    expected = np.stack(rows).T @ np.stack(rows) / len(rows)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(moments(model, place, texts=PROMPTS), found)  # from the cache


def test_moments_of_the_models_own_text_are_the_same_again(framework: str, tmp_path: Any) -> None:
    model = tiny.model(on=framework)
    place = memory(model, LAYER, model.encode(PROMPTS), COLUMNS)
    found = moments(model, place)
    (kept,) = (tmp_path / "moments").iterdir()
    kept.unlink()
    np.testing.assert_array_equal(moments(model, place), found)


def test_the_gradient_of_a_value_is_that_of_finite_differences(framework: str) -> None:
    model = tiny.model(on=framework)
    fact = Fact(PROMPTS[0], "w7", " w20")
    search = Search(model, [LAYER], fact, [PROMPTS[0], f"w70 w71 {PROMPTS[0]}"], ["w7 w44"])

    def loss(delta: np.ndarray) -> float:
        """The loss by its definition, from the logits of runs with the value added by a hook."""
        texts = [f"{before}{fact.prompt}" for before in ("", "w70 w71 ")]
        kept = ["w7 is a", "w7 w44"]
        found = 0.0
        for text, wanted in [*((text, None) for text in texts), *((text, True) for text in kept)]:
            at = subject_token(model, text, fact.end(text))
            was = _logs(model, text, at, np.zeros_like(delta))
            now = _logs(model, text, at, delta)
            found += -now[model.token("w20")] / len(texts) if wanted is None else -targets.KAPPA * np.exp(was) @ now / len(kept)
        return float(found)

    random = np.random.default_rng(1)
    delta, direction = random.normal(size=(2, model.architecture.d_model))
    gradient = search.evaluate(LAYER, delta)[1] @ direction
    step = 1e-2
    assert gradient == pytest.approx((loss(delta + step * direction) - loss(delta - step * direction)) / (2 * step), rel=0.02)


def test_a_cycle_of_steps_has_the_whole_gradient(framework: str) -> None:
    model = tiny.model(on=framework)
    keeping = [f"w{at} w7{' w44' * (at % 4)}" for at in range(20, 37)]
    search = Search(model, [0, LAYER], Fact(PROMPTS[0], "w7", " w20"), PROMPTS[:1], keeping)
    alone = Search(model, [LAYER], Fact(PROMPTS[0], "w7", " w20"), PROMPTS[:1], keeping)
    delta = np.random.default_rng(2).normal(size=model.architecture.d_model)
    probabilities, whole, moved = search.evaluate(LAYER, delta)
    assert len(search._kept) == 3
    steps = [search.evaluate(LAYER, delta, step) for step in range(3)]
    np.testing.assert_allclose(np.mean([gradient for _, gradient, _ in steps], axis=0), whole, atol=1e-6)
    assert np.abs(steps[0][1] - steps[1][1]).max() > 1e-4
    assert all((values == probabilities).all() for values, _, _ in steps)
    kept = [(text, subject_token(model, text, len(text) if text.endswith("w7") else text.index("w7") + 2)) for text in keeping]
    kept.append(("w7 is a", 0))
    divergences = []
    for text, at in kept:
        was, now = (_logs(model, text, at, value) for value in (0 * delta, delta))
        divergences.append(np.exp(was) @ (was - now))
    assert moved == pytest.approx(np.mean(divergences), rel=1e-3)
    assert sum(each for _, _, each in steps) == pytest.approx(moved)
    assert search.evaluate(LAYER, 0 * delta)[2] == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(alone.evaluate(LAYER, delta)[1], whole, atol=1e-6)


def _logs(model: TransformerModel, text: str, at: int, delta: np.ndarray) -> np.ndarray:
    from neuroscope.engines.protocol import Edit

    ops = model.engine.ops
    batch = model.encode(text)
    added = np.zeros((1, batch.positions, len(delta)), dtype=np.float32)
    added[0, at] = delta
    edit = Edit(Site(LAYER, Component.MLP_OUTPUT), lambda value, _: value + ops.asarray(added))
    run = model.engine.forward(batch, edits=[edit])
    return np.asarray(ops.to_numpy(ops.log_softmax(run.logits)))[0, -1].astype(np.float64)


def test_a_value_makes_the_model_say_the_object(framework: str) -> None:
    model = tiny.model(on=framework)
    prompt = "w5 w6 w7 w8"
    said, second = (token.strip() for token, _ in model.predictions(prompt, 2))
    fact = Fact(prompt, "w7", f" {second}")
    found = Search(model, [0], fact, [prompt]).target(0)
    place = memory(model, 0, model.encode([prompt]), [2])
    keys = keys_at(model, place, [prompt], [2])
    others = keys_at(model, place, [prompt] * 3, [0, 1, 3])
    change = methods.change("rome", keys, found.delta[None], np.eye(keys.shape[1]), kept=others)
    edit = WeightEdit.planned(model, place.deltas(change), title=str(fact), method="rome")
    with applied_for_now(model, edit):
        assert model.predictions(prompt, 1)[0][0].strip() == second
    assert model.predictions(prompt, 1)[0][0].strip() == said


def test_behind_the_last_layer_that_is_read_there_is_no_value(framework: str) -> None:
    model = tiny.model(on=framework)
    with pytest.raises(EditError, match="Edit an earlier layer"):
        Search(model, [tiny.LAYERS - 1], Fact(PROMPTS[0], "w7", " w20"), [PROMPTS[0]]).target(tiny.LAYERS - 1)
