"""Checkpoints of a long computation on disk: running sums, so that an interruption loses at most one batch.

Each stage of a job (`scores`, `noising`, …) is a file with its running arrays and their number of items, replaced atomically
after every batch, or every few seconds. The folder's name is a hash of everything that the numbers depend on, so a changed job never continues from
old sums.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroscope import places
from neuroscope.files import save
from neuroscope.models.cache import cache_folder

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel
    from neuroscope.parallel.team import Team
    from neuroscope.tasks.pairs import PairBatch

Arrays = dict[str, NDArray[Any]]
#: Seconds between two saves of what may be over soon.
SELDOM = 20.0


class Journal:
    """The stages of one job. identity: everything that its numbers depend on, as JSON-able data. every: seconds between two saves at least."""

    def __init__(self, kind: str, identity: Mapping[str, Any], *, every: float = 0.0) -> None:
        text = json.dumps(identity, sort_keys=True, default=str)
        self.folder = cache_folder() / kind / hashlib.sha256(text.encode()).hexdigest()[:24]
        self._every, self._saved = every, time.monotonic()

    @classmethod
    def of(cls, kind: str, model: TransformerModel, pairs: PairBatch, team: Team | None, how: Sequence[Any]) -> Journal | None:
        """The journal of work on pairs, saved now and then; None where their metric is a function, which has no lasting name.

        how: what else the numbers depend on. Who shares the work does not matter, but whether it is shared.
        """
        if pairs.metric.function is not None:
            return None
        where = model.weights_hash, model.engine.name, model.precision, model.device
        return cls(kind, {"model": where, "pairs": pairs.digest, "shared": team is not None, "how": list(how)}, every=SELDOM)

    def load(self, stage: str) -> tuple[int, Arrays]:
        """The number of items done in a stage, and its arrays; (0, {}) if there is no readable file."""
        try:
            with np.load(self._path(stage), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, KeyError):
            return 0, {}
        return int(arrays.pop("items")), arrays

    def save(self, stage: str, items: int, arrays: Arrays) -> None:
        """Replace a stage's file in one step; nothing if the last save was less than `every` seconds ago."""
        if time.monotonic() - self._saved < self._every:
            return
        data = io.BytesIO()
        np.savez(data, allow_pickle=False, items=np.array(items), **arrays)
        with places.own():
            save(self._path(stage), data.getvalue(), "The journal of a long computation")
        self._saved = time.monotonic()

    def forget(self) -> None:
        """Remove the files of a finished job."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.npz"


class Cells:
    """A table that is computed row by row, in any order: what a journal has of it, and what is left. Without a journal all is left.

    found: (rows, …), filled in place.
    """

    def __init__(self, found: NDArray[Any], journal: Journal | None, stage: str) -> None:
        self.found = found
        self._journal, self._stage = journal, stage
        self._done = np.zeros(len(found), dtype=np.bool_)
        _, arrays = (0, {}) if journal is None else journal.load(stage)
        if arrays:
            self._done[:] = arrays["done"]
            found[self._done] = arrays["found"][self._done]

    def left(self, groups: Sequence[list[int]]) -> list[list[int]]:
        """The groups of rows that are not done. A group is done as a whole, so that its batch is the same after an interruption."""
        return [group for group in groups if not self._done[group].all()]

    def put(self, group: list[int], values: NDArray[Any]) -> None:
        """The values of a group, which is done now."""
        self.found[group] = values
        self._done[group] = True
        if self._journal is not None:
            self._journal.save(self._stage, int(self._done.sum()), {"done": self._done, "found": self.found})
