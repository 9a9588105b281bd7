"""Answers with activations as JSON, as msgpack, or as one safetensors file.

json, npy     a JSON document; values as nested lists, or as base64 of an .npy file
msgpack       the same document as msgpack; values are the array's bytes, little-endian, in C order
safetensors   a tensor for each hook id; the document without values is the metadata `response`
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
import orjson
from safetensors.numpy import save
from starlette.responses import Response

from neuroscope.errors import ArgumentError
from neuroscope_bridge.rest.capture import Captured

MSGPACK, SAFETENSORS, JSON = "application/msgpack", "application/safetensors", "application/json"

_ACCEPTED = {
    MSGPACK: "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
    SAFETENSORS: "safetensors",
    "application/x-safetensors": "safetensors",
}


def encoding_for(accept: str, wanted: str) -> str:
    """json, npy, msgpack or safetensors, from the header Accept and the request's own field."""
    for part in accept.lower().split(","):
        found = _ACCEPTED.get(part.split(";")[0].strip())
        if found is not None:
            return found
    return wanted


def dumps(document: Any) -> bytes:
    """JSON; arrays as lists with the shortest digits that round-trip, NaN as null."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def values(captured: Captured, encoding: str) -> dict[str, Any]:
    """One hook's part of a document."""
    about = captured.about()
    if captured.array is None:
        return about
    array = np.ascontiguousarray(captured.array)
    match encoding:
        case "json":
            # orjson writes float32 with the fewest digits but does not support float16
            about["data"] = array.astype(np.float32) if array.dtype == np.float16 else array
        case "npy":
            file = io.BytesIO()
            np.save(file, array, allow_pickle=False)
            about["data"] = base64.b64encode(file.getvalue()).decode("ascii")
            about["encoding"] = "npy"
        case "msgpack":
            about["data"] = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return about


def encoded(document: Mapping[str, Any], activations: Sequence[Captured], encoding: str) -> tuple[bytes, str]:
    """The body of an answer and its media type."""
    whole = {**document, "activations": {one.capture.id: values(one, encoding) for one in activations}}
    match encoding:
        case "json" | "npy":
            return dumps(whole), JSON
        case "msgpack":
            return bytes(msgpack.packb(whole)), MSGPACK
    tensors = {one.capture.id: np.ascontiguousarray(one.array) for one in activations if one.array is not None}
    if "__metadata__" in tensors:
        raise ArgumentError("A hook called __metadata__ cannot be written as safetensors.", remedy="Choose another hook_id.")
    return save(tensors, metadata={"response": dumps(whole).decode()}), SAFETENSORS


class Json(Response):
    """A JSON response."""

    media_type = JSON

    def render(self, content: Any) -> bytes:
        return dumps(content)
