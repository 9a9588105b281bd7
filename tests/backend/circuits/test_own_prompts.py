"""Patching on prompts of one's own: every cell is held against a whole run of its own."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from neuroscope.circuits.maps import PatchingMap
from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.engines.protocol import Array, Edit, EditScope, LogitRequest
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, CircuitError, DatasetError, SiteError
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Dataset
from tests import tiny

PAIRS = [
    ("w5 w9 w12 w7 w30 w4", "w5 w9 w40 w7 w30 w4", "w8", "w22"),
    {"clean": "w6 w9 w13 w7 w31 w4", "corrupt": "w6 w50 w13 w7 w31 w4", "answer": "w9", "wrong": "w3"},
    ("w7 w9 w60 w7 w31 w4", "w7 w9 w60 w8 w31 w4", "w10", "w11"),
]
#: One of every kind of site, some at a token, some before the first difference.
SITES = [
    "embedding@2", "0.residualPre@2", "1.residual@-1", "1.mlpRead", "1.attention@3", "1.mlp", "0.mlp[*]@-1", "2.mlpOutput",
    "1.query[*]", "1.key[*]@2", "1.value", "heads", "1.headOutput[1]@*", "1.attentionScores[0]", "*.attentionPattern[*]",
    "1.attentionPattern[2]@4", "2.layerNorm", "1.mlpInput@3", "1.residual[7]@2",
]  # fmt: skip


@cache
def model(engine: str, architecture: str = "gpt2") -> TransformerModel:
    return tiny.model(architecture, on=engine)


def difference(logits: Any, prompt: Any) -> Any:
    return logits[0, -1, prompt.answer_token] - logits[0, -1, prompt.wrong_token]


def brute(model: TransformerModel, pair: tuple[str, ...], site: Site, direction: str, instead: Any = None) -> float:
    """The logit difference of one whole run of the base prompt, with the site's cells taken from a whole run of the other."""
    engine, (clean, corrupt, answer, wrong) = model.engine, pair
    base, other = (corrupt, clean) if direction == "denoising" else (clean, corrupt)
    theirs = engine.forward(model.encode(other), capture=[site])[site] if instead is None else instead
    batch = model.encode(base)

    def apply(value: Array, _: EditScope) -> Array:
        return value * 0 + theirs

    run = engine.forward(batch, edits=[Edit(site, apply)], logits=LogitRequest.last(batch))
    found = engine.ops.to_numpy(run.logits)[0].astype(np.float64)
    return float(found[model.token(answer)] - found[model.token(wrong)])


def rows(pairs: list[Any] = PAIRS) -> list[tuple[str, ...]]:
    return [tuple(pair.values()) if isinstance(pair, dict) else pair for pair in pairs]


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_oss"])
def test_every_cell_is_that_of_a_whole_run(framework: str, architecture: str, direction: str) -> None:
    subject = model(framework, architecture)
    sites = SITES if architecture != "gpt_oss" else ["1.router@-1", "0.mlp[*]@-1", "1.query[*]"]
    found = ActivationPatcher(subject).patch(PAIRS, sites, direction=direction)
    assert found.n == 3
    ends = {
        end: [brute(subject, pair, Site.parse("0.residualPre"), end) for pair in rows()] for end in ("denoising", "noising")
    }
    clean, corrupt = np.mean(ends["denoising"]), np.mean(ends["noising"])
    assert found.clean_metric.value == pytest.approx(clean, abs=2e-5)
    step = 1 if architecture == "gpt2" else 7
    for one in found.sites[::step]:
        mean = np.mean([brute(subject, pair, one.site, direction) for pair in rows()])
        assert one.metric == pytest.approx(mean, abs=2e-5), str(one.site)
        low, high = (corrupt, clean) if direction == "denoising" else (clean, corrupt)
        assert one.value == pytest.approx((one.metric - low) / (high - low), abs=1e-4)


def test_in_double_precision_the_cells_are_equal_to_1e_7() -> None:
    subject = tiny.model("gpt2", seed=3)
    subject.engine.model.double()  # type: ignore[attr-defined]
    subject.engine.dtype = subject.engine.ops.dtype = subject.engine.model.dtype  # type: ignore[attr-defined]
    found = ActivationPatcher(subject).patch(PAIRS, SITES, direction="noising")
    for one in found.sites[::3]:
        mean = np.mean([brute(subject, pair, one.site, "noising") for pair in rows()])
        assert one.metric == pytest.approx(mean, abs=1e-7), str(one.site)


def test_a_map_says_what_it_measured(framework: str) -> None:
    subject = model(framework)
    found = ActivationPatcher(subject).patch(PAIRS, "heads@*")
    assert len(found) == 3 * 4 * 6
    assert found.numpy().shape == (3, 4, 6)
    assert list(found.axes) == ["layer", "head", "position"]
    assert found.numpy()[1, 2, 4] == found["1.headOutput[2]@4"].value
    assert found["1.z[2]@4"].token == "w30"
    assert found["1.headOutput[2]@0"].value == 0, "the first token is the same in both prompts of every pair"
    row = found.table()[0]
    assert (row["site"], row["layer"], row["head"], row["position"], row["n"]) == ("0.headOutput[0]@0", 0, 0, 0, 3)
    assert abs(found.strongest(1)[0].value) == max(map(abs, found.values))
    assert found.provenance.sizes == {"pairs": 3, "sites": 72}
    assert "3 pairs" in repr(found)
    assert found.as_dictionary()["sites"][0]["site"] == "0.headOutput[0]@0"
    with pytest.raises(SiteError, match="was not patched"):
        found["1.residual"]
    assert str(found.strongest(1)[0].site) in found.summary()


def test_one_pair_has_no_interval_and_says_so() -> None:
    found = ActivationPatcher(model("torch")).patch(PAIRS[0], "residual@*")
    assert found.n == 1
    assert all(np.isinf(one.share.high) for one in found)
    assert found.note is not None
    assert found.note.startswith("One pair")
    assert found.note in found.summary()
    assert "∞" not in found.summary()
    assert found["2.residual@-1" if "2.residual@-1" in [str(s.site) for s in found] else "2.residual@5"].value == pytest.approx(
        1
    )
    whole = ActivationPatcher(model("torch")).patch(PAIRS[0], ["residual", "embedding"])
    assert whole.values == pytest.approx([1, 1, 1, 1], abs=1e-5)


def test_intervals_hold_the_pairs_apart() -> None:
    found = ActivationPatcher(model("torch")).patch(PAIRS, "1.residual", metric=difference)
    assert found.sites[0].share.n == 3


@pytest.mark.parametrize("method", ["exact", "attribution"])
def test_a_function_as_metric_gives_what_its_name_gives(framework: str, method: str) -> None:
    patcher = ActivationPatcher(model(framework))
    by_name = patcher.patch(PAIRS, "heads@*", method=method)
    by_function = patcher.patch(PAIRS, "heads@*", method=method, metric=difference)
    assert by_function.values == pytest.approx(by_name.values, abs=1e-5)
    assert by_function.metric == "difference"


def test_a_function_reads_every_position_and_needs_no_answers(framework: str) -> None:
    patcher = ActivationPatcher(model(framework))
    pairs = [pair[:2] for pair in rows()]

    def at_the_third(logits: Any) -> float:
        assert logits.shape == (1, 6, tiny.VOCABULARY)
        return float(np.asarray(logits)[0, 3, 5])

    found = patcher.patch(pairs, "residual@*", metric=at_the_third)
    after = found.numpy()[:, 4:]
    assert np.allclose(after, 0, atol=1e-6), "a later token does not reach the logits of an earlier one"
    assert abs(found.numpy()[:, :4]).max() > 0.01
    assert patcher.patch(pairs, "mlps", metric="kl").metric == "kl"


def test_attribution_is_the_gradient_times_the_change(framework: str) -> None:
    """What is linear adds up: the tokens of a site, the heads of an output."""
    patcher = ActivationPatcher(model(framework))
    estimated = patcher.patch(PAIRS, ["1.residual@*", "1.residual", "2.headOutput", "2.headOutput[*]"], method="attribution")
    by_site = {str(one.site): one.value for one in estimated}
    assert sum(by_site[f"1.residual@{at}"] for at in range(6)) == pytest.approx(by_site["1.residual"], abs=1e-5)
    assert sum(by_site[f"2.headOutput[{head}]"] for head in range(4)) == pytest.approx(by_site["2.headOutput"], abs=1e-5)
    assert estimated.note is not None
    assert "First-order" in estimated.note


def test_the_gradient_is_that_of_small_steps() -> None:
    """∂m/∂site by finite differences, on the last layer's write, in double precision."""
    subject = tiny.model("gpt2", seed=3)
    subject.engine.model.double()  # type: ignore[attr-defined]
    subject.engine.dtype = subject.engine.ops.dtype = subject.engine.model.dtype  # type: ignore[attr-defined]
    pair = rows()[0]
    found = ActivationPatcher(subject).patch(
        [pair], ["1.mlpOutput@-1", "1.query[2]"], method="attribution", direction="noising"
    )
    for one in found:
        engine, site = subject.engine, one.site
        here, there = (engine.forward(subject.encode(text), capture=[site])[site] for text in pair[:2])
        step = 1e-5
        moved = brute(subject, pair, site, "noising", here + step * (there - here))
        kept = brute(subject, pair, site, "noising", here)
        assert one.metric - found.clean_metric.value == pytest.approx((moved - kept) / step, rel=1e-3)


@pytest.mark.parametrize("replacement", ["mean", "resample", "zero"])
def test_other_replacements_are_what_they_say(framework: str, replacement: str) -> None:
    subject = model(framework)
    found = ActivationPatcher(subject, seed=1).patch(
        PAIRS, ["1.headOutput[2]", "1.query[1]", "0.mlpOutput@-1"], direction="noising", replacement=replacement
    )
    engine = subject.engine
    for one in found:
        whole = [
            engine.ops.to_numpy(engine.forward(subject.encode(pair[1]), capture=[one.site.whole])[one.site.whole])[0]
            for pair in rows()
        ]
        stacked = np.stack(whole)
        if replacement == "mean":
            stacked = np.broadcast_to(stacked.mean((0, 1)), stacked.shape)
        elif replacement == "zero":
            stacked = stacked * 0
        else:
            order = [next(at for at in orders if at != row) for row, orders in enumerate(_cycle(3, 1))]
            stacked = stacked[order]
        cells = stacked[:, :, one.site.head] if one.site.head is not None else stacked[:, -1]
        expected = np.mean(
            [
                brute(subject, pair, one.site, "noising", engine.ops.asarray(cells[row : row + 1]))
                for row, pair in enumerate(rows())
            ]
        )
        assert one.metric == pytest.approx(expected, abs=2e-5), str(one.site)


def _cycle(rows: int, seed: int) -> list[list[int]]:
    from neuroscope.circuits.ablated import derangement

    other = derangement(rows, seed)
    assert all(at != row for row, at in enumerate(other))
    return [[int(at)] for at in other]


def test_path_patching_into_the_logits_is_the_direct_effect(framework: str) -> None:
    subject = model(framework)
    found = ActivationPatcher(subject).patch_paths(PAIRS, "heads")
    assert (found.method, found.receivers, len(found)) == ("path", ["logits"], 12)
    noised = ActivationPatcher(subject).patch(PAIRS, "heads", direction="noising")
    last = [one.site.layer == 2 for one in found]
    direct, total = np.array(found.values), np.array(noised.values)
    assert not np.allclose(direct, total, atol=1e-3), "earlier heads work through later parts as well"
    # The last layer's heads reach the logits directly, and through its MLP alone.
    parallel = ActivationPatcher(model(framework, "gpt_neox"))
    straight, whole = parallel.patch_paths(PAIRS, "heads").numpy(), parallel.patch(PAIRS, "heads", direction="noising").numpy()
    assert np.allclose(straight[-1], whole[-1], atol=1e-4)
    assert sum(last) == 4
    into = ActivationPatcher(subject).patch_paths(PAIRS, ["0.headOutput[*]", "0.mlpOutput"], ["2.query[*]", "logits"])
    assert len(into.receivers) == 5
    with pytest.raises(SiteError, match="None of the receivers reads"):
        ActivationPatcher(subject).patch_paths(PAIRS, "heads", "1.query[0]")


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ("w5 w9", "is not a pair of prompts"),
        (b"w5", "is not a pair of prompts"),
        (None, "is not a pair of prompts"),
        ([], "There are no pairs"),
        ([("w5",)], r"Pair 0 is \('w5',\)"),
        ([("w5 w6", "w5 w7", "w8", "w9", "w9")], "Pair 0 is"),
        ([("w5 w6", 3)], "Pair 0 is"),
        ([rows()[0], rows()[0]], "Pairs 0 and 1 are the same"),
        ([{"clean": "w5 w6"}], "has no corrupt prompt"),
        ([{"clean": "w5 w6", "corupt": "w5 w7"}], "Did you mean 'corrupt'"),
        (("w5 w6", "w5 w7 w8", "w8", "w9"), "has 2 tokens and the corrupt one 3"),
        (("w5 w6", "w5 w7"), "has no answer"),
        (("w5 w6", "w5 w6", "w8", "w9"), "nothing to trace"),
        (("w5 \ud800", "w5 w6", "w8", "w9"), "surrogate"),
    ],
)
def test_what_is_no_pair_is_refused_with_what_would_be(pairs: Any, says: str) -> None:
    with pytest.raises((DatasetError, ArgumentError), match=says):
        ActivationPatcher(model("torch")).patch(pairs, "residual@*")


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"sites": "haeds"}, "Did you mean 'heads'"),
        ({"sites": "9.residual"}, "There is no layer 9"),
        ({"sites": "logits"}, "cannot be exchanged"),
        ({"sites": []}, "No site is named"),
        ({"sites": None}, "names no sites"),
        ({"sites": [3]}, "3 is not a site"),
        ({"sites": "*.*"}, "names no sites"),
        ({"sites": "5-residual"}, "names no sites"),
        ({"sites": "1.residual@9"}, "There is no token 9"),
        ({"direction": "denoise"}, "denoising"),
        ({"metric": "logit_diff"}, "logit_difference"),
        ({"metric": lambda: 1}, "cannot be called with the logits"),
        ({"metric": lambda logits: "much"}, "not one number"),
        ({"metric": lambda logits: logits}, "not one number"),
        ({"metric": lambda logits: 1 / 0}, "ZeroDivisionError"),
        ({"metric": lambda logits: float("nan")}, "is nan for prompt 0"),
        ({"metric": lambda logits: float(logits[0, 0, 0]), "method": "attribution"}, "has no gradient"),
        ({"replacement": "noise"}, "replacement"),
        ({"method": "fast"}, "method of patching"),
    ],
)
def test_wrong_words_are_refused_with_the_right_ones(named: dict[str, Any], says: str) -> None:
    with pytest.raises(Exception, match=says) as caught:
        ActivationPatcher(model("torch")).patch(PAIRS, **{"sites": "residual", **named})
    assert isinstance(caught.value, (ArgumentError, SiteError, CircuitError)) or "nan" in says


def test_prompts_of_different_lengths_have_no_common_columns() -> None:
    pairs = [*PAIRS, ("w5 w9 w12 w7", "w5 w9 w40 w7", "w8", "w22")]
    patcher = ActivationPatcher(model("torch"))
    with pytest.raises(SiteError, match="same number of tokens"):
        patcher.patch(pairs, "residual@*")
    found = patcher.patch(pairs, ["residual@-1", "heads"])
    expected = [np.mean([brute(model("torch"), pair, one.site, "denoising") for pair in rows(pairs)]) for one in found]
    assert [one.metric for one in found] == pytest.approx(expected, abs=2e-5)
    by_function = patcher.patch(pairs, ["residual@-1", "heads"], metric=difference)
    assert by_function.values == pytest.approx(found.values, abs=1e-5)
    with pytest.raises(DatasetError, match="same number of tokens"):
        patcher.patch(pairs, "heads", replacement="resample")


def test_no_effect_is_said_not_divided_by() -> None:
    with pytest.raises(CircuitError, match="same metric"):
        ActivationPatcher(model("torch")).patch(PAIRS, "residual", metric=lambda logits: 1.0)


def test_a_dataset_is_taken_and_pairs_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tiny.model("gpt2", seed=5)
    dataset = Dataset.from_examples([dict(zip(("clean", "corrupt", "answer", "wrong"), pair, strict=True)) for pair in rows()])
    whole = ActivationPatcher(subject).patch(dataset, "heads@*")
    monkeypatch.setattr(subject.engine, "rows_that_fit", lambda positions: 2)
    assert ActivationPatcher(subject).patch(dataset, "heads@*").values == pytest.approx(whole.values, rel=1e-3, abs=1e-5)
    assert isinstance(whole, PatchingMap)


def test_components_of_the_stream_agree() -> None:
    """The whole of a layer's MLP, by its neurons or by what it writes."""
    found = ActivationPatcher(model("torch")).patch(PAIRS, ["1.mlp", "1.mlpOutput", "0.residual", "1.residualPre"])
    assert found.values[0] == pytest.approx(found.values[1], abs=1e-5)
    assert found.values[2] == pytest.approx(found.values[3], abs=1e-6)
    assert {one.site.component for one in found} >= {Component.MLP, Component.MLP_OUTPUT}
