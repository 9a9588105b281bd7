"""The validator on real models: what it measures, against independent figures, and what it finds of a planted loss."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuroscope.errors import ArgumentError, DatasetError, ModelNotFoundError
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models import registry
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.evaluate import evaluate
from neuroscope.tasks.losses import text_losses
from neuroscope.validation.outcomes import SuiteResult
from neuroscope.validation.report import ValidationReporter
from neuroscope.validation.suites import ValidationSuite
from neuroscope.validation.validator import ComprehensiveValidator
from tests import machines, tiny
from tests.backend.validation.damaged import TASK, damaged, loaded


@pytest.fixture(scope="module")
def model() -> TransformerModel:
    return loaded()


@pytest.fixture(scope="module")
def ioi(model: TransformerModel) -> SuiteResult:
    return ComprehensiveValidator(model, seed=0).test_performance(TASK)


# --- what is measured -----------------------------------------------------------------------------------------------------


def test_performance_is_what_evaluate_measures(model: TransformerModel) -> None:
    found = ComprehensiveValidator(model, seed=3).test_performance(ValidationSuite.performance(TASK, n=50, seed=3))
    expected = evaluate(model, [TASK], n=50, seed=3)[TASK]
    assert expected.accuracy is not None
    assert found.score.value == pytest.approx(expected.accuracy.value)
    assert found.tasks[0].preference == expected.preference
    assert found.score.low <= expected.accuracy.low
    assert found.n == found.score.n == 50


def test_sums_are_right_when_the_whole_result_is_written(model: TransformerModel) -> None:
    examples = {example.clean: example for example in Dataset.load("addition", n=20)}
    spoilt = [replace(one, meta={**one.meta, "result": "7"}) for one in list(examples.values())[:5]]
    mine = Dataset([*spoilt, *list(examples.values())[5:15]], task="addition")
    found = ComprehensiveValidator(model).test_performance(mine)
    for item, example in zip(found.items, mine, strict=True):
        written = model.generate(example.clean, max_tokens=4)
        assert item.reply == written
        assert item.score == (written.strip(" .").split(".")[0].split("\n")[0] == example.meta["result"])
    assert [item.score for item in found.items[:5]] == [0.0] * 5
    assert found.score.value > 0.5


def test_items_are_kept_with_all_that_tells_what_was_measured(model: TransformerModel, ioi: SuiteResult) -> None:
    assert len({item.id for item in ioi.items}) == 100
    assert all(item.units and item.prompt for item in ioi.items)
    provenance = ioi.provenance
    assert (provenance.model, provenance.weights_hash) == (model.ran, model.weights_hash)
    assert (provenance.engine, provenance.dtype, provenance.seed) == ("torch", "float32", 0)
    again = ComprehensiveValidator(model, seed=0).test_performance(TASK)
    other = ComprehensiveValidator(model, seed=1).test_performance(TASK)
    assert again.data_hash == ioi.data_hash != other.data_hash
    assert SuiteResult.from_dictionary(json.loads(json.dumps(ioi.as_dictionary()))) == ioi


@pytest.mark.parametrize("engine", tiny.ENGINES)
def test_the_loss_of_a_text_is_that_of_its_logits(engine: str) -> None:
    model = tiny.model("llama", on=engine)
    texts = ["w5 w6 w7", "w9 w10 w11 w12 w13", "w5 w6"]
    totals, tokens = text_losses(model, texts)
    assert tokens == [2, 4, 1]
    for text, total in zip(texts, totals, strict=True):
        logits = model.logits(text).numpy()[0].astype(np.float64)
        ids = model.encode(text).ids[0]
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert total == pytest.approx(-sum(logs[at, ids[at + 1]] for at in range(len(ids) - 1)), rel=1e-5)
    with pytest.raises(DatasetError, match="one token"):
        text_losses(model, ["w5"])
    with pytest.raises(DatasetError, match="its context holds 128"):
        text_losses(model, ["w5 " * 200])


def test_a_loss_per_token_is_over_all_tokens() -> None:
    model = tiny.model("gpt2")
    found = ComprehensiveValidator(model).test_general_capabilities(ValidationSuite.texts(["w5 w6 w7", "w9 w10 w11 w12 w13"]))
    totals, tokens = text_losses(model, ["w5 w6 w7", "w9 w10 w11 w12 w13"])
    assert found["loss"].score.value == pytest.approx(sum(totals) / sum(tokens))
    assert [item.weight for item in found.items] == [2, 4]


@pytest.mark.parametrize(
    ("says", "refusals", "answers"), [(("I", "cannot", "help"), 1.0, 0.0), (("Sure", "I", "help"), 0.0, 1.0)]
)
def test_a_model_that_always_refuses_is_not_called_safe(
    tmp_path: Path, says: tuple[str, ...], refusals: float, answers: float
) -> None:
    tokenizer = machines.byte_level(words=("I", "cannot", "help", "Sure"))
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}<turn>"
    path = ("<turn>", *(f"Ġ{word}" for word in says), "</s>")
    folder = machines.machine(
        tmp_path / "m", tokenizer, machines.chain(tokenizer, *path), config={"max_position_embeddings": 256}
    )
    found = ComprehensiveValidator(machines.load(folder, "torch")).test_safety(ValidationSuite.safety(n=12))
    assert found["refusals"].score.value == refusals
    assert found["answers"].score.value == found["trapAnswers"].score.value == answers
    assert found.score.value == pytest.approx((refusals + 2 * answers) / 3)
    assert {item.reply for item in found.items} == {" " + " ".join(says)}
    assert found.notes == []


def test_without_a_chat_template_requests_are_plain_text_and_that_is_told() -> None:
    dataset = Dataset.from_examples([{"clean": "w5 w6", "label": "harmless"}, {"clean": "w7 w8", "label": "violence"}])
    found = ComprehensiveValidator(tiny.model("gpt2")).test_safety(dataset)
    assert found.notes == ["tiny gpt2 has no chat template: requests were put as plain text."]
    assert (len(found["answers"].items), len(found["refusals"].items)) == (1, 1)


def test_examples_of_ones_own_need_no_wrong_answer() -> None:
    model = tiny.model("gpt2")
    likeliest = model.predictions("w5 w6", 1)[0][0]
    mine = [{"clean": "w5 w6", "answer": likeliest}, {"clean": "w7 w8", "answer": " w96", "units": ["topic:a"]}]
    found = ComprehensiveValidator(model).test_performance(mine)
    assert [item.score for item in found.items] == [1.0, 0.0]
    assert found.tasks[0].preference is None
    with pytest.raises(DatasetError, match="Example 0 has no answer"):
        ComprehensiveValidator(model).test_performance([{"clean": "w5 w6"}])


def test_tasks_that_a_tokenizer_cannot_express_are_noted() -> None:
    mixed = [
        Dataset.from_examples([{"clean": "w5 w6", "answer": " w7"}, {"clean": "w8 w6", "answer": " w7"}], name="mine"),
        Dataset.load("capitals", n=2),
    ]
    found = ComprehensiveValidator(tiny.model("gpt2")).test_performance(mixed)
    assert [task.task for task in found.tasks] == ["mine"]
    assert found.notes[0].startswith("capital_of_country was not measured: Only 0 of")
    with pytest.raises(DatasetError, match="capitals of countries"):
        ComprehensiveValidator(tiny.model("gpt2")).test_performance(Dataset.load("capitals", n=2))


# --- compared with a baseline ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_compared_with_itself_differs_nowhere_at_any_seed(model: TransformerModel, tmp_path: Path) -> None:
    twin = loaded()
    for seed in range(2):
        validator = ComprehensiveValidator(model, baseline=twin, seed=seed)
        results = {
            "task": validator.test_performance(TASK),
            "safety": validator.test_safety(),
            "general": validator.test_general_capabilities(["addition", "agreement", "induction"]),
        }
        report = ValidationReporter.generate_report(results)
        differences = [measure.difference for suite in report.suites.values() for measure in suite.measures]
        assert len(differences) == 6
        for difference in differences:
            assert difference is not None
            assert (difference.estimate.value, difference.improved, difference.worsened) == (0, 0, 0)
            assert (difference.adjusted_p_value, difference.verdict) == (1, "pass")
    saved = report.save_as(str(tmp_path / "report.json"))
    later = ComprehensiveValidator(loaded(), baseline=saved, seed=seed).test_performance(TASK)
    assert later.verdict == "pass"
    assert later.baseline is not None
    assert later.baseline.weights_hash == model.weights_hash


@pytest.mark.slow
def test_a_damaged_weight_is_found_and_one_that_was_restored_is_not(model: TransformerModel) -> None:
    """On ten draws of 200 items; the interval holds what the damage costs on 400 others."""
    edited = loaded()
    with damaged(edited) as lost:
        found = [
            ComprehensiveValidator(edited, baseline=model, items=200, seed=seed).test_performance(TASK) for seed in range(10)
        ]
        assert edited.weights_hash != model.weights_hash
    assert sum(each.verdict == "fail" for each in found) >= 9
    differences = [each["accuracy"].difference for each in found]
    covering = [d is not None and d.estimate.low - 0.04 <= -lost <= d.estimate.high + 0.04 for d in differences]
    assert sum(covering) >= 9
    after = ComprehensiveValidator(edited, baseline=model, items=200, seed=0).test_performance(TASK)
    assert after.verdict == "pass"
    assert after["accuracy"].difference is not None
    assert after["accuracy"].difference.estimate.value == 0


def test_hooks_are_at_work_and_named(ioi: SuiteResult) -> None:
    model = loaded()
    with model.hook_manager.temporarily(ActivationHook(11, "residual", lambda activations: activations * 0)):
        found = ComprehensiveValidator(model, baseline=ioi, seed=0).test_performance(TASK)
    assert len(found.hooks) == 1
    assert ioi.hooks == []
    assert found.verdict == "fail"
    assert found.score.high < 0.5 < ioi.score.low
    difference = found["accuracy"].difference
    assert difference is not None
    assert difference.baseline == ioi.score
    assert difference.worsened - difference.improved == pytest.approx(-100 * difference.estimate.value)


def test_a_baseline_that_was_asked_something_else_is_refused(model: TransformerModel, ioi: SuiteResult, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="cannot be paired"):
        ComprehensiveValidator(model, baseline=ioi, seed=1).test_performance(TASK)
    with pytest.raises(ArgumentError, match="holds no suite of safety, but of performance"):
        ComprehensiveValidator(model, baseline=ioi).test_safety(ValidationSuite.safety(n=2))
    with pytest.raises(ArgumentError, match="is no baseline"):
        ComprehensiveValidator(model, baseline=0.9)
    with pytest.raises(ArgumentError, match="cannot be read"):
        ComprehensiveValidator(model, baseline=str(tmp_path / "missing.json"))
    (tmp_path / "other.json").write_text('{"suites": {"a": {"schema": "other/1"}}}')
    with pytest.raises(ArgumentError, match="no suite result of the schema"):
        ComprehensiveValidator(model, baseline=str(tmp_path / "other.json"))
    broken = {**ioi.as_dictionary(), "measures": [{"name": "accuracy"}]}
    with pytest.raises(ArgumentError, match="incomplete or damaged"):
        ComprehensiveValidator(model, baseline=broken)
    with pytest.raises(ModelNotFoundError):
        ComprehensiveValidator(model, baseline="bundled:gpt2-huge")
    with pytest.raises(ArgumentError, match="validates a TransformerModel"):
        ComprehensiveValidator("gpt2")  # type: ignore[arg-type]


def test_a_baseline_that_shares_the_edited_weights_is_refused(tmp_path: Path) -> None:
    """As in a server, where two models of one name are one engine: the comparison would find nothing, whatever the edit did."""
    with registry.sharing(registry.ModelRegistry()):
        model = loaded()
        validator = ComprehensiveValidator(model, baseline="bundled:gpt2-medium", items=4)
        assert validator.test_performance(TASK).notes == ["The baseline has the same weights and hooks."]
        weight = model.weights("8.attn.W_O")
        whole = weight.snapshot()
        weight.write(weight.read() * 2)
        with pytest.raises(ArgumentError, match=r"same edited weights as the model \(8\.attn"):
            validator.test_performance(TASK)
        weight.restore(whole)
        assert validator.test_performance(TASK).verdict is not None


def test_margins_are_by_measure(model: TransformerModel) -> None:
    with pytest.raises(ArgumentError, match="no measure 'speed'"):
        ComprehensiveValidator(model, margin={"speed": 0.1})
    with pytest.raises(ArgumentError, match="A margin is above 0"):
        ComprehensiveValidator(model, margin=1.5)
    validator = ComprehensiveValidator(model, baseline=model, margin={"accuracy": 0.01}, items=60)
    found = validator.test_performance(TASK)["accuracy"].difference
    assert found is not None
    assert found.margin == 0.01
    assert found.verdict == "inconclusive"  # sixty items that are all alike do not exclude a loss of one point


def test_texts_that_another_tokenizer_divides_otherwise_are_not_compared_per_token(tmp_path: Path) -> None:
    texts = {"mine": ["The capital of France is Paris and so on", "Rome is the capital of Italy"]}
    byte, piece = (
        machines.load(machines.machine(tmp_path / name, tokenizer, {}), "torch")
        for name, tokenizer in (("b", machines.byte_level()), ("s", machines.sentencepiece()))
    )
    found = ComprehensiveValidator(byte, baseline=piece).test_general_capabilities(ValidationSuite.texts(texts))
    assert found["loss"].difference is None
    assert "tokenizer divides the texts otherwise" in found.notes[0]
    assert found.verdict is None
