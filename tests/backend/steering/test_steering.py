"""Steering vectors and experiments, on a model in which the direction of a quality is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuroscope import events
from neuroscope.engines.protocol import Edit, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, DatasetError, HookError, SiteError
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope.steering import contrast
from neuroscope.steering.doses import dose_responses, growths, p_beyond, random_directions
from neuroscope.steering.experiment import SteeringExperiment
from neuroscope.steering.probe import fitted
from neuroscope.steering.results import MODES, SteeringResults
from neuroscope.steering.steered import SteeredRuns, Sweep
from neuroscope.steering.vectors import SteeringVector, SteeringVectors, direction, read_site
from neuroscope.tasks.statistics import difference_test
from neuroscope.tensors.tensor import ActivationTensor
from tests import tiny
from tests.backend.features.planted import CONCEPT, OTHERS, planted_model

LAYER = 0


def sentences(words: range, count: int = 24) -> list[str]:
    random = np.random.default_rng(words.start)
    return [" ".join(f"w{token}" for token in random.choice(np.array(words), 4)) for _ in range(count)]


@pytest.fixture(scope="module")
def model(framework: str) -> TransformerModel:
    return planted_model(on=framework)


@pytest.fixture(scope="module")
def vector(model: TransformerModel) -> SteeringVector:
    return SteeringVectors(model).define("planted quality", sentences(CONCEPT), sentences(OTHERS), layer=LAYER)


@pytest.fixture(scope="module")
def results(model: TransformerModel, vector: SteeringVector) -> SteeringResults:
    openings = [f"w{token} w{token + 1}" for token in range(20, 26)]
    return SteeringExperiment(model, vector, openings=openings, strengths=(-2, -1, 0, 1, 2), max_tokens=6).run()


def test_a_vector_of_other_weights_says_so_once_for_each_state_of_the_weights(framework: str) -> None:
    model = planted_model(on=framework)
    vectors, heard = SteeringVectors(model), list[str]()
    vector = vectors.define("quality", sentences(CONCEPT), sentences(OTHERS), layer=LAYER)
    assert vector.as_dictionary()["weightsHash"] == vector.weights_hash == model.weights_hash
    before = model.weights("1.mlp.W_out").snapshot()
    with events.listen(lambda event: heard.append(event.message) if isinstance(event, events.Notice) else None):
        vectors.vector("quality", LAYER)
        assert heard == []
        model.weights("1.mlp.W_out").write(model.weights("1.mlp.W_out").read() * 2)
        for _ in range(2):
            assert vectors.vector("quality", LAYER) is vector
        assert SteeringVectors.load("quality", model, LAYER) is vector
        assert len(heard) == 1
        assert "steering vector quality was measured on" in heard[0]
        SteeringVectors(model).define("quality", sentences(CONCEPT), sentences(OTHERS), layer=LAYER)
        vectors.vector("quality", LAYER)
        assert len(heard) == 1
        model.weights("1.mlp.W_out").restore(before)
        vectors.vector("quality", LAYER)
        assert len(heard) == 2
    SteeringExperiment(model, vector, openings=["w20 w21", "w22 w23"])  # its own weights again
    assert len(heard) == 2


@pytest.mark.parametrize("method", ["mean_difference", "pca"])
def test_the_planted_direction_is_found(model: TransformerModel, method: str) -> None:
    found = SteeringVectors(model).define("again", sentences(CONCEPT), sentences(OTHERS), 0, "residualPre", method)
    planted = np.zeros(32)
    planted[[0, 1]] = 1, -1
    cosine = found.numpy() @ planted / np.linalg.norm(found.numpy()) / np.linalg.norm(planted)
    assert cosine > 0.8
    assert found.method == method


def test_pca_finds_the_direction_that_differences_share_and_points_it_their_way() -> None:
    random = np.random.default_rng(0)
    true = np.eye(16)[3]
    differences = (-3 * true + 0.1 * random.normal(size=(40, 16))).astype(np.float32)
    found = direction(differences, "pca")
    assert found @ true == pytest.approx(-3, abs=0.1)
    assert np.linalg.norm(found) == pytest.approx(3, abs=0.1)
    assert np.allclose(direction(differences, "mean_difference"), differences.mean(0))


def test_steering_moves_the_quality_by_dose_both_ways(results: SteeringResults) -> None:
    effects = [results.effect["all_tokens"][strength].value for strength in ("-2", "-1", "0", "1", "2")]
    preferences = [results.preference["all_tokens"][strength].value for strength in ("-2", "-1", "0", "1", "2")]
    assert effects[-1] > effects[2] > effects[0]
    assert preferences == sorted(preferences)
    assert results.dose_response["all_tokens"].low > 0.9
    assert results.effect_response["all_tokens"].value > 0.6
    assert results.growth["all_tokens"].low > 0
    assert max(map(abs, results.random_growth)) < results.growth["all_tokens"].value
    assert (results.exists, results.reason) == (True, None)
    assert results.random_p_value == pytest.approx(1 / 21)


def test_strength_zero_is_the_model_itself_in_every_mode(results: SteeringResults) -> None:
    plain = results.effect["all_tokens"]["0"]
    assert all(results.effect[mode]["0"] == plain for mode in MODES[:-1])
    assert len({results.written[mode]["0"] for mode in MODES[:-1]}) == 1


def test_results_tell_what_was_measured(results: SteeringResults) -> None:
    assert results.probe_auroc > 0.95
    assert [each.position for each in results.density] == [1, 2, 3]
    assert results.densest_position in (1, 2, 3)
    data = results.as_dictionary()
    assert data["effect"]["all_tokens"]["2"]["n"] == 6
    assert {"fluency", "density", "preference", "doseResponse", "provenance"} <= set(data)
    assert "20 random directions" in results.summary()
    assert results.summary().startswith("planted_quality at 0.residual of planted")


def test_a_vector_loads_by_name_in_a_hook_at_the_hooks_own_site(model: TransformerModel, vector: SteeringVector) -> None:
    seen: list[SteeringVector] = []

    def steer(activations: ActivationTensor, position: int) -> ActivationTensor:
        seen.append(SteeringVectors.load("plantedQuality"))
        return activations + seen[-1] * 2

    before = model.logits("w20 w21").numpy()
    with model.hook_manager.temporarily(ActivationHook(LAYER, "residual", steer)):
        after = model.logits("w20 w21").numpy()
    assert seen[0] is vector
    assert after[0, -1, list(CONCEPT)].mean() > before[0, -1, list(CONCEPT)].mean()
    with model.hook_manager.temporarily(ActivationHook(2, "mlp", lambda a, p: a + SteeringVectors.load("planted_quality"))):
        model.logits("w20 w21")  # computed there and then, from within the run
    assert ("planted_quality", 2, "mlp") in [(v.name, v.layer, v.component) for v in SteeringVectors(model)]


@pytest.mark.parametrize(
    ("architecture", "component"),
    [("gpt2", "mlp"), ("gpt2", "residual"), ("gpt_oss", "mlp"), ("gpt_oss", "residual"), ("gpt_oss", "router")],
)
def test_a_run_within_a_hook_leaves_the_outer_run_as_it_was(architecture: str, component: str, framework: str) -> None:
    model = tiny.model(architecture, on=framework)
    batch = model.encode("w5 w6 w7")
    before = model.engine.ops.to_numpy(model.engine.forward(batch).logits)

    def look(activations: ActivationTensor) -> ActivationTensor:
        inner = model.engine.forward(model.encode(["w8 w9 w10 w11", "w9"]))
        assert model.engine.ops.is_finite(inner.logits)
        return activations

    with model.hook_manager.temporarily(ActivationHook(1, component, look)):
        # experts that are read are computed one by one, not fused, and so differ in the last bits
        assert np.allclose(model.logits("w5 w6 w7").numpy(), before, atol=1e-5)


def test_vectors_are_kept_in_a_file_and_read_back(vector: SteeringVector, model: TransformerModel, tmp_path: Path) -> None:
    path = SteeringVectors(model).save(str(tmp_path / "mine"))
    assert path.endswith("mine.safetensors")
    fresh = planted_model()
    read = SteeringVectors(fresh).read(path)
    again = SteeringVectors.load("planted_quality", fresh, LAYER)
    assert any(vector is again for vector in read)
    assert np.array_equal(again.numpy(), vector.numpy())
    assert again.pairs == vector.pairs


def test_an_unknown_vector_names_the_nearest(model: TransformerModel) -> None:
    with pytest.raises(ArgumentError) as caught:
        SteeringVectors.load("formalStile", model)
    assert "'formal_style'" in caught.value.remedy
    with pytest.raises(ArgumentError, match="there is none here"):
        SteeringVectors.load("formalStyle")
    before = model.logits("w20 w21").numpy()
    hook = ActivationHook(LAYER, "residual", lambda a, p: a + SteeringVectors.load("formalStile"), name="steering")
    with model.hook_manager.temporarily(hook), pytest.raises(HookError) as failed:
        model.logits("w20 w21")
    assert "steering at 0.residual" in str(failed.value)
    assert "'formal_style'" in failed.value.remedy
    assert np.array_equal(model.logits("w20 w21").numpy(), before)


def test_a_vector_of_another_width_is_refused(model: TransformerModel, vector: SteeringVector, tmp_path: Path) -> None:
    wider = tiny.model("qwen3")
    wide = SteeringVector(
        vector.array[:20],
        model.engine.ops,
        name="short",
        site=vector.site,
        method="pca",
        pairs=vector.pairs,
        title="t",
        weights_hash="h",
        dtype="float32",
    )
    with pytest.raises(ArgumentError, match=r"20 wide, but 0\.residual of planted is 32"):
        SteeringVectors(model).add(wide)
    with pytest.raises(ArgumentError, match="20 wide"):
        SteeringExperiment(model, wide)
    other = SteeringVectors(model).vector("planted_quality", 2, "mlp")
    path = SteeringVectors(model).save(str(tmp_path / "mine.safetensors"))
    with pytest.raises(ArgumentError, match=f"{len(other)} wide, but 2.mlp of tiny qwen3 is 48"):
        SteeringVectors(wider).read(path)
    assert len(SteeringVectors(wider)) == 0  # all or none
    hook = ActivationHook(LAYER, "residual", lambda a, p: a + wide, name="steering")
    with model.hook_manager.temporarily(hook), pytest.raises(HookError, match=r"steering at 0\.residual failed.*\(32,\)"):
        model.logits("w20 w21")


def test_bad_contrasts_are_refused(model: TransformerModel, tmp_path: Path) -> None:
    vectors = SteeringVectors(model)
    with pytest.raises(DatasetError, match="too few"):
        vectors.define("x", ["w1 w2"] * 3, ["w3 w4"] * 3)
    with pytest.raises(DatasetError, match="2 positive and 1 negative"):
        vectors.define("x", ["a", "b"], ["c"])
    with pytest.raises(DatasetError, match="both sides"):
        vectors.define("x", [f"w{n}" for n in range(8)], [f"w{n}" for n in range(7, 15)])
    with pytest.raises(ArgumentError, match="both sides"):
        vectors.define("x", ["a"])
    with pytest.raises(ArgumentError, match="Methods"):
        vectors.define("formal_style", method="magic")
    with pytest.raises(SiteError, match="cannot have steering vectors"):
        vectors.vector("formal_style", 1, "headOutput")
    (tmp_path / "text.safetensors").write_text("nothing")
    with pytest.raises(ArgumentError, match="not a file of steering vectors"):
        vectors.read(str(tmp_path / "text.safetensors"))


def test_a_contrast_that_cannot_be_read_measures_nothing(model: TransformerModel) -> None:
    noise = [sentences(OTHERS, 60)[index::2] for index in (0, 1)]
    vector = SteeringVectors(model).define("noise", *noise, layer=LAYER)
    experiment = SteeringExperiment(model, vector, openings=["w20 w21", "w22 w23"], max_tokens=3)
    results = experiment.run()
    assert not results.exists
    assert "cannot be read" in (results.reason or "")
    assert (
        results.summary().splitlines()[0] == f"No effect of noise at 0.residual of planted (mean_difference): {results.reason}"
    )
    data = results.as_dictionary()
    assert (data["exists"], data["effect"], data["density"]) == (False, {}, [])
    with pytest.raises(DatasetError, match="cannot be read"):
        experiment.measure_hooks()
    with pytest.raises(DatasetError, match="cannot be read"):
        experiment.density("w20 w21")


@pytest.mark.parametrize("name", contrast.names())
def test_what_judges_a_named_contrast_shares_nothing_with_its_vector(name: str) -> None:
    pairs = contrast.named(name)
    assert pairs is not None
    fit, judge = pairs.split()
    assert not set(fit.groups) & set(judge.groups)
    assert len(fit) + len(judge) == len(pairs) == 60
    assert len(set(judge.groups)) >= contrast.FEWEST
    assert len(pairs.openings) == len(pairs.opening_units) >= 8
    used = frozenset[str]().union(*fit.units)
    assert not used & frozenset[str]().union(*judge.units, *pairs.opening_units)
    # The units are what the texts hold.
    words = {unit.split(":")[1] for unit in used if not unit.startswith("content")}
    assert words
    for text in (*judge.positive, *judge.negative, *pairs.openings):
        assert not words & set(text.replace(".", "").replace(",", "").replace("?", "").replace("!", "").split()), text


def test_own_pairs_with_a_text_in_common_are_held_out_together() -> None:
    positive = ["p0", "p1", "p1", *(f"p{number}" for number in range(3, 11))]
    negative = ["n0", "n1", "n2", "n2", *(f"n{number}" for number in range(4, 11))]
    pairs = contrast.ContrastPairs.of("own", positive, negative)
    assert pairs.groups == [0, 1, 1, 1, 4, 5, 6, 7, 8, 9, 10]
    fit, judge = pairs.split()
    assert judge.groups == [1, 1, 1, 5, 7, 9]  # every second of nine
    assert not {*fit.positive, *fit.negative} & {*judge.positive, *judge.negative}
    with pytest.raises(DatasetError, match="7 contrast pairs that share no text"):
        contrast.ContrastPairs.of("own", positive[:9], negative[:9])


def test_an_opening_with_a_text_of_the_vector_is_refused(model: TransformerModel, vector: SteeringVector) -> None:
    fit, judge = vector.pairs.split()
    with pytest.raises(DatasetError, match="from which planted_quality was computed"):
        SteeringExperiment(model, vector, openings=["w20 w21", f"w3 {fit.negative[0]}"])
    SteeringExperiment(model, vector, openings=["w20 w21", f"w3 {judge.negative[0]}"])


def test_growth_is_a_slope_and_dose_response_a_rank_correlation() -> None:
    values = np.array([[1.0, 4.0, 5.0, np.nan], [1.0, 0.0, 5.0, np.nan], [4.0, -8.0, 5.0, 2.0]])
    # Doses −1, 0, 2 about their mean 1/3: the slope is Σ (s − 1/3) v / (42/9).
    expected = [(-4 / 3 * 1 - 1 / 3 * 1 + 5 / 3 * 4) / (42 / 9), (-4 / 3 * 4 - 5 / 3 * 8) / (42 / 9), 0.0]
    assert growths([-1, 0, 2], values)[:3] == pytest.approx(expected)
    assert dose_responses([-1, 0, 2], values)[:3] == pytest.approx([np.sqrt(3) / 2, -1, 0])
    assert np.isnan(growths([-1, 0, 2], values)[3])
    assert np.isnan(dose_responses([-1, 0, 2], values)[3])


def test_a_vector_is_held_against_random_directions_either_way() -> None:
    random = [0.5, -2.0, 1.0, 0.0]
    assert p_beyond(3.0, random) == pytest.approx(1 / 5)
    assert p_beyond(-2.0, random) == pytest.approx(2 / 5)
    assert p_beyond(0.1, random) == pytest.approx(4 / 5)
    assert p_beyond(0.0, [0.0] * 4) == 1
    assert p_beyond(np.nan, random) == p_beyond(1.0, []) == 1
    drawn = random_directions(200, 7, 3.0, 0)
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(np.full(200, 3.0), rel=1e-5)
    assert np.abs(drawn.mean(0)).max() < 0.4
    assert not np.array_equal(drawn, random_directions(200, 7, 3.0, 1))


def test_a_probe_is_scaled_by_held_out_texts_and_held_against_shuffled_labels(
    model: TransformerModel, vector: SteeringVector
) -> None:
    probe = fitted(model, vector.pairs, vector.site)
    _, judge = vector.pairs.split()
    with_it, without = (probe.score(read_site(model, texts, vector.site)) for texts in (judge.positive, judge.negative))
    assert with_it.mean() == pytest.approx(1, abs=1e-4)
    assert without.mean() == pytest.approx(0, abs=1e-4)
    assert probe.auroc == np.mean(with_it[:, None] > without)
    assert probe.chance.low < 0.5 < probe.chance.high
    assert probe.chance.high < 0.75
    assert probe.p_value == pytest.approx(difference_test(with_it - without, judge.units).p_value, rel=1e-3)
    assert probe.p_value < 0.01


def loss(model: TransformerModel, opening: str, text: str, added: np.ndarray, layer: int) -> float:
    """Mean loss of a text after an opening with `added` (tokens, width) put into the stream after a layer."""
    batch = model.encode(f"{opening} {text}")
    ops = model.engine.ops
    edit = Edit(Site(layer, Component.RESIDUAL), lambda value, scope: value + ops.asarray(added[None].astype(np.float32)))
    logs = ops.to_numpy(ops.log_softmax(model.engine.forward(batch, edits=[edit]).logits))[0]
    start = model.encode(opening).positions
    return float(np.mean([-logs[at - 1, batch.ids[0, at]] for at in range(start, batch.positions)]))


@pytest.mark.parametrize("mode", ["one_token", "all_tokens", "growing"])
def test_what_is_added_where_is_added_there(model: TransformerModel, vector: SteeringVector, mode: str) -> None:
    runs = SteeredRuns(model, vector.site, 5)
    openings, texts = ["w20 w21", "w22 w23 w24"], ["w30 w31 w32", "w33 w34"]
    other = vector.numpy()[::-1].copy()
    sweep = Sweep(mode, np.array([0.0, 1.5, -1.0]), np.stack([vector.numpy(), vector.numpy(), other]))
    found = runs.losses(openings, texts, sweep)
    weights = {
        "one_token": [[0, 1, 0, 0, 0], [0, 0, 1, 0, 0]],
        "all_tokens": [[1] * 5] * 2,
        "growing": [[0, 0, 1 / 3, 2 / 3, 1], [0, 0, 0, 1 / 2, 1]],
    }[mode]
    for block, (strength, added_direction) in enumerate(zip(sweep.strengths, sweep.directions, strict=True)):
        for row in range(2):
            added = strength * np.array(weights[row])[:, None] * added_direction
            assert found[block, row] == pytest.approx(loss(model, openings[row], texts[row], added, LAYER), abs=1e-4)


@pytest.mark.parametrize("mode", ["one_token", "all_tokens", "growing"])
def test_generation_is_steered_token_by_token(model: TransformerModel, vector: SteeringVector, mode: str) -> None:
    runs = SteeredRuns(model, vector.site, 4)
    batch = runs.openings(["w20 w21 w22"])
    sweep = Sweep(mode, np.array([2.0]), vector.numpy()[None])
    written = runs.steered(batch, sweep).rows[0]
    ids, ops = list(batch.ids[0]), model.engine.ops
    for step in range(4):
        weights = {
            "one_token": [0, 0, 1, *[0] * step],
            "all_tokens": [1] * (3 + step),
            "growing": [0, 0, 0, *(token / 3 for token in range(1, step + 1))],
        }[mode]
        added = 2.0 * np.array(weights)[:, None] * vector.numpy()
        edit = Edit(vector.site, lambda value, scope, added=added: value + ops.asarray(added[None].astype(np.float32)))  # type: ignore[misc]
        logits = ops.to_numpy(model.engine.forward(TokenBatch.of([ids]), edits=[edit]).logits)[0, -1]
        ids.append(int(logits.argmax()))
    assert written == ids[3 : 3 + len(written)]
    assert len(written) == 4 or ids[3 + len(written)] in model.end_tokens


def test_what_was_written_is_read_by_the_bare_model(model: TransformerModel, vector: SteeringVector) -> None:
    runs, probe = SteeredRuns(model, vector.site, 4), fitted(model, vector.pairs, vector.site)
    batch = runs.openings(["w20 w21", "w22 w23 w24", "w22 w23 w24"])
    written = [[30, 55], [31, 32, 33], []]
    scores, losses = runs.read(batch, written, probe)
    ops = model.engine.ops
    run = model.engine.forward(TokenBatch.of([[20, 21, 30, 55]]), capture=[vector.site])
    logs = ops.to_numpy(ops.log_softmax(run.logits))[0]
    assert losses[0] == pytest.approx(-(logs[1, 30] + logs[2, 55]) / 2, abs=1e-4)
    assert scores[0] == pytest.approx(probe.score(ops.to_numpy(run[vector.site])[0, 2:]).mean(), abs=1e-4)
    assert np.isnan([scores[2], losses[2]]).all()


@pytest.mark.slow
def test_random_contrasts_on_random_models_have_no_effect() -> None:
    """Twenty models whose words have no quality: at most one may be called steerable."""
    found = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        texts = [[" ".join(f"w{word}" for word in random.choice(np.arange(10, 90), 4)) for _ in range(16)] for _ in range(3)]
        model = tiny.model("gpt2", seed=seed)
        vector = SteeringVectors(model).define("nothing", texts[0], texts[1], layer=1)
        results = SteeringExperiment(model, vector, openings=texts[2][:4], strengths=(-1, 1), max_tokens=1).run()
        assert results.exists == (results.reason is None)
        found.append(results)
    assert sum(each.exists for each in found) <= 1
    # Each of the three tests holds its level by itself.
    assert sum(each.growth_p_value < 0.05 for each in found) <= 3
    assert sum(each.random_p_value <= 0.05 for each in found) <= 3
    assert sum(each.probe_p_value < 0.05 for each in found) <= 3
