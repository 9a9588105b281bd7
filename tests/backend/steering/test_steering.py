"""Steering vectors and experiments, on a model in which the direction of a quality is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuroscope.errors import ArgumentError, DatasetError, HookError, SiteError
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope.steering import contrast
from neuroscope.steering.experiment import MODES, SteeringExperiment, SteeringResults
from neuroscope.steering.vectors import SteeringVector, SteeringVectors, direction
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
    assert results.dose_response["all_tokens"] > 0.9
    assert results.effect_response["all_tokens"] > 0.6
    assert abs(results.dose_response["random_direction"]) < results.dose_response["all_tokens"]


def test_strength_zero_is_the_model_itself_in_every_mode(results: SteeringResults) -> None:
    plain = results.effect["all_tokens"]["0"]
    assert all(results.effect[mode]["0"] == plain for mode in MODES)
    assert len({results.written[mode]["0"] for mode in MODES}) == 1


def test_results_tell_what_was_measured(results: SteeringResults) -> None:
    assert results.probe_auroc > 0.95
    assert [each.position for each in results.density] == [1, 2, 3]
    assert results.densest_position in (1, 2, 3)
    data = results.as_dictionary()
    assert data["effect"]["all_tokens"]["2"]["n"] == 6
    assert {"fluency", "density", "preference", "doseResponse", "provenance"} <= set(data)
    assert "random direction" in results.summary()


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
    assert again in read
    assert np.array_equal(again.numpy(), vector.numpy())
    assert again.pairs == vector.pairs


def test_an_unknown_vector_names_the_nearest(model: TransformerModel) -> None:
    with pytest.raises(ArgumentError) as caught:
        SteeringVectors.load("formalStile", model)
    assert "'formal_style'" in caught.value.remedy
    with pytest.raises(ArgumentError, match="here is none"):
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
    wide = SteeringVector(vector.array[:20], model.engine.ops, name="short", site=vector.site, method="pca", pairs=vector.pairs)
    with pytest.raises(ArgumentError, match=r"20 wide, and 0\.residual of planted 32"):
        SteeringVectors(model).add(wide)
    with pytest.raises(ArgumentError, match="20 wide"):
        SteeringExperiment(model, wide)
    other = SteeringVectors(model).vector("planted_quality", 2, "mlp")
    path = SteeringVectors(model).save(str(tmp_path / "mine.safetensors"))
    with pytest.raises(ArgumentError, match=f"{len(other)} wide, and 2.mlp of tiny qwen3 48"):
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
    with pytest.raises(SiteError, match="no steering vectors"):
        vectors.vector("formal_style", 1, "headOutput")
    (tmp_path / "text.safetensors").write_text("nothing")
    with pytest.raises(ArgumentError, match="no file of steering vectors"):
        vectors.read(str(tmp_path / "text.safetensors"))


def test_a_contrast_that_cannot_be_read_measures_nothing(model: TransformerModel) -> None:
    noise = [sentences(OTHERS, 60)[index::2] for index in (0, 1)]
    vector = SteeringVectors(model).define("noise", *noise, layer=LAYER)
    with pytest.raises(DatasetError, match="cannot be read"):
        SteeringExperiment(model, vector, openings=["w20 w21", "w22 w23"]).run()


@pytest.mark.parametrize("name", contrast.names())
def test_named_contrasts_hold_contents_out_whole(name: str) -> None:
    pairs = contrast.named(name)
    assert pairs is not None
    fit, judge = pairs.split()
    assert not set(fit.groups) & set(judge.groups)
    assert len(fit) + len(judge) == len(pairs) == 60
    assert len(pairs.openings) >= 8
