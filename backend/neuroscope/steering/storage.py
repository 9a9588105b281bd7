"""Files of steering vectors.

A safetensors file. Tensors: `0`, `1`, … (width,), one per vector. Metadata: `format` and `header` (JSON): the model with its
weights' hash, and for each vector its name, site, method and contrast pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from neuroscope import events, places
from neuroscope.engines.sites import Site
from neuroscope.errors import ArgumentError
from neuroscope.files import save
from neuroscope.models.model import TransformerModel
from neuroscope.results import titled
from neuroscope.steering.contrast import ContrastPairs
from neuroscope.steering.vectors import SteeringVector

FORMAT = "neuroscope-steering-1"


def write(model: TransformerModel, vectors: Sequence[SteeringVector], path: str | Path) -> Path:
    """Write vectors, whole or not at all. Raises `ArgumentError` if the file cannot be written."""
    target = Path(path)
    target = places.to_write(target if target.suffix == ".safetensors" else target.with_name(target.name + ".safetensors"))
    header = {
        "model": model.ran,
        "askedFor": None if model.name == model.ran else model.name,
        "dtype": model.precision,
        "weightsHash": model.weights_hash,
        "vectors": [
            {
                "name": vector.name,
                "site": str(vector.site),
                "method": vector.method,
                "computedOn": vector.title,
                "weightsHash": vector.weights_hash,
                "dtype": vector.precision,
                "pairs": _pairs_as_data(vector.pairs),
            }
            for vector in vectors
        ],
    }
    tensors = {str(index): np.ascontiguousarray(vector.numpy()) for index, vector in enumerate(vectors)}
    content = save_tensors(tensors, {"format": FORMAT, "header": json.dumps(header, ensure_ascii=False, sort_keys=True)})
    return save(target, content, "The file of vectors", ArgumentError)


def read(model: TransformerModel, path: str | Path) -> list[SteeringVector]:
    """Read the vectors of a file. Raises `ArgumentError` for other files; warns if vectors are of other weights."""
    source = places.to_read(path)
    if not source.is_file():
        raise ArgumentError(f"There is no file {source}.", remedy="(SteeringVectors for: model) save: writes one.")
    try:
        with safe_open(source, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dictionary
        if metadata.get("format") != FORMAT:
            raise ArgumentError(f"{source} has no steering vectors in a format that this version reads.")
        header = json.loads(metadata["header"])
        vectors = [_vector(model, header, item, tensors[str(index)]) for index, item in enumerate(header["vectors"])]
    except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{source} is not a file of steering vectors: {error}", remedy="Write it again.") from error
    if header["weightsHash"] != model.weights_hash:
        theirs = titled(header["model"], header.get("askedFor"))
        events.notice(f"{source.name} was computed on {theirs}, not on {model.title}.", "warning")
    elif header.get("dtype", model.precision) != model.precision:
        events.notice(
            f"{source.name} was computed in {header['dtype']}, but {model.title} runs in {model.precision}.", "warning"
        )
    return vectors


def _vector(model: TransformerModel, header: dict[str, Any], item: dict[str, Any], values: Any) -> SteeringVector:
    ops = model.engine.ops
    pairs = item["pairs"]
    return SteeringVector(
        ops.asarray(values),
        ops,
        name=item["name"],
        site=Site.parse(item["site"]),
        method=item["method"],
        title=item.get("computedOn", titled(header["model"], header.get("askedFor"))),
        weights_hash=item.get("weightsHash", header["weightsHash"]),
        dtype=item.get("dtype", header.get("dtype", "float32")),
        pairs=ContrastPairs(
            item["name"],
            pairs["positive"],
            pairs["negative"],
            pairs["groups"],
            tuple(pairs["openings"]),
            [frozenset(units) for units in pairs.get("units", ())],
            tuple(frozenset(units) for units in pairs.get("openingUnits", ())),
            frozenset(pairs.get("heldOut", sorted(set(pairs["groups"]))[2::3])),
        ),
    )


def _pairs_as_data(pairs: ContrastPairs) -> dict[str, Any]:
    return {
        "positive": pairs.positive,
        "negative": pairs.negative,
        "groups": pairs.groups,
        "openings": list(pairs.openings),
        "units": [sorted(units) for units in pairs.units],
        "heldOut": sorted(pairs.held_out),
        "openingUnits": [sorted(units) for units in pairs.opening_units],
    }
