"""Head roles: exactly those of models set by hand, and none in random ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from neuroscope.circuits.graph import Graph
from neuroscope.circuits.roles import FLOOR, Role, head_roles
from neuroscope.engines.protocol import Engine, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.lenses.repeats import repeat_pairs
from neuroscope.tasks.pairs import PairBatch
from tests import tiny
from tests.backend.circuits.handmade import induction_model, induction_pairs
from tests.backend.circuits.indirect import indirect_object_model, indirect_object_pairs
from tests.backend.circuits.pairs import random_pairs

IOI = "indirect_object_identification"


def all_heads(engine: Engine) -> list[Site]:
    anatomy = engine.anatomy
    return [Site(at, Component.HEAD_OUTPUT, head=head) for at in range(anatomy.layers) for head in range(anatomy.heads)]


def told(roles: list[Role]) -> set[tuple[str, str, str]]:
    return {(f"{role.head.layer}.{role.head.head}", role.role, role.acts_on) for role in roles}


@pytest.fixture(scope="module")
def indirect() -> list[Role]:
    engine = indirect_object_model()
    return head_roles(engine, indirect_object_pairs(), all_heads(engine), task=IOI)


def test_the_model_set_by_hand_does_the_task() -> None:
    engine, pairs = indirect_object_model(), indirect_object_pairs(30)
    assert engine.forward(pairs.clean).logits[:, -1].argmax(-1).tolist() == pairs.metric.answers.tolist()


def test_heads_of_the_indirect_object_model_have_exactly_the_roles_they_were_built_for(indirect: list[Role]) -> None:
    assert told(indirect) == {
        ("0.0", "S-inhibition", "queries of 1.0"),
        ("1.0", "name mover", "logits"),
        ("1.1", "negative mover", "logits"),
        ("1.3", "attends to S2", "logits"),
    }


def test_their_effects_are_what_their_writes_amount_to(indirect: list[Role]) -> None:
    """The gap is 0.7 m + 0.3 m' with m the movers' lead: 1.0 writes 1, 1.1 −0.3, and 1.3 0.3 against the subject."""
    effects = {f"{role.head.layer}.{role.head.head}": role.effect for role in indirect}
    found = {head: effect.value for head, effect in effects.items() if effect is not None}
    assert found == pytest.approx({"0.0": 1.0, "1.0": 1.0, "1.1": -0.3, "1.3": 0.3}, abs=0.02)
    assert all(effect is not None and effect.low <= effect.value <= effect.high for effect in effects.values())


def test_in_another_task_the_same_heads_are_told_plainly() -> None:
    engine = indirect_object_model()
    roles = head_roles(engine, indirect_object_pairs(), all_heads(engine), task="my own")
    assert told(roles) == {
        ("0.0", "attends to the wrong answer's second mention", "queries of 1.0, 1.1, 1.3"),
        ("1.0", "attends to the answer's mention", "logits"),
        ("1.1", "attends to the answer's mention", "logits"),
        ("1.3", "attends to the wrong answer's second mention", "logits"),
    }


def test_a_circuit_without_the_edge_has_not_the_role() -> None:
    engine = indirect_object_model()
    graph = Graph.of(engine.anatomy)
    mask = graph.valid.copy()
    mask[graph.receiver(1, Component.QUERY, 0), graph.head(0, 0)] = False
    mask[graph.logits, graph.head(1, 3)] = False
    roles = head_roles(engine, indirect_object_pairs(), all_heads(engine), task=IOI, mask=mask)
    assert told(roles) == {("1.0", "name mover", "logits"), ("1.1", "negative mover", "logits")}


@pytest.mark.parametrize("distractor", [False, True])
def test_heads_of_the_induction_model_have_exactly_the_roles_they_were_built_for(distractor: bool) -> None:
    engine = induction_model(distractor=distractor)
    roles = head_roles(engine, induction_pairs(12), all_heads(engine), task="induction", decode=str)
    assert told(roles) == {
        ("0.0", "previous-token", "keys of 1.0"),
        ("1.0", "induction", "logits, on repeated sequences"),
        ("1.0", "attends to the answer's mention", "logits"),
    }


def test_a_previous_token_head_that_the_tasks_pairs_do_not_show_is_found_on_repeats() -> None:
    """The corrupt prompt changes what the induction head copies, not where it looks."""
    engine, pairs = induction_model(), induction_pairs(12)
    corrupt = pairs.clean.ids.copy()
    corrupt[:, 2] = pairs.corrupt.ids[:, 1]
    pairs = PairBatch(pairs.clean, TokenBatch(corrupt, pairs.clean.real), pairs.metric)
    roles = head_roles(engine, pairs, all_heads(engine), task="induction")
    assert told(roles) == {
        ("0.0", "previous-token", "keys of 1.0, on repeated sequences"),
        ("1.0", "induction", "logits, on repeated sequences"),
        ("1.0", "attends to the answer's mention", "logits"),
    }


def test_only_the_heads_asked_for_are_told_of_in_their_order() -> None:
    engine = indirect_object_model()
    heads = [Site(1, Component.HEAD_OUTPUT, head=3), Site(1, Component.HEAD_OUTPUT, head=1)]
    assert [role.head for role in head_roles(engine, indirect_object_pairs(), heads, task=IOI)] == heads
    assert head_roles(engine, indirect_object_pairs(), [], task=IOI) == []


def test_random_models_have_no_roles() -> None:
    """Where there is no gap there are none; a gap by chance comes in one of forty models."""
    named = []
    for seed in range(20):
        engine = tiny.engine(("gpt2", "llama")[seed % 2], seed=seed, scale=(0.1, 0.2)[seed // 2 % 2])
        named.append(len(head_roles(engine, random_pairs(16, seed=100 + seed), all_heads(engine), task=IOI)))
    assert sum(named) <= 0.05 * 20 * 12
    assert np.count_nonzero(named) <= 2


def test_a_model_without_a_gap_has_no_roles_however_its_heads_look() -> None:
    """The names swap their places in the metric for half of the pairs: the same heads, no lead on average."""
    engine, pairs = indirect_object_model(), indirect_object_pairs(12)
    answers, wrongs = pairs.metric.answers.copy(), pairs.metric.wrongs.copy()
    answers[::2], wrongs[::2] = pairs.metric.wrongs[::2], pairs.metric.answers[::2]
    swapped = PairBatch(pairs.clean, pairs.corrupt, dataclasses.replace(pairs.metric, answers=answers, wrongs=wrongs))
    assert head_roles(engine, swapped, all_heads(engine), task=IOI) == []


def test_effects_below_the_floor_are_no_roles(indirect: list[Role], monkeypatch: pytest.MonkeyPatch) -> None:
    assert FLOOR == 0.01
    monkeypatch.setattr("neuroscope.circuits.roles.FLOOR", 0.5)
    engine = indirect_object_model()
    roles = head_roles(engine, indirect_object_pairs(), all_heads(engine), task=IOI)
    assert {role.role for role in roles} == {"S-inhibition", "name mover"}


def test_pairs_of_repeats_change_the_first_a_alone() -> None:
    pairs = repeat_pairs(tiny.engine("gpt2"), 10, 0)
    assert pairs is not None
    for row in range(pairs.rows):
        clean, corrupt = (batch.ids[row][batch.real[row]].tolist() for batch in (pairs.clean, pairs.corrupt))
        (changed,) = (index for index, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b)
        assert clean[-1] == clean[changed]
        assert clean[changed + 1] == pairs.metric.answers[row]
        assert pairs.metric.wrongs[row] in clean
        assert pairs.metric.wrongs[row] not in (clean[changed], clean[changed + 1])
        assert corrupt[changed] not in clean


def test_roles_are_written_and_read_and_those_of_older_files_too(indirect: list[Role]) -> None:
    for role in indirect:
        data = role.as_dictionary()
        assert data.keys() == {"head", "role", "attention", "effect", "actsOn"}
        assert Role.from_dictionary(data) == role
    old = Role.from_dictionary({"head": "1.headOutput[3]", "role": "induction", "attention": 0.5})
    assert old == Role(Site(1, Component.HEAD_OUTPUT, head=3), "induction", 0.5)
    assert old.as_dictionary()["effect"] is None
