"""Registered probes, for generations that name one."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import ConfigDict, Field, StrictInt, model_validator

from neuroscope.errors import ArgumentError
from neuroscope_bridge.rest.encoding import Json
from neuroscope_bridge.rest.jobs import Server
from neuroscope_bridge.rest.probes import described, read_file
from neuroscope_bridge.rest.schemas import Number, Request, Text

Samples = Annotated[list[Text], Field(min_length=1, max_length=10_000)]


class TrainProbe(Request):
    """A probe to train on texts with and without a quality, and to calibrate on others without it; or `file`, the bytes of a .probe file
    as base64.
    """

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        json_schema_extra={
            "examples": [{"name": "joy", "positive": ["I love it.", "…"], "negative": ["I hate it.", "…"], "layer": 4}]
        },
    )

    model: Text | None = None
    name: Annotated[Text | None, Field(min_length=1, max_length=200)] = None
    positive: Samples | None = None
    negative: Samples | None = None
    layer: Annotated[StrictInt | None, Field(ge=0, le=2**31)] = None
    component: Text = "residual"
    reading: Annotated[Literal["segments", "tokens"], Field(description="At the ends of segments, or at every token.")] = (
        "segments"
    )
    calibrating: Annotated[Samples | None, Field(description="Further texts without the quality, which set the threshold.")] = (
        None
    )
    false_positive_rate: Annotated[Number, Field(gt=0, lt=1)] = 0.02
    file: Annotated[Text | None, Field(max_length=32 << 20)] = None

    @model_validator(mode="after")
    def _one(self) -> TrainProbe:
        given = [getattr(self, name) is not None for name in ("name", "positive", "negative", "layer")]
        if self.file is not None and any(given):
            raise ValueError("give either file, or name, positive, negative and layer")
        if self.file is None and not all(given):
            raise ValueError("a probe to train needs name, positive, negative and layer")
        return self


def routes(server: Server) -> APIRouter:
    router = APIRouter(tags=["probes"])

    @router.get("/v1/probes")
    async def probes() -> Any:
        """The registered probes."""
        return Json({"object": "list", "data": [described(probe) for probe in server.probes.all().values()]})

    @router.post("/v1/probes")
    async def register(body: TrainProbe) -> Any:
        """Train a probe, or take one from a file. `probe` in /v1/lens and /v1/chat/completions/with_activations then scores every token."""
        pooled = await server.pool.find(body.model)

        def made() -> Any:
            from neuroscope.safety.probe import Probe

            if body.file is not None:
                probe = read_file(_bytes(body.file))
                probe.check(pooled.model)
                return probe
            assert body.positive is not None
            assert body.negative is not None
            assert body.layer is not None
            model = pooled.fresh()
            probe = Probe.train(str(body.name), body.positive, body.negative, model, body.layer, body.component, body.reading)
            if body.calibrating is None:
                return probe
            return probe.calibrate(body.calibrating, model, body.false_positive_rate)

        probe = await server.pool.analyst.run(made)
        server.probes.add(probe)
        return Json(described(probe))

    @router.delete("/v1/probes/{name:path}")
    async def remove(name: str) -> Any:
        """Remove a probe."""
        server.probes.remove(name)
        return Json({"object": "list", "removed": [name]})

    return router


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ArgumentError("file is not base64.", remedy="Send the bytes of a .probe file as base64.") from error
