"""Persistent hooks, stored in the folder of a model's weights.

`hooks.json` holds each hook's site and code; `hooks.safetensors` the tensors that blocks captured. A Smalltalk block is stored
as its source and the values it captured, a Python function as its import path. Other code (a lambda, a nested function, a block
that captured an object of another kind) cannot be stored; a warning says so when the model is saved and when it is loaded.

A folder may come from a stranger. A block is compiled and runs confined (`places.NOWHERE`); a function is taken only from a module that the
caller of `load` names, and no name in the file is looked up anywhere else.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from neuroscope import events, vocabulary
from neuroscope.engines.sites import Site
from neuroscope.errors import HookError, MissingExtraError, NeuroScopeError, first_line
from neuroscope.files import write_whole
from neuroscope.hooks.hook import ActivationHook, InterventionHook
from neuroscope.tensors.tensor import ActivationTensor

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

HOOKS, TENSORS = "hooks.json", "hooks.safetensors"
FORMAT = 1
#: Results that blocks may capture, by their name in hooks.json: public classes with `from_dictionary`.
_RESULTS = {"neurons": "NeuronSet"}
_KINDS = {kind.__name__: kind for kind in (ActivationHook, InterventionHook)}


class _CannotKeepError(Exception):
    """Code cannot be stored; the message says why."""


def write(model: TransformerModel, folder: Path) -> None:
    """Write the model's persistent hooks; a notice names each that cannot be stored, and why."""
    tensors: dict[str, Any] = {}
    kept, lost = [], []
    for hook in model.hook_manager:
        if not model.hook_manager.is_persistent(hook):
            continue
        try:
            kept.append(_hook_as_data(hook, model, tensors))
        except _CannotKeepError as reason:
            lost.append({"name": hook.name, "site": str(hook.site), "reason": str(reason)})
            events.notice(f"{hook.name} at {hook.site} was not saved: {reason}", "warning")
    document = {"format": FORMAT, "taskType": model.task_type, "hooks": kept, "lost": lost}
    write_whole(folder / HOOKS, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if tensors:
        write_whole(folder / TENSORS, save(tensors))


def read(model: TransformerModel, folder: Path, *, allow_imports: Sequence[str] = ()) -> None:
    """Add the hooks that were saved with a model. Raises `HookError`, and adds none, if one does not fit."""
    path = folder / HOOKS
    if not path.is_file():
        return
    try:
        tensors = load((folder / TENSORS).read_bytes()) if (folder / TENSORS).is_file() else {}
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise HookError(f"{path} has format {document['format']!r}, and this version reads {FORMAT}.")
        hooks = [_hook(item, model, tensors, tuple(allow_imports)) for item in document["hooks"]]
        task = document["taskType"]
        if not (task is None or isinstance(task, str)):
            raise TypeError(f"the task type {task!r}")
        lost = [f"{one['name']} at {one['site']} was not saved with the model: {one['reason']}" for one in document["lost"]]
        names = [hook.name for hook in (*model.hook_manager, *hooks)]
        if len(set(names)) < len(names):
            raise ValueError("two hooks have one name")
        for hook in hooks:
            hook.site.checked(model.architecture)
    except HookError:
        raise
    # Any value of the file may be of any kind.
    except (
        OSError, ArithmeticError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError, NeuroScopeError
    ) as error:  # fmt: skip
        raise HookError(f"{path} does not describe hooks: {first_line(error)}", remedy="Save the model again.") from error
    for hook in hooks:
        model.hook_manager.add_persistent_hook(hook)
    model.task_type = task
    for told in lost:
        events.notice(told, "warning")


def _hook_as_data(hook: ActivationHook, model: TransformerModel, tensors: dict[str, Any]) -> dict[str, Any]:
    added: dict[str, Any] = {}
    condition = None if hook.condition is None else _code("condition", hook.condition, model, added, len(tensors))
    data = {
        "kind": type(hook).__name__,
        "name": hook.name,
        "site": str(hook.site),
        "enabled": hook.enabled,
        "action": _code("action", hook.action, model, added, len(tensors)),
        "condition": condition,
    }
    if data["kind"] not in _KINDS:
        raise _CannotKeepError(f"it is of the class {data['kind']}, which hooks.json cannot store.")
    tensors.update(added)
    return data


def _code(part: str, function: Any, model: TransformerModel, tensors: dict[str, Any], first: int) -> dict[str, Any]:
    source, captured = getattr(function, "source", None), getattr(function, "captured", None)
    if isinstance(source, str) and isinstance(captured, dict):
        values = {}
        for name, value in captured.items():
            if getattr(value, "vocabulary", False):  # a class is stored by its name
                continue
            try:
                values[name] = _value(value, model, tensors, first)
            except _CannotKeepError as reason:
                raise _CannotKeepError(f"its {part} uses {name}, {reason}") from None
        return {"block": source, "captured": values}
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    known = isinstance(module, str) and isinstance(name, str) and getattr(sys.modules.get(module), name, None) is function
    if not known or not inspect.isfunction(function) or module == "__main__":
        raise _CannotKeepError(
            f"its {part} is not an importable function. Define it at the top level of a module, or write it as a block."
        )
    return {"import": f"{module}:{name}"}


def _value(value: Any, model: TransformerModel, tensors: dict[str, Any], first: int) -> Any:
    """A captured value as JSON: plain ones directly, others as {kind: …}."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if value is model:
        return {"model": True}
    if isinstance(value, (ActivationTensor, np.ndarray)):
        key = f"tensor{first + len(tensors)}"
        tensors[key] = np.ascontiguousarray(value.numpy() if isinstance(value, ActivationTensor) else value)
        return {"tensor": key}
    kind = next((kind for kind, name in _RESULTS.items() if name == type(value).__name__), None)
    if kind is not None and type(value) is vocabulary.find(_RESULTS[kind]):
        result: Any = value
        return {kind: result.as_dictionary()}
    if isinstance(value, (list, tuple)):
        return {"list": [_value(item, model, tensors, first) for item in value]}
    if isinstance(getattr(value, "source", None), str):
        return {"code": _code("block", value, model, tensors, first)}
    raise _CannotKeepError(f"{value!r}, which cannot be stored.")


def _hook(
    item: dict[str, Any], model: TransformerModel, tensors: dict[str, Any], allow_imports: Sequence[str]
) -> ActivationHook:
    site = Site.parse(item["site"])

    def restored(code: dict[str, Any]) -> Callable[..., Any]:
        return _callable(code, f"{item['name']} at {site}", model, tensors, allow_imports)

    hook = _KINDS[item["kind"]](
        site.layer,
        site.component,
        restored(item["action"]),
        None if item["condition"] is None else restored(item["condition"]),
        head=site.head,
        position=site.position,
        name=item["name"],
    )
    if not item["enabled"]:
        hook.disable()
    return hook


def _callable(
    code: dict[str, Any], where: str, model: TransformerModel, tensors: dict[str, Any], allow_imports: Sequence[str]
) -> Callable[..., Any]:
    if "block" in code:
        captured = {name: _restored(value, where, model, tensors, allow_imports) for name, value in code["captured"].items()}
        compiled: Callable[..., Any] = _compiler()(code["block"], captured)
        return compiled
    module, _, name = str(code["import"]).partition(":")
    if module not in allow_imports:
        raise HookError(
            f"{where} runs the Python function {code['import']}, which the model's folder chose.",
            remedy=f"If you trust it, name its module, from Python: TransformerModel.load(…, allow_imports=[{module!r}]).",
        )
    importlib.import_module(module)
    function = vars(sys.modules[module]).get(name)
    # A name that the module only imported, or an attribute of an object in it, would lead to other modules.
    if not inspect.isfunction(function) or function.__module__ != module:
        raise HookError(f"{where} runs {code['import']}, which does not exist.", remedy="Define it, or add the hook again.")
    return function


def _restored(value: Any, where: str, model: TransformerModel, tensors: dict[str, Any], allow_imports: Sequence[str]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "model":
            return model
        case "tensor":
            return ActivationTensor(model.engine.ops.asarray(tensors[content]), model.engine.ops)
        case kind if kind in _RESULTS:
            result: Any = vocabulary.find(_RESULTS[kind])
            return result.from_dictionary(content, model)
        case "list":
            return [_restored(item, where, model, tensors, allow_imports) for item in content]
        case "code":
            return _callable(content, where, model, tensors, allow_imports)
    raise HookError(f"{where} captured a {kind!r}, which this version cannot read.")


def _compiler() -> Callable[[str, dict[str, Any]], Callable[..., Any]]:
    """The function that compiles a block's source, found through an entry point, since nothing here may import the language."""
    found = importlib.metadata.entry_points(group="neuroscope", name="block")
    if not found:
        raise MissingExtraError("Blocks cannot be compiled here.", remedy="Reinstall neuroscope-interp (pip install -e .).")
    compiler: Callable[[str, dict[str, Any]], Callable[..., Any]] = next(iter(found)).load()
    return compiler
