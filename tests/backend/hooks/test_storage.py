"""Persistent hooks that are Python functions, saved with their model and back again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neuroscope import events
from neuroscope.errors import ArgumentError, HookError
from neuroscope.hooks.hook import ActivationHook, HookContext, InterventionHook
from neuroscope.models.model import TransformerModel
from neuroscope.tensors.tensor import ActivationTensor
from tests import tiny

PROMPT = "w5 w17 w40"


def doubled(activations: ActivationTensor) -> ActivationTensor:
    return activations * 2


def formal(context: HookContext) -> bool:
    return context.task_type == "formalWriting"


def notices(seen: list[str]) -> events.Listener:
    return lambda event: seen.append(event.message) if isinstance(event, events.Notice) else None


def test_functions_come_back_by_their_path_and_others_are_told(framework: str, tmp_path: Path) -> None:
    model = tiny.model("gpt2", on=framework)
    manager = model.hook_manager
    manager.add_persistent_hook(InterventionHook(1, "headOutput", doubled, formal, head=2, name="kept"))
    manager.add_persistent_hook(ActivationHook(1, "mlp", lambda a: a, name="lost"))
    manager.disable("lost")
    manager.add_hook(ActivationHook(2, "mlp", doubled, name="passing"))
    said: list[str] = []
    with events.listen(notices(said)):
        path = model.save(str(tmp_path / "model"))
        assert len(said) == 1
        assert "lost at 1.mlp was not saved" in said[0]
        loaded = TransformerModel.load(path, engine=framework, allow_imports=[__name__])
    assert len(said) == 2
    assert [hook.name for hook in loaded.hook_manager] == ["kept"]
    manager.remove_hook("passing")
    for task in ("formalWriting", "other"):
        assert np.array_equal(loaded.logits(PROMPT, task_type=task).numpy(), model.logits(PROMPT, task_type=task).numpy())
    assert isinstance(loaded.hook_manager.hook_named("kept"), InterventionHook)
    loaded.hook_manager.clear_hooks()
    assert len(loaded.hook_manager) == 1
    with pytest.raises(ArgumentError, match="already exists"):
        model.save(path)
    assert not [each.name for each in tmp_path.iterdir() if each.name != "model"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda hook: hook["action"].update({"import": "os:system"}), "allow_imports=['os']"),
        (lambda hook: hook["action"].update({"import": f"{__name__}:nothing"}), "does not exist"),
        (lambda hook: hook.pop("site"), "does not describe hooks"),
    ],
)
def test_a_hook_that_cannot_be_restored_is_an_error(tmp_path: Path, change: object, says: str) -> None:
    model = tiny.model("gpt2")
    model.hook_manager.add_persistent_hook(ActivationHook(1, "mlp", doubled, name="kept"))
    folder = Path(model.save(str(tmp_path / "model")))
    document = json.loads((folder / "hooks.json").read_text())
    change(document["hooks"][0])  # type: ignore[operator]
    (folder / "hooks.json").write_text(json.dumps(document))
    with pytest.raises(HookError) as caught:
        TransformerModel.load(str(folder), allow_imports=[__name__])
    assert says in str(caught.value)
    assert len(TransformerModel.from_hugging_face(str(folder)).hook_manager) == 0  # weights alone: no hooks
