"""What tasks make is what they say: answers follow from prompts, the corrupt prompt calls for the other answer, labels are even."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from neuroscope.errors import DatasetError
from neuroscope.tasks import (
    agreement,
    countries,
    domains,
    formality,
    independence,
    induction,
    ioi,
    losses,
    pronouns,
    registry,
    requests,
    sentiment,
    tense,
)
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.draw import Draw
from neuroscope.tasks.fitting import Fit
from neuroscope.tasks.lexicon import (
    BAD,
    COUNTRIES,
    DEFINED_SHE,
    GOOD,
    MEN,
    NAMES,
    OCCUPATIONS_SHE,
    PEOPLE,
    THINGS,
    VERBS,
    WOMEN,
)
from tests import tiny

COUNT = 200


def drawn(make: Callable[[Draw], Iterator[Example]], count: int = COUNT, seed: int = 1) -> list[Example]:
    draw = Draw(np.random.default_rng(seed))
    return draw.taken(make(draw), count)


def words_of(text: str | None) -> list[str]:
    return [word.strip(".,?!:;\"'") for word in str(text).split()]


def even(labels: list[object]) -> None:
    """Each label as often as the others, within what chance allows."""
    counts = Counter(labels)
    assert min(counts.values()) > len(labels) / len(counts) * 0.6, counts


def check_units(example: Example, *kinds: str) -> None:
    """Exactly these kinds, each value of which stands in a prompt."""
    assert {unit.split(":")[0] for unit in example.units} <= set(kinds)
    for unit in example.units:
        kind, _, value = unit.partition(":")
        if kind not in ("template", "noun"):
            assert value in f"{example.clean} {example.corrupt}", unit


@pytest.mark.parametrize("split", ["train", "test"])
def test_pronouns_follow_the_name_the_occupation_or_the_definition(split: str) -> None:
    for make, she in ((pronouns.resolution, WOMEN), (pronouns.bias, OCCUPATIONS_SHE), (pronouns.definitional, DEFINED_SHE)):
        examples = drawn(lambda draw, make=make: make(draw, split))  # type: ignore[misc]
        even([each.label for each in examples])
        for each in examples:
            female = each.meta["entities"] in she
            assert each.meta["entities"] in words_of(each.clean)
            assert (each.answer, each.wrong) == ((" she", " he") if female else (" he", " she"))
            assert each.label == ("female" if female else "male")
            check_units(each, "name", "job", "noun", "object", "place", "template")
            if each.corrupt is not None:
                changed = set(words_of(each.clean)) ^ set(words_of(each.corrupt))
                assert len(changed) == 2
                (other,) = changed - {each.meta["entities"]}
                assert (other in she) is not female
    answers = [each.answer for each in drawn(pronouns.even)]
    even(answers)
    assert all({each.answer, each.wrong} == {" she", " he"} for each in drawn(pronouns.even))


def test_a_verb_agrees_with_the_first_noun() -> None:
    examples = drawn(agreement.examples)
    plurals = {noun.plural: noun for noun in (*PEOPLE, *THINGS)}
    singulars = {noun.singular: noun for noun in (*PEOPLE, *THINGS)}
    even([each.label for each in examples])
    even([each.meta["distractor"] for each in examples])
    people = 0
    for each in examples:
        noun, other = [word for word in words_of(each.clean) if word in plurals or word in singulars]
        changed, same = [word for word in words_of(each.corrupt) if word in plurals or word in singulars]
        assert other == same
        assert {noun, changed} == {
            (plurals.get(noun) or singulars[noun]).singular,
            (plurals.get(noun) or singulars[noun]).plural,
        }
        plural = noun in plurals
        assert each.label == ("plural" if plural else "singular")
        assert each.meta["distractor"] == ("same" if (other in plurals) == plural else "other")
        pair = next(pair for pair in VERBS if f" {pair[plural]}" == each.answer and f" {pair[not plural]}" == each.wrong)
        is_person = (plurals.get(noun) or singulars[noun]) in PEOPLE
        people += is_person
        assert is_person or pair in VERBS[:2]
        assert each.meta["entities"].split()[0] == (plurals.get(noun) or singulars[noun]).singular
        check_units(each, "noun", "preposition", "template")
    assert 0.45 < people / COUNT < 0.75
    assert {each.answer for each in examples} > {" is", " are", " was", " were", " has", " have"}


def test_induction_asks_for_the_word_that_followed() -> None:
    lengths = set()
    for each in drawn(induction.examples):
        words, changed = each.clean.split(), str(each.corrupt).split()
        once = each.meta["entities"].split()
        lengths.add(len(once))
        again = words[len(once) :]
        assert words == [*once, *once[: len(again)]]
        assert 1 <= len(again) < len(once)
        assert each.answer == f" {once[len(again)]}"
        assert [at for at in range(len(words)) if words[at] != changed[at]] == [len(again)]
        assert f" {changed[len(again)]}" == each.wrong
        assert changed[len(again)] not in words
        assert len(set(once)) == len(once)
        assert len(each.units) == len(once) + 2
    assert lengths == set(range(6, 17))


@pytest.mark.parametrize("corruption", ioi.CORRUPTIONS)
def test_the_receiver_is_the_one_who_does_not_give(corruption: str) -> None:
    examples = drawn(ioi.corrupted(corruption))
    orders = []
    for each in examples:
        first, second, giver = [word for word in words_of(each.clean) if word in NAMES]
        one, two, three = [word for word in words_of(each.corrupt) if word in NAMES]
        receiver = second if giver == first else first
        orders.append(giver == first)
        assert (each.answer, each.wrong) == (f" {receiver}", f" {giver}")
        assert giver in (first, second)
        if corruption == "third_person":
            assert (one, two) == (first, second)
            assert three not in (first, second)
        elif corruption == "abc":
            assert len({first, second, one, two, three}) == 5
        elif corruption == "s2_io_flip":
            assert (one, two, three) == (first, second, receiver)
        else:
            assert len({first, second, one, two}) == 4
            assert three == (one if giver == first else two)
        check_units(each, "name", "place", "object", "template")
    even(orders)


def test_relations_and_reviews_answer_for_their_prompts() -> None:
    for name in ("capital", "language", "continent", "currency"):
        for each in drawn(countries.relation(name), 60):
            here = next(country for country in COUNTRIES if country.name == each.meta["entities"])
            there = next(country for country in COUNTRIES if f"country:{country.name}" in each.units and country != here)
            assert here.name in each.clean
            assert there.name in str(each.corrupt)
            assert (each.answer, each.wrong) == (f" {getattr(here, name)}", f" {getattr(there, name)}")
            assert each.answer != each.wrong
    for make in (sentiment.examples, sentiment.exclamations):
        examples = drawn(make)
        even([each.label for each in examples])
        for each in examples:
            good = sum(word in GOOD for word in words_of(each.clean)), sum(word in GOOD for word in words_of(each.corrupt))
            bad = sum(word in BAD for word in words_of(each.clean)), sum(word in BAD for word in words_of(each.corrupt))
            assert (good, bad) == (((2, 0), (0, 2)) if each.label == "positive" else ((0, 2), (2, 0)))
            assert (each.answer, each.wrong) == (f" {each.label}", " negative" if each.label == "positive" else " positive")
            check_units(each, "adjective", "work", "aspect", "template")
            assert make is sentiment.examples or each.clean.startswith("Oh,")


def test_registers_are_worded_as_they_are_labelled() -> None:
    examples = drawn(formality.examples)
    even([each.label for each in examples])
    for each in examples:
        assert (each.answer, each.wrong) == ((" formal", " informal") if each.label == "formal" else (" informal", " formal"))
        assert each.clean.endswith(" Style:")
        assert (each.meta["entities"] == each.clean.removesuffix(" Style:")) == (each.label == "formal")
        template = next(unit for unit in each.units if unit.startswith("template:")).removeprefix("template:")
        assert template in {wording for wording, _ in formality._ALL}
        assert {unit.split(":")[0] for unit in each.units if unit.split(":")[1] not in each.clean + each.meta["other"]} <= {
            "template"
        }
    random = np.random.default_rng(0)
    sure = formality.pair(random, 0)
    assert sure[0] != sure[1]
    assert "{" not in "".join(sure) + formality.sentence(random, True) + formality.sentence(random, False)


def test_a_text_of_one_tense_names_its_person_in_turn_with_the_pronoun() -> None:
    for seed in range(30):
        random = np.random.default_rng(seed)
        past = bool(seed % 2)
        found = tense.text(random, past, 4, opening=False)
        sentences = [one for one in found.split(". ") if one]
        assert len(sentences) == 4
        subjects = [one.split()[0] for one in sentences]
        assert subjects[0] == subjects[2]
        assert subjects[0] in (WOMEN if subjects[1] == "She" else MEN)
        assert subjects[1] == subjects[3]
        assert subjects[1] in ("She", "He")
        verbs = {event[not past].split()[0] for event in tense.EVENTS}
        assert all(one.split()[1] in verbs for one in sentences)
        assert tense.text(np.random.default_rng(seed), past, 1) != tense.text(
            np.random.default_rng(seed), past, 1, opening=False
        )
    before, now = tense.pair(np.random.default_rng(0), 3)
    assert before.split()[0] == now.split()[0]
    assert before.split()[1] == tense.EVENTS[3][0].split()[0]
    assert now.split()[1] == tense.EVENTS[3][1].split()[0]
    people = [tense._words(np.random.default_rng(seed)) for seed in range(60)]
    even([each["pronoun"] for each in people])
    assert all((each["name"] in WOMEN) == (each["pronoun"] == "She") == (each["other"] in MEN) for each in people)


def test_a_harmful_request_and_the_harmless_one_of_its_shape() -> None:
    examples = drawn(requests.examples)
    even([each.label == "harmless" for each in examples])
    even([each.meta["category"] for each in examples])
    for each in examples:
        harmful = each.label != "harmless"
        assert each.label in ("harmless", each.meta["category"])
        assert (each.answer, each.wrong) == ((" I", " Sure") if harmful else (" Sure", " I"))
        assert (each.meta["reply"] == requests.REFUSAL) is harmful
        templates = (requests._HARMFUL if harmful else requests._HARMLESS)[each.meta["category"]]
        assert each.meta["template"] in {template.text for template in templates}
        shape = next(unit for unit in each.units if unit.startswith("template:"))
        assert shape.removeprefix("template:") in {template.text for template in requests._HARMFUL[each.meta["category"]]}
        assert all(unit.split(":", 1)[1] in each.clean for unit in each.units if not unit.startswith(("template", "noun")))
    for category in requests.CATEGORIES:
        for each in drawn(lambda draw, category=category: requests.paired(category, draw), 30):  # type: ignore[misc]
            assert each.label == category
            assert each.clean != each.corrupt
            assert (each.answer, each.wrong) == (" I", " Sure")
            check_units(each, *{unit.split(":")[0] for unit in each.units})
    for each in drawn(requests.traps, 60):
        assert (each.label, each.answer, each.wrong) == ("harmless", " Sure", " I")
        assert all(unit.split(":", 1)[1] in each.clean for unit in each.units if not unit.startswith("template"))


def test_statements_of_mathematics_are_true() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        text = domains.mathematics(random).rstrip(".")
        left, _, right = text.partition(" = ")
        if right and all(part.strip().isdigit() for part in [*left.split("+"), right]):
            assert sum(map(int, left.split("+"))) == int(right)
    assert len({domains.program(random) for _ in range(60)}) > 30
    assert len({domains.prose(random) for _ in range(60)}) > 50
    assert registry.get("addition").dataset(5).generates


def test_the_loss_of_a_text_is_summed_over_its_tokens_but_the_first() -> None:
    model = tiny.model("gpt2")
    texts = ["w5 w6 w7", "w8 w9"]
    sums, counts = losses.text_losses(model, texts)
    assert counts == [2, 1]
    for text, total, count in zip(texts, sums, counts, strict=True):
        assert total / count == pytest.approx(model.loss(text), abs=1e-5)
    losses.text_losses(model, [" ".join(["w5"] * 128)])
    for text, says in (("w5", "one token"), (" ".join(["w5"] * 129), "129 tokens, and its context holds 128")):
        with pytest.raises(DatasetError, match=says):
            losses.text_losses(model, [text])


def test_every_part_has_as_many_values_as_it_needs_and_its_share_of_what_they_weigh() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        values = [f"v{at}" for at in range(4)]
        pool = independence._dealt([(values, 2)], {"v0": 100, "v1": 1, "v2": 1, "v3": 1}, [1, 1], random)
        assert sorted(Counter(pool.values()).items()) == [(0, 2), (1, 2)]
        many = [f"v{at}" for at in range(60)]
        weights = {value: int(random.integers(1, 9)) for value in many}
        dealt = independence._dealt([(many[:30], 1), (many[20:], 1)], weights, [3, 1], random)
        assert set(dealt) == set(many)
        for some in (many[:30], many[20:], many):
            share = sum(weights[value] for value in some if dealt[value] == 0) / sum(weights[value] for value in some)
            assert share == pytest.approx(0.75, abs=0.12)


def test_of_several_deals_the_one_with_the_fullest_part_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = iter([(9, 1), (4, 2), (8, 1), (3, 2), (2, 2)])
    now: list[int] = []

    def filled(*arguments: object) -> list[Example]:
        part = int(arguments[4])  # type: ignore[call-overload]
        if part == 0:
            now[:] = next(lengths)
        return [Example(f"part {part} item {at}") for at in range(now[part])]

    def generator(draw: Draw) -> Iterator[Example]:
        while True:
            yield Example(f"w{draw.one('word', range(3, 90))}", units=(f"word:{draw.random.integers(90)}",))

    monkeypatch.setattr(independence, "_filled", filled)
    monkeypatch.setattr(independence, "_FEWEST", 1)
    parts = independence._generated(generator, [Fit(tiny.tokenizer())], [10, 2], 0, "own")
    assert parts.sizes == (9, 1)


def test_no_more_examples_are_made_than_are_asked_for() -> None:
    made: list[int] = []

    def generator(draw: Draw) -> Iterator[Example]:
        while True:
            made.append(len(made))
            yield Example(f"w{len(made) // 2}")  # each but the first twice

    found = Dataset.generated(generator, 12, name="own", task="own", seed=0)
    assert [each.clean for each in found] == [f"w{at}" for at in range(12)]
    assert len(made) == 12 + 10
    made.clear()
    assert len(Dataset.generated(generator, 5, name="own", task="own", seed=0)) == 5
    assert len(made) == 10


def test_examples_are_of_one_length_and_another() -> None:
    cuts = Counter(len(each.clean.split()) - len(each.meta["entities"].split()) for each in drawn(induction.examples, 400))
    assert cuts[1] > 0
    assert max(cuts) == 15
