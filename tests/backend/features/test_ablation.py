"""Ablating a planted neuron undoes what it does; random neurons of its layer do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.events import Job
from neuroscope.features.ablated import AblatedRuns, surest
from neuroscope.features.ablation import MODES, AblationResults, NeuronAblator
from neuroscope.features.neurons import NeuronAnalyzer, NeuronSet
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
    with pytest.raises(ArgumentError, match="not on tiny gpt2"):
        NeuronAblator(tiny.model("gpt2")).test_ablation(neurons, dataset(0))
    with pytest.raises(DatasetError, match="wrong answer"):
        ablator.test_ablation(neurons, Dataset([Example("w5 w6", answer="w7"), Example("w6 w7", answer="w8")]))


def test_where_no_task_fits_the_model_the_other_texts_must_be_given() -> None:
    model = planted_model()
    neurons = NeuronAnalyzer(model).find_neurons_for(*texts(60))
    with pytest.raises(DatasetError, match="offTarget"):
        NeuronAblator(model).test_ablation(neurons, dataset(0))
