"""What the HTTP clients say and read: requests as plain data, answers as objects."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from neuroscope.engines import host_ops
from neuroscope.engines.sites import Site
from neuroscope.errors import ArgumentError
from neuroscope.models import aliases
from neuroscope.results import plain
from neuroscope.tensors.cache import ActivationCache
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope_bridge.wire.errors import RemoteError, ServerGoneError

_PLACEHOLDER = "/path/to/"


class GenerationResult(dict[str, Any]):
    """A server's answer as a dictionary. As plain data it leaves the activations' values out, since they may be huge."""

    def as_dictionary(self) -> dict[str, Any]:
        activations = {
            name: {key: value for key, value in one.items() if key != "data"}
            for name, one in self.get("activations", {}).items()
        }
        return {**self, "activations": activations}


def generation(messages: Any, hooks: Any, activation_hooks: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a generation; options that are None are left to the server."""
    if hooks is not None and activation_hooks is not None:
        raise ArgumentError("hooks and activation_hooks name the same thing.", remedy="Give one of them.")
    asked = plain(messages)
    prompt = {"prompt": asked} if isinstance(asked, str) else {"messages": asked}
    given = {name: plain(value) for name, value in options.items() if value is not None}
    return {**prompt, "activation_hooks": plain(activation_hooks if hooks is None else hooks) or [], **given}


def target(name: str, url: str) -> str:
    """What a model's name means here: through the aliases that this run was given, and a path as this process sees it.

    What the name means besides is for the server to say: its own aliases and stand-ins may have that very name.
    """
    target = aliases.follow_given(str(name))
    local = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
    looks_like_path = target.startswith((".", "~")) or "/" in target
    return str(Path(target).expanduser().resolve()) if local and looks_like_path and Path(target).exists() else target


def result(document: dict[str, Any]) -> GenerationResult:
    """A whole answer, its arrays as tensors."""
    for one in document.get("activations", {}).values():
        if isinstance(one.get("data"), bytes):
            array = np.frombuffer(one["data"], np.dtype(one["dtype"]).newbyteorder("<")).reshape(one["shape"])
            one["data"] = _tensor(array)
    return GenerationResult(document)


class Lines:
    """A stream's bytes as lines, which end at line feeds alone: a model's text may hold every other line end (U+2028, U+0085 …)."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, chunk: bytes) -> list[str]:
        """The lines that are whole with these bytes."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return [line.rstrip(b"\r").decode() for line in whole]


def event(line: str) -> GenerationResult | None:
    """One line of a stream: an event, or None for what is none. Raises the error that a server sent instead."""
    if not line.startswith("data: ") or line == "data: [DONE]":
        return None
    document = json.loads(line.removeprefix("data: "))
    if "error" in document:
        raise RemoteError(_details(document["error"]))
    for one in document.get("activations", {}).values():
        if one.get("encoding") == "npy":
            file = io.BytesIO(base64.b64decode(one["data"]))
            one["data"] = _tensor(np.load(file, allow_pickle=False))
            del one["encoding"]
    choices = document.get("choices") or [{}]
    document["text"] = choices[0].get("delta", {}).get("content") or ""
    return GenerationResult(document)


def failure(response: httpx.Response, asked: Mapping[str, Any] | None) -> RemoteError:
    """What a refusal says; `asked` is the request's body."""
    try:
        details = _details(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        details = {
            "code": "http",
            "message": f"{response.request.url} answered {response.status_code}.",
            "remedy": "Is it a NeuroScope server? `neuroscope serve` starts one.",
        }
    name = str((asked or {}).get("model", ""))
    if details["code"] == "model-not-found" and name.startswith(_PLACEHOLDER):
        details["remedy"] = (
            f"{name} in the script stands for a model of yours: write its name there, or run with "
            f"`--alias {name}=NAME` (for example bundled:gpt2-medium)."
        )
    return RemoteError(details)


def gone(url: str, error: Exception) -> ServerGoneError:
    """What to say when nothing answers."""
    return ServerGoneError(
        f"No server answers at {url}: {error or type(error).__name__}.",
        remedy="`neuroscope serve` starts one; LMStudioRESTClient url: names another address.",
    )


def circuit_analysis_hooks(layers: int) -> list[dict[str, Any]]:
    """Hooks on what each of the first `layers` layers writes: residual stream, attention, MLP; and on the embedding."""
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise ArgumentError(f"The number of layers is a whole number above zero, not {layers!r}.")
    hooks: list[dict[str, Any]] = [{"layer_name": "transformer.wte", "component": "embedding", "hook_id": "embedding"}]
    for layer in range(layers):
        for component, name in (("residual", "residual"), ("attention", "attention"), ("mlpOutput", "mlp")):
            hooks.append({"layer_name": f"transformer.h.{layer}", "component": component, "hook_id": f"layer_{layer}_{name}"})
    return hooks


def converted(activations: Mapping[str, Any], tokens: Sequence[str] = ()) -> ActivationCache:
    """Activations of an answer as a cache by site, one row, as `runWithCaching:` answers it."""
    ops = host_ops()
    found: dict[Site, Any] = {}
    for name, one in activations.items():
        data = one.get("data")
        if data is None:
            raise ArgumentError(f"{name} has statistics alone, no values.", remedy="Ask for it again without statistics_only.")
        array = np.asarray(data, dtype=np.float32)
        site = Site.parse(str(one["site"]))
        if site in found:
            raise ArgumentError(f"{name} and another hook hold {site}.", remedy="Convert them one at a time.")
        found[site] = ops.asarray(array[None])
    return ActivationCache(found, ops, [list(tokens)])


def _details(error: Mapping[str, Any]) -> dict[str, Any]:
    """An error's body as the rest of NeuroScope knows errors: the message without the remedy."""
    remedy = error.get("remedy")
    message = str(error["message"])
    if remedy and message.endswith(str(remedy)):
        message = message[: -len(str(remedy))].rstrip()
    return {
        "code": str(error.get("code", "remote")).replace("_", "-"),
        "message": message,
        "site": error.get("site"),
        "remedy": remedy,
    }


def _tensor(array: Any) -> ActivationTensor:
    ops = host_ops()
    return ActivationTensor(ops.asarray(np.array(array)), ops)
