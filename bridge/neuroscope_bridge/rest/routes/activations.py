"""Generation with activations: at the sites of hooks, or for the Lens page."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from neuroscope.errors import ArgumentError
from neuroscope_bridge.rest import schemas
from neuroscope_bridge.rest.capture import Captured, Gatherer
from neuroscope_bridge.rest.encoding import encoded, encoding_for, values
from neuroscope_bridge.rest.generation import GeneratedToken, prompt_tokens, token_text
from neuroscope_bridge.rest.jobs import Server
from neuroscope_bridge.rest.lens import Lens
from neuroscope_bridge.rest.openai import ChatAnswer
from neuroscope_bridge.rest.probes import Along
from neuroscope_bridge.rest.routes.documents import STREAMED, STREAMED_ACTIVATIONS
from neuroscope_bridge.rest.stream import LongAnswer

#: Default number of tokens, small because activations are large.
_USUAL_TOKENS = 100


def routes(server: Server) -> APIRouter:
    router = APIRouter(tags=["activations"])

    @router.post("/v1/chat/completions/with_activations", responses=STREAMED_ACTIVATIONS)
    async def with_activations(request: Request, body: schemas.WithActivations) -> Any:
        """Generate, and return the hooks' activations.

        The header `Accept: application/msgpack` or `application/safetensors` selects a binary answer. A stream has one event
        per token, with the activations of the step that chose it: the first one at the prompt's tokens, each later one at the
        token before.
        """
        encoding = encoding_for(request.headers.get("accept", ""), body.encoding)
        if body.stream and encoding not in ("json", "npy"):
            raise ArgumentError("A stream cannot be binary.", remedy='Accept text/event-stream, with encoding "json" or "npy".')

        job = await server.job(
            body.model,
            lambda model: [prompt_tokens(model, body.messages, body.prompt)],
            body,
            body.activation_hooks if body.hooks is None else body.hooks,
            max_tokens=body.max_tokens,
            usual=_USUAL_TOKENS,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            encoding=encoding,
        )
        job = await server.watching(job, body.probe)
        answer = ChatAnswer(job.model, job.asked)
        along = None if job.plan.watch is None else Along(job.plan.watch, job.asked.prompt_ids)
        gatherers = [Gatherer(capture, job.model, len(job.asked.prompt_ids)) for capture in job.plan.captures]
        if body.stream:

            def chunk(piece: GeneratedToken) -> dict[str, Any]:
                found = [gatherer.add(piece.step) for gatherer in gatherers]
                shown = {one.capture.id: values(one, encoding) for one in found if one is not None}
                token = {"index": piece.step.index, "id": piece.id}
                scored = {} if along is None else {"probe": {**along.watch.opening(), **along.add(piece)}}
                return {**answer.chunk(piece), "token": token, "activations": shown, **scored}

            return await server.stream(job, job.plan.sites, answer.opening(), chunk, answer.last(body.stream_options))

        def take(piece: GeneratedToken) -> None:
            answer.take(piece)
            if along is not None:
                along.add(piece)
            for gatherer in gatherers:
                gatherer.keep(gatherer.add(piece.step))

        def finish() -> tuple[bytes, str]:
            ids = [*job.asked.prompt_ids, *(piece.id for piece in answer.pieces)]
            seen: list[Captured] = [gatherer.whole() for gatherer in gatherers]
            document = {**answer.whole(), "token_ids": ids, "tokens": [token_text(job.model, id_) for id_ in ids]}
            document |= {} if along is None else {"probe": along.whole()}
            return encoded(document, seen, encoding)

        room = server.room(job)
        try:
            await server.collect(job, take)
            content, media = await job.worker.run(finish)
        except BaseException:
            room.free()
            raise
        return LongAnswer(content, media, room.free)

    @router.post("/v1/lens", responses=STREAMED)
    async def lens(body: schemas.LensRequest) -> Any:
        """The data of the Lens page, as events: the first describes model and prompt, then one for each token with the logit
        lens and the residual stream's norm by layer, every head's attention, and the strongest neurons.
        """
        job = await server.job(
            body.model,
            lambda model: [prompt_tokens(model, body.messages, body.prompt)],
            body,
            body.hooks,
            max_tokens=body.max_tokens,
            logprobs=body.top,
            encoding=None,
        )
        job = await server.watching(job, body.probe)
        shown = Lens(job.model, job.asked, body.top, body.neurons, job.plan.watch)
        return await server.stream(job, shown.sites, [shown.opening()], shown.event)

    return router
