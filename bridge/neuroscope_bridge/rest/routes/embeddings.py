"""OpenAI's embeddings: a site's activations, pooled over each text's tokens."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray

from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.sites import ATTENTION_MATRICES, Component, Site
from neuroscope.errors import ArgumentError, NonFiniteActivationError
from neuroscope_bridge.rest import schemas
from neuroscope_bridge.rest.encoding import Json
from neuroscope_bridge.rest.generation import prompt_tokens
from neuroscope_bridge.rest.jobs import Server

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

#: Texts that are read at once.
_ROWS = 16


def routes(server: Server) -> APIRouter:
    router = APIRouter(tags=["embeddings"])

    @router.post("/v1/embeddings")
    async def embeddings(body: schemas.Embed) -> Any:
        """OpenAI's embeddings, of a text or several: the activations of `site`, pooled over each text's tokens."""
        pooled = await server.pool.find(body.model)
        texts = schemas.each(body.input)

        def prepare() -> tuple[TransformerModel, Site, list[list[int]]]:
            model = pooled.fresh()
            return model, embedded_site(body.site, model), [_checked(model, number, text) for number, text in enumerate(texts)]

        model, site, rows = await pooled.worker.run(prepare)
        found: list[NDArray[np.float32]] = []
        for first in range(0, len(rows), _ROWS):
            part = rows[first : first + _ROWS]
            found += await pooled.worker.run(embedded, model, site, part, body.pooling, normalize=body.normalize)
        count = sum(map(len, rows))
        return Json(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": index, "embedding": _written(one, body.encoding_format)}
                    for index, one in enumerate(found)
                ],
                "model": model.name,
                "ran": model.ran,
                "site": str(site),
                "pooling": body.pooling,
                "usage": {"prompt_tokens": count, "total_tokens": count},
            }
        )

    return router


def embedded_site(name: str | None, model: TransformerModel) -> Site:
    """The site of a name, by default the last layer's residual stream. Raises `SiteError`, and `ArgumentError` for one without a vector."""
    if name is None:
        return Site(model.architecture.layers - 1, Component.RESIDUAL)
    site = Site.parse(name).checked(model.architecture)
    if site.component in ATTENTION_MATRICES or site.component is Component.LOGITS or site.neuron is not None:
        raise ArgumentError(
            f"{site} has no vector to pool.", remedy='Choose another "site", such as 5.residual, 3.mlp or embedding.'
        )
    return site


def embedded(
    model: TransformerModel, site: Site, rows: list[list[int]], pooling: str, *, normalize: bool
) -> list[NDArray[np.float32]]:
    """A vector for each row of tokens: its activations at the site, pooled; heads one behind the other."""
    batch = TokenBatch.of(rows)
    values = model.engine.ops.to_numpy(model.run(batch, [site], logits=None)[site]).astype(np.float64)
    found = []
    for row, ids in zip(values, rows, strict=True):
        own = row[: len(ids)].reshape(len(ids), -1)
        inner = own[1:] if len(own) > 1 else own
        vector = {"mean": inner.mean(0), "max": inner.max(0), "first": own[0], "last": own[-1]}[pooling]
        if not np.isfinite(vector).all():
            raise NonFiniteActivationError(f"The activations are NaN or infinite at {site}.", site=site)
        length = float(np.linalg.norm(vector))
        found.append((vector / length if normalize and length else vector).astype(np.float32))
    return found


def _checked(model: TransformerModel, number: int, text: str | list[int]) -> list[int]:
    ids, context = prompt_tokens(model, None, text), model.architecture.context
    if not ids:
        raise ArgumentError(f"input {number} has no tokens.", remedy="Leave it out, or give a text.")
    if context and len(ids) > context:
        raise ArgumentError(
            f"input {number} has {len(ids)} tokens, more than the model's context of {context}.", remedy="Give it in parts."
        )
    return ids


def _written(vector: NDArray[np.float32], encoding: str | None) -> Any:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii") if encoding == "base64" else vector
