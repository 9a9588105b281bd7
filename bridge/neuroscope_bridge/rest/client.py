"""Clients of the HTTP server, under the names of the documented scripts.

client = LMStudioRESTClient.default()
client.load_model("bundled:gpt2-medium")
hooks = client.create_circuit_analysis_hooks(13)
result = client.generate_with_activations([{"role": "user", "content": "What is the capital of France?"}], hooks=hooks)
cache = client.convert_activations_for_neuroscope(result["activations"])
cache["5.residual"].numpy()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import httpx
import msgpack

from neuroscope import events, settings
from neuroscope.results import plain
from neuroscope.tensors.cache import ActivationCache
from neuroscope.vocabulary import public
from neuroscope_bridge.rest import exchange
from neuroscope_bridge.rest.substitute import DEFAULT_URL, substitute

_WITH_ACTIVATIONS = "/v1/chat/completions/with_activations"

#: Seconds to connect, and of silence; a load or a long generation may say nothing for a while.
_CONNECT, _SILENCE = 5.0, 600.0


@public
class LMStudioRESTClient:
    """A client of a NeuroScope server over HTTP.

    Every operation raises `RemoteError` with what the server answered, or `ServerGoneError` when none answers.
    """

    def __init__(self, url: str = DEFAULT_URL, token: str | None = None) -> None:
        self._url = str(url).rstrip("/")
        self._token = token
        self._http: httpx.Client | None = None
        self._replaceable = False
        self._layers: int | None = None
        self._model: str | None = None
        self._asked_for: str | None = None

    @classmethod
    def default(cls) -> LMStudioRESTClient:
        """The server on this machine, at 127.0.0.1:50111. In `neuroscope run` one is started when none is up."""
        client = cls()
        client._replaceable = True
        return client

    @property
    def url(self) -> str:
        return self._url

    # --- the server and its models --------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Whether the server answers, its version, and its models."""
        return self._json("GET", "/health")

    def models(self) -> list[str]:
        """The names of the loaded models."""
        return [one["id"] for one in self._json("GET", "/v1/models")["data"]]

    def load_model(self, name: str) -> dict[str, Any]:
        """Load a model by name or path; it serves what this client asks from now on. Answers its sizes.

        Where an alias of this run leads to another name, answers keep the one that was asked for as `asked_for`.
        """
        self._connected()
        loaded = self._json("POST", "/v1/models/load", {"model": exchange.target(name, self._url)}, named=str(name))
        self._model, self._layers = loaded["id"], loaded["architecture"]["layers"]
        self._asked_for = str(name) if str(name) != self._model else None
        return self._named(loaded)

    def tokenize(self, text: str) -> dict[str, Any]:
        """Ids and texts of a text's tokens."""
        return self._json("POST", "/v1/tokenize", self._with_model({"text": str(text)}))

    # --- hooks ------------------------------------------------------------------------------------------------------------

    def create_circuit_analysis_hooks(self, layers: int) -> list[dict[str, Any]]:
        """Hooks on what each of the first `layers` layers writes; of a loaded model with fewer layers, on all it has."""
        layers = int(layers)
        if self._layers is not None and layers > self._layers:
            events.notice(f"{self._model} has {self._layers} layers: hooks for those, not for {layers}.")
            layers = self._layers
        return exchange.circuit_analysis_hooks(layers)

    def register_hooks(self, hooks: Sequence[Mapping[str, Any]]) -> list[str]:
        """Keep hooks on the server under their ids; requests may then name them. Answers the ids."""
        found: list[str] = self._json("POST", "/v1/activations/hooks", {"hooks": plain(hooks)})["registered"]
        return found

    def hooks(self) -> list[dict[str, Any]]:
        """The registered hooks."""
        found: list[dict[str, Any]] = self._json("GET", "/v1/activations/hooks")["data"]
        return found

    def remove_hooks(self, name: str | None = None) -> list[str]:
        """Forget a registered hook, or all of them. Answers the ids."""
        path = "/v1/activations/hooks" if name is None else f"/v1/activations/hooks/{name}"
        found: list[str] = self._json("DELETE", path)["removed"]
        return found

    # --- generation ---------------------------------------------------------------------------------------------------------

    def chat(self, messages: Any, max_tokens: int | None = None, temperature: float = 0.0, seed: int | None = None) -> str:
        """The model's reply as text: as long as the model's context has room for, and unless told at most 512 tokens."""
        options = {"max_tokens": max_tokens, "temperature": temperature, "seed": _seed(seed)}
        given = {name: value for name, value in options.items() if value is not None}
        answer = self._json("POST", "/v1/chat/completions", self._with_model({"messages": plain(messages), **given}))
        return str(answer["choices"][0]["message"]["content"])

    def generate_with_activations(
        self,
        messages: Any,
        hooks: Any = None,
        activation_hooks: Any = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Any = None,
        stream: bool = False,
    ) -> Any:
        """Generate, and answer what the hooks saw: a dictionary with `choices`, `usage`, `tokens` and `activations`.

        Unless told, at most 100 tokens, or as many as the model's context has room for.
        `messages` is a list of role and content, or a plain text that goes on. `hooks` and `activation_hooks` name the same
        thing. Each entry of `activations` has `site`, `axes`, `shape` and `data`, an ActivationTensor. With `stream` the
        answer is an iterator of events, one for each token as it is made, with `text`, `token` and `activations`.
        """
        options = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": _seed(seed),
            "stop": stop,
        }
        body = self._with_model(exchange.generation(messages, hooks, activation_hooks, options))
        if stream:
            return self._events({**body, "stream": True, "encoding": "npy"})
        answer = self._request("POST", _WITH_ACTIVATIONS, body, accept="application/msgpack")
        return exchange.result(self._named(msgpack.unpackb(answer.content)))

    def convert_activations_for_neuroscope(self, activations: Mapping[str, Any]) -> ActivationCache:
        """The activations of an answer as an ActivationCache, by site."""
        return exchange.converted(activations)

    def analyses(self) -> list[dict[str, Any]]:
        """The analyses by name: what each asks, and what it works on."""
        found: list[dict[str, Any]] = self._json("GET", "/v1/analyze")["data"]
        return found

    def analyze(self, name: str, on: Any = None, seed: int | None = None) -> dict[str, Any]:
        """Run an analysis by name, such as `logit_lens`: a dictionary with `summary` and `result`."""
        given = {key: plain(value) for key, value in (("on", on), ("seed", _seed(seed))) if value is not None}
        return self._named(self._json("POST", f"/v1/analyze/{name}", self._with_model(given)))

    # --- the connection -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the connection."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def __enter__(self) -> LMStudioRESTClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def print_string(self) -> str:
        return f"a LMStudioRESTClient({self._url})"

    def __repr__(self) -> str:
        return self.print_string()

    def _named(self, document: dict[str, Any]) -> dict[str, Any]:
        """An answer with the name that the model was asked for by, where this run's aliases led it to another."""
        return document if self._asked_for is None else {**document, "asked_for": self._asked_for}

    def _with_model(self, body: dict[str, Any]) -> dict[str, Any]:
        return body if self._model is None else {"model": self._model, **body}

    def _connected(self) -> httpx.Client:
        if self._http is None:
            if self._replaceable:
                self._replaceable = False
                start = substitute()
                if start is not None and not _answers(self._url):
                    self._url = start()
            self._http = httpx.Client(
                base_url=self._url, headers=_headers(self._token), timeout=httpx.Timeout(_SILENCE, connect=_CONNECT)
            )
        return self._http

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None, named: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self._request(method, path, body, named=named).json()
        return found

    def _request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        accept: str = "application/json",
        named: str | None = None,
    ) -> httpx.Response:
        try:
            response = self._connected().request(method, path, json=body, headers={"Accept": accept})
        except httpx.TransportError as error:
            raise exchange.gone(self._url, error) from error
        if response.is_error:
            raise exchange.failure(response, body if named is None else {"model": named})
        return response

    def _events(self, body: dict[str, Any]) -> Iterator[exchange.GenerationResult]:
        try:
            with self._connected().stream("POST", _WITH_ACTIVATIONS, json=body) as response:
                if response.is_error:
                    response.read()
                    raise exchange.failure(response, body)
                lines = exchange.Lines()
                for chunk in response.iter_bytes():
                    for line in lines.take(chunk):
                        event = exchange.event(line)
                        if event is not None and "token" in event:
                            yield event
        except httpx.TransportError as error:
            raise exchange.gone(self._url, error) from error


class AsyncLMStudioRESTClient:
    """The same for asyncio: `await client.generate_with_activations(…)`, and with `stream=True` an asynchronous iterator."""

    def __init__(self, url: str = DEFAULT_URL, token: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self._url, headers=_headers(token), timeout=httpx.Timeout(_SILENCE, connect=_CONNECT)
        )
        self._model: str | None = None

    async def health(self) -> dict[str, Any]:
        """Whether the server answers, its version, and its models."""
        return await self._json("GET", "/health")

    async def models(self) -> list[str]:
        """The names of the loaded models."""
        return [one["id"] for one in (await self._json("GET", "/v1/models"))["data"]]

    async def load_model(self, name: str) -> dict[str, Any]:
        """See `LMStudioRESTClient.load_model`."""
        loaded = await self._json("POST", "/v1/models/load", {"model": exchange.target(name, self._url)})
        self._model = loaded["id"]
        return loaded

    def create_circuit_analysis_hooks(self, layers: int) -> list[dict[str, Any]]:
        """See `exchange.circuit_analysis_hooks`."""
        return exchange.circuit_analysis_hooks(layers)

    async def generate_with_activations(
        self,
        messages: Any,
        hooks: Any = None,
        activation_hooks: Any = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Any = None,
        stream: bool = False,
    ) -> Any:
        """See `LMStudioRESTClient.generate_with_activations`."""
        options = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": _seed(seed), "stop": stop}
        body = exchange.generation(messages, hooks, activation_hooks, options)
        if self._model is not None:
            body["model"] = self._model
        if stream:
            return self._events({**body, "stream": True, "encoding": "npy"})
        answer = await self._request("POST", _WITH_ACTIVATIONS, body, accept="application/msgpack")
        return exchange.result(msgpack.unpackb(answer.content))

    async def analyze(self, name: str, on: Any = None, seed: int | None = None) -> dict[str, Any]:
        """See `LMStudioRESTClient.analyze`."""
        body = {"model": self._model, "on": plain(on), "seed": _seed(seed)}
        given = {key: value for key, value in body.items() if value is not None}
        return await self._json("POST", f"/v1/analyze/{name}", given)

    def convert_activations_for_neuroscope(self, activations: Mapping[str, Any]) -> ActivationCache:
        """See `LMStudioRESTClient.convert_activations_for_neuroscope`."""
        return exchange.converted(activations)

    async def close(self) -> None:
        """End the connection."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncLMStudioRESTClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = (await self._request(method, path, body)).json()
        return found

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, accept: str = "application/json"
    ) -> httpx.Response:
        try:
            response = await self._http.request(method, path, json=body, headers={"Accept": accept})
        except httpx.TransportError as error:
            raise exchange.gone(self._url, error) from error
        if response.is_error:
            raise exchange.failure(response, body)
        return response

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[exchange.GenerationResult]:
        try:
            async with self._http.stream("POST", _WITH_ACTIVATIONS, json=body) as response:
                if response.is_error:
                    await response.aread()
                    raise exchange.failure(response, body)
                lines = exchange.Lines()
                async for chunk in response.aiter_bytes():
                    for line in lines.take(chunk):
                        event = exchange.event(line)
                        if event is not None and "token" in event:
                            yield event
        except httpx.TransportError as error:
            raise exchange.gone(self._url, error) from error


def _headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _seed(given: int | None) -> int | None:
    """`given`, or the seed that `--seed` set for this run; None leaves it to the server."""
    return settings.given_seed() if given is None else given


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=1.0).is_success
    except httpx.TransportError:
        return False
