"""Hooks: what actions receive, when they act, and every way in which one can be wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuroscope.errors import ArgumentError, HookError, InertHookError, NonFiniteActivationError, SiteError
from neuroscope.hooks.hook import ActivationHook, HookContext, InterventionHook
from neuroscope.models.model import TransformerModel
from neuroscope.tensors.tensor import ActivationTensor
from tests import tiny

PROMPT = "w5 w17 w40 w8 w77"


@pytest.fixture
def model(framework: str) -> TransformerModel:
    return tiny.model("llama", on=framework)


def logits(model: TransformerModel, **options: Any) -> Any:
    return model.logits(PROMPT, **options).numpy()


def doubled(activations: ActivationTensor) -> ActivationTensor:
    return activations * 2


def test_a_one_argument_action_gets_every_position_at_once(model: TransformerModel) -> None:
    seen: list[tuple[int, ...]] = []

    def look(activations: ActivationTensor) -> ActivationTensor:
        seen.append(activations.shape)
        return activations

    before = logits(model)
    model.hook_manager.add_hook(ActivationHook(1, "residual", look))
    assert np.array_equal(logits(model), before)
    assert seen == [(1, 5, 32)]


def test_a_two_argument_action_gets_each_token_with_its_position(model: TransformerModel) -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []

    def look(activations: ActivationTensor, position: int) -> ActivationTensor:
        seen.append((position, activations.shape))
        return activations

    model.hook_manager.add_hook(ActivationHook(1, "residual", look))
    model.generate(PROMPT, max_tokens=3)
    assert seen == [(position, (32,)) for position in range(7)]


def test_a_three_argument_action_gets_the_context(model: TransformerModel) -> None:
    contexts: list[HookContext] = []

    def look(activations: ActivationTensor, position: int, context: HookContext) -> ActivationTensor:
        contexts.append(context)
        return activations

    model.hook_manager.add_hook(ActivationHook(1, "mlp", look))
    model.generate(PROMPT, max_tokens=2, task_type="formalWriting")
    assert {context.task_type for context in contexts} == {"formalWriting"}
    assert [context.phase for context in contexts] == ["prefill"] * 5 + ["decode"]
    assert contexts[0].prompt == PROMPT
    assert contexts[0].model is model


def test_its_value_replaces_the_activation_in_prefill_and_in_every_step(model: TransformerModel) -> None:
    plain = model.generate(PROMPT, max_tokens=6)
    with model.hook_manager.temporarily(ActivationHook(1, "residual", lambda a, p: a * (3 if p >= 5 else 1))):
        late = model.generate(PROMPT, max_tokens=6)
    assert late.split()[0] == plain.split()[0]  # the prompt's pass is untouched
    assert late != plain


def test_assigning_to_single_neurons_changes_them_at_every_position(model: TransformerModel) -> None:
    def boost(activations: ActivationTensor) -> ActivationTensor:
        for neuron in (3, 7):
            activations[..., neuron] = activations[..., neuron] * 1.5
        return activations

    before = model.run_with_caching(PROMPT, ["1.mlp"])["1.mlp"].numpy()
    model.hook_manager.add_hook(ActivationHook(1, "mlp", boost))
    after = model.run_with_caching(PROMPT, ["1.mlp"])["1.mlp"].numpy()
    expected = before.copy()
    expected[..., [3, 7]] *= 1.5
    assert np.allclose(after, expected)


def test_a_condition_that_is_false_changes_nothing_bit_for_bit(model: TransformerModel) -> None:
    before = logits(model)
    hook = ActivationHook(1, "mlp", doubled, lambda context: context.task_type == "formalWriting")
    model.hook_manager.add_persistent_hook(hook)
    assert np.array_equal(logits(model, task_type="codeWriting"), before)
    assert not np.array_equal(logits(model, task_type="formalWriting"), before)
    model.task_type = "formalWriting"
    assert not np.array_equal(logits(model), before)


def test_hooks_are_added_removed_enabled_disabled_and_cleared(model: TransformerModel) -> None:
    manager = model.hook_manager
    before = logits(model)
    kept = manager.add_persistent_hook(InterventionHook(0, "residual", doubled, name="kept"))
    manager.add_hook(InterventionHook(1, "residual", doubled, name="other"))
    manager.clear_hooks()
    assert [hook.name for hook in manager] == ["kept"]
    assert manager.is_persistent(kept)
    manager.disable("kept")
    assert np.array_equal(logits(model), before)
    manager.enable("kept")
    assert not np.array_equal(logits(model), before)
    manager.remove_hook("kept")
    assert np.array_equal(logits(model), before)
    assert len(manager) == 0


def test_a_hook_on_a_head_touches_that_head_only(model: TransformerModel) -> None:
    before = model.run_with_caching(PROMPT, ["1.headOutput"])["1.headOutput"].numpy()
    model.hook_manager.add_hook(InterventionHook(1, "headOutput", lambda a: a * 0, head=2))
    after = model.run_with_caching(PROMPT, ["1.headOutput"])["1.headOutput"].numpy()
    assert (after[:, :, 2] == 0).all()
    assert np.array_equal(np.delete(after, 2, 2), np.delete(before, 2, 2))


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        (lambda: ActivationHook(9, "residual", doubled), "Layers run from 0 to 2"),
        (lambda: ActivationHook(1, "residul", doubled), "'residual'"),
        (lambda: ActivationHook(1, "headOutput", doubled, head=4), "from 0 to 3"),
        (lambda: ActivationHook(1, "router", doubled), "Use mlp or mlpOutput"),
        (lambda: ActivationHook(1, "mlp", doubled, head=1), "mlp has no heads"),
    ],
)
def test_a_site_the_model_does_not_have_is_refused_when_the_hook_is_added(
    model: TransformerModel, hook: Any, says: str
) -> None:
    with pytest.raises(SiteError) as caught:
        model.hook_manager.add_hook(hook())
    assert says in str(caught.value)
    assert len(model.hook_manager) == 0


@pytest.mark.parametrize(
    ("action", "error", "says"),
    [
        (lambda a: None, HookError, "returned nil, not activations"),
        (lambda a: 3, HookError, "returned 3, not activations"),
        (lambda a: ActivationTensor(a.array[..., :5], a._ops), HookError, "shape (1, 5, 5) for (1, 5, 32)"),
        (lambda a: a / 0, NonFiniteActivationError, "NaN or infinite"),
        (lambda a: a[99], HookError, "index 99 is out of bounds"),
        (lambda a: a.by_unit[99], HookError, "units run from 0 to 31"),
        (lambda a: {}["x"], HookError, "failed: KeyError"),
    ],
)
def test_an_action_that_goes_wrong_names_the_hook_and_its_site(
    model: TransformerModel, action: Any, error: type[Exception], says: str
) -> None:
    before = logits(model)
    model.hook_manager.add_hook(ActivationHook(1, "residual", action, name="steering"))
    with pytest.raises(error) as caught:
        logits(model)
    assert says in str(caught.value)
    assert "steering" in str(caught.value)
    assert "1.residual" in str(caught.value)
    model.hook_manager.clear_hooks()
    assert np.array_equal(logits(model), before)


@pytest.mark.parametrize("answer", [None, 1, "yes"])
def test_a_condition_answers_true_or_false(model: TransformerModel, answer: object) -> None:
    model.hook_manager.add_hook(ActivationHook(1, "residual", doubled, lambda context: answer))
    with pytest.raises(HookError, match="must return true or false"):
        logits(model)


def test_a_hook_that_never_fired_is_an_error(model: TransformerModel) -> None:
    model.hook_manager.add_hook(ActivationHook(1, "residual", doubled, position=9))
    with pytest.raises(InertHookError, match="never fired"):
        model.generate(PROMPT, max_tokens=2)
    assert model.generate(PROMPT, max_tokens=6)  # here the run reaches token 9


def test_an_intervention_that_changes_nothing_is_an_error_and_one_that_rests_is_not(model: TransformerModel) -> None:
    model.hook_manager.add_hook(InterventionHook(1, "residual", lambda a: a, lambda context: context.task_type == "x"))
    logits(model)
    with pytest.raises(InertHookError, match="changed nothing"):
        logits(model, task_type="x")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ActivationHook(1, "residual"), "needs an action"),
        (lambda: ActivationHook(1, "residual", lambda: 1), "takes 0 arguments"),
        (lambda: ActivationHook(1, "residual", lambda a, b, c, d: a), "takes"),
        (lambda: ActivationHook(1, "residual", doubled, lambda a, b: True), "condition"),
        (lambda: ActivationHook(1, "attentionPattern", lambda a, p: a), "takes one argument"),
    ],
)
def test_a_hook_that_cannot_be_called_is_refused_when_it_is_made(make: Any, says: str) -> None:
    with pytest.raises(HookError) as caught:
        make()
    assert says in str(caught.value)


def test_a_hook_is_added_once(model: TransformerModel) -> None:
    hook = model.hook_manager.add_hook(ActivationHook(1, "residual", doubled))
    with pytest.raises(ArgumentError, match="already been added"):
        model.hook_manager.add_hook(hook)


def test_an_unknown_name_suggests_the_nearest(model: TransformerModel) -> None:
    model.hook_manager.add_hook(ActivationHook(1, "residual", doubled, name="formality"))
    with pytest.raises(ArgumentError, match="'formality'"):
        model.hook_manager.remove_hook("formalty")
