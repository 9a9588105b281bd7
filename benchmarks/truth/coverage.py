"""How often 95 % intervals hold the truth, on real pairs of the bundled models.

    python benchmarks/truth/coverage.py [--models NAME ...] [--tasks NAME ...] [--pool 1200] [--draws 100] [--cache FOLDER]

The truth is the mean over a pool drawn from the task's own generator. Then, seed after seed, the task is divided as the
circuit finder divides it (parts that share no unit), and each interval is made from one part's pairs. Prints the share of
draws whose interval holds the truth, with and without the pairs' units, and the median width. Kinds of interval:

    clean        the mean metric (`mean_of`)              gap      clean − corrupt (`difference_test`)
    accuracy     the share of right answers (`wilson`)    ratio    faithfulness of one fixed circuit (`ratio_of`)
    controls     the mean over five random circuits, on the pool's first pairs (`mean_of`)

The models' runs are kept in the cache folder, so that a change of method is measured anew in seconds.
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.controls import connected_random
from neuroscope.circuits.curve import prefix, ranked
from neuroscope.circuits.finder import part_sizes
from neuroscope.circuits.masked import MaskedModel
from neuroscope.circuits.pairs import PairBatch, make_pairs
from neuroscope.models.engines.protocol import BoolArray
from neuroscope.models.model import TransformerModel
from neuroscope.tasks import registry
from neuroscope.tasks.statistics import Estimate, difference_test, mean_of, ratio_of, wilson

MODELS = ("bundled:gpt2-medium", "bundled:gpt-oss-20b")
TASKS = ("indirect_object_identification", "capital_of_country", "subject_verb_agreement", "greater_than")
#: The parts of the finder's sixty pairs: whether there is an effect, the circuit, and its judgement.
SIZES = part_sizes(60)
EDGES = 250
CONTROLS, CONTROLLED = 40, 20
AT_ONCE = 150


@dataclass(frozen=True)
class Runs:
    """Metrics (rows,) of the clean and the corrupt run and of the circuit, with the rows' units."""

    clean: NDArray[np.float64]
    empty: NDArray[np.float64]
    circuit: NDArray[np.float64]
    units: tuple[frozenset[str], ...]


@dataclass(frozen=True)
class Measured:
    """The pool, the parts of every draw in the order of `SIZES`, and the faithfulness of random circuits."""

    pool: Runs
    draws: list[list[Runs]]
    controls: list[float]


def runs(model: TransformerModel, pairs: PairBatch, mask: BoolArray) -> Runs:
    found = []
    for first in range(0, pairs.rows, AT_ONCE):
        masked = MaskedModel(model.engine, pairs.take(np.arange(first, min(first + AT_ONCE, pairs.rows))))
        found.append(np.stack([masked.clean, masked.empty, masked.metric(mask)]))
    return Runs(*np.concatenate(found, axis=1), units=tuple(map(frozenset, pairs.units)))


def measure(name: str, task: str, pool: int, draws: int) -> Measured:
    """The model's runs. The circuit is the best-scored edges by attribution patching on thirty pairs of the pool."""
    model = TransformerModel.from_hugging_face(name)
    dataset = registry.get(task).dataset(n=pool, seed=1000)
    pairs = make_pairs(model, list(dataset.for_model(model, n=pool).shuffled(seed=1)))
    scores = edge_scores(model.engine, pairs.take(np.arange(30)), method="eap")
    few = MaskedModel(model.engine, pairs.take(np.arange(CONTROLLED)))
    mask = prefix(few.graph, ranked(few.graph, scores, 1.0), EDGES)
    random = np.random.default_rng(0)
    gap = float((few.clean - few.empty).mean())
    controls = [
        float((few.metric(connected_random(few.graph, int(mask.sum()), random)) - few.empty).mean()) / gap
        for _ in range(CONTROLS)
    ]
    parts = [dataset.parts_for_model(model, SIZES, seed=seed) for seed in range(draws)]
    return Measured(
        runs(model, pairs, mask), [[runs(model, make_pairs(model, part), mask) for part in each] for each in parts], controls
    )


def intervals(part: Runs, units: tuple[frozenset[str], ...] | None) -> dict[str, Estimate]:
    gap = part.clean - part.empty
    return {
        "clean": mean_of(part.clean, units),
        "gap": difference_test(gap, units).estimate,
        "accuracy": wilson(int((part.clean > 0).sum()), len(gap)),
        "ratio": ratio_of(part.circuit - part.empty, gap, units),
    }


def coverage(measured: Measured) -> Iterator[tuple[str, str, float, float]]:
    """The kind of interval, how it was made, the share of draws that hold the truth, and the median width."""
    truth = {kind: estimate.value for kind, estimate in intervals(measured.pool, None).items()}
    for index, size in enumerate(SIZES):
        for how in ("rows", "units"):
            made = [intervals(draw[index], draw[index].units if how == "units" else None) for draw in measured.draws]
            for kind, value in truth.items():
                held = [each[kind].low <= value <= each[kind].high for each in made]
                width = float(np.median([each[kind].high - each[kind].low for each in made]))
                yield f"{kind}, {size} pairs", how, float(np.mean(held)), width
    random, population = np.random.default_rng(0), np.array(measured.controls)
    fives = [mean_of(random.choice(population, 5)) for _ in range(2000)]
    width = float(np.median([each.high - each.low for each in fives]))
    yield "controls, 5 draws", "rows", float(np.mean([e.low <= population.mean() <= e.high for e in fives])), width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--pool", type=int, default=1200, help="pairs that make the truth")
    parser.add_argument("--draws", type=int, default=100, help="divisions of the task")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "neuroscope-coverage")
    chosen = parser.parse_args()
    chosen.cache.mkdir(parents=True, exist_ok=True)
    for model in chosen.models:
        for task in chosen.tasks:
            file = chosen.cache / f"{model.replace('/', '-').replace(':', '-')}-{task}-{chosen.pool}-{chosen.draws}.pickle"
            if not file.is_file():
                file.write_bytes(pickle.dumps(measure(model, task, chosen.pool, chosen.draws)))
            print(f"{model}  {task}: {chosen.draws} draws, truth over {chosen.pool} pairs")
            for kind, how, held, width in coverage(pickle.loads(file.read_bytes())):
                print(f"    {kind:<22} {how:<6} {held:6.3f}   width {width:.3f}")


if __name__ == "__main__":
    main()
