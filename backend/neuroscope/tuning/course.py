"""Steps down a weighted sum of objectives, judged on held-out data, with early stopping and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.engines.protocol import Array, Engine, IntArray
from neuroscope.engines.tuning import Tuner
from neuroscope.errors import ArgumentError, EditError
from neuroscope.sealed import SealedFiles
from neuroscope.vocabulary import public

FILES = SealedFiles("checkpoint", ".checkpoint", "1", EditError)
_NOW, _BEST = "now/", "best/"


class Objective(Protocol):
    """A loss on rows of some data."""

    def __len__(self) -> int: ...
    def loss(self, engine: Engine, rows: IntArray) -> Array: ...


class Together:
    """The mean of several objectives on the same rows."""

    def __init__(self, parts: Sequence[Objective]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return min(map(len, self._parts))

    def loss(self, engine: Engine, rows: IntArray) -> Array:
        """The mean loss, a scalar."""
        return sum(part.loss(engine, rows) for part in self._parts) / len(self._parts)


@dataclass(frozen=True)
class Aim:
    """An objective with its weight, on the data that trains and on data held out from it. share: of a step's batch."""

    name: str
    weight: float
    training: Objective
    held_out: Objective
    share: float = 1.0

    def rows(self, batch: int) -> int:
        """How many rows of its data a step takes."""
        return min(len(self.training), max(1, int(batch * self.share)))


@dataclass(frozen=True)
class Schedule:
    """steps: at most. batch: rows of the task in a step, and half as many pairs and texts. every: steps between two judgements on held-out data. patience:
    so many judgements without a new best end the training.
    """

    steps: int = 150
    batch: int = 16
    every: int = 10
    patience: int = 5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{name} must be a whole number above 0, not {value!r}.")


@public
@dataclass(frozen=True)
class TrainingPoint:
    """The objectives after so many steps, by name: on training data the mean since the last point, and on held-out data."""

    step: int
    training: Mapping[str, float]
    held_out: Mapping[str, float]
    total: float


@dataclass(frozen=True)
class Course:
    """What a training went through. best_step: the step whose weights were kept."""

    points: list[TrainingPoint]
    best_step: int
    stopped_early: bool


def descend(
    engine: Engine,
    tuner: Tuner,
    aims: Sequence[Aim],
    schedule: Schedule,
    *,
    title: str,
    seed: int,
    checkpoint: Path | None = None,
    of: str = "",
) -> Course:
    """Train until the schedule or the held-out data ends it; the tuner then has the weights of the best step.

    checkpoint: a file written at every judgement; where it exists already, the training goes on from it, with the bits it would have
    had. of: what identifies the training. Raises `EditError` for a checkpoint of another training, and `CancelledError` when the job is
    cancelled.
    """
    points: list[TrainingPoint] = []
    sums: list[Mapping[str, float]] = []
    best: Mapping[str, NDArray[Any]] = {}
    if checkpoint is not None and FILES.path(checkpoint).is_file():
        points, best = _resumed(FILES.path(checkpoint), tuner, of)
        events.notice(f"{title}: going on after step {points[-1].step}, from {FILES.path(checkpoint)}.")
    with events.progress(title, total=schedule.steps, unit="steps") as job:
        job.advance(points[-1].step if points else 0)
        step = points[-1].step if points else 0
        while True:
            if not points or step > points[-1].step:
                points.append(_judged(engine, aims, schedule.batch, step, sums))
                sums = []
                if _best(points) is points[-1]:
                    best = tuner.values()
                if checkpoint is not None:
                    _keep(checkpoint, tuner, points, best, of)
            stopped = _waited(points) >= schedule.patience
            if stopped or step >= schedule.steps:
                break
            for _ in range(min(schedule.every, schedule.steps - step)):
                step += 1
                random = np.random.default_rng([seed, step])
                rows = [random.choice(len(a.training), a.rows(schedule.batch), replace=False) for a in aims]
                losses = tuner.step(
                    lambda rows=rows: [aim.training.loss(engine, mine) for aim, mine in zip(aims, rows, strict=True)],  # type: ignore[misc]
                    [aim.weight for aim in aims],
                )
                sums.append({aim.name: loss for aim, loss in zip(aims, losses, strict=True)})
                job.advance()
    tuner.restore(best)
    return Course(points, _best(points).step, stopped and step < schedule.steps)


def _judged(engine: Engine, aims: Sequence[Aim], batch: int, step: int, sums: Sequence[Mapping[str, float]]) -> TrainingPoint:
    held = {aim.name: _mean_loss(engine, aim.held_out, batch) for aim in aims}
    trained = {aim.name: float(np.mean([one[aim.name] for one in sums])) for aim in aims} if sums else {}
    return TrainingPoint(step, trained, held, sum(aim.weight * held[aim.name] for aim in aims))


def _mean_loss(engine: Engine, objective: Objective, batch: int) -> float:
    rows = np.arange(len(objective))
    chunks = [rows[first : first + batch] for first in range(0, len(rows), batch)]
    losses = [float(engine.ops.to_numpy(objective.loss(engine, chunk))) for chunk in chunks]
    return float(np.average(losses, weights=[len(chunk) for chunk in chunks]))


def _best(points: Sequence[TrainingPoint]) -> TrainingPoint:
    return min(points, key=lambda point: point.total)


def _waited(points: Sequence[TrainingPoint]) -> int:
    """Judgements since the best one."""
    return len(points) - 1 - points.index(_best(points))


def _keep(path: Path, tuner: Tuner, points: Sequence[TrainingPoint], best: Mapping[str, NDArray[Any]], of: str) -> None:
    header = {"of": of, "points": [asdict(point) for point in points]}
    now = {f"{_NOW}{name}": array for name, array in tuner.state().items()}
    FILES.write(path, header, {**now, **{f"{_BEST}{name}": array for name, array in best.items()}})


def _resumed(path: Path, tuner: Tuner, of: str) -> tuple[list[TrainingPoint], Mapping[str, NDArray[Any]]]:
    source, header, arrays = FILES.read(path, absent="Train with checkpoint: to write one.")
    if header.get("of") != of:
        raise EditError(
            f"{source} is a checkpoint of another training: another model, circuit, dataset, objective, seed or schedule.",
            remedy="Name another file, or remove this one.",
        )
    best = {name.removeprefix(_BEST): array for name, array in arrays.items() if name.startswith(_BEST)}
    with FILES.understood(source):
        points = [TrainingPoint(**point) for point in header["points"]]
        tuner.restore({name.removeprefix(_NOW): array for name, array in arrays.items() if name.startswith(_NOW)})
    return points, best
