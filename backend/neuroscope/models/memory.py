"""The number of parameters of a checkpoint, from the headers of its files, without reading weights.

A safetensors file begins with eight bytes of length and a JSON header with every tensor's type and shape. A GGUF
file begins with its metadata and a table of tensors (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from neuroscope.engines.weight_files import safetensors_files
from neuroscope.errors import ModelLoadError

_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit on a header
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # GGUF's value types → bytes
_TABLES = frozenset({"rope_freqs.weight"})  # of the rotary embedding: stored as a tensor but not a parameter


def count_parameters(path: Path) -> int | None:
    """Number of parameters in a model's folder or a GGUF file; None for pickles, whose sizes need loading.

    Tied matrices count once, and packed 4-bit weights (MXFP4) as their unpacked values. Raises `ModelLoadError` for a damaged
    header.
    """
    if path.is_file():
        return _count_gguf(path)
    files = safetensors_files(path)
    return sum(_count_safetensors(file) for file in files) if files else None


def check_sizes(files: list[Path], config: dict[str, Any], where: Path) -> None:
    """Raise `ModelLoadError` for weights whose headers do not fit their files, and for a configuration of a larger model than theirs.

    Nothing of the configuration's sizes is made before. Sixteen times is the room for packed weights, of which a file holds fewer numbers.
    """
    tables = [_header(file) for file in files]
    elements = sum(math.prod(entry["shape"]) for table in tables for entry in table.values())
    tensors = sum(map(len, tables))

    def size(*names: str) -> int:
        found = next((config[name] for name in names if isinstance(config.get(name), int)), 1)
        return max(1, found)

    layers, width = size("num_hidden_layers", "n_layer", "num_layers"), size("hidden_size", "n_embd", "d_model")
    experts = size("num_local_experts", "num_experts", "n_routed_experts")
    inner = size("intermediate_size", "n_inner", "ffn_dim")
    heads = size("num_attention_heads", "n_head", "num_heads") * size("head_dim")
    positions = size("n_positions") if "n_positions" in config else 1
    largest = width * (size("vocab_size") + positions + layers * (heads + inner * experts))
    if layers > tensors or largest > 16 * elements:
        raise ModelLoadError(
            f"{where} describes a far larger model than its {tensors} tensors with {elements:,} numbers.",
            remedy="The checkpoint and its config.json do not belong together.",
        )


def _count_safetensors(path: Path) -> int:
    tensors = _header(path)
    return sum(_elements(name, entry["dtype"], entry["shape"], tensors) for name, entry in tensors.items())


def _header(path: Path) -> dict[str, Any]:
    """The table of a safetensors file's tensors, each within the file. Raises `ModelLoadError` for a damaged one."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_HEADER_LIMIT, size - 8):
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        for name, entry in tensors.items():
            (start, end), shape = entry["data_offsets"], entry["shape"]
            whole = all(type(number) is int and number >= 0 for number in (start, end, *shape))
            if not whole or not start <= end <= size - 8 - length or not isinstance(entry["dtype"], str):
                raise ValueError(f"{name[:100]} lies outside the file")
            if math.prod(shape) > 8 * (end - start):
                raise ValueError(f"{name[:100]} has the shape {str(shape)[:100]} in {end - start} bytes")
        return tensors
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise ModelLoadError(f"The weights in {path} are damaged: {error}", remedy="Download or copy them again.") from error


def _elements(name: str, dtype: str, shape: list[int], tensors: dict[str, object]) -> int:
    """MXFP4 stores two values in a byte of `…_blocks`, and exponents in `…_scales`, which do not count."""
    if dtype == "U8" and name.endswith("_blocks") and name.removesuffix("_blocks") + "_scales" in tensors:
        return 2 * math.prod(shape)
    if dtype == "U8" and name.endswith("_scales") and name.removesuffix("_scales") + "_blocks" in tensors:
        return 0
    return math.prod(shape)


def _count_gguf(path: Path) -> int:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            version, tensors, entries = _unpack(file, "<IQQ")
            if magic != b"GGUF" or version not in (2, 3):
                raise ValueError(f"it begins with {magic!r}, version {version}")
            for _ in range(entries):
                _skip(file, _string_length(file))
                _skip_value(file, _unpack(file, "<I")[0])
            total = 0
            for _ in range(tensors):
                name = file.read(_at_most(_string_length(file), 1 << 16)).decode()
                shape = _unpack(file, f"<{_at_most(_unpack(file, '<I')[0], 8)}Q")
                _unpack(file, "<IQ")  # its type and offset
                total += 0 if name in _TABLES else math.prod(shape)
            if file.tell() > path.stat().st_size:
                raise ValueError("it ends before its table does")
            if total > 32 * path.stat().st_size:
                raise ValueError(f"its table holds {total:,} numbers")
            return total
    except (OSError, ValueError, KeyError, struct.error, OverflowError, RecursionError) as error:
        raise ModelLoadError(f"{path} is not a GGUF file, or damaged: {error}", remedy="Download or copy it again.") from error


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        _skip(file, _string_length(file))
    elif kind == _ARRAY:
        inner, count = _unpack(file, "<IQ")
        if inner in _SIZES:
            _skip(file, _SIZES[inner] * count)
        else:
            for _ in range(count):
                _skip_value(file, inner)
    else:
        _skip(file, _SIZES[kind])


def _string_length(file: BinaryIO) -> int:
    return int(_unpack(file, "<Q")[0])


def _at_most(number: int, limit: int) -> int:
    """Limits lengths that come from the file: a damaged one could exhaust memory."""
    if number > limit:
        raise ValueError(f"a length of {number}")
    return number


def _skip(file: BinaryIO, size: int) -> None:
    file.seek(size, os.SEEK_CUR)


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
