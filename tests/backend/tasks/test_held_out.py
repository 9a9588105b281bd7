"""No item that measures a model may stand in the text that a bundled model was trained on."""

from __future__ import annotations

import functools
import re

import pytest

from neuroscope.tasks.registry import TASKS, Task
from neuroscope.training.corpus import sample

DOCUMENTS = 40_000
#: Spaces so small that the training text holds most of its own split: the search must find those.
SMALL = {"capital_of_country", "addition", "pronoun_resolution", "subtraction"}


@functools.cache
def training_text() -> str:
    return "\n" + "\n".join(sample(DOCUMENTS))


def was_read(prompt: str) -> bool:
    """Whether the prompt stands in the training text, not as the tail of a longer number."""
    text = training_text()
    at = text.find(prompt)
    while at >= 0:
        if not text[at - 1].isdigit():
            return True
        at = text.find(prompt, at + 1)
    return False


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_test_item_was_ever_read(task: Task) -> None:
    read = [example.clean for seed in (0, 7) for example in task.dataset(100, seed=seed) if was_read(example.clean)]
    assert read == []


@pytest.mark.parametrize("name", sorted(SMALL))
def test_training_items_were_read(name: str) -> None:
    task = next(task for task in TASKS if task.name == name)
    items = [example.clean for example in task.dataset(100, split="train")]
    assert sum(map(was_read, items)) > 30


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_test_item_has_a_word_that_was_never_read(task: Task) -> None:
    """A word without any training would measure the initial weights, not the ability."""
    read = set(re.findall(r"\w+", training_text()))
    unread = {word for e in task.dataset(100) for word in re.findall(r"\w+", f"{e.clean}{e.answer}")} - read
    assert {word for word in unread if not word.isdigit()} == set()
