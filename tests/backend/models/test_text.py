"""Prompts, answers and continuations as tokens, with tokenizers of every kind."""

from __future__ import annotations

from typing import Any

import pytest

from neuroscope import events
from neuroscope.errors import ArgumentError
from neuroscope.models.text import ChatText, Texts, answer_token, continuation, plain_ids, prompt_ids
from neuroscope.models.token_texts import TokenTexts
from tests import machines, tiny

PROMPT = "The capital of France is"
KINDS = {
    "legacy": lambda **more: machines.sentencepiece(legacy=True, **more),
    "metaspace": lambda **more: machines.sentencepiece(legacy=False, **more),
    "bytes": lambda **more: machines.byte_level(**more),
}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


def entries(tokenizer: Any, ids: list[int]) -> list[str]:
    return [tokenizer.convert_ids_to_tokens(id_).replace("Ġ", "▁") for id_ in ids]


def test_llama_2s_tokenizer_makes_an_answer_alone_two_tokens() -> None:
    assert len(plain_ids(KINDS["legacy"](), " Paris")) == 2


def test_an_answer_is_the_token_that_it_is_behind_its_prompt(make: Any) -> None:
    tokenizer = make()
    assert entries(tokenizer, [answer_token(tokenizer, PROMPT, " Paris")]) == ["▁Paris"]
    assert entries(tokenizer, [Texts(tokenizer).token(" Paris")]) == ["▁Paris"]
    assert entries(tokenizer, [Texts(tokenizer).token("Paris")]) == ["Paris"]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("eos", [True, False])
def test_a_prompt_begins_once_and_does_not_end(make: Any, bos: bool, eos: bool) -> None:
    tokenizer = make(bos=bos, eos=eos)
    begin = ["<s>"] if bos else []
    found = entries(tokenizer, prompt_ids(tokenizer, PROMPT))
    assert found[: len(begin)] == begin
    assert [entry for entry in found if entry in ("<s>", "</s>")] == begin
    assert found[-1] == "▁is"
    assert entries(tokenizer, prompt_ids(tokenizer, "")) == begin
    assert "</s>" not in entries(tokenizer, prompt_ids(tokenizer, PROMPT, special=False))
    assert entries(tokenizer, [answer_token(tokenizer, PROMPT, " Paris")]) == ["▁Paris"]


def test_a_text_that_is_written_with_its_beginning_gets_no_second_one(make: Any) -> None:
    tokenizer = make(bos=True)
    for text in (f"<s>{PROMPT}", ChatText(f"<s>{PROMPT}")):
        assert prompt_ids(tokenizer, text).count(1) == 1
    assert prompt_ids(tokenizer, ChatText(PROMPT)).count(1) == 0
    assert entries(tokenizer, [answer_token(tokenizer, ChatText(f"<s>{PROMPT}"), " Paris")]) == ["▁Paris"]


def test_an_end_that_the_text_itself_writes_stays(make: Any) -> None:
    tokenizer = make(eos=True)
    assert prompt_ids(tokenizer, f"{PROMPT}</s>").count(2) == 1


@pytest.mark.parametrize(
    ("prompt", "answer", "told"),
    [
        (PROMPT, "Paris", r"'Paris' has no space .*'isParis'[\s\S]*Write ' Paris'"),
        (f"{PROMPT} ", "Paris", r"ends in a space.*merges.*'Paris'[\s\S]*' Paris'"),
        (PROMPT, " Paris Rome", r"' Paris Rome' is 2 tokens after"),
        ("The capital of Fran", "ce", r"merges the answer 'ce' with the end of"),
        (PROMPT, "", "empty"),
    ],
)
def test_an_answer_that_does_not_fit_is_said(make: Any, prompt: str, answer: str, told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        answer_token(make(), prompt, answer)


def test_words_that_go_on_and_figures_are_answers(make: Any) -> None:
    tokenizer = make()
    assert entries(tokenizer, [answer_token(tokenizer, "The Rome", "d")]) == ["d"]  # no token is ` d`
    tokenizer = make(words=(*machines.WORDS, "17", "45"))
    assert entries(tokenizer, [answer_token(tokenizer, "so 17", "45")]) == ["45"]


def test_a_tokenizer_of_plain_words_takes_an_answer_without_its_space() -> None:
    tokenizer = tiny.tokenizer()
    assert answer_token(tokenizer, "w5 w6", "w7") == answer_token(tokenizer, "w5 w6", " w7") == 7
    with pytest.raises(ArgumentError, match="2 tokens"):
        answer_token(tokenizer, "w5 w6", "w7 w8")


def test_what_is_no_text_is_said() -> None:
    for wrong in (7, None, "half \ud83d"):
        with pytest.raises(ArgumentError, match=r"not a text|surrogate"):
            prompt_ids(KINDS["bytes"](), wrong)  # type: ignore[arg-type]


def test_a_continuation_keeps_its_first_space(make: Any) -> None:
    tokenizer = make()
    prompt = prompt_ids(tokenizer, PROMPT)
    for text in (" Paris", "Paris", " Paris and so on", "!"):
        whole = prompt_ids(tokenizer, PROMPT + text)
        assert whole[: len(prompt)] == prompt
        assert continuation(tokenizer, prompt, whole[len(prompt) :]) == text
    assert continuation(tokenizer, [], prompt) == PROMPT


def test_a_character_that_the_continuation_completes_is_its_own() -> None:
    tokenizer = machines.byte_level()
    first, second = plain_ids(tokenizer, "é")
    assert continuation(tokenizer, [first], [second]) == "é"


def test_the_bytes_of_tokens_are_those_of_the_text(make: Any) -> None:
    tokenizer = make()
    tokens = TokenTexts.of(tokenizer)
    ids = plain_ids(tokenizer, f"{PROMPT} 🙂 é<turn>")
    assert b"".join(tokens.data(id_) for id_ in ids).decode().lstrip() == f"{PROMPT} 🙂 é<turn>"
    parts = [id_ for id_ in ids if not tokens.is_whole(id_)]
    assert [tokens.text(id_) for id_ in parts[:4]] == ["\\xf0", "\\x9f", "\\x99", "\\x82"]
    assert tokens.is_special(3)
    assert not any(tokens.is_special(id_) for id_ in parts)
    assert TokenTexts.of(tokenizer) is tokens


def test_many_texts_are_read_at_once_as_one_by_one(make: Any) -> None:
    tokenizer = make(bos=True, eos=True)
    texts, many = [PROMPT, "<s>The", " Paris", "é🙂"], Texts(tokenizer)
    many.read(texts)
    assert [many.prompt(text) for text in texts] == [prompt_ids(tokenizer, text) for text in texts]


def test_behind_a_mark_an_answer_without_its_space_is_told_once(make: Any) -> None:
    told: list[str] = []
    with events.listen(lambda event: told.append(event.message) if isinstance(event, events.Notice) else None):
        for prompt in ("France is:", "The capital, so", "Italy is."):
            texts = Texts(make())
            meant = texts.answer_token("The capital of France is", " Paris")
            told.clear()
            if prompt[-1] == "o":
                texts.answer_token(prompt, " Paris")
                assert not told
            else:
                assert texts.answer_token(prompt, " Paris") == meant
                assert not told
                assert texts.answer_token(prompt, "Paris") != meant
                texts.answer_token(prompt, "Rome")
                assert len(told) == 1
                assert "write ' Paris'" in told[0]
        told.clear()
        Texts(make()).answer_token("France is (", "Paris")  # so it is written
        assert not told


@pytest.mark.parametrize(
    ("prompt", "answer", "spaced"),
    [
        ("2+2=", "4", False),  # written without spaces
        ("2 + 2 =", "4", True),
        ("2 + 2 =", " 4", False),
        ("x = 3, y =", "4", True),
        ("x = -", "4", False),  # a minus before a term
        ("7 -", "4", True),
        ("3 ×", "4", True),
        ("(7) =", "Paris", True),
        ("Answer:", "4", True),
        ("at 12:", "4", False),  # parts of a number
        ("3.", "4", False),
        ("1,", "4", False),
        ("3.", "Paris", True),
        ("(", "4", False),
    ],
)
def test_a_mark_goes_on_with_a_space_where_it_is_written_so(make: Any, prompt: str, answer: str, spaced: bool) -> None:
    texts, told = Texts(make(words=(*machines.WORDS, "4"))), []
    with events.listen(lambda event: told.append(event.message) if isinstance(event, events.Notice) else None):
        found = texts.answer_token(prompt, answer)
    assert [f"write ' {answer}'" in text for text in told] == [True] * spaced
    if spaced:
        assert texts.answer_token(prompt, f" {answer}") != found


def test_the_tokens_of_an_answer_are_shown_with_their_spaces(make: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        Texts(make()).answer_token("The capital of France is", " Paris and")
    assert "[' Paris', ' and']" in str(caught.value)
