"""Training a circuit: what it changes and what it leaves, how it is interrupted, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroscope import events
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.compiled import CircuitEngine
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.editing.edit import WeightEdit
from neuroscope.engines.sites import Site
from neuroscope.errors import ArgumentError, CancelledError, CircuitError, DatasetError, EditError
from neuroscope.features.neurons import Neuron, NeuronSet
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.tasks.dataset import Dataset
from neuroscope.tuning import parts
from neuroscope.tuning.trainer import CircuitAwareTrainer
from neuroscope.views.page import figures, has_figures
from tests import tiny
from tests.backend.tuning import made

ALL = {"task_performance": 0.7, "circuit_coherence": 0.2, "general_capability_preservation": 0.1}


def trainer(
    model: TransformerModel, circuit: Any = None, objectives: dict[str, float] | None = None, **more: Any
) -> CircuitAwareTrainer:
    settings = {
        "steps": 12,
        "every": 4,
        "batch": 8,
        "items": (30, 12, 12),
        "learning_rate": 1e-2,
        "controls": False,
        "keeping": [],
    } | more
    found = CircuitAwareTrainer(model, made.circuit(model, *made.NODES) if circuit is None else circuit, **settings)
    for name, weight in (ALL if objectives is None else objectives).items():
        found.add_objective(name, weight)
    return found


def hashes(model: TransformerModel) -> dict[str, bytes]:
    engine: Any = model.engine
    return {name: value.detach().numpy().tobytes() for name, value in engine.model.named_parameters()}


def logits(model: TransformerModel, prompt: str) -> np.ndarray:
    return np.asarray(model.engine.ops.to_numpy(model.run(prompt).logits))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_only_the_circuits_weights_change_and_only_in_the_new_model(architecture: str) -> None:
    model = tiny.model(architecture)
    before, hash_ = hashes(model), model.weights_hash
    one = trainer(model, controls=True)
    new = one.train(made.dataset())
    found = one.training
    assert hashes(model) == before
    assert (model.weights_hash, model.changed_weights, model.edits) == (hash_, [], [])
    assert new.engine is not model.engine
    assert new.edits == [found.edit]
    assert set(new.changed_weights) == {name.partition("[")[0] for name in found.parameters} == set(found.edit.deltas)
    for name in set(found.edit.deltas):
        mask = np.zeros(model.weights(name).shape, dtype=bool)
        for part in found.parameters:
            if part.partition("[")[0] == name:
                mask[int(part.rstrip("]").partition("[")[2]) if "[" in part else slice(None)] = True
        moved = new.weights(name).read() != model.weights(name).read()
        assert not moved[~mask].any()
        assert moved[mask].mean() > 0.8
    assert found.circuit.accuracy.value > found.before.value
    assert found.curves[-1].held_out["task_performance"] < found.curves[0].held_out["task_performance"]
    assert {one.weights for one in found.controls} == {"random circuit", "all weights"}
    random, every = found.controls
    assert every.numbers == sum(len(bits) // 4 for bits in before.values())
    assert random.numbers == pytest.approx(found.circuit.numbers, rel=0.2)
    assert found.over_random is not None
    data = json.loads(json.dumps(found.as_dictionary()))
    assert data["circuit"]["gain"]["verdict"]
    assert "random circuit" in found.summary()
    assert has_figures(found)
    assert len(figures(found)) == 2


def test_the_edit_gives_the_original_what_the_training_gave_the_new_model(tmp_path: Path) -> None:
    model = tiny.model("llama")
    one = trainer(model)
    new, prompt = one.train(made.dataset()), "w5 w6 w7"
    before, wanted = logits(model, prompt), logits(new, prompt)
    edit = WeightEdit.load(one.training.edit.save(str(tmp_path / "trained")))
    model.apply_edit(edit)
    assert np.array_equal(logits(model, prompt), wanted)
    assert model.weights_hash == new.weights_hash
    model.revert(edit)
    assert np.array_equal(logits(model, prompt), before)
    new.revert(one.training.edit)
    assert new.weights_hash == model.weights_hash
    assert hashes(new) == hashes(model)


def test_an_edited_model_is_trained_as_it_is() -> None:
    model = tiny.model("gpt2")
    model.apply_edit(WeightEdit.scaling("0.mlp.W_out", 0.5, of=model))
    one = trainer(model, parts_only(model))
    new = one.train(made.dataset())
    assert np.array_equal(new.weights("0.mlp.W_out").read(), model.weights("0.mlp.W_out").read())
    new.revert(one.training.edit)
    assert new.weights_hash == model.weights_hash


def parts_only(model: TransformerModel) -> Circuit:
    return made.circuit(model, "1.headOutput[0]", "2.mlpOutput")


def test_a_training_that_was_interrupted_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    model, path = tiny.model("gpt2"), str(tmp_path / "kept")
    whole = trainer(model).train(made.dataset())
    steps = 0

    def count(event: events.Event) -> None:
        nonlocal steps
        steps += isinstance(event, events.Progress) and event.unit == "steps" and event.job.startswith("training")

    with events.listen(count), events.cancellable(lambda: steps > 8), pytest.raises(CancelledError):
        trainer(model).train(made.dataset(), checkpoint=path)
    said: list[events.Event] = []
    with events.listen(said.append):
        again = trainer(model).train(made.dataset(), checkpoint=path)
    assert any(isinstance(event, events.Notice) and "going on after step 4" in event.message for event in said)
    assert again.weights_hash == whole.weights_hash
    assert hashes(again) == hashes(whole)
    with pytest.raises(EditError, match="another training"):
        trainer(model, objectives={"task_performance": 1.0}).train(made.dataset(), checkpoint=path)


def test_the_best_weights_are_kept_and_waiting_ends_the_training() -> None:
    model = tiny.model("gpt2")
    one = trainer(model, learning_rate=0.05, steps=200, every=2, patience=2)  # overshoots
    new = one.train(made.dataset())
    found = one.training
    totals = [point.total for point in found.curves]
    assert found.stopped_early
    assert found.circuit.best_step == found.curves[int(np.argmin(totals))].step < found.curves[-1].step == 2 * (len(totals) - 1)
    assert found.circuit.best_step == found.curves[-3].step > 0
    until = trainer(model, learning_rate=0.05, steps=found.circuit.best_step, every=2, patience=2).train(made.dataset())
    assert until.weights_hash == new.weights_hash


def test_preservation_keeps_the_text_and_coherence_the_circuit() -> None:
    model = tiny.model("llama")
    found = {}
    for name in ("general_capability_preservation", "circuit_coherence"):
        for weight in (1e-6, 100.0):
            one = trainer(model, objectives={"task_performance": 0.5, name: weight}, steps=40, every=40, learning_rate=2e-3)
            one.train(made.dataset())
            found[name, weight] = one.training.curves[-1].held_out[name]
        assert found[name, 100.0] < 0.3 * found[name, 1e-6]


@pytest.mark.parametrize("weight", [1e-6, 1e4])
def test_a_large_weight_of_coherence_keeps_the_circuit_faithful_within_a_thousandth(weight: float) -> None:
    model = tiny.model("llama")
    found = made.circuit(model, *made.NODES)
    graph = found.graph
    mask = graph.valid.copy()
    mask[25, 1] = False  # all edges but one, which carries little before the training
    objectives = {"task_performance": 1.0, "circuit_coherence": weight}
    circuit = dataclasses.replace(found, _mask=graph.pruned(mask))
    one = trainer(model, circuit, objectives=objectives, steps=20, every=20, learning_rate=2e-3)
    one.train(made.dataset())
    off = abs(one.training.faithfulness[0].after.value - 1)
    assert off > 1e-2 if weight < 1 else off < 1e-3
    assert one.training.circuit.best_step == 20


def test_shared_key_value_heads_are_named() -> None:
    model = tiny.model("llama")
    lone = parts.weights_of(model, [Site.parse("1.headOutput[1]")])
    assert lone.names == ["1.attn.W_Q[1]", "1.attn.W_O[1]", "1.attn.W_K[0]", "1.attn.W_V[0]"]
    assert "1.0" in lone.notes[0]
    assert "1.attn.W_K[1]" in parts.weights_of(model, [Site.parse("1.headOutput[2]")]).names
    both = parts.weights_of(model, [Site.parse("1.headOutput[0]"), Site.parse("1.headOutput[1]")])
    assert not both.notes
    assert lone.numbers == sum(np.prod(model.weights(name).shape) for name in lone.names)


def test_a_random_circuit_has_as_many_of_each() -> None:
    model = tiny.model("gpt2")
    nodes = [Site.parse(node) for node in made.NODES]
    drawn = parts.random_nodes(model, nodes, 0)
    assert drawn is not None
    assert parts.weights_of(model, drawn).numbers == parts.weights_of(model, nodes).numbers
    assert {str(site) for site in drawn} != set(made.NODES)
    every = [f"{layer}.mlpOutput" for layer in range(3)] + [
        f"{layer}.headOutput[{head}]" for layer in range(3) for head in range(4)
    ]
    assert parts.random_nodes(model, [Site.parse(node) for node in every], 0) is None


def neurons(model: TransformerModel) -> NeuronSet:
    found = [Neuron(3, 0.9, 0.01, 0.01, []), Neuron(7, 0.9, 0.01, 0.01, [])]
    return NeuronSet("words", 1, found, 0.9, None, [], [], True, None, provenance(model, "words", 0), model)


def test_neurons_are_trained_by_their_columns_and_rows() -> None:
    model = tiny.model("gpt2")
    one = trainer(model, neurons(model), objectives={"task_performance": 1.0})
    new = one.train(made.dataset())
    assert one.training.parameters == [f"1.mlp.{name}[{unit}]" for unit in (3, 7) for name in ("W_in", "b_in", "W_out")]
    moved = new.weights("1.mlp.W_out").read() != model.weights("1.mlp.W_out").read()
    assert np.flatnonzero(moved.any(1)).tolist() == [3, 7]
    assert sorted(new.changed_weights) == ["1.mlp.W_in", "1.mlp.W_out", "1.mlp.b_in"]
    with pytest.raises(ArgumentError, match="no edges"):
        one.add_objective("circuitCoherence", 0.5)
    with pytest.raises(CircuitError, match="neurons"):
        trainer(new, neurons(model), objectives={})


def test_a_compiled_circuit_is_not_trained() -> None:
    model = tiny.model("gpt2")
    found = made.circuit(model, *made.NODES)
    engine = CircuitEngine(model.engine, found.mask, found.means, found.pairs.clean)
    compiled = TransformerModel(engine, model.tokenizer, model.name, model.loaded_hash)  # type: ignore[arg-type]
    with pytest.raises(CircuitError, match="not trained"):
        CircuitAwareTrainer(compiled, found)


def test_weights_that_do_not_sum_to_one_are_accepted_with_a_notice() -> None:
    model, said = tiny.model("gpt2"), list[events.Event]()
    with events.listen(said.append):
        trainer(model, objectives={"task_performance": 2.0}, steps=4).train(made.dataset())
    assert any(isinstance(event, events.Notice) and "sum to 2" in event.message for event in said)


def test_what_cannot_be_trained_is_refused_before_anything_runs() -> None:
    model = tiny.model("gpt2")
    with pytest.raises(CircuitError, match="empty"):
        trainer(model, made.empty(model))
    with pytest.raises(CircuitError, match="found no circuit yet"):
        trainer(model, CircuitFinder(model))
    with pytest.raises(CircuitError, match="was found on"):
        trainer(tiny.model("gpt2", seed=1), made.circuit(model, *made.NODES))
    with pytest.raises(ArgumentError, match="not 'sentiment'"):
        trainer(model, "sentiment")
    with pytest.raises(ArgumentError, match="no circuit"):
        trainer(model, [])
    one = trainer(model, objectives={})
    with pytest.raises(ArgumentError, match="no objective"):
        one.train(made.dataset())
    with pytest.raises(ArgumentError, match="no objective 'taskPerformence'") as raised:
        one.add_objective("taskPerformence", 0.5)
    assert "task_performance" in str(raised.value)
    for weight in (0, -1, float("nan"), "much"):
        with pytest.raises(ArgumentError, match=r"above 0|is a number"):
            one.add_objective("taskPerformance", weight)  # type: ignore[arg-type]
    one.add_objective("taskPerformance", 1)
    with pytest.raises(ArgumentError, match="takes a Dataset"):
        one.train([1])  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="example 1"):
        one.train(Dataset.from_examples([{"clean": "w5", "answer": " w6"}, {"clean": "w7"}]))
    with pytest.raises(ArgumentError, match="trained nothing"):
        _ = one.training
    assert not model.changed_weights
