"""Documented script 18, unchanged, through the command line: a circuit is taught what the model was not, beside its controls."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from neuroscope.tuning.trainer import CircuitAwareTrainer
from tests.system.running import ran

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The variables that the script leaves, with fewer and longer steps than by default."""
    scripts = ("workspace.st", "18_interpretability_guided_fine_tuning.st", "18_call.st")
    defaults = inspect.unwrap(CircuitAwareTrainer.__init__).__kwdefaults__
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(defaults, "steps", 70)
        patched.setitem(defaults, "learning_rate", 5e-4)
        return ran(tmp_path_factory.mktemp("script18"), *scripts)


def test_the_circuit_learns_a_task_that_the_model_was_not_taught(variables: dict[str, Any]) -> None:
    training = variables["training"]
    assert training["before"]["high"] < 0.1
    assert training["circuit"]["accuracy"]["low"] > 0.6
    assert training["circuit"]["gain"]["estimate"]["low"] > 0.6
    points = training["curves"]
    kept = next(point for point in points if point["step"] == training["circuit"]["bestStep"])
    assert kept["heldOut"]["task_performance"] < 0.2 * points[0]["heldOut"]["task_performance"]
    assert kept["total"] == min(point["total"] for point in points)


def test_more_of_the_rest_is_kept_than_where_all_weights_are_trained(variables: dict[str, Any]) -> None:
    circuit, controls = variables["training"]["circuit"], variables["training"]["controls"]
    random, every = controls
    assert (random["weights"], every["weights"]) == ("random circuit", "all weights")
    assert random["numbers"] == circuit["numbers"] < every["numbers"]
    assert circuit["divergence"]["value"] < every["divergence"]["value"]
    assert circuit["others"]["low"] > every["others"]["high"]
    # A random circuit of this size learns the task about as well, as is known: that the figures are close is what is asserted.
    assert abs(variables["training"]["overRandom"]["estimate"]["value"]) < 0.25


def test_the_circuit_stays_faithful(variables: dict[str, Any]) -> None:
    found = variables["training"]["faithfulness"][0]
    assert found["heldOut"]
    assert abs(found["after"]["value"] - 1) <= abs(found["before"]["value"] - 1)


def test_the_models_answer_as_they_should_and_the_training_comes_off(variables: dict[str, Any]) -> None:
    before, trained, reverted = variables["answers"]
    assert trained == "8"
    assert before == reverted != "8"
    assert variables["model"]["weightsHash"] == variables["trainedModel"]["weightsHash"]
