"""The analyses, and patching."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from neuroscope.analyses import registry
from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.results import Result
from neuroscope_bridge.rest import schemas
from neuroscope_bridge.rest.encoding import Json
from neuroscope_bridge.rest.jobs import Server


def routes(server: Server) -> APIRouter:
    router = APIRouter(tags=["analyses"])

    @router.get("/v1/analyze")
    async def analyses() -> Any:
        """The analyses, with question and input."""
        return Json({"object": "list", "data": [analysis.as_dictionary() for analysis in registry.ANALYSES]})

    @router.post("/v1/analyze/{name}")
    async def analyze(name: str, body: schemas.Analyze) -> Any:
        """Run an analysis, such as mathematical_reasoning, factual_recall, creative_writing, attention_patterns or
        residual_stream; GET /v1/analyze lists them. It ends if the client disconnects.
        """
        registry.get(name)
        pooled = await server.pool.find(body.model)
        on: Any = [pair.model_dump() for pair in body.on] if isinstance(body.on, list) else body.on

        def work() -> dict[str, Any]:
            result = registry.analyze(pooled.fresh(), name, on, seed=body.seed)
            return {**_described("analysis", pooled, result), "name": registry.get(name).name}

        return Json(await server.pool.analyst.run(work))

    @router.post("/v1/patch")
    async def patch(body: schemas.Patch) -> Any:
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

        return Json(await server.pool.analyst.run(work))

    return router


def _described(kind: str, pooled: Any, result: Result) -> dict[str, Any]:
    return {
        "object": kind,
        "model": pooled.model.name,
        "ran": pooled.model.ran,
        "summary": result.summary(),
        "result": result.as_dictionary(),
    }
