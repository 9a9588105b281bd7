"""Which files of a folder make up a checkpoint, told from names and the index alone."""

from __future__ import annotations

import json
from pathlib import Path

from neuroscope.errors import ModelLoadError

INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def safetensors_files(folder: Path) -> list[Path]:
    """The files that hold the weights, each parameter once: those the index names, else model.safetensors, else all.

    Repositories may carry the same weights twice (`consolidated.safetensors` beside the shards); the index decides.
    Raises `ModelLoadError` for an index that is damaged or names a file that is not there.
    """
    index = folder / INDEX
    single = folder / "model.safetensors"
    if not index.is_file():
        return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{index} is no index of weights: {error}", remedy="Download or copy it again.") from error
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise ModelLoadError(
            f"{folder} lacks {len(absent)} of the {len(names)} files its index names, the first {absent[0]}.",
            remedy="Download or copy the missing files.",
        )
    return [folder / name for name in names]


def has_weights(folder: Path) -> bool:
    """Whether weights lie there whole: safetensors, or pickles (whether to trust those is decided on loading)."""
    try:
        return bool(safetensors_files(folder)) or any(any(folder.glob(pattern)) for pattern in _PICKLES)
    except ModelLoadError:
        return False


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZERS)
