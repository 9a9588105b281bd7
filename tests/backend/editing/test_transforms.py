"""Weight transforms, on a model whose stereotype and facts were set by hand; folded maps against the same maps as hooks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from neuroscope import events
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.editing import fitting
from neuroscope.editing.edit import WeightEdit
from neuroscope.editing.erasure import Eraser, leace
from neuroscope.editing.extracted import of_circuit, parameters
from neuroscope.editing.transforms import WeightTransform
from neuroscope.editing.writers import Prompts, Writer, added, folded, writers
from neuroscope.engines.protocol import Edit, EditScope, TokenBatch
from neuroscope.engines.sites import Site
from neuroscope.errors import ArgumentError, CircuitError, DatasetError, EditError, NonFiniteActivationError, TaskNotFoundError
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Dataset
from tests import tiny
from tests.backend.views.drawn import shown
from tests.planted import CIRCUITS, bias

Maps = dict[Writer, Eraser]


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    found = CircuitFinder(bias.model(), pairs=40).find_circuit("gender_pronoun_bias", bias.dataset(bias.JOBS, "stereotype"))
    assert found.heads == [bias.HEAD]
    return found


@pytest.fixture(scope="module")
def transform(circuit: Circuit) -> WeightTransform:
    return WeightTransform.removing(bias.dataset(bias.JOBS, "stereotype"), bias.dataset(bias.NAMES, "names"), circuit)


# --- folding -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_oss"])
def test_a_folded_map_is_the_same_map_as_a_hook(framework: str, architecture: str) -> None:
    model = tiny.model(architecture, on=framework)
    ids = np.random.default_rng(0).integers(3, 90, (6, 9))
    batch = TokenBatch(ids, np.ones_like(ids, dtype=np.bool_))
    z = np.repeat([0.0, 1.0, 0, 1, 0, 1], 9)
    writing = writers(model, [Site.parse(site) for site in ("1.mlpOutput", "1.attention", "2.mlpOutput")])
    assert [str(writer.site) for writer in writing] == ["1.attention", "1.mlpOutput", "2.mlpOutput"]
    before = model.weights_hash
    prompts = {"all": Prompts([(batch, batch.real)])}
    deltas, maps = folded(model, writing, prompts, lambda w, rows: leace(rows["all"], z, centred=w.bias is not None, ridge=0.1))
    assert len(maps) == 3
    assert model.weights_hash == before
    ops = model.engine.ops

    def hooked(eraser: Eraser) -> Edit:
        def apply(value: object, _: EditScope) -> object:
            rows = ops.to_numpy(value).astype(np.float64)
            return ops.asarray(eraser(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape).astype(np.float32))

        return Edit(next(w.site for w, one in maps.items() if one is eraser), apply)

    bare = ops.to_numpy(model.engine.forward(batch).logits)
    expected = ops.to_numpy(model.engine.forward(batch, edits=[hooked(eraser) for eraser in maps.values()]).logits)
    with added(model, deltas):
        assert model.weights_hash != before
        found = ops.to_numpy(model.engine.forward(batch).logits)
    assert np.abs(found - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())
    assert np.abs(expected - bare).max() > 0.05
    assert model.weights_hash == before


def test_heads_of_a_layer_share_its_bias_and_are_fitted_each(framework: str) -> None:
    model = tiny.model("gpt2", on=framework)
    ids = np.random.default_rng(1).integers(3, 90, (8, 5))
    batch = TokenBatch(ids, np.ones_like(ids, dtype=np.bool_))
    z = np.repeat([0.0, 1.0] * 4, 5)
    writing = writers(model, [Site.parse(f"1.headOutput[{head}]") for head in (0, 2)])
    seen: dict[Writer, np.ndarray] = {}

    def solve(writer: Writer, rows: dict[str, np.ndarray]) -> Eraser | None:
        seen[writer] = rows["all"]
        return leace(rows["all"], z, ridge=0.1)

    deltas, maps = folded(model, writing, {"all": Prompts([(batch, batch.real)])}, solve)
    assert set(deltas) == {"1.attn.W_O[0]", "1.attn.W_O[2]", "1.attn.b_O"}
    attention = Site.parse("1.attention")
    before = model.engine.ops.to_numpy(model.engine.forward(batch, capture=[attention])[attention])
    with added(model, deltas):
        after = model.engine.ops.to_numpy(model.engine.forward(batch, capture=[attention])[attention])
    moved = sum(maps[writer](rows) - rows for writer, rows in seen.items())
    np.testing.assert_allclose((after - before).reshape(-1, 32), moved, atol=1e-4)


def test_an_error_while_fitting_leaves_every_bit(framework: str) -> None:
    model = tiny.model("gpt2", on=framework)
    batch = TokenBatch(np.arange(8)[None], np.ones((1, 8), dtype=np.bool_))
    before, calls = model.weights_hash, []

    def solve(writer: Writer, rows: dict[str, np.ndarray]) -> Eraser:
        if calls:
            raise RuntimeError("the second one")
        calls.append(writer)
        return Eraser(np.ones(32), np.ones(32), np.zeros(32))

    with pytest.raises(RuntimeError, match="the second one"):
        folded(
            model,
            writers(model, map(Site.parse, ("0.mlpOutput", "1.mlpOutput"))),
            {"all": Prompts([(batch, batch.real)])},
            solve,
        )
    assert model.weights_hash == before


def test_an_architecture_that_normalises_its_writes_is_refused() -> None:
    with pytest.raises(EditError, match="normalises what its layers write"):
        writers(tiny.model("gemma2"), [Site.parse("0.mlpOutput")])
    with pytest.raises(EditError, match="not a component that writes"):
        writers(tiny.model("gpt2"), [Site.parse("0.query[1]")])


# --- the planted stereotype --------------------------------------------------------------------------------------------------


def test_the_stereotype_is_gone_on_held_out_words_and_the_names_are_untouched(transform: WeightTransform) -> None:
    assert transform.exists
    assert transform.doubts == []
    assert transform.bias_before.value > 0.8
    assert transform.bias_after is not None
    assert transform.bias_change is not None
    assert transform.bias_after.value == pytest.approx(0.5, abs=0.01)
    assert transform.imbalance_after == pytest.approx(0, abs=0.02)
    assert transform.bias_change.value == pytest.approx(transform.bias_after.value - transform.bias_before.value)
    assert transform.capability_before.value == 1
    assert transform.capability_after is not None
    assert transform.capability_after.value == 1
    (component,) = transform.components
    assert component.component == bias.HEAD
    assert component.kept_shift is not None
    assert component.kept_shift <= 0.02
    assert component.shift is not None
    assert component.shift > 0.3
    assert all(one.before.value > 0.8 and abs(one.after.value - 0.5) < 0.05 for one in transform.by_entity)
    controls = {one.method: one for one in transform.controls}
    assert controls["mean difference"].bias.value == pytest.approx(0.5, abs=0.02)
    assert controls["random direction"].bias.value > 0.65
    assert set(controls) == {"LEACE of whole layers", "mean difference", "random direction"}


def test_with_every_direction_kept_the_names_do_not_move_at_all(circuit: Circuit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "EXACTLY", (16,))
    found = WeightTransform.removing(bias.dataset(bias.JOBS, "stereotype"), bias.dataset(bias.NAMES, "names"), circuit)
    assert found.kept_directions == 16
    (component,) = found.components
    assert component.kept_shift is not None
    assert component.kept_shift <= 1e-5
    assert found.imbalance_after == pytest.approx(0, abs=1e-3)


def test_more_is_kept_where_less_loses_the_capability(circuit: Circuit, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = iter([np.ones(1), np.zeros(1), np.full(1, 0.995)])  # before, with one direction kept, with four
    monkeypatch.setattr(fitting.Fitting, "_chosen_right", lambda self: next(lost))
    found = WeightTransform.removing(bias.dataset(bias.JOBS, "stereotype"), bias.dataset(bias.NAMES, "names"), circuit)
    assert found.kept_directions == fitting.EXACTLY[1] == 4


def test_a_probe_of_what_the_head_writes_is_at_chance_after_the_edit(circuit: Circuit, transform: WeightTransform) -> None:
    from sklearn.linear_model import LogisticRegression

    model = circuit.model
    texts = [f"^ {word} f0" for which in ("she", "he") for word in bias.JOBS[which]]
    z = np.repeat([1, 0], len(texts) // 2)
    order = np.random.default_rng(0).permutation(len(texts))

    def found() -> float:
        batch = model.encode(texts)
        rows = writers(model, [Site.parse(bias.HEAD)])[0].rows(
            model, model.engine.forward(batch, capture=[Site.parse(bias.HEAD)]), Prompts.last(model, texts).batches[0][1]
        )[order]
        probe = LogisticRegression(C=1e4).fit(rows[::2], z[order][::2])
        return float(probe.score(rows[1::2], z[order][1::2]))

    assert found() == 1
    model.apply_weight_transform(transform, circuit)
    try:
        assert found() < 0.7
    finally:
        model.revert(transform)


def test_applying_and_reverting_gives_every_bit_back(circuit: Circuit, transform: WeightTransform) -> None:
    model = circuit.model
    before = model.weights_hash
    assert model.apply_weight_transform(transform, circuit) is transform
    assert model.edits == [transform.edit]
    assert model.weights_hash != before
    with pytest.raises(EditError, match="applied already"):
        model.apply_weight_transform(transform, circuit)
    with pytest.raises(CircuitError, match="was found on"):
        circuit.extract_weights()
    model.revert(transform)
    assert model.weights_hash == before
    assert transform.weights_changed == sum(weight.changed for weight in transform.edit.weights) > 0  # type: ignore[union-attr]


def test_a_concept_that_is_not_there_gives_nothing_to_apply(circuit: Circuit) -> None:
    shuffled = bias.dataset(bias.JOBS, "noise", shuffled=True)
    heard: list[str] = []
    with events.listen(lambda event: heard.append(getattr(event, "message", ""))):
        found = WeightTransform.removing(shuffled, bias.dataset(bias.NAMES, "names"), circuit)
    assert not found.exists
    assert found.edit is None
    assert "does not prefer the expected answer" in str(found.reason)
    assert any("nothing to erase" in message for message in heard)
    with pytest.raises(EditError, match="nothing to apply"):
        circuit.model.apply_weight_transform(found, circuit)
    assert circuit.model.edits == []


def test_a_result_prints_and_is_plain(transform: WeightTransform) -> None:
    import json

    data = json.loads(json.dumps(transform.as_dictionary()))
    assert data["biasBefore"]["n"] == transform.bias_before.n > 0
    assert {
        "biasAfter",
        "capabilityBefore",
        "capabilityAfter",
        "perplexityBefore",
        "perplexityAfter",
        "weightsChanged",
    } <= data.keys()
    assert data["provenance"]["weightsHash"] == transform.circuit.provenance.weights_hash
    assert "stereotype erased from 1 of 1 components" in transform.summary()
    assert "random direction" in transform.summary()
    assert transform.print_string().startswith("a WeightTransform(stereotype: bias 0.8")


def test_what_cannot_be_done_is_said_and_nothing_changes(circuit: Circuit, transform: WeightTransform) -> None:
    model, jobs, names = circuit.model, bias.dataset(bias.JOBS, "stereotype"), bias.dataset(bias.NAMES, "names")
    before = model.weights_hash
    with pytest.raises(TaskNotFoundError, match="pronoun_resolution"):
        WeightTransform.removing(jobs, "pronounResolutoin", circuit)
    with pytest.raises(TaskNotFoundError, match="gender_pronoun_bias"):
        WeightTransform.removing("genderBais", names, circuit)
    with pytest.raises(DatasetError):
        WeightTransform.removing(jobs.take(10), names, circuit)
    with pytest.raises(DatasetError, match="too few"):
        WeightTransform.removing(jobs, names.take(12), circuit)
    with pytest.raises(ArgumentError, match="one of two answers"):
        mixed = [dataclasses.replace(one, answer="f0") if at % 3 == 0 else one for at, one in enumerate(jobs)]
        WeightTransform.removing(Dataset(mixed, name="mixed"), names, circuit)
    with pytest.raises(ArgumentError, match="cannot be erased and kept"):
        WeightTransform.removing(jobs, jobs, circuit)
    with pytest.raises(ArgumentError, match="circuit's weights"):
        WeightTransform.removing(jobs, names, model)  # type: ignore[arg-type]
    empty = dataclasses.replace(circuit, _mask=np.zeros_like(circuit.mask))
    with pytest.raises(CircuitError, match="no component"):
        empty.extract_weights()
    other = TransformerModel(model.engine, model.tokenizer, "other", "another hash")
    with pytest.raises(CircuitError, match="was found on"):
        other.apply_weight_transform(transform, circuit)
    with pytest.raises(EditError, match="was made for the circuit"):
        model.apply_weight_transform(transform, empty)
    with pytest.raises(ArgumentError, match="not a WeightTransform"):
        model.apply_weight_transform(WeightEdit, circuit)  # type: ignore[arg-type]
    assert model.weights_hash == before
    assert model.edits == []


def test_a_model_that_computes_nan_is_refused_and_left_as_it_is(circuit: Circuit) -> None:
    model = circuit.model
    edit = WeightEdit.scaling("1.mlp.W_out", 1e30, model)
    view = model.weights("1.mlp.W_out")
    kept = view.snapshot()
    bits = kept.bits.copy()
    bits.flat[0] = np.array([np.nan]).view(bits.dtype)[0]
    view.restore(dataclasses.replace(kept, _bits=bits))
    broken = dataclasses.replace(circuit, provenance=dataclasses.replace(circuit.provenance, weights_hash=model.weights_hash))
    hash_ = model.weights_hash
    try:
        with pytest.raises(NonFiniteActivationError, match="NaN or infinite"):
            WeightTransform.removing(bias.dataset(bias.JOBS, "stereotype"), bias.dataset(bias.NAMES, "names"), broken)
        assert model.weights_hash == hash_
    finally:
        view.restore(kept)
    assert edit.provenance.weights_hash == model.weights_hash


# --- weights of circuits and neurons -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_oss"])
def test_the_share_is_of_every_parameter(architecture: str) -> None:
    model = tiny.hf_model(architecture)
    assert parameters(tiny.model(architecture)) == sum(parameter.numel() for parameter in model.parameters())


def test_a_circuits_slices_are_its_heads_and_mlps_and_shared_ones_are_named() -> None:
    planted = CIRCUITS["grouped queries"](120)
    circuit = CircuitFinder(planted.model).find_circuit("induction", Dataset(planted.examples, name="grouped"))
    weights = circuit.extract_weights()
    anatomy, model = planted.model.architecture, planted.model
    assert {weight.component for weight in weights.weights} == {str(node) for node in circuit.nodes}
    for weight in weights.weights:
        head = Site.parse(weight.component).head
        assert tuple(weight.shape) == model.weights(weight.name).shape
        assert weight.size == np.prod(weight.shape)
        if head is not None and ".W_K" in weight.name:
            own = head // anatomy.group
            assert weight.name.endswith(f"[{own}]")
            served = {f"{circuit.graph.layers and Site.parse(weight.component).layer}.headOutput[{h}]" for h in range(anatomy.heads)
                      if h // anatomy.group == own and h != head}  # fmt: skip
            assert set(weight.shared_with) == served != set()
        if ".W_Q" in weight.name or ".W_O" in weight.name:
            assert weight.shared_with == []
    counted = {weight.name: weight.size for weight in weights.weights}
    assert weights.size == sum(counted.values())
    assert weights.share == pytest.approx(weights.size / parameters(model))
    name = weights.names[0]
    np.testing.assert_allclose(weights.at(name).numpy(), model.weights(name).read(), rtol=1e-6)
    with pytest.raises(ArgumentError, match="not a weight of"):
        weights.at("0.attn.W_Z")
    assert f"{weights.share:.2%}" in weights.print_string()
    assert "shared with" in weights.summary()
    assert of_circuit(circuit).as_dictionary()["shared"] == weights.shared


def test_the_figures_are_the_results(transform: WeightTransform) -> None:
    page = shown(transform)
    entities = page.figure("stereotype, held out").traces
    assert [trace["name"] for trace in entities] == ["before", "after"]
    for trace, side in zip(entities, ("before", "after"), strict=True):
        assert trace["x"] == pytest.approx([getattr(one, side).value for one in transform.by_entity])
        assert trace["y"] == [one.entity for one in transform.by_entity]
    kept = page.figure("What was to be kept").traces
    assert kept[1]["x"] == pytest.approx([one.after.value for one in transform.kept])
    points = page.figure("Against other edits").traces
    assert transform.bias_after is not None
    assert [point["x"][0] for point in points] == pytest.approx(
        [transform.bias_before.value, transform.bias_after.value, *(one.bias.value for one in transform.controls)]
    )
