"""Requests to the HTTP server and the parsing of answers, for the synchronous and the asyncio client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import httpx
import msgpack

from neuroscope import events, places, settings
from neuroscope.errors import AccessError
from neuroscope.results import plain
from neuroscope_bridge.keys import is_loopback
from neuroscope_bridge.rest import exchange

WITH_ACTIVATIONS = "/v1/chat/completions/with_activations"

#: Timeouts in seconds for connecting and for silence; a load or a long generation may be silent for a while.
_CONNECT, _SILENCE = 5.0, 600.0


@dataclass(frozen=True)
class Call:
    """One request, and the parser of its answer. `asked`: the subject of an error, if not the body."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    read: Callable[[httpx.Response], Any] = lambda response: response.json()
    accept: str = "application/json"
    asked: Mapping[str, Any] | None = None

    def answer(self, response: httpx.Response) -> Any:
        """The response's value. Raises `RemoteError` for an error."""
        self.check(response)
        return self.read(response)

    def check(self, response: httpx.Response) -> None:
        """Raise `RemoteError` for an error response."""
        if response.is_error:
            raise exchange.failure(response, self.body if self.asked is None else self.asked)


class Calls:
    """The calls of one client, which stores its model and the name it was asked for by."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = str(url).rstrip("/")
        confinement = places.current()
        if confinement is not None and (confinement.folder is None or not is_loopback(self.url)):
            raise AccessError(f"{self.url} cannot be asked from here.", remedy="A session reaches servers of its own machine.")
        self._token = token
        self._model: str | None = None
        self._asked_for: str | None = None
        self._layers: int | None = None

    @property
    def connection(self) -> dict[str, Any]:
        """Arguments of httpx's clients."""
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        return {"base_url": self.url, "headers": headers, "timeout": httpx.Timeout(_SILENCE, connect=_CONNECT)}

    def health(self) -> Call:
        return Call("GET", "/health")

    def models(self) -> Call:
        return Call("GET", "/v1/models", read=lambda response: [one["id"] for one in response.json()["data"]])

    def load_model(self, name: str, dtype: settings.DtypeLike | None) -> Call:
        """Resolves this run's aliases; if they lead to another name, the given one becomes `asked_for`."""

        def read(response: httpx.Response) -> dict[str, Any]:
            loaded: dict[str, Any] = response.json()
            self._model, self._layers = loaded["id"], loaded["architecture"]["layers"]
            self._asked_for = str(name) if str(name) != self._model else None
            return self._named(loaded)

        body = {"model": exchange.target(name, self.url), **({} if dtype is None else {"dtype": settings.dtype(dtype)})}
        return Call("POST", "/v1/models/load", body, read, asked={"model": str(name)})

    def unload_model(self, name: str | None) -> Call:
        named = self._model if name is None else str(name)

        def read(response: httpx.Response) -> str:
            if named == self._model:
                self._model = self._asked_for = self._layers = None
            return str(response.json()["id"])

        return Call("DELETE", f"/v1/models/{quote(named or '', safe='')}", read=read, asked={"model": named})

    def edits(self) -> Call:
        return Call("GET", f"/v1/edits{self._model_query()}", read=lambda response: response.json()["data"])

    def revert_edits(self, edit: str | None) -> Call:
        path = "/v1/edits" if edit is None else f"/v1/edits/{quote(str(edit), safe='')}"
        return Call("DELETE", f"{path}{self._model_query()}", read=lambda response: response.json()["reverted"])

    def _model_query(self) -> str:
        return "" if self._model is None else f"?model={quote(self._model, safe='')}"

    def tokenize(self, text: str) -> Call:
        return Call("POST", "/v1/tokenize", self._with_model({"text": str(text)}))

    def circuit_analysis_hooks(self, layers: int) -> list[dict[str, Any]]:
        layers = int(layers)
        if self._layers is not None and layers > self._layers:
            events.notice(f"{self._model} has {self._layers} layers: hooks are made for those, not for {layers}.")
            layers = self._layers
        return exchange.circuit_analysis_hooks(layers)

    def register_hooks(self, hooks: Sequence[Mapping[str, Any]]) -> Call:
        return Call("POST", "/v1/activations/hooks", {"hooks": plain(hooks)}, lambda response: response.json()["registered"])

    def hooks(self) -> Call:
        return Call("GET", "/v1/activations/hooks", read=lambda response: response.json()["data"])

    def remove_hooks(self, name: str | None) -> Call:
        path = "/v1/activations/hooks" if name is None else f"/v1/activations/hooks/{name}"
        return Call("DELETE", path, read=lambda response: response.json()["removed"])

    def chat(self, messages: Any, **options: Any) -> Call:
        body = self._with_model({"messages": plain(messages), **_given(options)})
        return Call(
            "POST", "/v1/chat/completions", body, lambda response: str(response.json()["choices"][0]["message"]["content"])
        )

    def generation(self, messages: Any, hooks: Any, activation_hooks: Any, **options: Any) -> Call:
        body = self._with_model(exchange.generation(messages, hooks, activation_hooks, _given(options)))

        def read(response: httpx.Response) -> exchange.GenerationResult:
            return exchange.result(self._named(msgpack.unpackb(response.content)))

        return Call("POST", WITH_ACTIVATIONS, body, read, accept="application/msgpack")

    def streamed(self, generation: Call) -> tuple[Call, Callable[[bytes], list[exchange.GenerationResult]]]:
        """A generation as a stream, and a function that parses complete events from its chunks."""
        lines = exchange.Lines()

        def read(chunk: bytes) -> list[exchange.GenerationResult]:
            found = (exchange.event(line) for line in lines.take(chunk))
            return [exchange.GenerationResult(self._named(event)) for event in found if event is not None and "token" in event]

        body = {**(generation.body or {}), "stream": True, "encoding": "npy"}
        return replace(generation, body=body, accept="text/event-stream"), read

    def analyses(self) -> Call:
        return Call("GET", "/v1/analyze", read=lambda response: response.json()["data"])

    def analyze(self, name: str, on: Any, seed: int | None) -> Call:
        body = self._with_model({key: plain(value) for key, value in _given({"on": on, "seed": seed}).items()})
        return Call("POST", f"/v1/analyze/{name}", body, lambda response: self._named(response.json()))

    def patch(self, pairs: Any, sites: Any, **options: Any) -> Call:
        from neuroscope.tasks.own import own_pairs  # refuses what is no pair before anything is sent

        fields = ("clean", "corrupt", "answer", "wrong")
        own = [{name: getattr(pair, name) for name in fields if getattr(pair, name) is not None} for pair in own_pairs(pairs)]
        body = self._with_model({"pairs": own, "sites": plain(sites), **_given(options)})
        return Call("POST", "/v1/patch", body, lambda response: self._named(response.json()))

    def _named(self, document: dict[str, Any]) -> dict[str, Any]:
        """An answer with `asked_for`, if this run's aliases led to another name."""
        return document if self._asked_for is None else {**document, "asked_for": self._asked_for}

    def _with_model(self, body: dict[str, Any]) -> dict[str, Any]:
        return body if self._model is None else {"model": self._model, **body}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were set, including `--seed`. The server decides the others."""
    seed = options.get("seed")
    named = {**options, "seed": settings.given_seed() if seed is None else seed}
    return {name: value for name, value in named.items() if value is not None}
