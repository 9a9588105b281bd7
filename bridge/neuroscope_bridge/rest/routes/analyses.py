"""The analyses, and patching."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request

from neuroscope import events
from neuroscope.analyses import registry
from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.errors import CancelledError
from neuroscope.results import Result
from neuroscope_bridge.rest import schemas
from neuroscope_bridge.rest.encoding import Json
from neuroscope_bridge.rest.jobs import Server

#: Seconds between checks of whether the client is still connected.
_LOOK = 0.2


def routes(server: Server) -> APIRouter:
    router = APIRouter(tags=["analyses"])

    @router.get("/v1/analyze")
    async def analyses() -> Any:
        """The analyses, with question and input."""
        return Json({"object": "list", "data": [analysis.as_dictionary() for analysis in registry.ANALYSES]})

    @router.post("/v1/analyze/{name}")
    async def analyze(request: Request, name: str, body: schemas.Analyze) -> Any:
        """Run an analysis, such as mathematical_reasoning, factual_recall, creative_writing, attention_patterns or
        residual_stream; GET /v1/analyze lists them. It ends if the client disconnects.
        """
        registry.get(name)
        pooled = await server.pool.find(body.model)
        on: Any = [pair.model_dump() for pair in body.on] if isinstance(body.on, list) else body.on

        def work() -> dict[str, Any]:
            result = registry.analyze(pooled.fresh(), name, on, seed=body.seed)
            return {**_described("analysis", pooled, result), "name": registry.get(name).name}

        return Json(await _while_listening(server, request, work))

    @router.post("/v1/patch")
    async def patch(request: Request, body: schemas.Patch) -> Any:
        """Patch sites on prompt pairs of your own, and answer the map: the share of the effect at each site, with its interval. With
        `receivers` it is path patching. It ends if the client disconnects.
        """
        pooled = await server.pool.find(body.model)

        def work() -> dict[str, Any]:
            patcher = ActivationPatcher(pooled.fresh(), seed=body.seed)
            pairs = [pair.model_dump(exclude_none=True) for pair in body.pairs]
            if body.receivers is not None:
                result = patcher.patch_paths(pairs, body.sites, body.receivers, metric=body.metric)
            else:
                result = patcher.patch(
                    pairs,
                    body.sites,
                    direction=body.direction,
                    metric=body.metric,
                    replacement=body.replacement,
                    method=body.method,
                )
            return _described("patching_map", pooled, result)

        return Json(await _while_listening(server, request, work))

    return router


def _described(kind: str, pooled: Any, result: Result) -> dict[str, Any]:
    return {
        "object": kind,
        "model": pooled.model.name,
        "ran": pooled.model.ran,
        "summary": result.summary(),
        "result": result.as_dictionary(),
    }


async def _while_listening(server: Server, request: Request, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` answers in the analyst's thread; it is cancelled if the client disconnects."""
    gone = threading.Event()

    def cancellable() -> dict[str, Any]:
        with events.cancellable(gone.is_set):
            return work()

    running = asyncio.ensure_future(server.pool.analyst.run(cancellable))
    try:
        while not (await asyncio.wait({running}, timeout=_LOOK))[0]:
            if await request.is_disconnected():
                raise CancelledError("The client disconnected.")
        return running.result()
    finally:
        gone.set()
