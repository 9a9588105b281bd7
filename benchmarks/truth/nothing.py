"""Models and data in which there is nothing to find: how often is something found?

Null models have random weights, in four architectures, and are asked to do induction. Null data sets ask a model that is able for
something it cannot answer: two unrelated names, answers that belong to other examples, or prompts whose clean and corrupt
sides are exchanged at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from tests import tiny

from neuroscope.circuits.discovery import CircuitDiscovery
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.roles import head_roles
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import CircuitError
from neuroscope.features.neurons import NeuronAnalyzer
from neuroscope.models.model import TransformerModel
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Dataset, Example

ARCHITECTURES = ("gpt2", "llama", "qwen3", "gpt_oss")
BUNDLED = "bundled:gpt-oss-20b"


@dataclass(frozen=True)
class NullRow:
    """found: whether the instrument claims to have found something. detail: what it says."""

    kind: str
    instrument: str
    case: str
    found: bool
    detail: str


def null_models(*, models: int) -> Iterator[NullRow]:
    """Circuits, discovered hypotheses, roles and neurons of models with random weights."""
    for number in range(models):
        architecture, seed = ARCHITECTURES[number % len(ARCHITECTURES)], number // len(ARCHITECTURES)
        model, case = tiny.model(architecture, seed=seed, scale=0.15), f"{architecture}, seed {seed}"
        examples = repeats(60, seed=number)
        yield _circuit("null model", case, model, "induction", examples, number)
        yield _hypotheses(case, model, examples, number)
        yield _roles(case, model, examples, number)
        yield _neurons(case, model, number)


def null_data(*, sets: int) -> Iterator[NullRow]:
    """Circuits of the bundled model on data that ask for nothing it knows."""
    model = TransformerModel.from_hugging_face(BUNDLED)
    kinds: tuple[tuple[str, Callable[[int], tuple[str, Dataset]]], ...] = (
        ("unrelated names", _unrelated_names),
        ("answers of other examples", _shuffled_answers),
        ("sides exchanged at random", _exchanged),
        ("agreement, sides exchanged", _exchanged_agreement),
    )
    for number in range(sets):
        kind, make = kinds[number % len(kinds)]
        task, examples = make(number // len(kinds))
        yield _circuit("null data", f"{kind}, seed {number // len(kinds)}", model, task, examples, number)


def repeats(count: int, *, seed: int) -> list[Example]:
    """`… A B … A` → B in words of the tiny tokenizer; in the corrupt prompt another word stands for the first A."""
    random = np.random.default_rng(1000 + seed)
    found = []
    for _ in range(count):
        words = [f"w{token}" for token in random.permutation(np.arange(3, tiny.VOCABULARY))[:9]]
        a, b, c, d, e, f, g, h, wrong = words
        found.append(Example(f"{c} {d} {a} {b} {e} {g} {h} {a}", f"{c} {d} {f} {b} {e} {g} {h} {a}", answer=b, wrong=wrong))
    return found


def _circuit(kind: str, case: str, model: TransformerModel, task: str, examples: Dataset | list[Example], seed: int) -> NullRow:
    circuit = CircuitFinder(model, seed=seed, random_circuits=3).find_circuit(task, examples)
    return NullRow(kind, "circuit", case, circuit.exists, circuit.print_string() if circuit.exists else str(circuit.reason))


def _hypotheses(case: str, model: TransformerModel, examples: list[Example], seed: int) -> NullRow:
    discovery = CircuitDiscovery(seed=seed)
    discovery.model, discovery.target_capability, discovery.examples = model, "induction", examples
    discovery.search_strategy = "gradient"
    try:
        tests = [discovery.test_hypothesis(hypothesis) for hypothesis in discovery.generate_hypotheses()]
    except CircuitError as error:
        return NullRow("null model", "valid hypothesis", case, False, str(error))
    valid = [test.verdict for test in tests if test.is_valid]
    return NullRow("null model", "valid hypothesis", case, bool(valid), valid[0] if valid else f"{len(tests)} not valid")


def _roles(case: str, model: TransformerModel, examples: list[Example], seed: int) -> NullRow:
    graph = Graph.of(model.architecture)
    sites = [graph.source_site(source) for source in range(graph.sources)]
    heads: list[Site] = [site for site in sites if site.component is Component.HEAD_OUTPUT]
    parts = CircuitFinder(model, seed=seed).pairs_of("induction", examples)[1]
    roles = head_roles(model.engine, parts.judging, heads, task="induction", seed=seed)
    return NullRow("null model", "role", case, bool(roles), ", ".join(f"{role.head} {role.role}" for role in roles))


def _neurons(case: str, model: TransformerModel, seed: int) -> NullRow:
    """Two sets of texts of random words: a concept that is none."""
    random = np.random.default_rng(2000 + seed)
    texts = [" ".join(f"w{token}" for token in random.integers(3, tiny.VOCABULARY, 6)) for _ in range(120)]
    found = NeuronAnalyzer(model, seed=seed).find_neurons_for(texts[:60], texts[60:])
    return NullRow("null model", "neurons", case, len(found) > 0, f"{len(found)} neurons")


Change = Callable[[Example, np.random.Generator], Example]


def _changed(task: str, seed: int, name: str, change: Change) -> tuple[str, Dataset]:
    """A task's data with every example changed; like the task's own they can be as many as are needed."""
    examples = registry.get(task).examples

    def generator(random: np.random.Generator) -> Iterator[Example]:
        own = np.random.default_rng([seed, 1])
        return (change(example, own) for example in examples(random, "test"))

    return task, Dataset.generated(generator, 100, name=name, task=task, seed=seed)


def _answers(task: str) -> list[tuple[str, str]]:
    data = registry.get(task).dataset(n=100, seed=0)
    return sorted({(str(example.answer), str(example.wrong)) for example in data})


def _with_others(task: str, seed: int, name: str) -> tuple[str, Dataset]:
    """Answer and wrong answer of other examples, which stand in neither prompt and answer neither."""
    pairs = _answers(task)

    def change(example: Example, random: np.random.Generator) -> Example:
        texts = f"{example.clean} {example.corrupt} {example.answer} {example.wrong}"
        free = [pair for pair in pairs if not any(one.strip() in texts for one in pair)]
        answer, wrong = random.permutation(free[int(random.integers(len(free)))])
        return replace(example, answer=str(answer), wrong=str(wrong))

    return _changed(task, seed, name, change)


def _unrelated_names(seed: int) -> tuple[str, Dataset]:
    return _with_others("indirect_object_identification", seed, "unrelated names")


def _shuffled_answers(seed: int) -> tuple[str, Dataset]:
    return _with_others("capital_of_country", seed, "answers of other examples")


def _exchanged(seed: int, task: str = "indirect_object_identification") -> tuple[str, Dataset]:
    def change(example: Example, random: np.random.Generator) -> Example:
        if random.random() < 0.5:
            return example
        return replace(example, clean=str(example.corrupt), corrupt=example.clean)

    return _changed(task, seed, "sides exchanged at random", change)


def _exchanged_agreement(seed: int) -> tuple[str, Dataset]:
    return _exchanged(seed, "subject_verb_agreement")
