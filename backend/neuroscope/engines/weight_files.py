"""The weight files of a checkpoint, from file names and the index."""

from __future__ import annotations

import json
from pathlib import Path

from neuroscope.errors import ModelLoadError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLED, _PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def safetensors_files(folder: Path) -> list[Path]:
    """The weight files, each parameter once: model.safetensors, else those that the index names.

    transformers chooses so too. A folder may hold the same weights twice, or one file and the shards of another model, and what
    runs must be what is hashed. Raises `ModelLoadError` for a damaged index, or one that names a file that is missing, outside
    the folder or of another kind.
    """
    return _files(folder, SINGLE, INDEX)


def pickled_files(folder: Path) -> list[Path]:
    """The same for pickled weights: pytorch_model.bin, else the files in its index."""
    return _files(folder, _PICKLED, _PICKLED_INDEX)


def index_in_use(folder: Path) -> Path | None:
    """The index of the weights; None if one file holds them all."""
    for single, index in ((SINGLE, INDEX), (_PICKLED, _PICKLED_INDEX)):
        if (folder / single).is_file():
            return None
        if (folder / index).is_file():
            return folder / index
    return None


def _files(folder: Path, single: str, index_name: str) -> list[Path]:
    if (folder / single).is_file():
        return [folder / single]
    index = folder / index_name
    if not index.is_file():
        return []
    names = sorted(set(_named(index)))
    outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise ModelLoadError(
            f"{index} names {outside[0]!r}, outside its folder.", remedy="Put the weights into the folder of their index."
        )
    # Only reading safetensors certainly runs no code.
    others = [name for name in names if index_name == INDEX and not name.endswith(".safetensors")]
    if others:
        raise ModelLoadError(
            f"{index} names {others[0]!r}, which is not a safetensors file.", remedy="Convert it to safetensors."
        )
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise ModelLoadError(
            f"{folder} lacks {len(absent)} of the {len(names)} files that its index names, the first {absent[0]}.",
            remedy="Download or copy the missing files.",
        )
    return [folder / name for name in names]


def _named(index: Path) -> list[str]:
    """The file of each parameter that an index lists."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{index} is not an index of weights: {error}", remedy="Download or copy it again.") from error
    table = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) and name for name in table.values()):
        raise ModelLoadError(
            f"{index} is not an index of weights: it has no weight_map that names the file of each parameter.",
            remedy="Download or copy it again.",
        )
    return list(table.values())


def has_weights(folder: Path) -> bool:
    """Whether a folder has complete weights: safetensors, or pickles (which loading may refuse)."""
    try:
        return bool(safetensors_files(folder) or pickled_files(folder))
    except ModelLoadError:
        return False


def snapshot_of(folder: Path) -> Path | None:
    """The model's folder in a repository's folder of the hub's cache (`models--org--name`), or in its `snapshots`.

    The revision that `refs/main` names, else the newest complete one; None for any other folder.
    """
    repository = folder.parent if folder.name == "snapshots" else folder
    snapshots = [config.parent for config in repository.glob("snapshots/*/config.json")]
    if not snapshots:
        return None
    main = repository / "refs" / "main"
    named = repository / "snapshots" / main.read_text(encoding="utf-8").strip() if main.is_file() else None
    if named in snapshots:
        return named
    whole = [path for path in snapshots if has_weights(path)] or snapshots
    return max(whole, key=lambda path: path.stat().st_mtime)


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZERS)
