"""Registered hooks, for requests that name them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from neuroscope_bridge.rest import schemas
from neuroscope_bridge.rest.encoding import Json
from neuroscope_bridge.rest.hooks import site_of
from neuroscope_bridge.rest.jobs import Server


def routes(server: Server) -> APIRouter:
    router = APIRouter(tags=["activations"])

    @router.get("/v1/activations/hooks")
    async def hooks() -> Any:
        """The registered hooks."""
        shown = [spec.model_dump(exclude_unset=True) | {"hook_id": name} for name, spec in server.hooks.all().items()]
        return Json({"object": "list", "data": shown})

    @router.post("/v1/activations/hooks")
    async def register(request: schemas.RegisterHooks) -> Any:
        """Register hooks. They act only in requests that name them."""
        if server.pool.default is not None:
            pooled = await server.pool.find(None)
            for spec in request.hooks:
                site_of(spec, pooled.model)
        return Json({"object": "list", "registered": server.hooks.add(request.hooks)})

    @router.delete("/v1/activations/hooks")
    async def clear() -> Any:
        """Remove every registered hook."""
        return Json({"object": "list", "removed": server.hooks.remove(None)})

    @router.delete("/v1/activations/hooks/{hook_id:path}")
    async def remove(hook_id: str) -> Any:
        """Remove one hook."""
        return Json({"object": "list", "removed": server.hooks.remove(hook_id)})

    return router
