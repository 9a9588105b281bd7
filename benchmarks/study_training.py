"""Does training the found circuit beat training random circuits of its size? Over seeds:  python -m benchmarks.study_training bundled:gpt2-medium

Every seed finds the circuit anew, draws a random circuit of as many heads and MLPs and of as many numbers, divides the data anew, and trains
both with the same data and objectives (documented script 18). The intervals are Student's, over seeds, of the paired differences.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuroscope import TransformerModel
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.tasks.dataset import Dataset
from neuroscope.tuning.results import TrainedWeights
from neuroscope.tuning.trainer import CircuitAwareTrainer

OBJECTIVES = {"task_performance": 0.7, "circuit_coherence": 0.2, "general_capability_preservation": 0.1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--task", default="larger_number", help="what is trained")
    parser.add_argument("--circuit", default="sentiment_analysis", help="whose circuit")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--json", type=Path, help="one line for every seed, written as they come")
    options = parser.parse_args()
    model = TransformerModel.from_hugging_face(options.model, engine="torch")
    rows: dict[str, list[list[float]]] = {"circuit": [], "random circuit": []}
    for seed in range(options.seeds):
        finder = CircuitFinder(model, random_circuits=2, minimality_sample=4, seed=seed)
        finder.find_circuits_for(options.circuit)
        trainer = CircuitAwareTrainer(
            model,
            finder,
            steps=options.steps,
            learning_rate=options.learning_rate,
            controls=["random circuit"],
            seed=seed,
        )
        for name, weight in OBJECTIVES.items():
            trainer.add_objective(name, weight)
        trainer.train(Dataset.load(options.task, seed=seed))
        training = trainer.training
        for one in (training.circuit, *training.controls):
            rows[one.weights].append(figures(one))
            print(
                seed,
                one.weights,
                f"{one.numbers:,}",
                f"overlap {one.overlap:.2f}",
                np.round(rows[one.weights][-1], 4),
                flush=True,
            )
        if options.json is not None:
            with options.json.open("a") as file:
                file.write(json.dumps({"seed": seed, "training": training.as_dictionary()}) + "\n")
    for name, found in rows.items():
        print(f"{name:<16}", *(mean(values) for values in zip(*found, strict=True)), sep="   ")
    differences = np.array(rows["circuit"]) - np.array(rows["random circuit"])
    print(f"{'difference':<16}", *(mean(values) for values in differences.T), sep="   ")


def figures(one: TrainedWeights) -> list[float]:
    """Accuracy on the task, KL per token and accuracy on the other tasks."""
    return [one.accuracy.value, one.divergence.value, float("nan") if one.others is None else one.others.value]


def mean(values: Sequence[float]) -> str:
    from scipy.stats import t

    given = np.asarray(values, dtype=np.float64)
    half = t.ppf(0.975, len(given) - 1) * given.std(ddof=1) / np.sqrt(len(given))
    return f"{given.mean():.3f} [{given.mean() - half:.3f}, {given.mean() + half:.3f}]"


if __name__ == "__main__":
    main()
