"""Requests as plain data and answers as objects, for the HTTP clients."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from neuroscope import places
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
    """A server's answer as a dictionary. As plain data it leaves out the activations' values, which may be huge."""

    def as_dictionary(self) -> dict[str, Any]:
        activations = {
            name: {key: value for key, value in one.items() if key != "data"}
            for name, one in self.get("activations", {}).items()
        }
        return {**self, "activations": activations}


def generation(messages: Any, hooks: Any, activation_hooks: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a generation; the server decides options that are None."""
    if hooks is not None and activation_hooks is not None:
        raise ArgumentError("hooks and activation_hooks are synonyms.", remedy="Give one of them.")
    asked = plain(messages)
    prompt = {"prompt": asked} if isinstance(asked, str) else {"messages": asked}
    given = {name: plain(value) for name, value in options.items() if value is not None}
    return {**prompt, "activation_hooks": plain(activation_hooks if hooks is None else hooks) or [], **given}


def target(name: str, url: str) -> str:
    """A model's name after this run's aliases, with local paths resolved.

    The server resolves its own aliases and stand-ins.
    """
    target = aliases.follow_given(str(name))
    local = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
    looks_like_path = target.startswith((".", "~")) or "/" in target
    if places.current() is not None:  # a session's client: what lies here is not for it to see
        return target
    return str(Path(target).expanduser().resolve()) if local and looks_like_path and Path(target).exists() else target


def result(document: dict[str, Any]) -> GenerationResult:
    """A complete answer, with arrays as tensors."""
    for one in document.get("activations", {}).values():
        if isinstance(one.get("data"), bytes):
            array = np.frombuffer(one["data"], np.dtype(one["dtype"]).newbyteorder("<")).reshape(one["shape"])
            one["data"] = _tensor(array)
    return GenerationResult(document)


class Lines:
    """A stream's bytes as lines, which end only at line feeds: a model's text may have other line ends (U+2028, U+0085 …)."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, chunk: bytes) -> list[str]:
        """The lines that these bytes complete."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return [line.rstrip(b"\r").decode() for line in whole]


def event(line: str) -> GenerationResult | None:
    """The event in a line of a stream, or None. Raises an error that the server sent."""
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
    """The error of a response; `asked` is the request's body."""
    try:
        details = _details(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        details = {
            "code": "http",
            "message": f"{response.request.url} responded with {response.status_code}.",
            "remedy": "Is it a NeuroScope server? `neuroscope serve` starts one.",
        }
    name = str((asked or {}).get("model", ""))
    if details["code"] in ("model-not-found", "access") and name.startswith(_PLACEHOLDER):
        details["remedy"] = (
            f"{name} in the script is a placeholder for a model: replace it by a name, or run with "
            f"`--alias {name}=NAME` (for example bundled:gpt2-medium)."
        )
    return RemoteError(details)


def gone(url: str, error: Exception) -> ServerGoneError:
    """The error if no server answers."""
    return ServerGoneError(
        f"No server answers at {url}: {error or type(error).__name__}.",
        remedy="`neuroscope serve` starts one; LMStudioRESTClient url: names another address.",
    )


def circuit_analysis_hooks(layers: int) -> list[dict[str, Any]]:
    """Hooks on the first `layers` layers' residual stream, attention and MLP, and on the embedding."""
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise ArgumentError(f"The number of layers must be a whole number above zero, not {layers!r}.")
    hooks: list[dict[str, Any]] = [{"layer_name": "transformer.wte", "component": "embedding", "hook_id": "embedding"}]
    for layer in range(layers):
        for component, name in (("residual", "residual"), ("attention", "attention"), ("mlpOutput", "mlp")):
            hooks.append({"layer_name": f"transformer.h.{layer}", "component": component, "hook_id": f"layer_{layer}_{name}"})
    return hooks


def converted(activations: Mapping[str, Any], tokens: Sequence[str] = ()) -> ActivationCache:
    """Activations of an answer as a cache by site with one row, as from `runWithCaching:`."""
    ops = host_ops()
    found: dict[Site, Any] = {}
    for name, one in activations.items():
        data = one.get("data")
        if data is None:
            raise ArgumentError(f"{name} has only statistics, no values.", remedy="Request it again without statistics_only.")
        array = np.asarray(data, dtype=np.float32)
        site = Site.parse(str(one["site"]))
        if site in found:
            raise ArgumentError(f"{name} and another hook both have {site}.", remedy="Convert them one at a time.")
        found[site] = ops.asarray(array[None])
    return ActivationCache(found, ops, [list(tokens)])


def _details(error: Mapping[str, Any]) -> dict[str, Any]:
    """An error's body with the message separated from the remedy."""
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
