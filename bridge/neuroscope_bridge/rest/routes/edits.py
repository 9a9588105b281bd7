"""Edits of a loaded model's weights: listed, taken back, and applied where the server consents."""

from __future__ import annotations

import base64
import binascii
import contextvars
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from neuroscope import places
from neuroscope.errors import ArgumentError, did_you_mean
from neuroscope_bridge.rest import schemas
from neuroscope_bridge.rest.encoding import Json
from neuroscope_bridge.rest.errors import EditNotFoundError, ForbiddenError
from neuroscope_bridge.rest.jobs import Server

if TYPE_CHECKING:
    from neuroscope.editing.edit import WeightEdit
    from neuroscope.models.model import TransformerModel


def identity(edit: WeightEdit) -> str:
    """An edit's id: the hash of the weights it touches, before and after."""
    told = "".join(f"{weight.name} {weight.before} {weight.after}\n" for weight in edit.weights)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def routes(server: Server) -> APIRouter:
    router = APIRouter(tags=["edits"])

    def listed(edit: WeightEdit) -> dict[str, Any]:
        return {"id": identity(edit), "object": "edit", **edit.as_dictionary()}

    def state(model: TransformerModel, **fields: Any) -> Any:
        data = [listed(edit) for edit in model.edits]
        return Json({"object": "list", "model": model.name, "weights_hash": model.weights_hash, "data": data, **fields})

    @router.get("/v1/edits")
    async def edits(model: schemas.Query = None) -> Any:
        """The edits on a model's weights, the oldest first, whoever applied them."""
        pooled = await server.pool.loaded(model)
        return await pooled.worker.run(lambda: state(pooled.fresh()))

    @router.post("/v1/edits")
    async def apply(request: schemas.ApplyEdit) -> Any:
        """Apply an edit, whole or not at all. It holds for everyone who uses the model, so the server must have been started with
        --allow-edits.
        """
        if not server.options.edits:
            raise ForbiddenError(
                "This server does not let weights be edited over HTTP.",
                remedy="Start it with `neuroscope serve --allow-edits`.",
            )
        pooled = await server.pool.find(request.model)

        def work() -> Any:
            model = pooled.fresh()
            edit = model.apply_edit(_edit(request, model))
            return state(model, applied=identity(edit))

        return await pooled.worker.run(work)

    @router.delete("/v1/edits/{edit_id}")
    async def revert(edit_id: str, model: schemas.Query = None) -> Any:
        """Take an edit back, bit for bit. An edit that another lies above, or whose weights were written since, is an error."""
        pooled = await server.pool.loaded(model)

        def work() -> Any:
            fresh = pooled.fresh()
            known = {identity(edit): edit for edit in fresh.edits}
            if edit_id not in known:
                raise EditNotFoundError(
                    f"{fresh.name} has no edit {edit_id!r}.", remedy=did_you_mean(edit_id, known, listing="Applied")
                )
            fresh.revert(known[edit_id])
            return state(fresh, reverted=[edit_id])

        return await pooled.worker.run(work)

    @router.delete("/v1/edits")
    async def revert_all(model: schemas.Query = None) -> Any:
        """Take every edit back, the last first."""
        pooled = await server.pool.loaded(model)

        def work() -> Any:
            fresh = pooled.fresh()
            return state(fresh, reverted=[identity(edit) for edit in fresh.revert_edits()])

        return await pooled.worker.run(work)

    return router


def _edit(request: schemas.ApplyEdit, model: TransformerModel) -> WeightEdit:
    from neuroscope.editing.edit import WeightEdit

    if request.scaling is not None:
        return WeightEdit.scaling(request.scaling.weights, request.scaling.by, model, request.scaling.title)
    assert request.file is not None
    try:
        data = base64.b64decode(request.file, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ArgumentError("file is not base64.", remedy="Send the bytes of an .edit file as base64.") from error
    with places.own(), tempfile.TemporaryDirectory(prefix="neuroscope-edit-") as folder:
        path = Path(folder) / "received.edit"
        path.write_bytes(data)
        # in a context of its own: requests may not read that folder, and it is ours
        return contextvars.Context().run(WeightEdit.load, str(path))
