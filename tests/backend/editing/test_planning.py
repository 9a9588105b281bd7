"""A change is tried as it will be on the weights, taken as mild as it can be, and refused where weights have grown too much."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroscope.editing import keys, methods, planning, transactions
from neuroscope.editing.edit import WeightEdit
from neuroscope.editing.facts import KnowledgeEditor
from neuroscope.editing.growth import checked_growth
from neuroscope.editing.keys import memory, moments
from neuroscope.editing.planning import Wanted, best_change, tried
from neuroscope.editing.statements import Fact
from neuroscope.editing.targets import Target
from neuroscope.editing.tracing import editable
from neuroscope.engines.weights import WeightView
from neuroscope.errors import EditError
from neuroscope.models.model import TransformerModel
from tests import tiny

PROMPTS = ["w5 w6 w7 w8", "w9 w5 w6 w7 w8"]


@pytest.fixture
def model(framework: str) -> TransformerModel:
    return tiny.model(on=framework)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEUROSCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr(keys, "_TEXTS", keys._ROWS)  # moments on less text


def wanted(model: TransformerModel, rank: int = 1) -> Wanted:
    said = [token.strip() for token, _ in model.predictions(PROMPTS[0], rank + 1)]
    return Wanted(Fact(PROMPTS[0], "w7", f" {said[rank]}"), PROMPTS, ["w30 w7 w8"], ["w7 w44"])


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_oss"])
def test_a_trial_tells_what_the_changed_weights_do(framework: str, architecture: str) -> None:
    model = tiny.model(architecture, on=framework)
    one = wanted(model)
    place = memory(model, 1, model.encode(PROMPTS), [2, 3])
    trial, price = planning._Trial(model, place, [one]), planning._Price(model, [0, 1], [one], 0)
    change = np.random.default_rng(0).normal(
        scale=0.05, size=(max(len(place.experts), 1) * place.width, model.architecture.d_model)
    )
    of = planning.Change(place, [], change, None, trial.held(change))
    none = dataclasses.replace(of, change=0 * change)
    cost = price(of)
    assert price(none) != pytest.approx(cost, abs=1e-3)
    edit = WeightEdit.planned(model, place.deltas(change), title="any", method="random")
    with transactions.applied_for_now(model, edit):
        fresh = planning._Price(model, [1], [one], 0)
        held, again = planning._Trial(model, place, [one]).held(0 * change), fresh(none)
        before, after = (rows._rows.before[len(rows._spoken) :] for rows in (price, fresh))
    moved = (np.exp(before) * (before - after)).sum(1)
    divergence = planning.KAPPA * moved[: price._kept].mean() + moved[price._kept :].mean()
    assert of.held == held
    assert cost == pytest.approx(again + divergence, abs=1e-4)


def test_the_mildest_change_that_holds_is_taken(model: TransformerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    planner = planning._Planner(model, 0, [wanted(model)], "memit", planning.Kept(), planning.Kept())
    for limit in np.linspace(0.01, 0.5, 50):  # what a random model says is never likely
        monkeypatch.setattr(planning, "HOLDS", float(limit))
        held = [planner._tried(strength).held for strength in planning.STRENGTHS]
        if held[0] < 1 and held[-1] == 1:
            break
    first = next(at for at in range(len(held)) if held[at] == 1)
    assert first > 0
    assert planner.change().strength == planning.STRENGTHS[first]


@pytest.fixture
def _any_value(model: TransformerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some value in place of one that is sought, which takes time."""
    value = Target(np.random.default_rng(0).normal(size=model.architecture.d_model), 1.0, 1)
    monkeypatch.setattr(planning.Search, "target", lambda *_: value)


@pytest.mark.usefixtures("_any_value")
def test_of_layers_the_one_that_costs_least_is_taken(model: TransformerModel) -> None:
    alone = [best_change(model, [layer], [wanted(model)], "memit") for layer in (0, 1)]
    assert [one.cost for one in alone] == [None, None]  # there was nothing to choose
    costs = [planning._Price(model, [layer], [wanted(model)], 0)(one) for layer, one in enumerate(alone)]
    best = max(alone, key=lambda one: (one.held, -costs[one.memory.layer]))
    assert costs[0] != costs[1]
    for order in ([0, 1], [1, 0]):
        assert best_change(model, order, [wanted(model)], "memit").memory.layer == best.memory.layer

    def fits(change: planning.Change) -> bool:
        return change.memory.layer != best.memory.layer

    assert best_change(model, [0, 1], [wanted(model)], "memit", fits=fits).memory.layer != best.memory.layer
    assert best_change(model, [best.memory.layer], [wanted(model)], "memit", fits=fits).memory.layer == best.memory.layer


def test_where_no_layer_can_be_edited_the_last_ones_reason_is_given(model: TransformerModel) -> None:
    with pytest.raises(EditError, match="Edit an earlier layer"):
        best_change(model, [tiny.LAYERS - 1], [wanted(model, 5)], "memit")


def test_the_layers_that_are_tried_are_spread() -> None:
    assert editable(13) == [1, 2, 3, 4, 5, 6]
    assert tried(editable(13)) == [1, 3, 4, 6]
    assert tried([2]) == [2]


def test_what_is_spared_moves_less(model: TransformerModel) -> None:
    random = np.random.default_rng(0)
    key, added, moment = random.normal(size=(1, 20)), random.normal(size=(1, 4)), np.eye(20)
    beside = key + 0.3 * random.normal(size=(5, 20))
    for method in methods.METHODS:
        settings = methods.Settings(threshold=2.0, regularisation=0.01)
        free = methods.change(method, key, added, moment, settings=settings)
        spared = methods.change(method, key, added, moment, spared=10 * beside, settings=settings)
        assert np.linalg.norm(beside @ spared) < 0.5 * np.linalg.norm(beside @ free)


def test_edits_stop_where_weights_have_grown(model: TransformerModel) -> None:
    name = "1.mlp.W_out"
    loaded = model.weights(name).read().astype(np.float64)
    first = WeightEdit.planned(model, {name: loaded}, title="first", method="by hand")
    assert checked_growth(model, first, 2.5) == pytest.approx(2.0)
    model.apply_edit(first)
    second = WeightEdit.planned(model, {name: loaded}, title="second", method="by hand")
    assert checked_growth(model, second, 3.5) == pytest.approx(3.0)
    with pytest.raises(
        EditError, match=r"norm of 1\.mlp\.W_out would be 3\.00 times .* \(1 edits are on it already\)"
    ) as caught:
        checked_growth(model, second, 2.5)
    assert "update_facts" in str(caught.value)
    model.revert_edits()


@pytest.mark.usefixtures("_any_value")
def test_an_editor_refuses_an_edit_that_makes_weights_grow_and_changes_nothing(model: TransformerModel) -> None:
    editor = KnowledgeEditor(model)
    editor.largest_growth = 0.5
    said = wanted(model).fact
    before = model.weights_hash
    with pytest.raises(EditError, match="fall apart"):
        editor.update_fact(str(said), subject="w7", layer=0, method="memit")
    assert (model.weights_hash, model.edits, editor.edits) == (before, [], [])


@pytest.mark.usefixtures("_any_value")
def test_where_weights_would_grow_too_much_another_layer_is_edited(model: TransformerModel) -> None:
    said = str(wanted(model).fact)
    editors = [KnowledgeEditor(model) for _ in range(3)]
    alone = [editor.propose_fact(said, subject="w7", layer=at, method="memit") for at, editor in enumerate(editors[:2])]
    milder = min(alone, key=lambda one: one.growth)
    editors[2].largest_growth = float(np.mean([one.growth for one in alone]))
    circuit = editors[2].find_factual_knowledge_circuit(said, subject="w7")
    among = dataclasses.replace(circuit, exists=True, layers=[0, 1])
    assert editors[2].propose_fact(said, among, method="memit").layer == milder.layer


@pytest.fixture
def _little_room() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("_little_room")
def test_where_a_disk_is_full_no_part_of_a_file_is_left(model: TransformerModel, tmp_path: Path) -> None:
    edit = WeightEdit.planned(
        model, {"1.mlp.W_out": np.ones(model.weights("1.mlp.W_out").shape)}, title="any", method="by hand"
    )
    with pytest.raises(EditError, match="cannot be written"):
        edit.save(str(tmp_path / "full"))
    place = memory(model, 1, model.encode(PROMPTS), [2, 3])
    found = moments(model, place, texts=PROMPTS)  # computed, and not kept
    assert np.isfinite(found).all()
    there = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in there if path.parent.name != "hashes"] == []  # a hash of weights is small enough


@pytest.mark.usefixtures("_any_value")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("step", ["restore", "verify", "judged", "general_loss"])
def test_whatever_fails_while_a_fact_is_changed_every_bit_is_back(
    model: TransformerModel, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], step: str
) -> None:
    from neuroscope.editing import measures

    editor, said, before = KnowledgeEditor(model), str(wanted(model).fact), model.weights_hash
    calls = {"restore": 0, "verify": 0, "judged": 0, "general_loss": 0}

    def failing(real: Any, at: int) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            calls[step] += 1
            if calls[step] == at:
                raise error("in the middle")
            return real(*arguments, **named)

        return call

    where = {"restore": (WeightView, 1), "verify": (transactions, 1), "judged": (measures, 2), "general_loss": (measures, 2)}
    owner, at = where[step]
    name = "_verify" if step == "verify" else step
    monkeypatch.setattr(owner, name, failing(getattr(owner, name), at))
    with pytest.raises(error):
        editor.update_fact(said, subject="w7", layer=0, method="memit")
    monkeypatch.undo()
    assert calls[step] >= at
    assert (model.weights_hash, model.edits, editor.edits) == (before, [], [])
