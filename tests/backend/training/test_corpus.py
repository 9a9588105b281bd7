"""The corpus of the bundled models: frozen, within the vocabulary, and what it says it teaches."""

from __future__ import annotations

import re
from itertools import islice

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from neuroscope.models import bundled
from neuroscope.tasks import formality, tense
from neuroscope.tasks.arithmetic import larger
from neuroscope.tasks.draw import Draw
from neuroscope.tasks.lexicon import CITIES
from neuroscope.training import corpus, sequences, texts
from neuroscope.training.batches import batch, pieces
from neuroscope.training.configs import NAMES
from neuroscope.training.segments import DRAWN, FIRST_TOKEN, FORETOLD, VOCABULARY
from neuroscope.training.vocabulary import build

#: A change here makes models other than those that ship: train them anew, or undo what changed the corpus.
FINGERPRINT = "ceb27e76296695364d4abe03e82bdbf76828e1893194f8c1a0d70cc4f0641ae2"


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return build(4000)


def test_the_corpus_is_the_one_that_was_frozen() -> None:
    assert corpus.fingerprint() == FINGERPRINT


def test_every_word_of_it_is_one_token_and_room_is_left(tokenizer) -> None:  # type: ignore[no-untyped-def]
    known = tokenizer.get_vocab()
    assert len(known) == VOCABULARY
    before = tokenizer.backend_tokenizer.pre_tokenizer
    read_texts = [re.sub(r"<\|\w+\|>", "\n", text) for text in corpus.sample(4000)]
    read = {piece for text in read_texts for piece, _ in before.pre_tokenize_str(text)}
    assert [piece for piece in read if piece not in known] == []
    assert len({piece for piece in read if piece in known}) < VOCABULARY - 300  # bytes and letter groups need the rest


@pytest.mark.parametrize("name", NAMES)
def test_most_towns_of_the_later_part_are_one_token_of_the_models_that_ship(name: str) -> None:
    known = PreTrainedTokenizerFast.from_pretrained(bundled.path(name)).get_vocab()
    late = "".join(
        corpus.text_of(document) for kind, document in islice(corpus.documents(0, late=True), 20_000) if kind in corpus.LATE
    )
    towns = [town for town in CITIES if f" {town}." in late]
    assert len(towns) == len(CITIES)
    assert sum(f"Ġ{town}" in known for town in towns) >= 0.9 * len(towns)


def test_what_a_repetition_foretells_stood_before() -> None:
    for document in islice(sequences.repeats(np.random.default_rng(0)), 200):
        read: list[int] = []
        for segment in document:
            assert all(FIRST_TOKEN <= token < VOCABULARY for token in segment.ids)
            if segment.weight == FORETOLD and segment.ids:
                copied = [read[-1], *segment.ids]
                assert any(read[at : at + len(copied)] == copied for at in range(len(read)))
            read += segment.ids
        assert any(segment.weight == FORETOLD for segment in document)


def test_a_marked_list_marks_exactly_what_stood_before() -> None:
    for document in islice(sequences.marked(np.random.default_rng(0)), 200):
        seen: set[object] = set()
        marks = [segment.text in (sequences.AGAIN, sequences.NEW) and not segment.ids for segment in document]
        for at, segment in enumerate(document):
            if marks[at]:
                continue
            item = segment.ids or segment.text
            assert (document[at + 1].text == sequences.AGAIN) == (item in seen)
            assert document[at + 1].weight == FORETOLD
            assert segment.weight == DRAWN
            seen.add(item)


def test_a_letter_keeps_to_its_register() -> None:
    random = np.random.default_rng(0)
    for formal in (True, False):
        other = [pair[1 if formal else 0].split("{")[0] for pair in (*formality.CONTENTS, *formality.FURTHER)]
        told = [begun for begun in other if len(begun) > 6]
        for _ in range(100):
            letter = texts.letter(random, formal, greeted=True)
            assert not any(begun in letter for begun in told)


def test_a_review_keeps_to_its_sentiment() -> None:
    from neuroscope.tasks.lexicon import BAD, GOOD

    random = np.random.default_rng(0)
    for positive in (True, False):
        for _ in range(100):
            words = set(texts.review(random, positive)[1].replace(".", "").replace(",", "").split())
            assert not words & set(BAD if positive else GOOD)


def test_a_tense_is_kept() -> None:
    random = np.random.default_rng(0)
    past, present = ({event[which].split()[0] for event in tense.EVENTS} for which in (0, 1))
    assert not past & present
    for _ in range(100):
        assert not present & set(tense.text(random, True, 4).replace(".", "").split()[4:])
        assert not past & set(tense.text(random, False, 4, opening=False).replace(".", "").split())


def test_the_task_left_out_stands_nowhere() -> None:
    read = "\n".join(corpus.sample(20_000))
    asked = [next(larger(Draw(np.random.default_rng(seed)), "train")).clean for seed in range(200)]
    assert not any(prompt in read for prompt in asked)
    assert "max(" in read  # the word itself is known, as a function's name


def test_a_batch_is_the_same_each_time_and_its_ids_stay_as_they_are(tokenizer) -> None:  # type: ignore[no-untyped-def]
    ids, weights = batch(tokenizer, 3, 512)
    again, _ = batch(tokenizer, 3, 512)
    assert (ids == again).all()
    assert weights.min() > 0
    document = next(sequences.repeats(np.random.default_rng(1)))
    found, shares = pieces(tokenizer, document)
    assert found == [token for segment in document for token in segment.ids]
    assert len(shares) == len(found)
