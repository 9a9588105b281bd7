"""The hooks of one model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from neuroscope.engines.protocol import Array, Edit, EditScope
from neuroscope.errors import ArgumentError, InertHookError, did_you_mean
from neuroscope.hooks.hook import ACTING, ActivationHook, HookContext, Pass, acting
from neuroscope.vocabulary import public, python_only

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel


@public
class HookManager:
    """Holds a model's hooks in the order they were added. Persistent ones survive `clearHooks`."""

    def __init__(self, model: TransformerModel) -> None:
        self._model = model
        self._hooks: list[ActivationHook] = []
        self._persistent: set[int] = set()

    def add_hook(self, hook: ActivationHook) -> ActivationHook:
        """Let the hook act from the next run on. Raises `SiteError` if the model does not have its site."""
        if not isinstance(hook, ActivationHook):
            raise ArgumentError(f"A hook must be an ActivationHook or an InterventionHook, not {hook!r}.")
        if any(held is hook for held in self._hooks):
            raise ArgumentError(f"{hook.name} has already been added.", remedy="Make a second hook, or remove this one first.")
        if any(held.name == hook.name for held in self._hooks):
            raise ArgumentError(f"There is already a hook named {hook.name!r}.", remedy="Give the new one another name.")
        hook.site.checked(self._model.architecture)
        self._hooks.append(hook)
        return hook

    def add_persistent_hook(self, hook: ActivationHook) -> ActivationHook:
        """Like `addHook:`, and kept by `clearHooks`."""
        self.add_hook(hook)
        self._persistent.add(id(hook))
        return hook

    def remove_hook(self, hook: ActivationHook | str) -> ActivationHook:
        """Remove a hook, persistent or not, given itself or its name."""
        found = self.hook_named(hook) if isinstance(hook, str) else hook
        if not any(held is found for held in self._hooks):
            raise ArgumentError(f"{found.name} is not among this model's hooks.", remedy=self._names(found.name))
        self._hooks = [held for held in self._hooks if held is not found]
        self._persistent.discard(id(found))
        return found

    def hook_named(self, name: str) -> ActivationHook:
        for hook in self._hooks:
            if hook.name == name:
                return hook
        raise ArgumentError(f"No hook is named {name!r}.", remedy=self._names(name))

    def enable(self, name: str) -> ActivationHook:
        hook = self.hook_named(name)
        hook.enable()
        return hook

    def disable(self, name: str) -> ActivationHook:
        """Stop a hook from acting without removing it."""
        hook = self.hook_named(name)
        hook.disable()
        return hook

    def clear_hooks(self) -> None:
        """Remove every hook that is not persistent."""
        self._hooks = [hook for hook in self._hooks if id(hook) in self._persistent]

    def clear_all_hooks(self) -> None:
        """Remove every hook, including persistent ones."""
        self._hooks.clear()
        self._persistent.clear()

    def is_persistent(self, hook: ActivationHook) -> bool:
        return id(hook) in self._persistent

    @property
    def hooks(self) -> list[ActivationHook]:
        return list(self._hooks)

    def __iter__(self) -> Iterator[ActivationHook]:
        return iter(self.hooks)

    def __len__(self) -> int:
        return len(self._hooks)

    @contextmanager
    @python_only
    def temporarily(self, *hooks: ActivationHook) -> Iterator[None]:
        """Add hooks for the duration of a `with` block."""
        added: list[ActivationHook] = []
        try:
            for hook in hooks:
                added.append(self.add_hook(hook))
            yield
        finally:
            for hook in added:
                if any(held is hook for held in self._hooks):
                    self.remove_hook(hook)

    @property
    @python_only
    def of_a_script(self) -> bool:
        """Whether an enabled hook is a script's block, which runs in its script's thread alone, where its limits hold."""
        parts = (part for hook in self._hooks if hook.enabled for part in (hook.action, hook.condition))
        return any(isinstance(getattr(part, "num_args", None), int) for part in parts)

    @contextmanager
    @python_only
    def edits(self, *, prompt: str | None = None, task_type: str | None = None) -> Iterator[list[Edit]]:
        """The enabled hooks as edits for one run or generation. Raises `InertHookError` at its end for a hook that had no
        effect.
        """
        memory: dict[Any, Any] = {}
        acting = [_Acting(hook, self._model, prompt, task_type, memory) for hook in self._hooks if hook.enabled]
        yield [item.edit() for item in acting]
        for item in acting:
            item.check()

    def _names(self, name: str) -> str:
        return did_you_mean(name, [hook.name for hook in self._hooks], listing="Hooks")

    def print_string(self) -> str:
        return f"a HookManager({len(self)} hooks, {len(self._persistent)} persistent)"

    def __repr__(self) -> str:
        return self.print_string()


class _Acting:
    """One hook during one run: its edit, and whether it acted and changed anything."""

    def __init__(
        self,
        hook: ActivationHook,
        model: TransformerModel,
        prompt: str | None,
        task_type: str | None,
        memory: dict[Any, Any],
    ) -> None:
        self.hook, self.model, self.prompt, self.task_type, self.memory = hook, model, prompt, task_type, memory
        self.reached = self.acted = self.changed = False

    def edit(self) -> Edit:
        return Edit(self.hook.site, self._apply)

    def _apply(self, array: Array, scope: EditScope) -> Array:
        self.reached = True
        hook = self.hook
        context = HookContext(
            self.model,
            self.task_type,
            self.prompt,
            hook.layer,
            hook.component,
            scope.phase.value,
            scope.first_position,
            Pass(array, scope, self.memory),
        )
        self.memory[ACTING] = context
        try:
            with acting(context):
                if not hook.acts(context):
                    return array
                new, changed = hook.apply(array, scope, context, self.model.engine.ops)
        finally:
            del self.memory[ACTING]
        self.acted = True
        self.changed |= changed
        return new if changed else array

    def check(self) -> None:
        hook = self.hook
        if not self.reached:
            raise InertHookError(
                f"{hook.name} at {hook.site} never fired: the run reached no such position.",
                site=hook.site,
                remedy="Use a position within the prompt, or disable the hook.",
            )
        if hook.must_change and self.acted and not self.changed:
            raise InertHookError(
                f"{hook.name} at {hook.site} acted and changed nothing.",
                site=hook.site,
                remedy="An InterventionHook must change what it acts on; use an ActivationHook to look only.",
            )
