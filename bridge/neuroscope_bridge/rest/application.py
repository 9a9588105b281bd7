"""The HTTP application: every route, its errors and its OpenAPI document."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

import neuroscope
from neuroscope import events
from neuroscope.errors import ArgumentError, CancelledError, NeuroScopeError
from neuroscope_bridge.host import Host
from neuroscope_bridge.rest import errors, schemas
from neuroscope_bridge.rest.access import Guard, allowed
from neuroscope_bridge.rest.capture import Captured, Gatherer
from neuroscope_bridge.rest.encoding import JSON, dumps, encoded, encoding_for, values
from neuroscope_bridge.rest.generation import Piece, chat_tokens, text_tokens, token_text
from neuroscope_bridge.rest.hooks import site_of
from neuroscope_bridge.rest.jobs import HttpOptions, Job, Server
from neuroscope_bridge.rest.lens import Lens
from neuroscope_bridge.rest.openai import Answer, ChatAnswer, TextAnswer
from neuroscope_bridge.rest.shelf import Shelved

#: Seconds between two looks whether a client that waits for an analysis is still there.
_LOOK = 0.2

#: OpenAI's default for completions.
_COMPLETION_TOKENS = 16
#: And of one with activations, which are many.
_ACTIVATION_TOKENS = 100


class Json(Response):
    """JSON by the fast encoder."""

    media_type = JSON

    def render(self, content: Any) -> bytes:
        return dumps(content)


def application(host: Host, options: HttpOptions) -> Any:
    """The ASGI application that serves `host`'s models."""
    server = Server(host, options)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        await server.shelf.start()
        yield
        server.shelf.close()

    app = FastAPI(
        title="NeuroScope",
        version=neuroscope.__version__,
        summary="OpenAI-compatible generation that also answers activations.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        default_response_class=Json,
        responses=_REFUSALS,
    )
    _handle_errors(app)
    _models(app, server)
    _completions(app, server)
    _lens(app, server)
    _analyses(app, server)
    _hooks(app, server)
    _describe(app)
    _page(app)
    wrapped: Any = Guard(app, loopback=options.loopback, token=options.token, origins=options.origins)
    if options.origins:
        wrapped = CORSMiddleware(wrapped, allow_origins=list(options.origins), allow_methods=["*"], allow_headers=["*"])
    return wrapped


def _handle_errors(app: FastAPI) -> None:
    def deliberate(_: Request, error: Exception) -> Response:
        status, document = errors.body(error)
        return Json(document, status)

    def malformed(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return Json(errors.validation(error.errors()), 400)

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {404: "not-found", 405: "method-not-allowed"}
        fields = {
            "code": codes.get(error.status_code, "invalid"),
            "message": f"{request.method} {request.url.path}: {error.detail}.",
            "remedy": "/openapi.json describes every request.",
        }
        return Json(errors.envelope(fields), error.status_code, headers=dict(error.headers or {}))

    app.add_exception_handler(NeuroScopeError, deliberate)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Exception, deliberate)


def _models(app: FastAPI, server: Server) -> None:
    def card(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": server.shelf.created(name), "owned_by": "neuroscope"}

    def described(shelved: Shelved) -> dict[str, Any]:
        model = shelved.model
        return {
            **card(model.name),
            **model.as_dictionary(),
            "tokenizer": {"chat_template": model.has_chat_template},
            "context": model.architecture.context,
            "stand_in": server.shelf.stand_in(model.name),
        }

    @app.get("/health", tags=["server"])
    async def health(request: Request) -> Any:
        """Whether the server answers, and its version; to who may ask more, also its models and what runs."""
        found: dict[str, Any] = {"status": "ok", "version": neuroscope.__version__}
        if allowed(request.headers, server.options.token):
            shelf = server.shelf
            stand_ins = {name: target for name in shelf.names() if (target := shelf.stand_in(name)) is not None}
            found |= {"model": shelf.default, "models": shelf.names(), "stand_ins": stand_ins, "generations": shelf.running}
        return Json(found)

    @app.get("/v1/models", tags=["models"])
    async def models() -> Any:
        """The loaded models."""
        return Json({"object": "list", "data": [card(name) for name in server.shelf.names()]})

    @app.post("/v1/models/load", tags=["models"])
    async def load(request: schemas.Load) -> Any:
        """Load a model by name, folder or GGUF file; it then serves requests that name none. Answers its sizes."""
        return Json(described(await server.shelf.load(request.model)))

    @app.get("/v1/models/{name:path}", tags=["models"])
    async def model(name: str) -> Any:
        """One loaded model, with its sizes."""
        return Json(described(await server.shelf.find(name)))

    @app.post("/v1/tokenize", tags=["models"])
    async def tokenize(request: schemas.Tokenize) -> Any:
        """Token ids and each token's text."""
        shelved = await server.shelf.find(request.model)

        def work() -> dict[str, Any]:
            model = shelved.model
            if request.text is not None:
                ids = text_tokens(model, request.text, special=request.add_special_tokens)
            else:
                ids = _tokens(model, request.messages, None)
            texts = [token_text(model, id_) for id_ in ids]
            return {"object": "tokens", "model": model.name, "ids": ids, "tokens": texts, "count": len(ids)}

        return Json(await shelved.worker.run(work))


def _completions(app: FastAPI, server: Server) -> None:
    @app.post("/v1/chat/completions", tags=["generation"], responses=_STREAMED)
    async def chat(request: Request, body: schemas.Chat) -> Any:
        """OpenAI's chat completions, in the chat template of the model itself. `hooks` may steer, ablate and scale."""
        if body.max_tokens is not None and body.max_completion_tokens is not None:
            raise ArgumentError("max_tokens and max_completion_tokens name the same thing.", remedy="Give one.")
        job = await server.job(
            body.model,
            lambda model: _tokens(model, body.messages, None),
            body,
            body.hooks,
            max_tokens=body.max_tokens or body.max_completion_tokens,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            encoding=None,
        )
        return await finished(request, body, job, ChatAnswer(job.model, job.asked))

    @app.post("/v1/completions", tags=["generation"], responses=_STREAMED)
    async def completion(request: Request, body: schemas.Completion) -> Any:
        """OpenAI's completions: plain text goes on. `hooks` may steer, ablate and scale."""
        job = await server.job(
            body.model,
            lambda model: _tokens(model, None, body.prompt),
            body,
            body.hooks,
            max_tokens=body.max_tokens,
            usual=_COMPLETION_TOKENS,
            logprobs=body.logprobs,
            encoding=None,
        )
        return await finished(request, body, job, TextAnswer(job.model, job.asked))

    async def finished(request: Request, body: schemas.Generate, job: Job, answer: Answer) -> Response:
        if body.stream:
            return await server.stream(job, (), answer.opening(), answer.chunk, _usage(body, answer))
        await server.collect(request, job, answer.take)
        return Json(answer.whole())

    @app.post("/v1/chat/completions/with_activations", tags=["activations"], responses=_STREAMED_ACTIVATIONS)
    async def with_activations(request: Request, body: schemas.WithActivations) -> Any:
        """Generate, and answer what the hooks saw.

        The header `Accept: application/msgpack` or `application/safetensors` answers binary. A stream has one event per
        token, with what was seen in the step that chose it: the first one at the prompt's tokens, each later one at the
        token before.
        """
        encoding = encoding_for(request.headers.get("accept", ""), body.encoding)
        if body.stream and encoding not in ("json", "npy"):
            raise ArgumentError("A stream is text.", remedy='Accept text/event-stream, with encoding "json" or "npy".')

        job = await server.job(
            body.model,
            lambda model: _tokens(model, body.messages, body.prompt),
            body,
            body.activation_hooks if body.hooks is None else body.hooks,
            max_tokens=body.max_tokens,
            usual=_ACTIVATION_TOKENS,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            encoding=encoding,
        )
        answer = ChatAnswer(job.model, job.asked)
        gatherers = [Gatherer(capture, job.model, len(job.asked.prompt_ids)) for capture in job.plan.captures]
        if body.stream:

            def chunk(piece: Piece) -> dict[str, Any]:
                found = [gatherer.add(piece.step) for gatherer in gatherers]
                shown = {one.capture.id: values(one, encoding) for one in found if one is not None}
                token = {"index": piece.step.index, "id": piece.id}
                return {**answer.chunk(piece), "token": token, "activations": shown}

            return await server.stream(job, job.plan.sites, answer.opening(), chunk, _usage(body, answer))

        def take(piece: Piece) -> None:
            answer.take(piece)
            for gatherer in gatherers:
                gatherer.keep(gatherer.add(piece.step))

        await server.collect(request, job, take)

        def finish() -> tuple[bytes, str]:
            ids = [*job.asked.prompt_ids, *(piece.id for piece in answer.pieces)]
            seen: list[Captured] = [gatherer.whole() for gatherer in gatherers]
            document = {**answer.whole(), "token_ids": ids, "tokens": [token_text(job.model, id_) for id_ in ids]}
            return encoded(document, seen, encoding)

        content, media = await job.worker.run(finish)
        return Response(content, media_type=media)


def _lens(app: FastAPI, server: Server) -> None:
    @app.post("/v1/lens", tags=["activations"], responses=_STREAMED)
    async def lens(body: schemas.LensRequest) -> Any:
        """What the Lens page shows, as events: the first describes model and prompt, then one for each token with the
        logit lens and the residual stream's norm by layer, every head's attention, and the strongest neurons.
        """
        job = await server.job(
            body.model,
            lambda model: _tokens(model, body.messages, body.prompt),
            body,
            body.hooks,
            max_tokens=body.max_tokens,
            logprobs=body.top,
            encoding=None,
        )
        shown = Lens(job.model, job.asked, body.top, body.neurons)
        return await server.stream(job, shown.sites, [shown.opening()], shown.event)


def _analyses(app: FastAPI, server: Server) -> None:
    @app.get("/v1/analyze", tags=["analyses"])
    async def analyses() -> Any:
        """The analyses by name: what each asks, and what it works on."""
        from neuroscope.analyses.registry import ANALYSES

        return Json({"object": "list", "data": [analysis.as_dictionary() for analysis in ANALYSES]})

    @app.post("/v1/analyze/{name}", tags=["analyses"])
    async def analyze(request: Request, name: str, body: schemas.Analyze) -> Any:
        """Run an analysis, such as mathematical_reasoning, factual_recall, creative_writing, attention_patterns or
        residual_stream; GET /v1/analyze lists them. A client that leaves ends it.
        """
        from neuroscope.analyses import registry

        registry.get(name)
        shelved = await server.shelf.find(body.model)
        gone = threading.Event()
        on: Any = [pair.model_dump() for pair in body.on] if isinstance(body.on, list) else body.on

        def work() -> dict[str, Any]:
            with events.cancellable(gone.is_set):
                result = registry.analyze(shelved.fresh(), name, on, seed=body.seed)
            return {
                "object": "analysis",
                "name": registry.get(name).name,
                "model": shelved.model.name,
                "ran": shelved.model.ran,
                "summary": result.summary(),
                "result": result.as_dictionary(),
            }

        running = asyncio.ensure_future(server.shelf.analyst.run(work))
        try:
            while not (await asyncio.wait({running}, timeout=_LOOK))[0]:
                if await request.is_disconnected():
                    raise CancelledError("The client left.")
            return Json(running.result())
        finally:
            gone.set()


def _hooks(app: FastAPI, server: Server) -> None:
    @app.get("/v1/activations/hooks", tags=["activations"])
    async def hooks() -> Any:
        """The registered hooks."""
        shown = [spec.model_dump(exclude_unset=True) | {"hook_id": name} for name, spec in server.hooks.all().items()]
        return Json({"object": "list", "data": shown})

    @app.post("/v1/activations/hooks", tags=["activations"])
    async def register(request: schemas.RegisterHooks) -> Any:
        """Keep hooks under their ids. They act in the requests that name them, and in no other."""
        if server.shelf.default is not None:
            shelved = await server.shelf.find(None)
            for spec in request.hooks:
                site_of(spec, shelved.model)
        return Json({"object": "list", "registered": server.hooks.add(request.hooks)})

    @app.delete("/v1/activations/hooks", tags=["activations"])
    async def clear() -> Any:
        """Forget every registered hook."""
        return Json({"object": "list", "removed": server.hooks.remove(None)})

    @app.delete("/v1/activations/hooks/{hook_id:path}", tags=["activations"])
    async def remove(hook_id: str) -> Any:
        """Forget one hook."""
        return Json({"object": "list", "removed": server.hooks.remove(hook_id)})


def _page(app: FastAPI) -> None:
    folder = files("neuroscope_bridge.rest").joinpath("page")

    @app.get("/", include_in_schema=False)
    async def page() -> Any:
        return Response(folder.joinpath("index.html").read_bytes(), media_type="text/html", headers=_PAGE_HEADERS)

    app.mount("/page", StaticFiles(directory=str(folder)))


_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _usage(body: schemas.Generate, answer: Answer) -> Callable[[int], dict[str, Any]] | None:
    """The closing chunk, if it was asked for."""
    options = body.stream_options
    return answer.closing if options is not None and options.include_usage else None


def _tokens(model: Any, messages: Sequence[schemas.Message] | None, prompt: str | list[int] | None) -> list[int]:
    """The prompt's tokens: messages in the model's template, or a text, or the tokens themselves."""
    if messages is not None:
        return chat_tokens(model, [{"role": one.role, "content": one.text} for one in messages])
    assert prompt is not None
    return text_tokens(model, prompt) if isinstance(prompt, str) else prompt


_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": errors.ErrorBody, "description": "The request cannot be answered; says why, and what to do."},
    "5XX": {"model": errors.ErrorBody, "description": "503: as many generations run as may. 500: a fault of the server."},
}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer; with `stream: true` its chunks as events.", "content": {"text/event-stream": {}}}
}
_STREAMED_ACTIVATIONS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer with `activations` by hook id; with `stream: true` one event per token.",
        "content": {"text/event-stream": {}, "application/msgpack": {}, "application/safetensors": {}},
    }
}


def _describe(app: FastAPI) -> None:
    """The OpenAPI document says 400 where FastAPI would say 422."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            for path in made["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                made["components"]["schemas"].pop(name, None)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
