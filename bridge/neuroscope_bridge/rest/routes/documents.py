"""Descriptions of answers in the OpenAPI document that several routes share."""

from __future__ import annotations

from typing import Any

from neuroscope_bridge.rest import errors

REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": errors.ErrorBody, "description": "The request is invalid; the body says why, and what to do."},
    "5XX": {"model": errors.ErrorBody, "description": "503: the limit of generations is reached. 500: an internal error."},
}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer; with `stream: true` its chunks as events.", "content": {"text/event-stream": {}}}
}
STREAMED_ACTIVATIONS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer with `activations` by hook id; with `stream: true` one event per token.",
        "content": {"text/event-stream": {}, "application/msgpack": {}, "application/safetensors": {}},
    }
}
