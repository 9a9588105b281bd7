"""The Lens page and its files, and the reference of all requests."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from neuroscope_bridge.rest import reference
from neuroscope_bridge.rest.jobs import Server

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'",
}


def routes(server: Server) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    folder = files("neuroscope_bridge.rest").joinpath("page")

    @router.get("/")
    async def page() -> Any:
        return Response(folder.joinpath("index.html").read_bytes(), media_type="text/html", headers=_HEADERS)

    @router.get("/docs")
    async def docs(request: Request) -> Any:
        return Response(reference.page(request.app.openapi()), media_type="text/html", headers=_HEADERS)

    router.mount("/page", StaticFiles(directory=str(folder)))
    return router
