"""The bytes that every implementation agrees on."""

from __future__ import annotations

from fractions import Fraction
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from neuroscope_bridge.wire import BlockSource, Callback, ClassName, Handle, decode, encode
from neuroscope_bridge.wire.errors import WireError
from neuroscope_dsl import Workspace
from neuroscope_dsl.runtime.values import Array, Association, Character, Symbol

VECTORS = [
    line.split("\t")
    for line in files("neuroscope_bridge.wire").joinpath("vectors.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
WORKSPACE = Workspace()


def frames_of(text: str) -> list[bytes]:
    return [b"" if part == "-" else bytes.fromhex(part) for part in text.split(" ")]


def value_of(kind: str, parts: Any) -> Any:
    match kind:
        case "symbol":
            return Symbol(parts)
        case "class":
            return ClassName(parts)
        case "character":
            return Character(chr(parts))
        case "text":
            return bytes(parts).decode()
        case "fraction":
            return Fraction(*parts)
        case "association":
            return Association(*parts)
        case "handle":
            return Handle(*parts)
        case "callback":
            return Callback(*parts)
        case "block":
            source, captured = parts
            return BlockSource(source, dict(zip(captured[::2], captured[1::2], strict=True)))
        case "tensor":
            dtype, shape, data = parts
            return np.frombuffer(bytes(data), dtype=dtype).reshape(shape)
    return parts


@pytest.mark.parametrize(("kind", "text", "expression"), VECTORS, ids=[f"{v[0]}-{v[1][:40]}" for v in VECTORS])
def test_vector(kind: str, text: str, expression: str) -> None:
    frames = frames_of(text)
    expected = value_of(kind, WORKSPACE.evaluate(expression))
    if kind == "refused":
        with pytest.raises(WireError):
            decode(frames)
        return
    found = decode(frames, array=Array)
    if kind == "tensor":
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
        assert found.shape == expected.shape
    else:
        assert found == expected
        assert type(found) is type(expected) or isinstance(expected, (dict, bytearray))
    if kind != "read":
        assert [bytes(frame) for frame in encode(expected)] == frames


def test_there_is_a_vector_for_every_kind() -> None:
    kinds = {kind for kind, _, _ in VECTORS}
    assert kinds >= {"value", "read", "symbol", "class", "integer", "fraction", "handle", "block", "tensor", "refused"}
