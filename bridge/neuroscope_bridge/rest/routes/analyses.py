"""The analyses."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from neuroscope.analyses import registry
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
            return {
                "object": "analysis",
                "name": registry.get(name).name,
                "model": pooled.model.name,
                "ran": pooled.model.ran,
                "summary": result.summary(),
                "result": result.as_dictionary(),
            }

        return Json(await server.pool.analyst.run(work))

    return router
