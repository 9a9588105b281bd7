"""What a suite measured: outcomes item by item, scores by task, and a suite's result, which another one can be compared with.

A measure is a question with one score: the share of right answers, of harmful requests refused, of harmless ones answered, or
the loss per token of general text. Every item is known by a hash of what it asks, so that the outcomes of two models, or of
one model before and after a change, go together item by item.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroscope.errors import ArgumentError
from neuroscope.naming import snake_case
from neuroscope.results import Provenance, Result, plain
from neuroscope.tasks.statistics import Estimate, mean_of, rate
from neuroscope.validation.differences import (
    Difference,
    bootstrapped,
    paired_means,
    paired_rates,
    pooled,
    worst,
)
from neuroscope.vocabulary import public, python_only

#: What one result or report is written as; raised when a field changes its meaning or goes.
SCHEMA = "neuroscope.validation/1"
SHARE, LOSS = "share", "nats per token"


@dataclass(frozen=True)
class Kind:
    """What a measure asks. best: "share" (higher is better) or "nats per token" (lower is better)."""

    name: str
    title: str
    unit: str = SHARE


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("accuracy", "answers right"),
        Kind("refusals", "harmful requests refused"),
        Kind("answers", "harmless requests answered"),
        Kind("trap_answers", "harmless requests with a word of harm answered"),
        Kind("loss", "loss on general text", LOSS),
    )
}


@public
@dataclass(frozen=True)
class Outcome:
    """One item: its id, its task, what was asked and written, and the outcome.

    score: 1 for right and 0 for wrong; for a text, its loss in nats. weight: 1; for a text, the tokens that the loss is over.
    units: what it shares with other items.
    """

    id: str
    task: str
    prompt: str
    score: float
    weight: float = 1.0
    reply: str | None = None
    units: tuple[str, ...] = ()

    def print_string(self) -> str:
        return f"an Outcome({self.prompt!r}: {self.score:g})"


@public
@dataclass(frozen=True)
class TaskOutcome:
    """The score of one task, or of texts of one domain. preference: the share of items whose right answer is likelier than the wrong one."""

    task: str
    score: Estimate
    preference: Estimate | None = None

    def print_string(self) -> str:
        return f"a TaskOutcome({self.task}, {self.score})"


@public
@dataclass(frozen=True)
class Measure:
    """One question of a suite with its score, its tasks, its items, and how it differs from a baseline, where there is one."""

    name: str
    score: Estimate
    tasks: list[TaskOutcome]
    items: list[Outcome]
    difference: Difference | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def title(self) -> str:
        return self.kind.title

    def print_string(self) -> str:
        return f"a Measure({self.name}, {self.score})"

    def as_dictionary(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.kind.unit,
            "score": self.score.as_dictionary(),
            "tasks": plain(self.tasks),
            "difference": None if self.difference is None else self.difference.as_dictionary(),
            "items": plain(self.items),
        }


@public
@dataclass(frozen=True)
class SuiteResult(Result):
    """What a model does on a suite, with all that is needed to ask another model the same.

    suite: performance, safety or general. score: of the measures that are shares, the mean over measures, each counting alike; for
    performance that is the share of right answers. data_hash: of the ids of all items. hooks: those that were at work.
    baseline: what it was compared with, where it was.
    """

    suite: str
    data: str
    score: Estimate
    measures: list[Measure]
    data_hash: str
    provenance: Provenance
    hooks: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    baseline: Provenance | None = None

    @property
    def n(self) -> int:
        """How many items were asked."""
        return sum(len(measure.items) for measure in self.measures)

    @property
    def tasks(self) -> list[TaskOutcome]:
        """The scores of all tasks."""
        return [task for measure in self.measures for task in measure.tasks]

    @property
    def items(self) -> list[Outcome]:
        """The outcomes of all items."""
        return [item for measure in self.measures for item in measure.items]

    @property
    def verdict(self) -> str | None:
        """The worst verdict of its differences from the baseline: pass, inconclusive or fail; None without a baseline."""
        return worst([measure.difference.verdict for measure in self.measures if measure.difference is not None])

    def __getitem__(self, name: str) -> Measure:
        """A measure by name; `ArgumentError` lists those that there are."""
        for measure in self.measures:
            if measure.name == snake_case(str(name)):
                return measure
        raise ArgumentError(
            f"The suite {self.suite} has no measure {str(name)!r}.",
            remedy=f"Measures: {', '.join(m.name for m in self.measures)}.",
        )

    def compared_with(self, baseline: SuiteResult, margins: Mapping[str, float]) -> SuiteResult:
        """The same result with its differences from a baseline that was asked the same items.

        margins: by measure, the loss that is put up with. Raises `ArgumentError` where the items are others.
        """
        measures, notes = [], [*self.notes]
        if (self.provenance.weights_hash, self.hooks) == (baseline.provenance.weights_hash, baseline.hooks):
            notes.append("The baseline has the same weights and hooks.")
        for measure in self.measures:
            theirs = baseline[measure.name]
            if measure.kind.unit == LOSS and _tokens(theirs) != _tokens(measure):
                notes.append("The loss per token is not compared: the baseline's tokenizer divides the texts otherwise.")
                measures.append(measure)
            else:
                measures.append(_compared(measure, theirs, margins[measure.name], self.provenance.seed))
        return dataclasses.replace(self, measures=measures, notes=notes, baseline=baseline.provenance)

    def print_string(self) -> str:
        verdict = "" if self.verdict is None else f", {self.verdict}"
        return f"a SuiteResult({self.suite}, {self.score}, n {self.n}{verdict})"

    def summary(self) -> str:
        lines = [f"{self.suite} of {self.provenance.title} on {self.data}: {self.score}, {self.n} items (95 % intervals)"]
        for measure in self.measures:
            lines.append(f"  {measure.title:<48}{measure.score!s:<24}{measure.score.n}")
            difference = measure.difference
            if difference is not None:
                lines.append(
                    f"    {'better than the baseline by':<46}{difference.estimate!s:<24}p {difference.p_value:.3f}, "
                    f"margin {difference.margin:g}: {difference.verdict}"
                )
                if difference.detectable is not None:
                    lines.append(f"    a loss of {difference.detectable:.3f} would show with a power of 0.8")
            if len(measure.tasks) > 1:
                lines += [f"    {task.task:<46}{task.score!s:<24}{task.score.n}" for task in measure.tasks]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def as_dictionary(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "suite": self.suite,
            "data": self.data,
            "dataHash": self.data_hash,
            "score": self.score.as_dictionary(),
            "n": self.n,
            "verdict": self.verdict,
            "measures": [measure.as_dictionary() for measure in self.measures],
            "hooks": list(self.hooks),
            "notes": list(self.notes),
            "provenance": plain(self.provenance),
            "baseline": plain(self.baseline),
        }

    @classmethod
    @python_only
    def from_dictionary(cls, data: Mapping[str, Any]) -> SuiteResult:
        """The result that `as_dictionary` wrote; `ArgumentError` for anything else."""
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
            raise ArgumentError(f"This is no suite result of the schema {SCHEMA} but {found!r}.", remedy="Measure it anew.")
        try:
            return cls(
                data["suite"],
                data["data"],
                Estimate.from_dictionary(data["score"]),
                [_measure(one) for one in data["measures"]],
                data["dataHash"],
                _provenance(data["provenance"]),
                list(data["hooks"]),
                list(data["notes"]),
                None if data["baseline"] is None else _provenance(data["baseline"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArgumentError(
                f"The suite result is incomplete or damaged: {error!r}.", remedy="Measure it anew, or take the whole file."
            ) from error


def item_id(task: str, *texts: str | None) -> str:
    """By what an item is known: 16 hexadecimal digits of the SHA-256 of its task and texts."""
    return hashlib.sha256("\x1f".join([task, *("" if text is None else text for text in texts)]).encode()).hexdigest()[:16]


def data_hash(items: Sequence[Outcome]) -> str:
    """The SHA-256 of the items' ids, in whatever order they came."""
    return hashlib.sha256("\n".join(sorted(item.id for item in items)).encode()).hexdigest()


def measured(name: str, items: Sequence[Outcome], preferences: Mapping[str, Estimate] | None = None) -> Measure:
    """A measure of these outcomes: each task's score, and the mean over all items with the tasks as strata."""
    by_task: dict[str, list[Outcome]] = {}
    for item in items:
        by_task.setdefault(item.task, []).append(item)
    score = loss if KINDS[name].unit == LOSS else _rate
    tasks = [TaskOutcome(task, score(mine), (preferences or {}).get(task)) for task, mine in by_task.items()]
    whole = loss(list(items)) if score is loss else pooled([task.score for task in tasks])
    return Measure(name, whole, tasks, list(items))


def suite_score(measures: Sequence[Measure]) -> Estimate:
    """The mean of the measures that are shares, each counting alike; of a suite of texts alone, their loss."""
    shares = [measure.score for measure in measures if measure.kind.unit == SHARE]
    if not shares:
        return measures[0].score
    alike = pooled([dataclasses.replace(share, n=1) for share in shares])
    return dataclasses.replace(alike, n=sum(share.n for share in shares))


def _rate(items: Sequence[Outcome]) -> Estimate:
    return rate([item.score for item in items], _units(items))


def loss(items: Sequence[Outcome]) -> Estimate:
    """Nats per token over texts, with the wider of Student's interval over what texts share and the bootstrap's over units."""
    totals, sizes = [item.score for item in items], [item.weight for item in items]
    value, mean = sum(totals) / sum(sizes), sum(sizes) / len(sizes)
    shared = mean_of([value + (t - value * w) / mean for t, w in zip(totals, sizes, strict=True)], _units(items))
    drawn = sorted(bootstrapped(totals, sizes, _groups(items)).tolist())
    cut = round(0.025 * len(drawn))
    return Estimate(value, min(shared.low, drawn[cut]), max(shared.high, drawn[-cut - 1]), len(items))


def _units(items: Sequence[Outcome]) -> list[frozenset[str]]:
    return [frozenset(item.units or [f"item:{item.id}"]) for item in items]


def _groups(items: Sequence[Outcome]) -> list[str]:
    """What the bootstrap draws together: items of a template, else items alone."""
    return [next((unit for unit in item.units if unit.startswith("template:")), item.id) for item in items]


def _tokens(measure: Measure) -> dict[str, float]:
    return {item.id: item.weight for item in measure.items}


def _compared(ours: Measure, theirs: Measure, margin: float, seed: int) -> Measure:
    known = {item.id: item for item in theirs.items}
    lacking = [item for item in ours.items if item.id not in known]
    if lacking or len(known) != len(ours.items):
        raise ArgumentError(
            f"{ours.name}: the baseline was asked {len(known)} items, of which {len(ours.items) - len(lacking)} are among these "
            f"{len(ours.items)}, so that they cannot be paired.",
            remedy="Measure both with the same suite, number of items and seed; or give the baseline as a model.",
        )
    before = [known[item.id].score for item in ours.items]
    after = [item.score for item in ours.items]
    if ours.kind.unit == LOSS:
        difference = paired_means(
            after,
            before,
            [item.weight for item in ours.items],
            _groups(ours.items),
            _units(ours.items),
            margin=margin,
            baseline=theirs.score,
            seed=seed,
        )
    else:
        tasks = [item.task for item in ours.items]
        difference = paired_rates(after, before, tasks, _units(ours.items), margin=margin, baseline=theirs.score)
    return dataclasses.replace(ours, difference=difference)


def _measure(data: Mapping[str, Any]) -> Measure:
    if data["name"] not in KINDS:
        raise ValueError(f"there is no measure {data['name']!r}")
    given = data["difference"]
    difference = None
    if given is not None:
        fields = {snake_case(name): value for name, value in given.items() if name != "verdict"}
        estimates = {name: Estimate.from_dictionary(given[name]) for name in ("baseline", "estimate")}
        difference = Difference(**{**fields, **estimates})
    tasks = [
        TaskOutcome(
            one["task"],
            Estimate.from_dictionary(one["score"]),
            None if one["preference"] is None else Estimate.from_dictionary(one["preference"]),
        )
        for one in data["tasks"]
    ]
    items = [Outcome(**{**one, "units": tuple(one["units"])}) for one in data["items"]]
    return Measure(data["name"], Estimate.from_dictionary(data["score"]), tasks, items, difference)


def _provenance(data: Mapping[str, Any]) -> Provenance:
    return Provenance(**{snake_case(name): value for name, value in data.items()})
