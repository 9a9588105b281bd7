"""ModificationMonitor: what edits did to a model, measured on request and after every further one (documented script 19)."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field

from neuroscope import events
from neuroscope.editing import transactions
from neuroscope.errors import ArgumentError
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.names import Names
from neuroscope.remedies import Remedy
from neuroscope.results import Result
from neuroscope.validation.differences import FAIL
from neuroscope.validation.measuring import measure
from neuroscope.validation.outcomes import SuiteResult
from neuroscope.validation.suites import ValidationSuite
from neuroscope.validation.validator import margins
from neuroscope.vocabulary import public


def _performance(items: int, seed: int) -> ValidationSuite:
    return ValidationSuite.performance(n=items, seed=seed)


def _safety(items: int, seed: int) -> ValidationSuite:
    return ValidationSuite.safety(n=2 * items, seed=seed)


def _capabilities(items: int, seed: int) -> ValidationSuite:
    return ValidationSuite.general(n=items, seed=seed)


TRACKED = Names(
    "thing to track",
    {"performance": _performance, "safety": _safety, "capabilities": _capabilities},
    aliases={"general": "capabilities", "general_capabilities": "capabilities"},
    listing="Tracked are",
)


@public
@dataclass(frozen=True, kw_only=True)
class MonitoredChanges(Result):
    """A model with its edits against the same model without them.

    edits: titles of those that were applied. suites: what is tracked, each measure with its paired difference. warnings: the measures that got
    worse, in words.
    """

    model: str
    edits: list[str]
    suites: list[SuiteResult]
    warnings: list[str] = field(default_factory=list)

    def print_string(self) -> str:
        return f"a MonitoredChanges({len(self.edits)} edits, {len(self.warnings)} warnings)"

    def summary(self) -> str:
        lines = [f"{self.model} with {len(self.edits)} edits ({', '.join(self.edits) or 'none'}), against itself without"]
        for suite in self.suites:
            for one in suite.measures:
                difference = one.difference
                assert difference is not None
                lines.append(
                    f"  {suite.suite:<14}{one.name:<14}{difference.baseline.value:.3f} → {one.score.value:.3f}  "
                    f"{difference.estimate} {difference.verdict}"
                )
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])


@public
class ModificationMonitor(Instrument):
    """Watches a model that is edited. items: how many of each task are asked; twice as many requests of each kind."""

    def __init__(self, model: TransformerModel, seed: int | None = None, items: int = 10) -> None:
        super().__init__(model, seed)
        if not isinstance(items, int) or items < 2:
            raise ArgumentError(f"{items!r} items measure nothing.", remedy="Ask for at least 2.")
        self.items: int = items
        self._tracked: list[str] = []
        self._reports: list[MonitoredChanges] = []

    def track_changes(self, what: Iterable[str] | str | None = None) -> MonitoredChanges:
        """Measure now, and again after every edit that is applied or reverted, with a warning for what got worse.

        what: performance, safety, capabilities; by default all. Raises `ArgumentError` for anything else, with the nearest.
        """
        listed = list(TRACKED) if what is None else [what] if isinstance(what, str) else list(what)
        if not listed:
            raise ArgumentError("Nothing is given to track.", remedy=f"Give some of {', '.join(TRACKED)}.")
        chosen = [TRACKED.name(one) for one in listed]
        if not self._tracked:
            mine = weakref.ref(self)
            transactions.watch(self.model, lambda: _measured_again(mine))
        self._tracked = chosen
        return self.check()

    def check(self) -> MonitoredChanges:
        """Measure what is tracked. Raises `ArgumentError` before `trackChanges:` said what that is."""
        if not self._tracked:
            raise ArgumentError(
                "Nothing is tracked yet.", remedy=Remedy("Call track_changes first.", smalltalk="Send trackChanges: first.")
            )
        suites = [TRACKED[name](self.items, self.seed) for name in self._tracked]
        with transactions.unedited(self.model):
            before = [measure(suite, [self.model])[0] for suite in suites]
        after = [
            measure(suite, [self.model])[0].compared_with(old, margins(0.05)) for suite, old in zip(suites, before, strict=True)
        ]
        warnings = [
            f"{one.name} of {suite.suite}: {one.difference.baseline.value:.3f} → {one.score.value:.3f}"
            for suite in after
            for one in suite.measures
            if one.difference is not None and one.difference.verdict == FAIL
        ]
        for warning in warnings:
            events.notice(f"{self.model.title} got worse with its edits: {warning}", "warning")
        titles = [entry.edit.title for entry in transactions.ledger(self.model)]
        self._reports.append(MonitoredChanges(model=self.model.title, edits=titles, suites=after, warnings=warnings))
        return self._reports[-1]

    @property
    def reports(self) -> list[MonitoredChanges]:
        """Every measurement so far, the oldest first."""
        return list(self._reports)


def _measured_again(monitor: weakref.ref[ModificationMonitor]) -> bool:
    """Measure, unless the monitor is gone; whether it is still there."""
    found = monitor()
    if found is not None:
        found.check()
    return found is not None
