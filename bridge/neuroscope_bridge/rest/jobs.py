"""Generations over HTTP: checked first, run in the model's worker, collected or streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from neuroscope.engines.sites import Site
from neuroscope.errors import ArgumentError
from neuroscope_bridge.host import Host
from neuroscope_bridge.rest import errors, schemas
from neuroscope_bridge.rest.capture import check_size
from neuroscope_bridge.rest.encoding import dumps
from neuroscope_bridge.rest.generation import USUAL_TOKENS, GeneratedToken, GenerationRequest, ask, pieces
from neuroscope_bridge.rest.hooks import HookRegistry, Plan, plan
from neuroscope_bridge.rest.pool import ModelPool, Pull, Worker
from neuroscope_bridge.rest.probes import ProbeRegistry
from neuroscope_bridge.rest.stream import DONE, STALL, EventStream, event


@dataclass(frozen=True)
class HttpOptions:
    """Options of the door.

    token: the bearer token, or a function that answers it. answer: most bytes of activations in one answer. memory: in all that are being
    made and sent. generations: most concurrent ones. patience: seconds for a request to come whole. stall: seconds for a reader that reads nothing. connections: most open ones. own:
    refuse the other users of this machine, where there is no token and the system tells. edits: whether weights may be edited over HTTP. on_demand: whether requests load
    models that need no download.
    """

    token: str | Callable[[], str | None] | None = None
    loopback: bool = True
    origins: Sequence[str] = field(default_factory=tuple)
    answer: int = 256 << 20
    generations: int = 128
    memory: int = 1 << 30
    stall: float = STALL
    patience: float = 20.0
    connections: int | None = None
    own: bool = True
    edits: bool = False
    on_demand: bool = True

    def current_token(self) -> str | None:
        return self.token() if callable(self.token) else self.token


@dataclass(frozen=True)
class Job:
    """A checked generation, ready to start."""

    model: Any
    requests: tuple[GenerationRequest, ...]  # one for each prompt
    plan: Plan
    worker: Worker
    size: int  # bytes of activations in the answer

    @property
    def asked(self) -> GenerationRequest:
        """The request of the first prompt, which for most routes is the only one."""
        return self.requests[0]


class Room:
    """Memory that an answer takes, until it is freed, once."""

    def __init__(self, free: Callable[[], None]) -> None:
        self._free: Callable[[], None] | None = free

    def free(self) -> None:
        free, self._free = self._free, None
        if free is not None:
            free()


class Server:
    """What the routes share."""

    def __init__(self, host: Host, options: HttpOptions) -> None:
        self.options = options
        self.pool = ModelPool(host, options.generations, on_demand=options.on_demand)
        self.hooks = HookRegistry()
        self.probes = ProbeRegistry()
        self._taken = 0

    async def job(
        self,
        name: str | None,
        tokens: Callable[[Any], list[list[int]]],
        request: schemas.Generate,
        hooks: Sequence[str | schemas.HookSpec] | None,
        *,
        max_tokens: int | None,
        usual: int = USUAL_TOKENS,
        logprobs: int | None,
        encoding: str | None,
    ) -> Job:
        """Check a request completely, before generating.

        tokens: the prompts' tokens, for a model. usual: default number of tokens.
        """
        pooled = await self.pool.find(name)
        specs = self.hooks.resolve(hooks)

        def prepare() -> Job:
            model = pooled.fresh()
            requests = ask(
                model,
                tokens(model),
                max_tokens=max_tokens,
                usual=usual,
                temperature=1.0 if request.temperature is None else request.temperature,
                top_p=1.0 if request.top_p is None else request.top_p,
                seed=request.seed,
                stop=request.stop or (),
                logprobs=logprobs,
            )
            made = plan(specs, model)
            if made.captures and encoding is None:
                raise ArgumentError(
                    f"The hook {made.captures[0].id!r} reads activations, which this endpoint does not return.",
                    remedy="Send it to /v1/chat/completions/with_activations.",
                )
            first = requests[0]
            size = check_size(
                model, made.captures, len(first.prompt_ids), first.settings.max_tokens, encoding or "", self.options.answer
            )
            made.install(model)
            return Job(model, requests, made, pooled.worker, size)

        return await self.pool.usher.run(prepare)

    def room(self, job: Job) -> Room:
        """Memory for a whole answer's activations. Raises `BusyError` if those being made and sent leave none."""
        most = max(self.options.memory, self.options.answer)
        if self._taken + job.size > most:
            raise errors.BusyError(
                f"The answers being made take {self._taken >> 20} of {most >> 20} MiB.",
                remedy="Try again in a moment, request less, or a stream.",
            )
        self._taken += job.size

        def free() -> None:
            self._taken -= job.size

        return Room(free)

    async def watching(self, job: Job, probe: str | None) -> Job:
        """The generation with a probe that reads along. Raises `ProbeNotFoundError`, and `DatasetError` for one of other weights."""
        if probe is None:
            return job
        return replace(job, plan=replace(job.plan, watch=await self.pool.usher.run(self.probes.watch, probe, job.model)))

    async def begin(self, job: Job, sites: Sequence[Site]) -> Pull[GeneratedToken]:
        return await self.pool.pull(job.worker, lambda: pieces(job.model, job.requests, sites))

    async def collect(self, job: Job, take: Callable[[GeneratedToken], None]) -> None:
        """Generate to the end, passing each piece to `take` in the worker's thread."""
        pull = await self.begin(job, job.plan.sites)
        try:
            while await pull.some(take):
                pass
        finally:
            pull.close()

    async def stream(
        self,
        job: Job,
        sites: Sequence[Site],
        opening: Sequence[dict[str, Any]],
        chunk: Callable[[GeneratedToken], dict[str, Any]],
        closing: Callable[[int], dict[str, Any]] | None = None,
    ) -> EventStream:
        """A generation as events, one per token. A failure before the first token is an error response."""
        pull = await self.begin(job, sites)

        def told(piece: GeneratedToken) -> bytes:  # in the worker's thread, so that the loop only passes bytes on
            return event(dumps(chunk(piece)))

        try:
            first = await pull.one(told)
        except BaseException:
            pull.close()
            raise

        async def all_of_it() -> AsyncGenerator[bytes]:
            for document in opening:
                yield event(dumps(document))
            sent, count = first, 0
            try:
                while sent is not None:
                    count += 1
                    yield sent
                    sent = await pull.one(told)
                if closing is not None:
                    yield event(dumps(closing(count)))
            except Exception as error:
                yield event(dumps(errors.body(error)[1]))
            yield DONE

        return EventStream(all_of_it(), pull.close, self.options.stall)
