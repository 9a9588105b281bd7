"""How often 95 % intervals hold the truth, on real pairs of the bundled models.

    python benchmarks/truth/coverage.py [--models NAME ...] [--tasks NAME ...] [--pool 1200] [--draws 100] [--cache FOLDER]

The truth is the mean over a pool drawn from the task's own generator. Then, seed after seed, the task is divided as the
circuit finder divides it (parts that share no unit), and each interval is made from one part's pairs. Prints the share of
draws whose interval holds the truth, and the median width: taking rows for independent, with the pairs' units, and with them
against the mean over the pool's pairs of the part's own wordings where these are fewer than four, too few to tell what others would do
(`tasks.dependence`). Kinds of interval:

    clean        the mean metric (`mean_of`)              gap      clean − corrupt (`difference_test`)
    accuracy     the share of right answers (`wilson`)    ratio    faithfulness of one fixed circuit (`ratio_of`)
    controls     the mean over ten random circuits, on the pool's first pairs (`mean_of`), to the three digits that are printed:
                 nine random circuits of ten do nothing at all

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
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.finder import part_sizes
from neuroscope.engines.protocol import BoolArray
from neuroscope.models.model import TransformerModel
from neuroscope.tasks import registry
from neuroscope.tasks.pairs import PairBatch, make_pairs
from neuroscope.tasks.statistics import Estimate, difference_test, mean_of, ratio_of, wilson

MODELS = ("bundled:gpt2-medium", "bundled:gpt-oss-20b")
TASKS = ("indirect_object_identification", "capital_of_country", "subject_verb_agreement", "greater_than")
#: The parts of the finder's sixty pairs: whether there is an effect, the circuit, and its judgement.
SIZES = part_sizes(60)
EDGES = 250
CONTROLS, CONTROLLED, DRAWN = 40, 20, 10
FEWEST_WORDINGS = 4
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
        evaluation = CircuitEvaluation(model.engine, pairs.take(np.arange(first, min(first + AT_ONCE, pairs.rows))))
        found.append(np.stack([evaluation.clean, evaluation.empty, evaluation.metric(mask)]))
    return Runs(*np.concatenate(found, axis=1), units=tuple(map(frozenset, pairs.units)))


def measure(name: str, task: str, pool: int, draws: int) -> Measured:
    """The model's runs. The circuit is the best-scored edges by attribution patching on thirty pairs of the pool."""
    model = TransformerModel.from_hugging_face(name)
    dataset = registry.get(task).dataset(n=pool, seed=1000)
    pairs = make_pairs(model, list(dataset.for_model(model, n=pool).shuffled(seed=1)))
    scores = edge_scores(model.engine, pairs.take(np.arange(30)), method="eap")
    few = CircuitEvaluation(model.engine, pairs.take(np.arange(CONTROLLED)))
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


def truths(pool: Runs, weights: NDArray[np.float64]) -> dict[str, float]:
    """What the intervals are to hold: weighted means over the pool's rows (rows,)."""
    gap = pool.clean - pool.empty
    return {
        "clean": float(pool.clean @ weights),
        "gap": float(gap @ weights),
        "accuracy": min(1.0, round(float((pool.clean > 0) @ weights), 9)),
        "ratio": float((pool.circuit - pool.empty) @ weights / (gap @ weights)),
    }


def own_wordings(pool: Runs, part: Runs) -> NDArray[np.float64]:
    """Weights (rows,) of the pool's rows that make it of the part's wordings, in its shares; even ones where it has enough."""
    mine = [_wording(units) for units in part.units]
    every = np.array([_wording(units) for units in pool.units])
    weights = np.full(len(every), 1 / len(every))
    if len(set(mine)) < FEWEST_WORDINGS and set(mine) <= set(every):
        weights = sum(((every == one) / (every == one).sum() for one in mine), np.zeros(len(every))) / len(mine)
    return weights


def _wording(units: frozenset[str]) -> str:
    return next((unit for unit in units if unit.startswith("template:")), "")


def coverage(measured: Measured) -> Iterator[tuple[str, str, float, float]]:
    """The kind of interval, how it was made, the share of draws that hold the truth, and the median width."""
    pool = measured.pool
    overall = truths(pool, np.full(len(pool.clean), 1 / len(pool.clean)))
    for index, size in enumerate(SIZES):
        parts = [draw[index] for draw in measured.draws]
        own = [truths(pool, own_wordings(pool, part)) for part in parts]
        for how, held_by in (("rows", [overall] * len(parts)), ("units", [overall] * len(parts)), ("own wordings", own)):
            made = [intervals(part, None if how == "rows" else part.units) for part in parts]
            for kind in overall:
                held = [each[kind].low <= true[kind] <= each[kind].high for each, true in zip(made, held_by, strict=True)]
                width = float(np.median([each[kind].high - each[kind].low for each in made]))
                yield f"{kind}, {size} pairs", how, float(np.mean(held)), width
    random, population = np.random.default_rng(0), np.array(measured.controls)
    some = [mean_of(random.choice(population, DRAWN)) for _ in range(2000)]
    width = float(np.median([each.high - each.low for each in some]))
    held = [round(each.low, 3) <= round(population.mean(), 3) <= round(each.high, 3) for each in some]
    yield f"controls, {DRAWN} draws", "rows", float(np.mean(held)), width


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
                print(f"    {kind:<22} {how:<12} {held:6.3f}   width {width:.3f}")


if __name__ == "__main__":
    main()
