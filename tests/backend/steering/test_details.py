"""What steering measures, computed a second way: hooks against additions by hand, openings and units, boundaries of conclusions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuroscope import events
from neuroscope.engines.protocol import Edit, EditScope
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope.steering import contrast, steered
from neuroscope.steering import experiment as experiments
from neuroscope.steering.contrast import ContrastPairs
from neuroscope.steering.experiment import SteeringExperiment
from neuroscope.steering.extensions import _Vectors
from neuroscope.steering.probe import Probe
from neuroscope.steering.steered import SteeredRuns, Sweep
from neuroscope.steering.vectors import SteeringVector, SteeringVectors
from neuroscope.tasks import formality, tense
from neuroscope.tasks.lexicon import NAMES, PLACES
from neuroscope.tasks.statistics import Estimate, Test, difference_test, mean_of
from tests.backend.features.planted import CONCEPT, OTHERS, planted_model

OPENINGS = ["w20 w21", "w22 w23 w24", "w25 w26"]


def sentences(words: range, count: int = 24) -> list[str]:
    random = np.random.default_rng(words.start)
    return [" ".join(f"w{token}" for token in random.choice(np.array(words), 4)) for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> TransformerModel:
    return planted_model()


@pytest.fixture(scope="module")
def vector(model: TransformerModel) -> SteeringVector:
    return SteeringVectors(model).define("planted quality", sentences(CONCEPT), sentences(OTHERS), layer=0)


@pytest.fixture(scope="module")
def experiment(model: TransformerModel, vector: SteeringVector) -> SteeringExperiment:
    return SteeringExperiment(model, vector, openings=OPENINGS, strengths=(-1, 0, 2), max_tokens=4, directions=3)


def added(model: TransformerModel, vector: SteeringVector, strength: float) -> Edit:
    def apply(value: object, scope: EditScope) -> object:
        return value + model.engine.ops.asarray(strength * vector.numpy())  # type: ignore[operator]

    return Edit(vector.site, apply)


def test_losses_under_an_edit_are_those_of_the_same_addition(
    model: TransformerModel, vector: SteeringVector, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, texts = SteeredRuns(model, vector.site, 4), ["w30 w31 w32", "w33 w34", "w35"]
    sweep = Sweep("all_tokens", np.array([2.0]), vector.numpy()[None])
    expected = runs.losses(OPENINGS, texts, sweep)[0]
    assert runs.losses_under(OPENINGS, texts, [added(model, vector, 2.0)]) == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(steered, "_ASKED_AT_ONCE", 2)
    assert runs.losses_under(OPENINGS, texts, [added(model, vector, 2.0)]) == pytest.approx(expected, abs=1e-5)
    both = Sweep("all_tokens", np.array([0.0, 2.0, -1.0]), np.tile(vector.numpy(), (3, 1)))
    assert runs.losses(OPENINGS, texts, both)[1] == pytest.approx(expected, abs=1e-5)


def test_reading_in_parts_reads_the_same(
    model: TransformerModel, experiment: SteeringExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, runs = experiment._measure(), experiment._runs()
    texts = [" ".join(f"w{word}" for word in range(30, 32 + count % 5)) for count in range(11)]
    together = runs.token_scores(texts, probe)
    assert [len(row) for row in together] == [2 + count % 5 for count in range(11)]
    for text, row in zip(texts, together, strict=True):
        assert row == pytest.approx(experiment.density(text), abs=1e-4)
    batch, written = runs.openings(OPENINGS), [[30], [31, 32], [33]]
    scores, losses = runs.read(batch, written, probe)
    monkeypatch.setattr(steered, "_READ_AT_ONCE", 2)
    for row, other in zip(together, runs.token_scores(texts, probe), strict=True):
        assert row == pytest.approx(other, abs=1e-4)
    again = runs.read(batch, written, probe)
    assert again[0] == pytest.approx(scores, abs=1e-4)
    assert again[1] == pytest.approx(losses, abs=1e-4)


def test_hooks_are_compared_with_the_bare_model(
    model: TransformerModel, vector: SteeringVector, experiment: SteeringExperiment
) -> None:
    probe, runs = experiment._measure(), experiment._runs()
    unchanged = experiment.measure_hooks().runs[0]
    assert (unchanged.identical, unchanged.change.value, unchanged.preference_change.value) == (True, 0, 0)
    with model.hook_manager.temporarily(ActivationHook(0, "residual", lambda a, p: a + vector * 2)):
        found = experiment.measure_hooks([None, "other"])
    assert [run.task_type for run in found.runs] == [None, "other"]
    assert found["other"].task_type == "other"
    with pytest.raises(ArgumentError, match="No run had the task type 'third'"):
        found["third"]
    hooked, batch = found.runs[0], runs.openings(OPENINGS)
    sweep = Sweep("all_tokens", np.array([2.0]), vector.numpy()[None])
    rows = runs.steered(batch, sweep).rows
    scores, losses = runs.read(batch, rows, probe)
    bare = runs.read(batch, runs.written(batch, []).rows, probe)
    assert not hooked.identical
    assert hooked.effect.value == pytest.approx(scores.mean(), abs=1e-4)
    assert hooked.change.value == pytest.approx((scores - bare[0]).mean(), abs=1e-4)
    assert hooked.fluency.value == pytest.approx(np.exp(losses.mean()), rel=1e-4)
    assert (found.effect.value, found.fluency.value) == pytest.approx((bare[0].mean(), np.exp(bare[1].mean())), rel=1e-4)
    _, judge = vector.pairs.split()
    openings = [OPENINGS[item % 3] for item in range(len(judge))]
    preference = (runs.losses(openings, judge.negative, sweep) - runs.losses(openings, judge.positive, sweep))[0]
    assert hooked.preference.value == pytest.approx(preference.mean(), abs=1e-4)
    assert hooked.preference_change.value == pytest.approx((preference - found.preference.value).mean(), abs=1e-4)
    assert hooked.preference.n == len(judge) == 8
    assert hooked.written == model.decode(rows[0], after=batch.ids[0][batch.real[0]])
    assert found.runs[0].print_string() != unchanged.print_string()
    assert found.summary().splitlines()[-1].endswith("changed")


def test_equal_tokens_of_other_logits_are_not_identical(model: TransformerModel, experiment: SteeringExperiment) -> None:
    batch = experiment._runs().openings(OPENINGS)
    one = experiment._runs().written(batch, [], keep_logits=True)
    assert (len(one.logits), experiment._runs().written(batch, []).logits) == (4, [])
    assert experiment._identical(one, one)
    assert not experiment._identical(one, replace(one, logits=[*one.logits[:-1], one.logits[-1] + 1e-3]))
    assert not experiment._identical(one, replace(one, logits=one.logits[:-1]))
    assert not experiment._identical(one, replace(one, rows=[*one.rows[:-1], [1]]))


def probe_of(auroc: float, p_value: float) -> Probe:
    return Probe("q", Site(0, Component.RESIDUAL), np.zeros(32), 0.0, auroc, Estimate(0.5, 0.4, 0.6, 20), p_value)


def test_a_probe_must_be_good_and_significant() -> None:
    assert probe_of(0.7, 0.049).complaint is None
    for auroc, p_value in ((0.699, 0.001), (0.9, 0.05)):
        assert "cannot be read" in (probe_of(auroc, p_value).complaint or "")
        with pytest.raises(DatasetError):
            probe_of(auroc, p_value).checked()
    assert np.array_equal(replace(probe_of(1, 0), weights=np.eye(32)[3], bias=0.5).score(np.full((2, 32), 2.0)), [2.5, 2.5])


def test_an_effect_needs_each_of_its_conditions(experiment: SteeringExperiment) -> None:
    probe, good = probe_of(0.9, 0.01), Estimate(0.2, 0.1, 0.3, 8)
    reason = experiment._reason
    assert reason(probe, Test(good, 0.049), 0.05) is None
    assert "significantly" in (reason(probe, Test(good, 0.05), 0.01) or "")
    assert "significantly" in (reason(probe, Test(replace(good, low=-np.inf), 0.01), 0.01) or "")
    assert "against the quality" in (reason(probe, Test(Estimate(-0.2, -0.3, -0.1, 8), 0.01), 0.01) or "")
    assert "random directions" in (reason(probe, Test(good, 0.01), 0.051) or "")
    assert reason(probe_of(0.6, 0.01), Test(good, 0.01), 0.01) == probe_of(0.6, 0.01).complaint


def test_items_without_a_figure_are_left_out_of_means() -> None:
    values = np.array([[1.0, 3.0, np.nan], [np.nan] * 3, [2.0, np.nan, np.inf]])
    assert experiments._item_means(values)[[0, 2]] == pytest.approx([2, 2])
    assert np.isnan(experiments._item_means(values)[1])
    units = [frozenset([unit]) for unit in "aab"]
    assert experiments._mean(np.array([1.0, np.nan, 3.0]), units) == mean_of([1.0, 3.0], [units[0], units[2]])
    assert experiments._mean(values[1], units).n == 0
    assert np.isnan(experiments._mean(values[1], None).value)
    assert experiments._correlation(np.array([0.9, 1.0, 1.0]), None).high == 1
    assert experiments._correlation(np.array([-0.9, -1.0, -1.0]), None).low == -1
    assert experiments._perplexity(Estimate(0.0, np.log(0.5), np.log(4), 3)) == pytest.approx(Estimate(1, 0.5, 4, 3))


def test_a_run_holds_the_vector_against_random_directions_on_the_same_items(
    experiment: SteeringExperiment, vector: SteeringVector
) -> None:
    results, probe = experiment.run(), experiment._measure()
    control, own = experiment._control(probe), experiment._steered("all_tokens", probe)
    assert [*results.preference["all_tokens"]] == ["-1", "0", "2"]
    assert [*results.preference["random_direction"]] == ["-1", "2"]
    assert control.preference.shape == (2, 3)
    slopes = (control.preference[1] - control.preference[0]) / 3
    assert results.random_growth == pytest.approx(slopes)
    ours = (own.preference[2, :4] - own.preference[0, :4]).mean() / 3
    assert results.random_p_value == pytest.approx((1 + (np.abs(slopes) >= abs(ours)).sum()) / 4)
    assert results.growth["all_tokens"].n == own.preference.shape[1] == 8
    steps = np.array([-1, 0, 2]) - 1 / 3
    assert results.growth["all_tokens"].value == pytest.approx((steps @ own.preference / (steps @ steps)).mean())
    test = difference_test(steps @ own.preference / (steps @ steps), experiment._pair_units(8))
    assert results.growth_p_value == pytest.approx(test.p_value)
    told = results.summary().splitlines()
    assert [line.split(":")[0].strip() for line in told[-3:]] == ["-1", "0", "2"]
    assert told[-1].endswith(repr(results.written["all_tokens"]["2"]))
    assert results.densest_position == max(results.density, key=lambda each: each.score.value).position
    assert f"densest at token {results.densest_position}:" in told[-4]


def test_openings_and_pairs_are_met_in_turn(experiment: SteeringExperiment, vector: SteeringVector) -> None:
    openings, positive, negative = experiment._wordings(5)
    _, judge = vector.pairs.split()
    assert openings == [OPENINGS[item] for item in (0, 1, 2, 0, 1)]
    assert (positive, negative) == (judge.positive[:5], judge.negative[:5])
    units = experiment._pair_units(5)
    assert units == [judge.units[item] | {f"opening text:{openings[item]}"} for item in range(5)]


def test_density_is_a_mean_over_the_texts_that_are_long_enough(experiment: SteeringExperiment) -> None:
    texts = ["w50 w51 w52 w53", "w54 w55 w56", "w57"]
    rows = [experiment.density(text) for text in texts]
    found = experiment.density_by_position(texts)
    assert [each.position for each in found] == [1, 2]
    for each in found:
        assert each.score.value == pytest.approx(np.mean([row[each.position] for row in rows[:2]]), abs=1e-4)
    assert experiment.score(texts[0]) == pytest.approx(np.mean(rows[0][1:]))
    assert experiment.score(texts[2]) == rows[2][0]
    with pytest.raises(DatasetError, match="second token"):
        experiment.density_by_position(["w50", "w51"])
    own = experiment.density_by_position()
    _, judge = experiment.vector.pairs.split()
    assert own[0].score.value == pytest.approx(np.mean([experiment.density(text)[1] for text in judge.positive]), abs=1e-4)


def test_too_little_to_steer_with_is_refused(model: TransformerModel, vector: SteeringVector) -> None:
    with pytest.raises(DatasetError, match="no openings"):
        SteeringExperiment(model, vector, openings=["w20"])
    with pytest.raises(ArgumentError, match="random directions are too few"):
        SteeringExperiment(model, vector, openings=OPENINGS, directions=0)
    SteeringExperiment(model, vector, openings=OPENINGS, directions=1)
    with pytest.raises(ArgumentError, match="too few"):
        SteeringExperiment(model, vector, openings=OPENINGS, strengths=(1, 1)).run()


@pytest.mark.parametrize(("groups", "held_out"), [(11, {1, 3, 5, 7, 9}), (12, {2, 5, 8, 11}), (8, {1, 3, 5, 7})])
def test_every_third_group_is_held_out_or_of_few_every_second(groups: int, held_out: set[int]) -> None:
    pairs = ContrastPairs.of("own", [f"p{at}" for at in range(groups)], [f"n{at}" for at in range(groups)])
    assert pairs.held_out == held_out


def test_neutral_openings_name_what_is_held_out() -> None:
    named, plain = "{name} and {other} went to {place}", "It rained"
    found = contrast._neutral([named, plain], 3)
    assert [text for text, _ in found][3:] == [plain]
    assert found[3][1] == {f"template:{plain}"}
    for text, units in found[:3]:
        words = text.replace(" and ", " ").replace(" went to ", " ").split()
        one, other = words[0], words[1]
        place = text.split(" went to ")[1]
        assert one != other
        assert {one, other} <= set(NAMES[1::2])
        assert place in PLACES[1::2]
        assert units == {f"template:{named}", f"name:{one}", f"name:{other}", f"place:{place}"}
    pairs = contrast.named("past_tense", n=7)
    assert pairs is not None
    assert len(pairs) == len(set(zip(pairs.positive, pairs.negative, strict=True))) == 7
    assert pairs.groups == list(range(7))
    for name, openings in (("past_tense", tense.OPENINGS), ("formal_style", formality.OPENINGS)):
        own = contrast.named(name)
        assert own is not None
        assert len(own.openings) == sum(4 if "{name}" in text else 1 for text in openings)
    assert contrast.named("formal_style", n=7, seed=1) != contrast.named("formal_style", n=7)
    assert contrast.named("formal_style", n=1000) is not None
    assert contrast.named("nothing of the kind") is None


def test_a_file_of_vectors_tells_what_it_was_computed_on(
    model: TransformerModel, vector: SteeringVector, tmp_path: Path
) -> None:
    path = SteeringVectors(model).save(str(tmp_path / "kept.safetensors"))
    assert path == str(tmp_path / "kept.safetensors")
    heard: list[str] = []
    with events.listen(lambda event: heard.append(event.message) if isinstance(event, events.Notice) else None):
        same = SteeringVectors(planted_model()).read(path)[0]
        assert heard == []
        other = SteeringVectors(planted_model(planted=False)).read(path)[0]
    assert len(heard) == 1
    assert "kept.safetensors was computed on planted, not on planted" in heard[0]
    for read in (same, other):
        assert (read.title, read.weights_hash, read.precision) == ("planted", model.weights_hash, "float32")
        assert (read.site, read.method, read.pairs) == (vector.site, vector.method, vector.pairs)


def test_the_middle_layer_is_the_default(model: TransformerModel, vector: SteeringVector) -> None:
    vectors = SteeringVectors(model)
    assert vectors.vector("planted_quality").layer == 3 // 2
    assert SteeringVectors.load("planted_quality", model).component == "residual"
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        vectors.add(
            SteeringVector(
                vector.array * np.nan,
                model.engine.ops,
                name="nothing",
                site=vector.site,
                method="pca",
                pairs=vector.pairs,
                title="t",
                weights_hash="h",
                dtype="float32",
            )
        )
    assert "nothing" not in vectors.names


def test_a_models_vectors_are_saved_and_read_with_it(model: TransformerModel, vector: SteeringVector, tmp_path: Path) -> None:
    keeper, other = _Vectors(), planted_model()
    keeper.write(other, tmp_path)  # it has none
    keeper.read(other, tmp_path)
    assert list(tmp_path.iterdir()) == []
    keeper.write(model, tmp_path)
    keeper.read(other, tmp_path)
    assert [each.name for each in SteeringVectors(other)] == [each.name for each in SteeringVectors(model)]
    assert np.array_equal(SteeringVectors(other).vector("planted_quality", 0).numpy(), vector.numpy())
