"""Hooks whose code is Smalltalk: what they do, what goes wrong in them, and what becomes of them in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuroscope.features.neurons import NeuronSet
from neuroscope.models.model import TransformerModel
from neuroscope_dsl.workspace import SmalltalkError, Workspace
from tests import tiny
from tests.backend.features.planted import planted_model, texts

PROMPT = "w5 w17 w40"


@pytest.fixture
def model() -> TransformerModel:
    return tiny.model("gpt2")


@pytest.fixture
def workspace(model: TransformerModel) -> Workspace:
    found = Workspace()
    found.bind("model", model)
    return found


def test_the_condition_sees_the_task_type_of_the_call_or_of_the_model(model: TransformerModel, workspace: Workspace) -> None:
    before = model.logits(PROMPT).numpy()
    workspace.run(
        "model hookManager addPersistentHook: (ActivationHook layer: 1 component: #mlp"
        " condition: [:context | context taskType = #formalWriting] action: [:activations | activations * 3])."
    )
    assert np.array_equal(workspace.run("model logits: 'w5 w17 w40'").numpy(), before)
    assert np.array_equal(workspace.run("model logits: 'w5 w17 w40' taskType: #code").numpy(), before)
    changed = workspace.run("model logits: 'w5 w17 w40' taskType: #formalWriting").numpy()
    assert not np.array_equal(changed, before)
    workspace.run("model taskType: #formalWriting. model hookManager clearHooks.")
    assert np.array_equal(workspace.run("model logits: 'w5 w17 w40'").numpy(), changed)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("[:a | nil]", "returned nil, not activations"),
        ("[:a | 3]", "returned 3, not activations"),
        ("[:a :p | a at: 4]", "not activations"),
        ("[:a | a foo]", "foo"),
        ("[:a | 1/0. a]", "ZeroDivide"),
        ("[:a | a at: 99]", "units run from 0 to 31"),
        ("[:a :p | a + (SteeringVectors load: #formalStile)]", "formal_style"),
    ],
)
def test_a_block_that_goes_wrong_names_its_hook_and_site(
    model: TransformerModel, workspace: Workspace, block: str, says: str
) -> None:
    before = model.logits(PROMPT).numpy()
    workspace.run(f"model hookManager addHook: (ActivationHook layer: 1 action: {block} name: 'steering').")
    with pytest.raises(SmalltalkError) as caught:
        workspace.run("model generate: 'w5 w17 w40'")
    assert "steering at 1.residual" in caught.value.render()
    assert says in caught.value.render()
    workspace.run("model hookManager clearHooks")
    assert np.array_equal(model.logits(PROMPT).numpy(), before)


@pytest.mark.parametrize("condition", ["[:c | 1/0]", "[:c | c nothing]", "[:c | 5]"])
def test_a_condition_that_raises_names_its_hook_and_site(model: TransformerModel, workspace: Workspace, condition: str) -> None:
    workspace.run(
        f"model hookManager addHook: (ActivationHook layer: 1 component: #mlp condition: {condition} action: [:a | a] name: 'h')."
    )
    with pytest.raises(SmalltalkError) as caught:
        workspace.run("model generate: 'w5 w17 w40'")
    assert "h at 1.mlp" in caught.value.render()


def test_blocks_are_saved_with_what_they_captured(workspace: Workspace, model: TransformerModel, tmp_path: Path) -> None:
    planted = planted_model()
    workspace.bind("model", planted)
    workspace.bind("positive", texts(60)[0])
    workspace.bind("negative", texts(60)[1])
    workspace.run("""
        neurons := (NeuronAnalyzer for: model) findNeuronsFor: positive against: negative.
        factor := 3.
        model hookManager addPersistentHook: (ActivationHook layer: neurons layer component: #mlp
            condition: [:context | context taskType = #formalWriting]
            action: [:activations |
                neurons do: [:id | current := activations at: id. activations at: id put: current * factor].
                activations]
            name: 'louder').
        model hookManager addPersistentHook: (ActivationHook layer: 0
            action: [:activations | Transcript show: workspaceThing printString. activations] name: 'lost').
    """)
    workspace.bind("workspaceThing", workspace)
    workspace.run(f"model save: '{tmp_path / 'saved'}'")
    loaded = Workspace().run(f"TransformerModel load: '{tmp_path / 'saved'}'")
    assert [hook.name for hook in loaded.hook_manager] == ["louder"]
    words = texts(5)[0][0]
    planted.hook_manager.remove_hook("lost")
    plain, formal = planted.logits(words).numpy(), planted.logits(words, task_type="formalWriting").numpy()
    assert not np.array_equal(plain, formal)
    assert np.array_equal(loaded.logits(words).numpy(), plain)
    assert np.array_equal(loaded.logits(words, task_type="formalWriting").numpy(), formal)
    captured = loaded.hook_manager.hook_named("louder").action.captured
    assert isinstance(captured["neurons"], NeuronSet)
    assert captured["factor"] == 3
