"""Suite results set by hand: no model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from neuroscope.results import Provenance
from neuroscope.validation.outcomes import Outcome, SuiteResult, data_hash, item_id, measured, suite_score

MARGINS = {"accuracy": 0.05, "refusals": 0.05, "answers": 0.05, "trap_answers": 0.05, "loss": 0.05}


def outcomes(task: str, scores: Sequence[float], weight: float = 1.0) -> list[Outcome]:
    return [
        Outcome(item_id(task, str(number)), task, f"{task} {number}", score, weight, units=(f"item:{task} {number}",))
        for number, score in enumerate(scores)
    ]


def result(suite: str, model: str = "made", **measures: Mapping[str, Sequence[float]]) -> SuiteResult:
    """measures: by name, the scores of the items of each task. A text has ten tokens."""
    made = [
        measured(
            name, [item for task, scores in tasks.items() for item in outcomes(task, scores, 10.0 if name == "loss" else 1.0)]
        )
        for name, tasks in measures.items()
    ]
    items = [item for each in made for item in each.items]
    provenance = Provenance(
        model, "0" * 64, "torch", suite, 0, {"items": len(items)}, {"numpy": "2"}, dtype="float32", device="cpu"
    )
    return SuiteResult(suite, "made by hand", suite_score(made), made, data_hash(items), provenance)


def right(n: int, wrong: int) -> list[float]:
    return [0.0] * wrong + [1.0] * (n - wrong)
