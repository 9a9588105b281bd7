"""Hooks: user code at a site of the model.

An action takes one, two or three arguments:

    activations                            the whole array, (rows, positions, …), once per forward pass
    activations, token position            one token's array, once per real token; positions count from zero
    activations, token position, context   the same, with the `HookContext`

and returns the activations to use. A condition takes the context (or nothing) and returns whether the hook acts in this pass.
During generation a hook acts in the prompt's pass and in every decoding step.

An `ActivationHook` may leave the activations unchanged. An `InterventionHook` must change them: otherwise it raises
`InertHookError`.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.engines.protocol import Array, ArrayOps, BoolArray, EditScope, Phase
from neuroscope.engines.sites import ATTENTION_MATRICES, Component, Site, real_cells
from neuroscope.errors import HookError, NeuroScopeError, NonFiniteActivationError, Remedy
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import public, python_only

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

_numbers = itertools.count(1)


#: Under this key a run's memory holds the context of the hook that is at work.
ACTING = "acting"


@dataclass(frozen=True)
class Pass:
    """What a hook is called with in one pass: the activations that it may change, where, and a place to remember things.

    memory: lives for one run or one generation, and belongs to all hooks that act in it.
    """

    array: Array
    scope: EditScope
    memory: dict[Any, Any]


@public
@dataclass(frozen=True)
class HookContext:
    """The current pass, as a condition or a three-argument action sees it."""

    model: TransformerModel
    task_type: str | None
    prompt: str | None
    layer: int | None
    component: str
    phase: str
    first_position: int
    _now: Pass | None = field(default=None, repr=False, compare=False)

    @property
    @python_only
    def at_work(self) -> bool:
        """Whether its hook is at work now; another thread, which a block of an image calls from, can tell by this."""
        return self._now is not None and self._now.memory.get(ACTING) is self

    @property
    @python_only
    def now(self) -> Pass:
        """The activations of this pass. Raises `HookError` outside of a run."""
        if self._now is None:
            raise HookError("This context belongs to no run.", remedy="Ask in a hook's condition or action.")
        return self._now

    def print_string(self) -> str:
        return f"a HookContext({self.phase}, task type {self.task_type})"


_acting: ContextVar[HookContext | None] = ContextVar("neuroscope_acting_hook", default=None)


def current_context() -> HookContext | None:
    """The context of the hook that is running in this thread, or None."""
    return _acting.get()


@contextmanager
def acting(context: HookContext) -> Iterator[None]:
    """Make `current_context` return `context` for the duration of a block."""
    token = _acting.set(context)
    try:
        yield
    finally:
        _acting.reset(token)


def arity(function: Callable[..., Any], most: int) -> int:
    """Number of arguments of a Python callable or a Smalltalk block, at most `most`."""
    declared = getattr(function, "num_args", None)
    if isinstance(declared, int):
        return declared
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return most
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    return required if required > most else min(len(positional), most)


#: A function or block of the activations, and if it takes more, of the tokens' positions and the context.
Action = Callable[[Any], Any] | Callable[[Any, Any], Any] | Callable[[Any, Any, Any], Any]
#: One of the context, or of nothing.
Condition = Callable[[], Any] | Callable[[Any], Any]


@public
class ActivationHook:
    """Reads and may replace the activations of one site. The module's docstring says what actions receive."""

    must_change = False

    def __init__(
        self,
        layer: int | None,
        component: str = "residual",
        action: Action | None = None,
        condition: Condition | None = None,
        *,
        head: int | None = None,
        position: int | None = None,
        name: str | None = None,
    ) -> None:
        if action is None or not callable(action):
            raise HookError(
                "A hook needs an action.",
                remedy=Remedy(
                    "action=lambda activations: activations * 0.5", smalltalk="action: [:activations | activations * 0.5]"
                ),
            )
        self._site = Site.at(layer, component, head=head, position=position)
        self._action = action
        self._condition = condition
        self._arguments = arity(action, 3)
        self.name: str = name or f"{type(self).__name__} {next(_numbers)}"
        self._enabled = True
        if not 1 <= self._arguments <= 3:
            raise HookError(
                f"The action of {self.name} takes {self._arguments} arguments.",
                site=self._site,
                remedy="One to three: activations, token position, context.",
            )
        self._conditioned = 0 if condition is None else arity(condition, 1)
        if self._conditioned > 1:
            raise HookError(f"The condition of {self.name} takes more than one argument.", remedy="[:context | …]")
        if self._arguments > 1 and self._site.component in ATTENTION_MATRICES:
            raise HookError(
                f"{self._site.component} is a matrix over positions, so an action on it takes one argument.",
                site=self._site,
            )

    @property
    def layer(self) -> int | None:
        return self._site.layer

    @property
    def component(self) -> str:
        return self._site.component.value

    @property
    def enabled(self) -> bool:
        return self._enabled

    @property
    @python_only
    def site(self) -> Site:
        return self._site

    @property
    @python_only
    def action(self) -> Callable[..., Any]:
        return self._action

    @property
    @python_only
    def condition(self) -> Callable[..., Any] | None:
        return self._condition

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    @python_only
    def acts(self, context: HookContext) -> bool:
        """Whether the condition holds. Raises `HookError` if it fails or does not return a boolean."""
        if self._condition is None:
            return True
        answer = self._guarded("condition", self._condition, *([context] * self._conditioned))
        if not isinstance(answer, (bool, np.bool_)):
            raise HookError(
                f"The condition of {self.name} at {self._site} returned {answer!r}.",
                site=self._site,
                remedy="A condition must return true or false.",
            )
        return bool(answer)

    @python_only
    def apply(self, array: Array, scope: EditScope, context: HookContext, ops: ArrayOps) -> tuple[Array, bool]:
        """The activations to use, and whether they differ from `array`."""
        whole = self._arguments == 1
        new = self._whole(array, scope, ops) if whole else self._by_position(array, scope, context, ops)
        if not ops.is_finite(new):
            raise NonFiniteActivationError(
                f"{self.name} returned NaN or infinite activations at {self._site}.",
                site=self._site,
                remedy="Check what the action computes; the model is unchanged.",
            )
        return new, not ops.equal(new, array)

    def _whole(self, array: Array, scope: EditScope, ops: ArrayOps) -> Array:
        """Call the action once, with an array that marks its padding."""
        padded = scope.batch.padded and scope.phase is not Phase.DECODE and scope.first_position == 0
        at_one = self._site.component is Component.LOGITS and array.ndim == 2  # only each row's last token
        cells = real_cells(self._site, scope.batch.real) if padded and not at_one else None
        return self._call(ops.copy(array), ops, real=cells)

    def _by_position(self, array: Array, scope: EditScope, context: HookContext, ops: ArrayOps) -> Array:
        """Call the action for each real token."""
        rows = range(scope.batch.rows)
        offsets = scope.batch.offsets
        decoding = scope.phase is Phase.DECODE
        if self._site.position is not None:  # the position axis is gone: one token a row
            wanted = self._site.position
            lengths = scope.batch.lengths
            tokens = [(row, int(wanted if wanted >= 0 else lengths[row] + wanted)) for row in rows]
            parts = [self._call(ops.copy(array[row]), ops, token, context) for row, token in tokens]
            return ops.stack(parts, 0)
        changed = []
        for row in rows:
            line = []
            for column in range(array.shape[1]):
                cell = array[row, column]
                real = decoding or bool(scope.batch.real[row, column])
                token = scope.first_position + column - int(offsets[row])
                line.append(self._call(ops.copy(cell), ops, token, context) if real else cell)
            changed.append(line[0][None] if len(line) == 1 else ops.stack(line, 0))
        return changed[0][None] if len(changed) == 1 else ops.stack(changed, 0)

    def _call(
        self,
        array: Array,
        ops: ArrayOps,
        token: int = 0,
        context: HookContext | None = None,
        real: BoolArray | None = None,
    ) -> Array:
        arguments = (ActivationTensor(array, ops, real), token, context)[: self._arguments]
        answer = self._guarded("action", self._action, *arguments)
        shape = tuple(array.shape)
        if isinstance(answer, ActivationTensor):
            found = answer.array
        elif answer is None or isinstance(answer, (bool, int, float, str)):
            raise HookError(
                f"The action of {self.name} at {self._site} returned {'nil' if answer is None else repr(answer)}, not activations.",
                site=self._site,
                remedy="End the action with the activations.",
            )
        else:
            found = ops.asarray(answer)
        if tuple(found.shape) != shape:
            raise HookError(
                f"The action of {self.name} at {self._site} returned shape {tuple(found.shape)} for {shape}.",
                site=self._site,
                remedy="Return activations of the shape that the action received.",
            )
        return found

    def _guarded(self, part: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            if isinstance(error, NeuroScopeError) and error.stops:
                raise
            reason, remedy = f"{type(error).__name__}: {error}", None
            if isinstance(error, NeuroScopeError):
                reason, remedy = error.brief, error.advice
            raise HookError(
                f"The {part} of {self.name} at {self._site} failed: {reason}", site=self._site, remedy=remedy
            ) from error

    def print_string(self) -> str:
        state = "" if self._enabled else ", disabled"
        return f"{self.name} at {self._site}{state}"

    def __repr__(self) -> str:
        return self.print_string()


@public
class InterventionHook(ActivationHook):
    """A hook that must change what it acts on; otherwise it raises `InertHookError`."""

    must_change = True
