"""Saving models on MLX: their original files, with the changed weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from neuroscope.errors import ModelLoadError

Arrays = dict[str, mx.array]


@dataclass(frozen=True)
class Origin:
    """The files that a model was read from, and the function that turns their arrays into its parameters.

    `translate` may rename, transpose, split and drop arrays, but not calculate.
    """

    files: Sequence[Path]
    translate: Callable[[Arrays], Arrays]

    def save(self, folder: Path, changed: Mapping[str, mx.array]) -> None:
        """Write the files again, with the changed parameters.

        A changed array gets the wider of the file's type and the model's. Raises `ModelLoadError` if the files can no longer be
        read.
        """
        try:
            patched = self._patched(changed) if changed else {}
            for path in self.files:
                if path.name not in patched:
                    shutil.copyfile(path, folder / path.name)
                    continue
                arrays, metadata = _read(path)
                mx.save_safetensors(str(folder / path.name), arrays | patched[path.name], metadata or {"format": "pt"})
        except (OSError, RuntimeError) as error:
            raise ModelLoadError(
                f"The model's original files can no longer be read: {error}", remedy="Load it again."
            ) from error

    def _patched(self, changed: Mapping[str, mx.array]) -> dict[str, Arrays]:
        """For each file, its arrays with changes.

        Every number in the files gets an id, and `translate` runs on the ids: those in a changed parameter say which numbers of
        the files to replace.
        """
        where = [(path.name, name, array) for path in self.files if _holds(path) for name, array in _read(path)[0].items()]
        starts = np.cumsum([0, *(array.size for _, _, array in where)])
        ids = {
            name: mx.arange(int(start), int(start) + array.size, dtype=mx.int64).reshape(array.shape)
            for start, (_, name, array) in zip(starts[:-1], where, strict=True)
        }
        arrived = self.translate(ids)
        patched: dict[str, Arrays] = {}
        for parameter, values in changed.items():
            came = np.array(arrived[parameter]).ravel()
            sources = np.searchsorted(starts, came, side="right") - 1
            for source in np.unique(sources):
                file, name, array = where[source]
                found = patched.setdefault(file, {})
                chosen = np.flatnonzero(sources == source)
                wide = (array.flatten()[:0] + values.flatten()[:0]).dtype
                flat = found.get(name, array).astype(wide).flatten()
                flat[mx.array(came[chosen] - starts[source])] = values.flatten()[mx.array(chosen)].astype(wide)
                found[name] = flat.reshape(array.shape)
        return patched


def _holds(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays of a file, read lazily, and its metadata."""
    found: Any = mx.load(str(path), return_metadata=True)
    arrays, metadata = found
    return arrays, metadata
