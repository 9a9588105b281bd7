"""Checkpoints of a long computation on disk: running sums, so that an interruption loses at most one batch.

Each stage of a job (`scores`, `noising`, …) is a file with its running arrays and their number of items, replaced atomically
after every batch. The folder's name is a hash of everything that the numbers depend on, so a changed job never continues from
old sums.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope import places
from neuroscope.files import save
from neuroscope.models.cache import cache_folder

Arrays = dict[str, NDArray[Any]]


class Journal:
    """The stages of one job. `identity`: everything that its numbers depend on, as JSON-able data."""

    def __init__(self, kind: str, identity: Mapping[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True, default=str)
        self.folder = cache_folder() / kind / hashlib.sha256(text.encode()).hexdigest()[:24]

    def load(self, stage: str) -> tuple[int, Arrays]:
        """The number of items done in a stage, and its arrays; (0, {}) if there is no readable file."""
        try:
            with np.load(self._path(stage), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, KeyError):
            return 0, {}
        return int(arrays.pop("items")), arrays

    def save(self, stage: str, items: int, arrays: Arrays) -> None:
        """Replace a stage's file in one step."""
        data = io.BytesIO()
        np.savez(data, allow_pickle=False, items=np.array(items), **arrays)
        with places.own():
            save(self._path(stage), data.getvalue(), "The journal of a long computation")

    def forget(self) -> None:
        """Remove the files of a finished job."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.npz"
