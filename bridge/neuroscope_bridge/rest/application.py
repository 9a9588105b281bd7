"""The HTTP application: its routes, its errors and its OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

import neuroscope
from neuroscope.errors import NeuroScopeError
from neuroscope_bridge.rest import errors
from neuroscope_bridge.rest.access import Doorkeeper, Guard
from neuroscope_bridge.rest.attending import Attending
from neuroscope_bridge.rest.encoding import Json
from neuroscope_bridge.rest.jobs import Server
from neuroscope_bridge.rest.routes import activations, analyses, completions, edits, embeddings, hooks, models, page, probes
from neuroscope_bridge.rest.routes.documents import REFUSALS


def application(server: Server) -> Any:
    """The ASGI application of a server."""
    options = server.options

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        await server.pool.start()
        yield
        server.pool.close()

    app = FastAPI(
        title="NeuroScope",
        version=neuroscope.__version__,
        summary="OpenAI-compatible generation that also returns activations.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        default_response_class=Json,
        responses=REFUSALS,
    )
    _handle_errors(app)
    for subject in (models, completions, embeddings, activations, analyses, hooks, edits, probes, page):
        app.include_router(subject.routes(server))
    _describe(app)
    wrapped: Any = Guard(Attending(app), options.current_token)
    if options.origins:
        wrapped = CORSMiddleware(wrapped, allow_origins=list(options.origins), allow_methods=["*"], allow_headers=["*"])
    return Doorkeeper(wrapped, loopback=options.loopback, origins=options.origins)


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
