"""What an edit risks: nothing for none, more for a larger one, high for one that breaks things; the model is left as it was."""

from __future__ import annotations

import numpy as np
import pytest

from neuroscope.editing.edit import WeightEdit
from neuroscope.errors import ArgumentError
from neuroscope.models.model import TransformerModel
from neuroscope.validation import risk
from neuroscope.validation.levels import LEVELS, RiskLevel
from neuroscope.validation.monitor import ModificationMonitor
from neuroscope.validation.risk import ModificationSafetyAnalyzer, _Battery, _random_edit

SITE = "9.mlp.W_out"


@pytest.fixture(scope="module")
def model() -> TransformerModel:
    return TransformerModel.from_hugging_face("bundled:gpt2-medium")


def scaled(model: TransformerModel, factor: float) -> WeightEdit:
    """The output matrix of an MLP, less `factor` of it."""
    return WeightEdit.planned(model, {SITE: -factor * model.weights(SITE).read()}, title=f"less {factor}", method="by hand")


def test_levels_compare_with_each_other_and_with_names() -> None:
    levels = [RiskLevel(name) for name in LEVELS]
    assert levels == sorted(levels) == list(LEVELS)
    assert RiskLevel("low") < "medium" < RiskLevel("high")
    assert not RiskLevel("medium") < "medium"
    assert RiskLevel("medium") <= "medium"
    assert max(levels).print_string() == "#high"
    with pytest.raises(ArgumentError, match="no level of risk 'hihg'"):
        _ = RiskLevel("low") < "hihg"


def test_the_divergence_is_that_of_saved_logits(model: TransformerModel) -> None:
    battery = _Battery(model, [risk.BEHAVIOR], 0)
    assert battery.losses().values[risk.BEHAVIOR].value == 0.0
    before = np.asarray(model.engine.ops.to_numpy(model.run(battery._batch).logits), dtype=np.float64)
    edit = model.apply_edit(scaled(model, 0.5))
    found = battery.losses()
    after = np.asarray(model.engine.ops.to_numpy(model.run(battery._batch).logits), dtype=np.float64)
    model.revert(edit)
    expected = []
    for row in range(battery._batch.rows):
        length = int(battery._batch.lengths[row])
        tokens = []
        for at in range(length - 1):
            p, q = (np.exp(x[row, at] - x[row, at].max()) for x in (before, after))
            p, q = p / p.sum(), q / q.sum()
            tokens.append(float((p * np.log(p / q)).sum()))
        expected.append(np.mean(tokens))
    assert found.values[risk.BEHAVIOR].value == pytest.approx(np.mean(expected), rel=1e-4)
    assert found.perplexity != 1.0


def test_a_random_edit_has_the_size_of_the_edit_in_every_weight(model: TransformerModel) -> None:
    edit = scaled(model, 0.3)
    random = _random_edit(model, edit.deltas, np.random.default_rng(0))
    assert np.linalg.norm(random.deltas[SITE]) == pytest.approx(np.linalg.norm(edit.deltas[SITE]), rel=1e-5)
    assert abs(np.vdot(random.deltas[SITE], edit.deltas[SITE])) < 0.1 * np.linalg.norm(edit.deltas[SITE]) ** 2


@pytest.mark.slow
def test_risk_is_none_for_nothing_grows_with_the_edit_and_leaves_the_model_alone(model: TransformerModel) -> None:
    analyzer, loaded = ModificationSafetyAnalyzer(model, null=5), model.weights_hash
    nothing = analyzer.assess_modification(scaled(model, 0.0))
    assert nothing.overall_risk == "none"
    assert nothing["behaviorChange"].loss.value == 0.0
    small, large = (analyzer.assess_modification(scaled(model, f), ["#behaviorChange".strip("#")]) for f in (0.1, 1.0))
    assert small["behavior_change"].loss.value < large["behavior_change"].loss.value
    assert model.weights_hash == loaded
    assert model.edits == []


@pytest.mark.slow
def test_an_edit_that_ruins_the_model_is_a_high_risk(model: TransformerModel) -> None:
    random = np.random.default_rng(0)
    weight = model.weights("0.mlp.W_out").read()
    ruin = random.normal(scale=10 * weight.std(), size=weight.shape)
    edit = WeightEdit.planned(model, {"0.mlp.W_out": ruin}, title="ruin", method="by hand")
    found = ModificationSafetyAnalyzer(model, null=5).assess_modification(edit, "capability_loss")
    assert found.overall_risk == "high"
    assert "more than 10% lost" in found["capabilityLoss"].evidence
    assert "ruin" in found.summary()


def test_unknown_categories_and_what_is_not_an_edit_are_refused(model: TransformerModel) -> None:
    analyzer = ModificationSafetyAnalyzer(model)
    with pytest.raises(ArgumentError, match="no category of risk 'capabilityLos'"):
        analyzer.assess_modification(scaled(model, 0.1), ["capabilityLos"])
    with pytest.raises(ArgumentError, match="is not an edit"):
        analyzer.assess_modification("an edit")
    with pytest.raises(ArgumentError, match="too few"):
        ModificationSafetyAnalyzer(model, null=2)


@pytest.mark.slow
def test_a_monitor_measures_again_after_every_edit_and_warns(model: TransformerModel) -> None:
    monitor = ModificationMonitor(model, items=4)
    with pytest.raises(ArgumentError, match="Nothing is tracked"):
        monitor.check()
    first = monitor.track_changes("performance")
    assert first.edits == first.warnings == []
    assert all(one.difference is not None and one.difference.estimate.value == 0 for one in first.suites[0].measures)
    edit = model.apply_edit(scaled(model, 1.0))
    ruin = model.apply_edit(
        WeightEdit.planned(model, {"0.mlp.W_out": -model.weights("0.mlp.W_out").read()}, title="no MLP", method="by hand")
    )
    assert [len(report.edits) for report in monitor.reports] == [0, 1, 2]
    assert any("accuracy of performance" in warning for warning in monitor.reports[-1].warnings)
    assert model.edits == [edit, ruin]  # they were taken off to compare, and are on again
    model.revert_edits()
    assert monitor.reports[-1].edits == []
    with pytest.raises(ArgumentError, match="no thing to track"):
        monitor.track_changes("speed")
