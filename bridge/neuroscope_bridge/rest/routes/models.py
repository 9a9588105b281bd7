"""The loaded models, loading one, and its tokens."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

import neuroscope
from neuroscope_bridge.rest import schemas
from neuroscope_bridge.rest.access import allowed
from neuroscope_bridge.rest.encoding import Json
from neuroscope_bridge.rest.generation import prompt_tokens, text_tokens, token_text
from neuroscope_bridge.rest.jobs import Server
from neuroscope_bridge.rest.pool import PooledModel


def routes(server: Server) -> APIRouter:
    router = APIRouter(tags=["models"])

    def card(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": server.pool.created(name), "owned_by": "neuroscope"}

    def described(pooled: PooledModel) -> dict[str, Any]:
        model = pooled.model
        return {
            **card(model.name),
            **model.as_dictionary(),
            "tokenizer": {"chat_template": model.has_chat_template},
            "context": model.architecture.context,
            "stand_in": server.pool.stand_in(model.name),
        }

    @router.get("/health", tags=["server"])
    async def health(request: Request) -> Any:
        """Status and version; with access, also models and running generations. 503 while the server's own model is being loaded."""
        starting = server.pool.is_starting
        found: dict[str, Any] = {"status": "loading" if starting else "ok", "version": neuroscope.__version__}
        if allowed(request.headers, server.options.current_token()):
            pool = server.pool
            stand_ins = {name: target for name in pool.names() if (target := pool.stand_in(name)) is not None}
            found |= {"model": pool.default, "models": pool.names(), "stand_ins": stand_ins, "generations": pool.running}
            found["loading"] = pool.loading
        return Json(found, 503 if starting else 200)

    @router.get("/v1/models")
    async def models() -> Any:
        """The loaded models."""
        return Json({"object": "list", "data": [card(name) for name in server.pool.names()]})

    @router.post("/v1/models/load")
    async def load(request: schemas.Load) -> Any:
        """Load a model by name, folder or GGUF file, with the hooks that were saved in its folder. Returns its sizes."""
        return Json(described(await server.pool.load(request.model, request.dtype)))

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> Any:
        """One loaded model, with its sizes."""
        return Json(described(await server.pool.loaded(name)))

    @router.delete("/v1/models/{name:path}")
    async def unload(name: str) -> Any:
        """Unload a model; its memory is free when the last request that uses it ends. The server's own model (--model) stays."""
        return Json({"id": await server.pool.unload(name), "object": "model", "deleted": True})

    @router.post("/v1/tokenize")
    async def tokenize(request: schemas.Tokenize) -> Any:
        """Token ids and each token's text."""
        pooled = await server.pool.find(request.model)

        def work() -> dict[str, Any]:
            model = pooled.model
            if request.text is not None:
                ids = text_tokens(model, request.text, special=request.add_special_tokens)
            else:
                ids = prompt_tokens(model, request.messages, None)
            texts = [token_text(model, id_) for id_ in ids]
            return {"object": "tokens", "model": model.name, "ids": ids, "tokens": texts, "count": len(ids)}

        return Json(await pooled.worker.run(work))

    return router
