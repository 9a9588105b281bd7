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

from neuroscope.settings import DtypeLike
from neuroscope.tensors.cache import ActivationCache
from neuroscope.vocabulary import public
from neuroscope_bridge.rest import exchange
from neuroscope_bridge.rest.calls import Call, Calls
from neuroscope_bridge.rest.substitute import DEFAULT_URL, substitute


@public
class LMStudioRESTClient:
    """A client of a NeuroScope server over HTTP.

    Every operation raises `RemoteError` for an error of the server, or `ServerGoneError` if none answers.
    """

    def __init__(self, url: str = DEFAULT_URL, token: str | None = None) -> None:
        self._calls = Calls(url, token)
        self._http: httpx.Client | None = None
        self._replaceable = False

    @classmethod
    def default(cls) -> LMStudioRESTClient:
        """The server on this machine, at 127.0.0.1:50111. `neuroscope run` starts one if none is running."""
        client = cls()
        client._replaceable = True
        return client

    @property
    def url(self) -> str:
        return self._calls.url

    # --- the server and its models --------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Whether the server answers, its version, and its models."""
        return self._ask(self._calls.health())

    def models(self) -> list[str]:
        """The names of the loaded models."""
        return self._ask(self._calls.models())

    def load_model(self, name: str, dtype: DtypeLike | None = None) -> dict[str, Any]:
        """Load a model by name or path, and use it for this client's requests. Return its sizes.

        dtype: float32, bfloat16 or float16, by name or as torch.bfloat16. If an alias of this run leads to another name, answers have the given one as
        `asked_for`.
        """
        self._connected()
        return self._ask(self._calls.load_model(name, dtype))

    def unload_model(self, name: str | None = None) -> str:
        """Unload a model on the server, by default this client's; answer the name that it was first loaded by."""
        return self._ask(self._calls.unload_model(name))

    def edits(self) -> list[dict[str, Any]]:
        """The edits on the model's weights, the oldest first, with their ids."""
        return self._ask(self._calls.edits())

    def revert_edits(self, edit: str | None = None) -> list[str]:
        """Take an edit back by its id, or all of them, the last first. Return the ids."""
        return self._ask(self._calls.revert_edits(edit))

    def tokenize(self, text: str) -> dict[str, Any]:
        """Ids and texts of a text's tokens."""
        return self._ask(self._calls.tokenize(text))

    # --- hooks ------------------------------------------------------------------------------------------------------------

    def create_circuit_analysis_hooks(self, layers: int) -> list[dict[str, Any]]:
        """Hooks on the outputs of the first `layers` layers, or of all if a loaded model has fewer."""
        return self._calls.circuit_analysis_hooks(layers)

    def register_hooks(self, hooks: Sequence[Mapping[str, Any]]) -> list[str]:
        """Register hooks on the server, so that requests can name them by id. Return the ids."""
        return self._ask(self._calls.register_hooks(hooks))

    def hooks(self) -> list[dict[str, Any]]:
        """The registered hooks."""
        return self._ask(self._calls.hooks())

    def remove_hooks(self, name: str | None = None) -> list[str]:
        """Remove a registered hook, or all of them. Return the ids."""
        return self._ask(self._calls.remove_hooks(name))

    # --- generation ---------------------------------------------------------------------------------------------------------

    def chat(self, messages: Any, max_tokens: int | None = None, temperature: float = 0.0, seed: int | None = None) -> str:
        """The model's reply as text, by default at most 512 tokens or as many as fit the context."""
        return self._ask(self._calls.chat(messages, max_tokens=max_tokens, temperature=temperature, seed=seed))

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
        """Generate with hooks. Return a dictionary with `choices`, `usage`, `tokens` and `activations`.

        By default at most 100 tokens, or as many as fit the context. `messages` is a list of role and content, or a text to
        continue. `hooks` and `activation_hooks` are synonyms. Each entry of `activations` has `site`, `axes`, `shape` and
        `data`, an ActivationTensor. With `stream` the result is an iterator of events, one per generated token, with `text`,
        `token` and `activations`.
        """
        options = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed, "stop": stop}
        call = self._calls.generation(messages, hooks, activation_hooks, **options)
        return self._events(call) if stream else self._ask(call)

    def convert_activations_for_neuroscope(self, activations: Mapping[str, Any]) -> ActivationCache:
        """The activations of an answer as an ActivationCache, by site."""
        return exchange.converted(activations)

    def analyses(self) -> list[dict[str, Any]]:
        """The analyses, with question and input."""
        return self._ask(self._calls.analyses())

    def analyze(self, name: str, on: Any = None, seed: int | None = None) -> dict[str, Any]:
        """Run an analysis by name, such as `logit_lens`: a dictionary with `summary` and `result`."""
        return self._ask(self._calls.analyze(name, on, seed))

    def patch(
        self,
        pairs: Any,
        sites: Any = "residual@*",
        receivers: Any = None,
        direction: str = "denoising",
        metric: str = "logit_difference",
        replacement: str = "pair",
        method: str = "exact",
        seed: int | None = None,
    ) -> dict[str, Any]:
        """Patch sites on prompt pairs of your own, as `ActivationPatcher.patch`, or with `receivers` as `patch_paths`.

        A dictionary with `summary` and `result`.
        """
        ways = {"direction": direction, "metric": metric, "replacement": replacement, "method": method}
        return self._ask(self._calls.patch(pairs, sites, receivers=receivers, seed=seed, **ways))

    # --- the connection -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def __enter__(self) -> LMStudioRESTClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def print_string(self) -> str:
        return f"a LMStudioRESTClient({self.url})"

    def __repr__(self) -> str:
        return self.print_string()

    def _connected(self) -> httpx.Client:
        if self._http is None:
            if self._replaceable:
                self._replaceable = False
                start = substitute()
                if start is not None and not _answers(self.url):
                    self._calls.url = start()
            self._http = httpx.Client(**self._calls.connection)
        return self._http

    def _ask(self, call: Call) -> Any:
        try:
            response = self._connected().request(call.method, call.path, json=call.body, headers={"Accept": call.accept})
        except httpx.TransportError as error:
            raise exchange.gone(self.url, error) from error
        return call.answer(response)

    def _events(self, generation: Call) -> Iterator[exchange.GenerationResult]:
        call, read = self._calls.streamed(generation)
        try:
            with self._connected().stream(call.method, call.path, json=call.body) as response:
                if response.is_error:
                    response.read()
                call.check(response)
                for chunk in response.iter_bytes():
                    yield from read(chunk)
        except httpx.TransportError as error:
            raise exchange.gone(self.url, error) from error


class AsyncLMStudioRESTClient:
    """The same for asyncio: `await client.generate_with_activations(…)`, and with `stream=True` an asynchronous iterator.

    The operations are those of `LMStudioRESTClient`.
    """

    def __init__(self, url: str = DEFAULT_URL, token: str | None = None) -> None:
        self._calls = Calls(url, token)
        self._http = httpx.AsyncClient(**self._calls.connection)

    async def health(self) -> dict[str, Any]:
        return await self._ask(self._calls.health())

    async def models(self) -> list[str]:
        return await self._ask(self._calls.models())

    async def load_model(self, name: str, dtype: DtypeLike | None = None) -> dict[str, Any]:
        return await self._ask(self._calls.load_model(name, dtype))

    async def unload_model(self, name: str | None = None) -> str:
        return await self._ask(self._calls.unload_model(name))

    async def edits(self) -> list[dict[str, Any]]:
        return await self._ask(self._calls.edits())

    async def revert_edits(self, edit: str | None = None) -> list[str]:
        return await self._ask(self._calls.revert_edits(edit))

    async def tokenize(self, text: str) -> dict[str, Any]:
        return await self._ask(self._calls.tokenize(text))

    def create_circuit_analysis_hooks(self, layers: int) -> list[dict[str, Any]]:
        return self._calls.circuit_analysis_hooks(layers)

    async def register_hooks(self, hooks: Sequence[Mapping[str, Any]]) -> list[str]:
        return await self._ask(self._calls.register_hooks(hooks))

    async def hooks(self) -> list[dict[str, Any]]:
        return await self._ask(self._calls.hooks())

    async def remove_hooks(self, name: str | None = None) -> list[str]:
        return await self._ask(self._calls.remove_hooks(name))

    async def chat(
        self, messages: Any, max_tokens: int | None = None, temperature: float = 0.0, seed: int | None = None
    ) -> str:
        return await self._ask(self._calls.chat(messages, max_tokens=max_tokens, temperature=temperature, seed=seed))

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
        options = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed, "stop": stop}
        call = self._calls.generation(messages, hooks, activation_hooks, **options)
        return self._events(call) if stream else await self._ask(call)

    def convert_activations_for_neuroscope(self, activations: Mapping[str, Any]) -> ActivationCache:
        return exchange.converted(activations)

    async def analyses(self) -> list[dict[str, Any]]:
        return await self._ask(self._calls.analyses())

    async def analyze(self, name: str, on: Any = None, seed: int | None = None) -> dict[str, Any]:
        return await self._ask(self._calls.analyze(name, on, seed))

    async def patch(
        self,
        pairs: Any,
        sites: Any = "residual@*",
        receivers: Any = None,
        direction: str = "denoising",
        metric: str = "logit_difference",
        replacement: str = "pair",
        method: str = "exact",
        seed: int | None = None,
    ) -> dict[str, Any]:
        ways = {"direction": direction, "metric": metric, "replacement": replacement, "method": method}
        return await self._ask(self._calls.patch(pairs, sites, receivers=receivers, seed=seed, **ways))

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncLMStudioRESTClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, call: Call) -> Any:
        try:
            response = await self._http.request(call.method, call.path, json=call.body, headers={"Accept": call.accept})
        except httpx.TransportError as error:
            raise exchange.gone(self._calls.url, error) from error
        return call.answer(response)

    async def _events(self, generation: Call) -> AsyncIterator[exchange.GenerationResult]:
        call, read = self._calls.streamed(generation)
        try:
            async with self._http.stream(call.method, call.path, json=call.body) as response:
                if response.is_error:
                    await response.aread()
                call.check(response)
                async for chunk in response.aiter_bytes():
                    for event in read(chunk):
                        yield event
        except httpx.TransportError as error:
            raise exchange.gone(self._calls.url, error) from error


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=1.0).is_success
    except httpx.TransportError:
        return False
