"""OpenAI's completions, of chats and of plain text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from neuroscope.errors import ArgumentError
from neuroscope_bridge.rest import schemas
from neuroscope_bridge.rest.echo import Echo, batches, echoes
from neuroscope_bridge.rest.encoding import Json
from neuroscope_bridge.rest.generation import prompt_tokens
from neuroscope_bridge.rest.jobs import Job, Server
from neuroscope_bridge.rest.openai import Answer, ChatAnswer, TextAnswers
from neuroscope_bridge.rest.routes.documents import STREAMED

#: OpenAI's default for completions.
_USUAL_TOKENS = 16


def routes(server: Server) -> APIRouter:
    router = APIRouter(tags=["generation"])

    @router.post("/v1/chat/completions", responses=STREAMED)
    async def chat(body: schemas.Chat) -> Any:
        """OpenAI's chat completions, in the model's chat template. `hooks` may steer, ablate and scale."""
        if body.max_tokens is not None and body.max_completion_tokens is not None:
            raise ArgumentError("max_tokens and max_completion_tokens are synonyms.", remedy="Give one.")
        job = await server.job(
            body.model,
            lambda model: [prompt_tokens(model, body.messages, None)],
            body,
            body.hooks,
            max_tokens=body.max_tokens or body.max_completion_tokens,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            encoding=None,
        )
        return await finished(body, job, ChatAnswer(job.model, job.asked))

    @router.post("/v1/completions", responses=STREAMED)
    async def completion(body: schemas.Completion) -> Any:
        """OpenAI's completions of plain text, of one prompt or several. `hooks` may steer, ablate and scale."""
        prompts = schemas.each(body.prompt)
        job = await server.job(
            body.model,
            lambda model: [prompt_tokens(model, None, prompt) for prompt in prompts],
            body,
            body.hooks,
            max_tokens=body.max_tokens,
            usual=_USUAL_TOKENS,
            logprobs=body.logprobs,
            encoding=None,
        )
        echoed: list[Echo] | None = None
        if body.echo:
            echoed, read = [], 0
            for part in batches(job.model, job.requests):
                echoed += await job.worker.run(echoes, job.model, prompts[read : read + len(part)], part)
                read += len(part)
        return await finished(body, job, TextAnswers(job.model, job.requests, echoed, alone=body.max_tokens == 0))

    async def finished(body: schemas.Generate, job: Job, answer: Answer | TextAnswers) -> Response:
        if body.max_tokens == 0:
            job = replace(job, requests=())
        if body.stream:
            return await server.stream(job, (), answer.opening(), answer.chunk, answer.last(body.stream_options))
        await server.collect(job, answer.take)
        return Json(answer.whole())

    return router
