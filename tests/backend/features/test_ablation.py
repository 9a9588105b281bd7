"""Ablating a planted neuron undoes what it does; random neurons of its layer do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from neuroscope import events
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.events import Job
from neuroscope.features.ablated import AblatedRuns, surest
from neuroscope.features.ablation import MODES, AblationResults, NeuronAblator
from neuroscope.features.matched import Loudness, matched_sets, output_norms
from neuroscope.features.neurons import Neuron, NeuronAnalyzer, NeuronSet
from neuroscope.tasks.dataset import Dataset, Example
from tests import tiny
from tests.backend.features.planted import ANSWER, LAYER, NEURON, WRONG, planted_model, texts


def dataset(kind: int, count: int = 40) -> Dataset:
    """Items whose prompts show the concept (0) or do not (1)."""
    prompts = texts(count, seed=5)[kind]
    return Dataset([Example(text, answer=f"w{ANSWER}", wrong=f"w{WRONG}") for text in prompts], name=f"texts {kind}")


@pytest.fixture(scope="module")
def neurons(framework: str) -> NeuronSet:
    return NeuronAnalyzer(planted_model(on=framework)).find_neurons_for(*texts(60))


@pytest.fixture(scope="module")
def results(neurons: NeuronSet) -> AblationResults:
    return NeuronAblator(neurons.model, n=40).test_ablation(neurons, dataset(0), off_target=dataset(1))


def test_every_mode_hurts_the_target_more_than_random_neurons_do(results: AblationResults) -> None:
    assert [mode.mode for mode in results.modes] == list(MODES)
    for mode in results.modes:
        assert mode.damage.low > max(mode.random_damage)
        assert mode.p_value == pytest.approx(1 / 100)
        assert len(mode.random_damage) == 99
    assert results.exists
    assert results.reason is None
    zero = results.modes[0]
    assert zero.damage.low > 2 * abs(zero.off_target_damage.value)


def test_neurons_that_do_nothing_more_than_others_have_no_effect(neurons: NeuronSet) -> None:
    """Ten random sets in place of the planted neuron: at a level of 5 % one at most is called an effect; the first line says so."""
    random = np.random.default_rng(0)
    ablator = NeuronAblator(neurons.model, n=20)
    called = 0
    for _ in range(10):
        ids = random.choice(np.setdiff1d(np.arange(128), [NEURON]), 3, replace=False)
        others = replace(neurons, neurons=[Neuron(int(each), 0.9, 0.01, 0.04, [""]) for each in ids])
        results = ablator.test_ablation(others, dataset(0), off_target=dataset(1))
        assert (
            results.summary().startswith(f"No effect of own texts on texts 0 in planted: {results.reason}")
            is not results.exists
        )
        assert results.as_dictionary()["exists"] is results.exists
        called += results.exists
    assert called <= 1


def test_random_sets_fire_as_often_and_write_as_much() -> None:
    random = np.random.default_rng(0)
    loudness = Loudness(random.random(400), np.exp(random.normal(size=400)))
    loud = np.argsort(-loudness.norm)[5:60:5].tolist()
    sets = matched_sets(loudness, loud, 99, random)
    assert len({tuple(each) for each in sets}) == 99
    assert all(len(set(each)) == len(loud) and not set(each) & set(loud) for each in sets)
    assert loudness.norm[sets].mean() == pytest.approx(loudness.norm[loud].mean(), rel=0.15)
    assert loudness.rate[sets].mean() == pytest.approx(loudness.rate[loud].mean(), abs=0.06)
    unmatched = np.mean([loudness.norm[random.choice(400, len(loud))].mean() for _ in range(99)])
    assert unmatched < 0.7 * loudness.norm[loud].mean()
    assert len(matched_sets(Loudness(random.random(6), random.random(6)), [0], 99, random)) == 5


def test_loudness_is_read_off_activations_and_weights() -> None:
    model = planted_model()
    weights = model.weights(f"{LAYER}.mlp.W_out").read()
    assert output_norms(model, LAYER) == pytest.approx(np.linalg.norm(weights, axis=1), rel=1e-5)
    activations = np.zeros((4, 128), dtype=np.float32)
    activations[:, 0], activations[:2, 1] = 3, -3
    loudness = Loudness.of(model, LAYER, activations)
    assert loudness.rate[:3].tolist() == [1, 0.5, 0]
    assert loudness.norm[0] == pytest.approx(3 * np.linalg.norm(weights[0]), rel=1e-5)
    experts = tiny.model("gpt_oss")
    assert len(output_norms(experts, 0)) == experts.architecture.neurons


def test_zeroing_equals_a_model_without_the_neurons_weights(results: AblationResults, framework: str) -> None:
    model = planted_model(on=framework)
    model.weights(f"{LAYER}.mlp.W_out[{NEURON}]").write(np.zeros(model.architecture.d_model))
    scores = []
    for example in dataset(0):
        share = softmax(model.logits(example.clean).numpy()[0, -1].astype(np.float64))[ANSWER]
        scores.append(np.log(share) - np.log(1 - share))
    assert results.modes[0].ablated.value == pytest.approx(float(np.mean(scores)), abs=1e-4)


def test_the_layers_before_the_ablated_one_run_once(neurons: NeuronSet) -> None:
    engine = neurons.model.engine
    before = engine.block_calls
    NeuronAblator(neurons.model, n=40, controls=9).test_ablation(neurons, dataset(0), off_target=dataset(1))
    batches, layers = 2, engine.anatomy.layers
    whole = 2 * batches * layers  # of both datasets
    ablated = 2 * batches * len(MODES) * (layers - LAYER)  # ten sets fit into one pass
    assert engine.block_calls - before == whole + ablated


def test_sets_beside_one_another_give_what_each_gives_alone(neurons: NeuronSet) -> None:
    sets = [[NEURON, 3], [5, 9], [1, 2]]
    runs = AblatedRuns(neurons.model, LAYER, dataset(0).examples, seed=3)
    for mode in MODES:
        together = runs.scores(mode, sets, Job("", None, ""))
        alone = np.concatenate([runs.scores(mode, [ids], Job("", None, "")) for ids in sets])
        assert np.allclose(together, alone, atol=1e-5)
        assert not np.allclose(together, runs.whole, atol=1e-2)


def test_the_items_that_the_model_is_surest_of_are_taken(neurons: NeuronSet) -> None:
    items = [*dataset(0, 20), *dataset(1, 20)]
    whole = AblatedRuns(neurons.model, LAYER, items).whole[:, 0]
    taken = surest(neurons.model, items, 10)
    assert taken == [items[index] for index in sorted(np.argsort(-whole)[:10])]
    results = NeuronAblator(neurons.model, n=10, controls=1).test_ablation(neurons, Dataset(items), off_target=dataset(1))
    assert results.baseline.value == pytest.approx(np.sort(whole)[-10:].mean(), abs=1e-4)


def test_what_was_measured_is_told(results: AblationResults) -> None:
    assert "random sets" in results.summary()
    data = results.as_dictionary()
    assert data["neurons"] == [NEURON]
    assert data["modes"][0]["damage"]["n"] == 40


def test_what_cannot_be_ablated_is_said(neurons: NeuronSet) -> None:
    ablator = NeuronAblator(neurons.model)
    with pytest.raises(ArgumentError, match="Only a NeuronSet"):
        ablator.test_ablation([1, 2], dataset(0))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="Dataset"):
        ablator.test_ablation(neurons, "geography")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="with other weights than tiny gpt2"):
        NeuronAblator(tiny.model("gpt2")).test_ablation(neurons, dataset(0))
    with pytest.raises(DatasetError, match="wrong answer"):
        ablator.test_ablation(neurons, Dataset([Example("w5 w6", answer="w7"), Example("w6 w7", answer="w8")]))


def test_where_no_task_fits_the_model_the_other_texts_must_be_given() -> None:
    model = planted_model()
    neurons = NeuronAnalyzer(model).find_neurons_for(*texts(60))
    with pytest.raises(DatasetError, match="off_target"):
        NeuronAblator(model).test_ablation(neurons, dataset(0))


def test_neurons_of_other_weights_say_so_once_for_each_state_of_the_weights(neurons: NeuronSet) -> None:
    model, heard = neurons.model, list[str]()
    weight = model.weights("0.ln1.w")
    before = weight.snapshot()
    with events.listen(lambda event: heard.append(event.message) if isinstance(event, events.Notice) else None):
        assert list(neurons) == neurons.ids
        assert heard == []
        weight.write(weight.read() * 1.5)
        try:
            for _ in range(2):
                assert list(neurons) == neurons.ids
            assert len(heard) == 1
            assert f"The set for {neurons.concept} was measured on" in heard[0]
            assert "measure it again" in heard[0]
            neurons.extract_weights()
            with pytest.raises(ArgumentError, match="other weights"):
                NeuronAblator(model).test_ablation(neurons, Dataset([]))
        finally:
            weight.restore(before)
        list(neurons)
        assert len(heard) == 1


def test_the_weights_of_neurons_are_what_they_read_and_write(neurons: NeuronSet) -> None:
    weights = neurons.extract_weights()
    width = neurons.model.architecture.d_model
    for neuron in neurons.ids:
        mine = {one.name: one.shape for one in weights.weights if one.component == f"{neurons.layer}.mlp[{neuron}]"}
        assert mine == {
            f"{neurons.layer}.mlp.W_in[{neuron}]": [width],
            f"{neurons.layer}.mlp.b_in[{neuron}]": [],
            f"{neurons.layer}.mlp.W_out[{neuron}]": [width],
        }
    assert weights.size == len(neurons) * (2 * width + 1)
