"""Neurons chosen by effect: a planted one that does something and tells nothing is found, and random models have none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_expit, logsumexp

from neuroscope.circuits.effect import Effect
from neuroscope.engines.protocol import LogitRequest
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.events import Job
from neuroscope.features import effects
from neuroscope.features.ablated import AblatedRuns
from neuroscope.features.ablation import NeuronAblator
from neuroscope.features.effects import attributed, candidates, log_odds
from neuroscope.features.neurons import NeuronAnalyzer, NeuronSet
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.statistics import Estimate, difference_test
from tests import tiny
from tests.backend.features.planted import ANSWER, CONCEPT, LAYER, NEURON, OTHERS, WRONG, planted_model


def items(words: range = CONCEPT, each: int = 4, *, seed: int = 0) -> Dataset:
    """Prompts that end in a word of the concept, at which the planted neuron fires; in the corrupt prompt another word stands there.

    Prompts with the same last word are not independent.
    """
    random = np.random.default_rng(seed)
    found = []
    for word in words:
        for _ in range(each):
            before = " ".join(f"w{token}" for token in random.choice(np.array(OTHERS), 3, replace=False))
            units = (f"word:w{word}",)
            found.append(
                Example(
                    f"{before} w{word}", f"{before} w{random.choice(np.array(OTHERS))}", f"w{ANSWER}", f"w{WRONG}", units=units
                )
            )
    return Dataset(found, name="planted items")


@pytest.fixture(scope="module")
def found(framework: str) -> NeuronSet:
    return NeuronAnalyzer(planted_model(on=framework), items=20).find_neurons_for(items(), choosing="effect")


def test_a_neuron_that_does_something_and_tells_nothing_is_found(found: NeuronSet) -> None:
    """It fires at the end of every prompt, so that nothing tells these words from those by it, and writes the answer."""
    assert found.exists
    assert (found.layer, found.ids[0]) == (LAYER, NEURON)
    strongest = found.neurons[0]
    assert strongest.effect is not None
    assert strongest.effect.low > 0.3
    assert strongest.effect.value > 3 * max((each.strength for each in found.neurons[1:]), default=0)
    assert strongest.q_value < 1e-3
    assert found.damage is not None
    assert found.damage.low > 0
    assert int(np.argmax(found.by_layer)) == LAYER
    halves = ([each.clean for each in items(part, 4)] for part in (range(50, 60), range(60, 70)))
    assert NEURON not in NeuronAnalyzer(found.model).find_neurons_for(*halves).ids


def test_held_out_items_share_no_word_with_those_that_chose_and_judged(found: NeuronSet) -> None:
    held_out = found.held_out
    assert len(held_out) == 20
    assert not set(found.used_units) & set().union(*(each.independent_units for each in held_out))
    results = NeuronAblator(found.model).test_ablation(found, held_out, off_target=items(OTHERS))
    assert results.exists
    assert all(mode.damage.low > max(mode.random_damage) for mode in results.modes)


def test_items_that_share_something_with_those_that_chose_are_left_out_or_refused(found: NeuronSet) -> None:
    ablator = NeuronAblator(found.model, n=80, controls=1)
    used = [int(unit.removeprefix("word:w")) for unit in found.used_units]
    results = ablator.test_ablation(found, items(seed=1), off_target=items(OTHERS))
    assert results.provenance.sizes["items"] == 4 * (len(CONCEPT) - len(used)) > 0
    with pytest.raises(DatasetError, match="0 of 8 items of planted items share no entity") as caught:
        ablator.test_ablation(found, items(range(used[0], used[0] + 1), 8, seed=2))
    assert "neurons.held_out" in caught.value.remedy


def test_a_layers_terms_sum_to_what_giving_it_its_means_takes(framework: str) -> None:
    """Completeness of integrated gradients, item by item; one step misses it."""
    model = planted_model(on=framework)
    some = list(items(each=1))
    whole = list(range(model.architecture.neurons))
    for layer in range(tiny.LAYERS):
        runs = AblatedRuns(model, layer, some)
        (silent,) = runs.scores("mean", [whole], Job("", None, ""))
        terms = attributed(model, some, [layer], steps=64)
        assert terms.shape == (len(some), 1, len(whole))
        assert terms[:, 0].sum(1) == pytest.approx((runs.whole - silent)[:, 0], abs=0.02)
    coarse = attributed(model, some, [0], steps=1)[:, 0].sum(1)
    (silent,) = AblatedRuns(model, 0, some).scores("mean", [whole], Job("", None, ""))
    assert np.abs(coarse - (AblatedRuns(model, 0, some).whole - silent)[:, 0]).max() > 0.05


def test_a_first_token_that_is_large_whatever_it_is_counts_for_no_mean() -> None:
    """A neuron that is huge at position 0 only: its mean with that token would be a value that no other token has."""
    model, sink = planted_model(), 5
    direction = np.zeros(model.architecture.d_model)
    direction[2], direction[3] = 1, -1
    positions = model.weights("pos_embed.W_pos")
    positions.write(positions.read() + np.outer(np.arange(len(positions.read())) == 0, 20 * direction))
    model.weights(f"{LAYER}.mlp.W_in[{sink}]").write(4 * direction)
    bias = model.weights(f"{LAYER}.mlp.b_in[{sink}]")
    bias.write(bias.read() * 0 - 10)
    model.weights(f"{LAYER}.mlp.W_out[{sink}]").write(-model.weights(f"{LAYER}.mlp.W_out[{NEURON}]").read())
    some, site = list(items(each=1)), Site(LAYER, Component.MLP)
    run = model.engine.forward(model.encode(some[0].clean), capture=[site], logits=None)
    values = model.engine.ops.to_numpy(run[site])[0, :, sink]
    assert values[0] > 4 > 10 * np.abs(values[1:]).max()
    assert np.abs(attributed(model, some, [LAYER])[:, 0, sink]).max() < 0.01
    runs = AblatedRuns(model, LAYER, some)
    for mode in ("mean", "resample"):
        assert runs.scores(mode, [[sink]], Job("", None, ""))[0] == pytest.approx(runs.whole, abs=0.01)
    assert np.abs(runs.scores("zero", [[sink]], Job("", None, ""))[0] - runs.whole).max() > 0.1


def test_prompts_of_one_token_are_attributed_and_ablated_there() -> None:
    model = planted_model()
    some = [Example(f"w{word}", None, f"w{ANSWER}", f"w{WRONG}") for word in (*CONCEPT[:4], *OTHERS[:4])]
    runs = AblatedRuns(model, LAYER, some)
    assert len(runs.activations) == len(some)
    (silent,) = runs.scores("mean", [list(range(model.architecture.neurons))], Job("", None, ""))
    fall = (runs.whole - silent)[:, 0]
    assert np.abs(fall).max() > 0.1
    assert attributed(model, some, [LAYER], steps=64)[:, 0].sum(1) == pytest.approx(fall, abs=0.02)


def test_the_last_layers_terms_are_those_of_each_neuron_alone() -> None:
    """Where nothing reads a neuron but the logits, and it hardly changes the norm, its term is the damage of silencing it."""
    model = planted_model()
    some, last = list(items(each=1)), tiny.LAYERS - 1
    runs = AblatedRuns(model, last, some)
    sets = [[neuron] for neuron in range(model.architecture.neurons)]
    alone = (runs.whole - runs.scores("mean", sets, Job("", None, "")))[..., 0]
    terms = attributed(model, some, [last], steps=4)[:, 0]
    assert np.corrcoef(alone.mean(1), terms.mean(0))[0, 1] > 0.9


def test_items_of_different_length_keep_their_order() -> None:
    model = planted_model()
    some = [*items(each=1)][:3]
    longer = [Example(f"w11 w12 {each.clean}", None, each.answer, each.wrong) for each in some]
    mixed = [longer[0], some[0], longer[1], some[1], some[2], longer[2]]
    together = attributed(model, mixed, [LAYER])[:, 0, NEURON]
    again = attributed(model, mixed[::-1], [LAYER])[::-1, 0, NEURON]
    assert together == pytest.approx(again, rel=1e-4)
    assert len(set(np.round(together, 5))) == 6


def test_log_odds_are_those_of_the_probabilities(framework: str) -> None:
    model = planted_model(on=framework)
    engine = model.engine
    batch = model.encode([each.clean for each in items(each=1)])
    logits = engine.forward(batch, logits=LogitRequest.last(batch)).logits
    tokens = np.tile([ANSWER, WRONG], (batch.rows, 1))
    values = engine.ops.to_numpy(logits).astype(np.float64)
    log_p = values[:, ANSWER] - logsumexp(values, axis=1)
    expected = log_p - np.log1p(-np.exp(log_p))
    assert engine.ops.to_numpy(log_odds(engine, tokens)(logits)) == pytest.approx(expected, abs=1e-4)
    # and where P is 1 up to rounding
    sure = engine.ops.asarray(np.eye(1, tiny.VOCABULARY, ANSWER, dtype=np.float32) * 60)
    found = engine.ops.to_numpy(log_odds(engine, tokens[:1])(sure))[0]
    assert found == pytest.approx(60 - np.log(tiny.VOCABULARY - 1), abs=1e-4)
    assert log_expit(found) > -1e-20


def test_the_largest_of_each_layer_and_then_of_all_are_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "_CHOSEN", 2)
    monkeypatch.setattr(effects, "_JUDGED", 3)
    means = np.array([[5, 4, 3, 0], [1, 2, 0, -9], [0, 0, 0, 3.5]], dtype=np.float32)
    assert candidates(means) == [(0, 0), (0, 1), (2, 3)]


def searched(
    monkeypatch: pytest.MonkeyPatch, *, silent: float = 2.0, sign: float = 1.0, level: float = 0.05
) -> tuple[effects.Effective, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """A search of 3 layers of 4 neurons among which 1.mlp[2], 1.mlp[0], 2.mlp[3] and 0.mlp[1] add 0.5, 1, 1.25 and 0.25 nats."""
    random = np.random.default_rng(0)
    terms = random.normal(size=(12, 3, 4)).astype(np.float32) * 0.05
    terms -= terms.mean(0)
    for (layer, neuron), value in {(1, 2): 0.5, (1, 0): 1.0, (2, 3): 1.25, (0, 1): 0.25}.items():
        terms[:, layer, neuron] += sign * value
    part = list(items(range(50, 62), each=1))

    def attribution(model: object, given: object, layers: list[int], **options: object) -> object:
        return terms[:, list(layers)]

    monkeypatch.setattr(effects, "attributed", attribution)
    monkeypatch.setattr(effects, "_effect", lambda *parts: Effect(Estimate(1, 0, 2, 12), 0.001, True))
    monkeypatch.setattr(
        effects,
        "_silenced",
        lambda *given: difference_test(silent + np.resize([-0.5, 0.5, 0.1], 12)) if silent else difference_test([0.0, 1, -1]),
    )
    return effects.find_effective(tiny.model("gpt2"), part, part, level=level, seed=0), terms


def test_the_layer_whose_confirmed_neurons_add_most_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found, terms = searched(monkeypatch)
    assert (found.layer, found.ids) == (1, [0, 2])
    assert found.by_layer == pytest.approx([0.25, 1.5, 1.25], abs=1e-6)
    assert found.elsewhere == ["2.mlp[3]", "0.mlp[1]"]
    assert [test.estimate.value for test in found.tests] == pytest.approx([1.0, 0.5], abs=1e-6)
    assert found.terms == pytest.approx(terms[:, 1, [0, 2]].T)
    assert found.candidates == 12
    assert found.reason is None
    assert found.damage is not None
    units = [each.independent_units for each in items(range(50, 62), each=1)]
    p = [difference_test(terms[:, layer, neuron], units).p_value for layer, neuron in ((1, 0), (2, 3), (1, 2), (0, 1))]
    assert [test.p_value for test in found.tests] == [p[0], p[2]]
    # the others count as 1: of twelve, the four smallest p-values by Benjamini and Hochberg
    order = np.sort(p)
    assert found.q_values[1] == pytest.approx(
        min(12 * order[at] / (at + 1) for at in range(int(np.searchsorted(order, p[2])), 4))
    )


def test_neurons_that_take_from_answers_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = searched(monkeypatch, sign=-1.0)
    assert (found.ids, found.candidates, found.damage, found.layer) == ([], 12, None, 0)
    assert found.by_layer == [0.0, 0.0, 0.0]
    assert found.reason == (
        "none of 12 judged neurons contributes to the answers of held-out items, at a false-discovery rate of 5%."
    )


@pytest.mark.parametrize("silent", [0.0, -2.0])
def test_terms_that_no_intervention_confirms_make_no_neurons(monkeypatch: pytest.MonkeyPatch, silent: float) -> None:
    found, _ = searched(monkeypatch, silent=silent)
    assert found.ids == []
    assert found.reason is not None
    assert found.reason.startswith("2 of layer 1 seem to contribute to the answers, but mean-ablating them does damage of ")


def test_margins_are_those_of_clean_and_corrupt_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = planted_model()
    some = [*items(each=1)][:5]
    some[2] = Example(some[2].clean, None, some[2].answer, some[2].wrong)
    expected = np.zeros((2, 5))
    for row, each in enumerate(some):
        for side, prompt in enumerate((each.clean, each.corrupt)):
            if prompt is not None:
                logits = model.logits(prompt).numpy()[0, -1]
                expected[side, row] = logits[ANSWER] - logits[WRONG]
    monkeypatch.setattr(model.engine, "rows_that_fit", lambda positions: 2)
    assert np.stack(effects._margins(model, some)) == pytest.approx(expected, abs=1e-4)
    effect = effects._effect(model, some, some)
    assert effect.reason == "5 pairs are too few to test clean against corrupt prompts; 7 are needed"


def test_the_way_is_gone_in_as_many_runs_as_rows_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = planted_model()
    some = [*items(each=1)][:3]
    whole = attributed(model, some, [LAYER], steps=5)
    monkeypatch.setattr(model.engine, "rows_that_fit", lambda positions: 7)
    assert attributed(model, some, [LAYER], steps=5) == pytest.approx(whole, abs=1e-5)
    monkeypatch.setattr(model.engine, "rows_that_fit", lambda positions: 1)
    assert attributed(model, some, [LAYER], steps=5) == pytest.approx(whole, abs=1e-5)


def test_what_is_silenced_is_measured_in_log_odds() -> None:
    model = planted_model()
    some = [*items(each=1)]
    runs = AblatedRuns(model, LAYER, some)
    fall = (runs.whole - runs.scores("mean", [[NEURON]], Job("", None, ""))[0])[:, 0]
    assert effects._silenced(model, LAYER, [NEURON], some, 0) == difference_test(
        fall, [each.independent_units for each in some]
    )


def repeats(count: int, *, seed: int) -> Dataset:
    """`… A B … A` → B; in the corrupt prompt another word stands for the first A."""
    random = np.random.default_rng(1000 + seed)
    found = []
    for _ in range(count):
        a, b, c, d, e, f, g, h, wrong = (f"w{token}" for token in random.permutation(np.arange(3, tiny.VOCABULARY))[:9])
        found.append(Example(f"{c} {d} {a} {b} {e} {g} {h} {a}", f"{c} {d} {f} {b} {e} {g} {h} {a}", answer=b, wrong=wrong))
    return Dataset(found, name="repeats")


@pytest.mark.slow
def test_random_models_have_no_neurons_that_their_answers_rest_on() -> None:
    """A hundred models of four architectures, and the planted model without its neuron: at most 5 % find any."""
    hits = []
    for number in range(100):
        architecture = ("gpt2", "llama", "qwen3", "gpt_oss")[number % 4]
        model = tiny.model(architecture, seed=number // 4, scale=0.15)
        none = NeuronAnalyzer(model, seed=number).find_neurons_for(repeats(72, seed=number), choosing="effect")
        assert none.exists is bool(none.neurons)
        hits.append(none.exists)
    assert sum(hits) <= 5


def test_a_model_that_does_not_do_the_task_has_none() -> None:
    model = tiny.model("gpt2", seed=1, scale=0.15)
    none = NeuronAnalyzer(model).find_neurons_for(repeats(72, seed=1), choosing="effect")
    assert not none.exists
    assert none.reason is not None
    assert none.reason.startswith("clean and corrupt prompts do not differ significantly")
    assert none.summary() == f"No neurons for repeats in {model.title}: {none.reason}"
    assert (none.damage, none.auroc, len(none), none.by_layer) == (None, None, 0, [0.0] * tiny.LAYERS)


def test_what_was_found_is_told_and_read_again(found: NeuronSet) -> None:
    text = found.summary()
    assert text.startswith(f"planted items in planted: answers depend on {len(found)} neurons of layer {LAYER}")
    assert f"{found.damage} nats when mean-ablated, on 20 items" in text
    assert str(found.neurons[0].effect) in text
    assert found.print_string() == f"a NeuronSet(planted items: {len(found)} neurons of layer {LAYER}, damage {found.damage})"
    assert found.neurons[0].print_string() == f"a Neuron({NEURON}, effect {found.neurons[0].effect})"
    again = NeuronSet.from_dictionary(found.as_dictionary(), found.model)
    assert again == NeuronSet(**{**found.__dict__, "_held_out": None})
    with pytest.raises(ArgumentError, match="no held-out items"):
        _ = again.held_out
    assert found.scores[NEURON] == found.neurons[0].strength


def test_what_cannot_be_chosen_by_effect_is_said() -> None:
    analyzer = NeuronAnalyzer(tiny.model("gpt2"))
    with pytest.raises(ArgumentError, match="no way of choosing neurons 'effects'") as caught:
        analyzer.find_neurons_for("country_names", choosing="effects")
    assert "effect" in caught.value.remedy
    with pytest.raises(ArgumentError, match="does not use `against:`"):
        analyzer.find_neurons_for("country_names", ["dog"], choosing="effect")
    with pytest.raises(ArgumentError, match="The concept literature has no task") as without:
        analyzer.find_neurons_for("literature", choosing="effect")
    assert "country_names" in without.value.remedy
    with pytest.raises(ArgumentError, match="Words and texts have no answers"):
        analyzer.find_neurons_for(["France", "Spain"], choosing="effect")
    with pytest.raises(DatasetError, match="without an answer"):
        analyzer.find_neurons_for(Dataset([Example(f"w{n} w{n + 1}", answer="w7") for n in range(10, 90)]), choosing="effect")
