"""Pairs, metrics and answers, computed a second way in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from neuroscope.engines.protocol import TokenBatch
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.models.model import TransformerModel
from neuroscope.tasks import arithmetic, registry
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.draw import Draw, remaining, units
from neuroscope.tasks.evaluate import answered, evaluate
from neuroscope.tasks.metrics import PromptMetric, arguments_of, checked_metric, metric_name
from neuroscope.tasks.own import own_pairs
from neuroscope.tasks.pairs import PairBatch, make_pairs
from neuroscope.tasks.registry import Task
from tests import tiny

EXAMPLES = [
    Example("w5 w6 w7 w8", "w5 w9 w7 w8", "w20", "w21", units=("word:w6",)),
    Example("w5 w6 w10", "w5 w6 w11", "w22", "w23"),
    Example("w5 w6 w12 w13 w14", "w5 w6 w15 w13 w14", "w24", "w25"),
]


@pytest.fixture(scope="module")
def model() -> TransformerModel:
    return tiny.model("llama")


def logs_of(model: TransformerModel, text: str) -> Any:
    return log_softmax(model.logits(text).numpy()[0, -1].astype(np.float64))


def test_metrics_are_what_their_names_say(model: TransformerModel) -> None:
    engine = model.engine
    pairs = make_pairs(model, EXAMPLES)
    assert pairs.metric.answers.tolist() == [20, 22, 24]
    assert pairs.metric.wrongs.tolist() == [21, 23, 25]
    clean, corrupt = (
        [logs_of(model, text) for text in texts] for texts in zip(*((e.clean, e.corrupt) for e in EXAMPLES), strict=True)
    )
    expected = {
        "logit_difference": [row[at] - row[at + 1] for row, at in zip(corrupt, (20, 22, 24), strict=True)],
        "probability": [np.exp(row[at]) for row, at in zip(corrupt, (20, 22, 24), strict=True)],
        "kl": [-(np.exp(one) * (one - other)).sum() for one, other in zip(clean, corrupt, strict=True)],
    }
    reference = engine.ops.asarray(np.stack(clean).astype(np.float32))
    for name, figures in expected.items():
        metric = PromptMetric(name, pairs.metric.answers, pairs.metric.wrongs, reference if name == "kl" else None)
        run = engine.forward(pairs.corrupt, logits=metric.request(pairs.corrupt))
        assert engine.ops.to_numpy(metric.compute(engine)(run.logits)) == pytest.approx(figures, abs=1e-5)
        some = metric.take(np.array([2, 0]))
        batch = pairs.corrupt.take(np.array([2, 0]))
        found = engine.ops.to_numpy(some.compute(engine)(engine.forward(batch, logits=some.request(batch)).logits))
        assert found == pytest.approx([figures[2], figures[0]], abs=1e-5)
        twice, batch = metric.repeat(2, engine), pairs.corrupt.repeat(2)
        found = engine.ops.to_numpy(twice.compute(engine)(engine.forward(batch, logits=twice.request(batch)).logits))
        assert found == pytest.approx([*figures, *figures], abs=1e-5)
    with pytest.raises(ArgumentError, match="needs the clean run"):
        PromptMetric("kl", pairs.metric.answers, pairs.metric.wrongs).compute(engine)


def test_a_function_reads_each_prompts_logits_and_its_prompt(model: TransformerModel) -> None:
    engine, seen = model.engine, []

    def lead(logits: Any, prompt: Any) -> Any:
        seen.append((prompt.index, prompt.size, prompt.clean, prompt.answer_token, prompt.wrong_token, logits.shape))
        return logits[0, -1, prompt.answer_token] - logits[0, -1, prompt.wrong_token]

    pairs = make_pairs(model, EXAMPLES, lead)
    assert (pairs.metric.name, pairs.metric.asked, pairs.shared_columns) == ("lead", lead, 0)
    run = engine.forward(pairs.clean, logits=pairs.metric.request(pairs.clean))
    rows = [logs_of(model, each.clean) for each in EXAMPLES]
    expected = [row[at] - row[at + 1] for row, at in zip(rows, (20, 22, 24), strict=True)]
    assert engine.ops.to_numpy(pairs.metric.compute(engine)(run.logits)) == pytest.approx(expected, abs=1e-5)
    assert seen[1] == (1, 3, "w5 w6 w10", 22, 23, (1, 3, tiny.VOCABULARY))
    assert [each.index for each in pairs.metric.take(slice(1, None)).prompts] == [1, 2]
    assert [each.index for each in pairs.metric.repeat(2, engine).prompts] == [0, 1, 2, 0, 1, 2]
    plain = PromptMetric("half", *(pairs.metric.answers,) * 2, function=lambda logits: 0.5, prompts=pairs.metric.prompts)
    assert engine.ops.to_numpy(plain.compute(engine)(run.logits)).tolist() == [0.5] * 3
    for function, says in ((lambda logits: "1", "not one number"), (lambda logits: logits[0, -1], "not one number")):
        metric = PromptMetric("bad", *(pairs.metric.answers,) * 2, function=function, prompts=pairs.metric.prompts)
        with pytest.raises(ArgumentError, match=says):
            metric.compute(engine)(run.logits)
    with pytest.raises(ArgumentError, match="has no gradient"):
        plain.compute(engine, traced=True)(run.logits)
    failing = PromptMetric("bad", *(pairs.metric.answers,) * 2, function=lambda _: 1 / 0, prompts=pairs.metric.prompts)
    with pytest.raises(ArgumentError, match="failed for prompt 0"):
        failing.compute(engine)(run.logits)


def test_a_metric_takes_the_logits_or_the_prompt_too() -> None:
    assert arguments_of(lambda logits: 1) == arguments_of(lambda logits, more=3: 1) == 1
    assert arguments_of(lambda logits, prompt: 1) == 2
    assert arguments_of(len) == 1
    for function in (lambda: 1, lambda a, b, c: 1):
        with pytest.raises(ArgumentError, match="cannot be called with the logits"):
            arguments_of(function)
    assert checked_metric("logitDifference") == "logit_difference"
    assert metric_name(lambda logits: 1) == "a function"
    assert metric_name(len) == metric_name("len") == "len"


def test_pairs_are_cut_without_losing_what_belongs_to_a_row(model: TransformerModel) -> None:
    pairs = make_pairs(model, EXAMPLES)
    assert pairs.rows == 3
    assert pairs.clean.ids.tolist() == [[5, 6, 7, 8, 0], [5, 6, 10, 0, 0], [5, 6, 12, 13, 14]]
    assert pairs.units[0] == {"word:w6"}
    assert pairs.units[1] == {"prompt:w5 w6 w10", "prompt:w5 w6 w11"}
    assert pairs.shared_columns == 1
    short = pairs.take(np.array([1, 0]))
    assert short.clean.ids.tolist() == [[5, 6, 10, 0], [5, 6, 7, 8]]
    assert short.corrupt.ids.tolist() == [[5, 6, 11, 0], [5, 9, 7, 8]]
    assert short.clean.real.sum(1).tolist() == [3, 4]
    assert (short.units, short.metric.answers.tolist()) == ((pairs.units[1], pairs.units[0]), [22, 20])
    alike = pairs.padded_alike(slice(1, 2))
    assert alike.clean.ids.tolist() == [[5, 6, 10, 0, 0]]
    assert (alike.units, alike.metric.wrongs.tolist()) == (pairs.units[1:2], [23])
    assert [part.rows for part in pairs.chunks(2)] == [2, 1]
    assert [part.rows for part in pairs.chunks(0)] == [1, 1, 1]
    assert pairs.chunks(2)[1].metric.answers.tolist() == [24]
    # The last token of the shortest row is shared by none, even if it is the same; neither is what is equal throughout.
    assert pairs.take(slice(1, None)).shared_columns == 2
    same = PairBatch(pairs.clean, pairs.clean, pairs.metric)
    assert (same.shared_columns, same.take(slice(0, 1)).units) == (2, ())
    marked = PromptMetric("kl", pairs.metric.answers, pairs.metric.wrongs, reference=np.zeros((3, 2)))
    assert PairBatch(pairs.clean, pairs.corrupt, marked).without_reference().metric.reference is None


@pytest.mark.parametrize(
    ("examples", "metric", "says"),
    [
        ([], "kl", "no examples"),
        ([Example("w5")], "kl", "Example 0 has no corrupt prompt"),
        ([EXAMPLES[0], Example("w5 w6", "w5")], "kl", "clean prompt has 2 tokens and the corrupt one 1"),
        ([Example("w5", "w6")], "probability", "has no answer"),
        ([Example("w5", "w6", "w7")], "logit_difference", "No example names a wrong answer"),
        ([Example("w5", "w6", "w7 w8")], "probability", "Example 0"),
        ([Example("w5", "w5", "w7", "w8")], "logit_difference", "nothing to trace"),
        ([Example("", "w5", "w7", "w8")], "logit_difference", "no tokens"),
    ],
)
def test_what_makes_no_pairs_is_said(model: TransformerModel, examples: list[Example], metric: str, says: str) -> None:
    with pytest.raises((DatasetError, ArgumentError), match=says):
        make_pairs(model, examples, metric)


def test_a_pair_without_answers_is_enough_for_kl(model: TransformerModel) -> None:
    pairs = make_pairs(model, [Example("w5 w6", "w5 w7"), Example("w5", "w6", "w7")], "kl")
    assert pairs.metric.answers.tolist() == pairs.metric.wrongs.tolist() == [-1, 7]
    read = make_pairs(model, [Example("w5 w6", "w5 w7"), EXAMPLES[0]], lambda logits: logits[0, -1, 3])
    assert [(each.answer_token, each.wrong_token) for each in read.metric.prompts] == [(None, None), (20, 21)]


def test_own_pairs_come_in_every_shape() -> None:
    pair = Example("a b", "a c", "d")
    assert own_pairs(("a b", "a c", "d")) == own_pairs([("a b", "a c", "d")]) == own_pairs(pair) == own_pairs([pair]) == [pair]
    assert own_pairs({"clean": "a b", "corrupt": "a c"}) == own_pairs(["a b", "a c"]) == [Example("a b", "a c")]
    assert own_pairs(["a", "b", "c", "d"]) == [Example("a", "b", "c", "d")]
    for given, says in (
        ([], "no pairs"),
        ("a text", "is not a pair"),
        (3, "is not a pair"),
        ([("a",)], "Pair 0 is"),
        ([pair, ("a", "b", "c", "d", "e")], "Pair 1 is"),
        ([pair, pair], "Pairs 0 and 1 are the same"),
        ([pair, Example("x", "y"), {"clean": "z"}], "Pair 2 has no corrupt prompt"),
    ):
        with pytest.raises(DatasetError, match=says):
            own_pairs(given)


def test_answers_are_right_if_likeliest_and_preferred_if_likelier(model: TransformerModel) -> None:
    rows = [logs_of(model, each.clean) for each in EXAMPLES]
    best = [f"w{row.argmax()}" for row in rows]
    asked = [
        Example(EXAMPLES[0].clean, answer=best[0], wrong=best[1] if best[1] != best[0] else "w40"),
        Example(EXAMPLES[1].clean, answer="w22" if best[1] != "w22" else "w23", wrong=best[1]),
        Example(EXAMPLES[2].clean, answer=best[2]),
    ]
    found = answered(model, asked)
    assert [each.right for each in found] == [True, False, True]
    assert [each.preferred for each in found] == [True, False, None]
    for each, example, row in zip(found[:2], asked, rows, strict=False):
        right, wrong = (np.exp(row[int(str(text)[1:])]) for text in (example.answer, example.wrong))
        assert each.share == pytest.approx(right / (right + wrong), abs=1e-5)
    assert (found[2].share, found[2].reply) == (None, None)
    with pytest.raises(DatasetError, match="Example 1 has no answer"):
        answered(model, [asked[0], Example("w5")])


def test_a_judge_reads_what_the_model_writes(model: TransformerModel) -> None:
    judged: list[tuple[str, str]] = []

    def judge(example: Example, text: str) -> bool:
        judged.append((example.clean, text))
        return example is EXAMPLES[1]

    task = Task("own", "own", lambda draw, split: iter(EXAMPLES), judge=judge, reply=2)
    found = answered(model, EXAMPLES, task)
    assert [each.right for each in found] == [False, True, False]
    assert [each.reply for each in found] == [text for _, text in judged] == model.continuations([e.clean for e in EXAMPLES], 2)
    assert [clean for clean, _ in judged] == [each.clean for each in EXAMPLES]


def test_losses_are_of_the_tokens_after_the_first(model: TransformerModel) -> None:
    texts = ["w5 w6 w7", "w8 w9"]
    found = model.loss_per_token(texts)
    for row, text in enumerate(texts):
        ids = [int(word[1:]) for word in text.split()]
        logs = log_softmax(model.logits(text).numpy()[0].astype(np.float64), axis=-1)
        assert found.numpy()[row, : len(ids) - 1] == pytest.approx(
            [-logs[at, ids[at + 1]] for at in range(len(ids) - 1)], abs=1e-5
        )
    assert found.numpy()[1, 1] == 0
    assert model.loss(texts) == pytest.approx((found.numpy()[0].sum() + found.numpy()[1, 0]) / 3, abs=1e-6)
    with pytest.raises(ArgumentError, match="one token has no loss"):
        model.loss(["w5 w6", "w7"])


def test_gradients_of_a_metric_are_its_slopes(model: TransformerModel) -> None:
    cache = model.run_with_gradients("w5 w6 w7", lambda logits: logits[0, -1, 20] * 2, ["1.residual"])
    slope = cache.gradients["1.residual"].numpy()[0]
    values, step = cache["1.residual"].numpy()[0], 1e-2
    direction = slope / np.linalg.norm(slope)

    def moved(by: float) -> float:
        edited = model.run_with_hooks("w5 w6 w7", [("1.residual", lambda a: a + by * direction)])
        return 2 * float(edited.numpy()[0, -1, 20])

    assert values.shape == slope.shape == (3, 32)
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(np.linalg.norm(slope), rel=1e-2)
    with pytest.raises(ArgumentError, match="not a function"):
        model.run_with_gradients("w5", "kl")  # type: ignore[arg-type]


def test_functions_edit_at_their_sites_and_names_of_transformer_lens_lead_there(model: TransformerModel) -> None:
    plain = model.logits("w5 w6 w7").numpy()

    def in_place(activations: Any) -> None:
        activations[:] = activations * 0

    silent = model.run_with_hooks("w5 w6 w7", [("*.mlpOutput", in_place), ("*.attention", lambda a, site: a * 0)]).numpy()
    logits, cache = model.run_with_cache("w5 w6 w7", lambda name: name in ("embedding", "2.residual"))
    assert logits.numpy() == pytest.approx(plain)
    assert [str(site) for site in cache.keys()] == ["embedding", "2.residual"]  # noqa: SIM118
    # Without attention and MLPs the embedding is what is read out.
    ops = model.engine.ops
    read = model.engine.forward(model.encode("w5 w6 w7"), start=tiny.LAYERS, residual=ops.asarray(cache["embedding"].numpy()))
    assert silent == pytest.approx(ops.to_numpy(read.logits), abs=1e-4)
    assert model.run_with_hooks("w5 w6 w7", []).numpy() == pytest.approx(plain)
    assert model.to_tokens(["w5 w6", "w7"]).tolist() == [[5, 6], [7, 0]]
    assert model.to_string([5, 6]) == "w5 w6"
    assert model.to_string([[5, 6], [7, 8]]) == ["w5 w6", "w7 w8"]
    assert model.to_single_token("w9") == 9
    assert model.to_str_tokens("w5 w6") == model.tokens("w5 w6")
    padded = model.run_with_hooks(["w5 w6", "w7"], [])
    assert float(padded.mean()) != pytest.approx(padded.numpy().mean())
    for given in ([("1.residual",)], [("1.residual", 3)], ["1.residual"]):
        with pytest.raises(ArgumentError, match="is no hook"):
            model.run_with_hooks("w5", given)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="edits whole components"):
        model.run_with_hooks("w5", [("1.mlp[3]", lambda a: a)])
    for ids in ([[[1]]], [1.5]):
        with pytest.raises(ArgumentError, match="no token ids"):
            model.to_string(ids)
    with pytest.raises(ArgumentError, match="no argument 'stop_at_layer'"):
        model.run_with_cache("w5", stop_at_layer=1)


@pytest.mark.parametrize(
    ("task", "operation"), [("addition", sum), ("subtraction", lambda ab: ab[0] - ab[1]), ("larger_number", max)]
)
def test_arithmetic_is_right_and_the_corrupt_prompt_calls_for_another_digit(task: str, operation: Any) -> None:
    for example in registry.get(task).dataset(60, seed=3):
        results = []
        for prompt in (example.clean, example.corrupt):
            numbers = [int(part) for part in "".join(c if c.isdigit() else " " for c in str(prompt)).split()]
            assert len(numbers) == 2
            results.append(str(operation(numbers)))
        assert example.meta["result"] == results[0]
        assert (example.answer, example.wrong) == (results[0][0], results[1][0])
        assert example.answer != example.wrong
        assert not results[0].startswith("-")
        assert len(example.clean) == len(str(example.corrupt))
        assert {unit for unit in example.units if unit.startswith("number:")} >= {f"number:{n}" for n in numbers}


def test_later_years_have_one_digit_above_and_one_below() -> None:
    examples = list(registry.get("greater_than").dataset(200, seed=1))
    assert {int(str(each.answer)) - int(each.meta["start"][0]) for each in examples} >= {1, 2}
    for each in examples:
        tens = int(each.meta["start"][0])
        assert 0 <= int(str(each.wrong)) < tens < int(str(each.answer)) <= 9
        assert each.clean.count(each.meta["start"]) >= 1
        assert str(each.corrupt).replace("01", each.meta["start"], 1) == each.clean
    assert {int(str(each.wrong)) for each in examples} >= {0, 1, 2}
    assert {int(str(each.answer)) for each in examples} >= {8, 9}
    shown = arithmetic.after_shown_sums(Example("3+4=", "3+9=", "7"))
    assert (shown.clean.splitlines()[-1], str(shown.corrupt).splitlines()[-1]) == ("3 + 4 = ", "3 + 9 = ")


def test_what_is_left_to_choose_from_shares_nothing_with_what_was_used() -> None:
    def generator(draw: Draw) -> Any:
        while True:
            one, colour = draw.one("word", ["a", "b", "c"]), draw.one("colour", ["red", "blue"])
            yield Example(f"{one} {colour}", units=units(word=one, colour=colour))

    assert remaining(generator, frozenset(["word:b", "colour:red", "colour:blue"])) == {"word": {"a": 0, "c": 0}}
    assert units(name=("Mary", "John", "Mary"), place="shop") == ("name:Mary", "name:John", "place:shop")


def test_an_evaluation_has_a_figure_for_each_label_and_says_what_it_left_out() -> None:
    model = TransformerModel.from_hugging_face("bundled:gpt2-medium")
    found = evaluate(model, ["addition", "register", "harmful_requests"], n=6, seed=2)
    assert found["addition"].accuracy is not None
    assert found["addition"].accuracy.n == 6
    assert found["addition"].by_label == {}
    labels = found["register"].by_label
    assert sum(each.n for each in labels.values()) == 6
    assert list(labels) == sorted(labels)
    told = found.summary()
    for score in found.scores:
        assert (score.note is None) == (score.accuracy is not None)
        assert score.task in told
    with pytest.raises(ArgumentError, match="was not measured"):
        found["induction"]
    with pytest.raises(ArgumentError, match="1 items measure nothing"):
        evaluate(model, ["addition"], n=1)
    assert evaluate(model, ["addition"], n=2, seed=2)["addition"].accuracy.n == 2  # type: ignore[union-attr]


def test_rows_are_read_at_their_own_last_token(model: TransformerModel) -> None:
    batch = TokenBatch.of([[5, 6, 7], [8, 9]])
    metric = PromptMetric("logit_difference", np.array([20, 21]), np.array([30, 31]))
    logits = model.engine.ops.to_numpy(model.engine.bare_logits(batch))
    expected = [logits[0, 2, 20] - logits[0, 2, 30], logits[1, 1, 21] - logits[1, 1, 31]]
    run = model.engine.forward(batch, logits=metric.request(batch))
    assert model.engine.ops.to_numpy(metric.compute(model.engine)(run.logits)) == pytest.approx(expected, abs=1e-5)
