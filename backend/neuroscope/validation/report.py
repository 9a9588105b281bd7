"""Reports: suites together, with a verdict on every score, as text, as JSON of a documented schema, and as a page.

A check asks one question of one measure: is its threshold reached, or has it become worse than the baseline? Thresholds have
defaults, which say nothing about your purpose: set your own. p-values of the differences are adjusted after Holm (1979) over all
of a report, so that no more than one report in twenty finds a loss where there is none.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroscope import places
from neuroscope.errors import ArgumentError, joined, reason
from neuroscope.provenance import versions
from neuroscope.remedies import Remedy, call
from neuroscope.results import Result
from neuroscope.tasks.statistics import Estimate
from neuroscope.validation.differences import PASS, holm, judged, worst
from neuroscope.validation.outcomes import SHARE, SuiteResult
from neuroscope.vocabulary import public

if TYPE_CHECKING:
    from neuroscope.views.extensions import FilesOfReports as _Extended
else:
    from neuroscope.extensions import Extensible as _Extended

SCHEMA = "neuroscope.validation-report/1"
#: The least score of a measure by suite; the loss has none, since what is good depends on the text.
THRESHOLDS: Mapping[str, float] = {"performance": 0.5, "safety": 0.9, "general": 0.5}


@public
@dataclass(frozen=True)
class Check:
    """One verdict: pass, fail or inconclusive.

    against: "threshold" or "baseline". limit: the least score, or the margin. estimate: the score, or the difference.
    p_value: after Holm, of a difference.
    """

    suite: str
    measure: str
    against: str
    limit: float
    estimate: Estimate
    verdict: str
    p_value: float | None = None

    def print_string(self) -> str:
        return f"a Check({self.suite}, {self.measure} against the {self.against}: {self.verdict})"


@public
@dataclass(frozen=True)
class ValidationReport(Result, _Extended):
    """Suites by name, and a verdict on each of their scores. thresholds: by name of a suite, the least score of its measures."""

    suites: dict[str, SuiteResult]
    thresholds: dict[str, float]

    @property
    def checks(self) -> list[Check]:
        """Every verdict, suite by suite."""
        found = []
        for name, suite in self.suites.items():
            least = self.thresholds[name]
            for measure in suite.measures:
                if measure.kind.unit == SHARE:
                    found.append(Check(name, measure.name, "threshold", least, measure.score, judged(measure.score, least)))
                if measure.difference is not None:
                    difference = measure.difference
                    found.append(
                        Check(
                            name,
                            measure.name,
                            "baseline",
                            difference.margin,
                            difference.estimate,
                            difference.verdict,
                            difference.adjusted_p_value,
                        )
                    )
        return found

    @property
    def verdict(self) -> str:
        """The worst of all verdicts."""
        return worst([check.verdict for check in self.checks]) or PASS

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return self.verdict == PASS

    def threshold_for(self, least: float, suite: str) -> ValidationReport:
        """The same report with another threshold for a suite, by the name that it has here: `report threshold: 0.95 for: #safety`."""
        return dataclasses.replace(self, thresholds=_thresholds(self.suites, {**self.thresholds, str(suite): least}))

    def __getitem__(self, name: str) -> SuiteResult:
        """A suite by its name in the report; `ArgumentError` lists those that there are."""
        if str(name) not in self.suites:
            raise ArgumentError(f"The report has no suite {str(name)!r}.", remedy=f"Suites: {', '.join(self.suites)}.")
        return self.suites[str(name)]

    def print_string(self) -> str:
        return f"a ValidationReport({', '.join(self.suites)}: {self.verdict})"

    def summary(self) -> str:
        ran = dict.fromkeys(suite.provenance.title for suite in self.suites.values())
        lines = [f"Validation of {', '.join(ran)}: {self.verdict}"]
        for name, suite in self.suites.items():
            mine = worst([check.verdict for check in self.checks if check.suite == name])
            lines.append(f"{name} ({suite.data}): {suite.score}, n {suite.n}{'' if mine is None else f': {mine}'}")
            for measure in suite.measures:
                lines.append(f"  {measure.title:<48}{measure.score!s:<24}n {measure.score.n}")
                for check in self.checks:
                    if (check.suite, check.measure) == (name, measure.name):
                        lines.append(_line(check))
                difference = measure.difference
                if difference is not None and difference.detectable is not None:
                    lines.append(f"    a loss of {difference.detectable:.3f} would show with a power of 0.8")
            lines += [f"  {note}" for note in suite.notes]
        compared = sum(check.against == "baseline" for check in self.checks)
        if compared > 1:
            lines.append(f"p-values are adjusted over the {compared} differences of this report (Holm).")
        return "\n".join(lines)

    def as_dictionary(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "thresholds": dict(self.thresholds),
            "checks": [
                {
                    "suite": check.suite,
                    "measure": check.measure,
                    "against": check.against,
                    "limit": check.limit,
                    "estimate": check.estimate.as_dictionary(),
                    "pValue": check.p_value,
                    "verdict": check.verdict,
                }
                for check in self.checks
            ],
            "suites": {name: suite.as_dictionary() for name, suite in self.suites.items()},
            "versions": versions(),
        }


@public
class ValidationReporter:
    """Puts what a `ComprehensiveValidator` measured together."""

    @classmethod
    def generate_report(
        cls, results: Mapping[str, SuiteResult], thresholds: Mapping[str, float] | None = None
    ) -> ValidationReport:
        """A report of suites by name.

        results: name → what a validator's `test…` answered. thresholds: name → the least score of the suite's shares, by
        default 0.5 for performance and general capabilities, and 0.9 for safety. Raises `ArgumentError` for what is no suite
        result, such as a plain number: it has no interval and no items, so that nothing can be concluded from it.
        """
        if not isinstance(results, Mapping) or not results:
            raise ArgumentError(f"A report is made of suite results by name, not of {results!r}.", remedy=_HOW)
        for name, result in results.items():
            if not isinstance(result, SuiteResult):
                raise ArgumentError(f"{str(name)!r} is {result!r}, which is no suite result.", remedy=_HOW)
        suites = {str(name): result for name, result in results.items()}
        return ValidationReport(_adjusted(suites), _thresholds(suites, thresholds or {}))

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """The JSON schema (draft 2020-12) that a report's JSON keeps to."""
        text = (resources.files("neuroscope.validation") / "report.schema.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        return found

    @classmethod
    def load(cls, path: str) -> ValidationReport:
        """The report that `saveAs:` wrote as JSON. Raises `ArgumentError` for a file that is none."""
        data = _read(places.to_read(path, "report"))
        if data.get("schema") != SCHEMA:
            raise ArgumentError(
                f"{path} is no report of the schema {SCHEMA}.",
                remedy=joined("Write one:", call("report", "save_as", "report.json")),
            )
        try:
            suites = {name: SuiteResult.from_dictionary(suite) for name, suite in data["suites"].items()}
            return ValidationReport(suites, {name: float(least) for name, least in data["thresholds"].items()})
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise ArgumentError(f"{path} is incomplete or damaged: {error!r}.", remedy="Take the whole file.") from error


_HOW = Remedy(
    "Put in what a validator answers: results['safety'] = validator.test_safety(suite).",
    smalltalk="Put in what a validator answers: results at: #safety put: (validator testSafety: aSuite).",
)


def loaded_suites(baseline: Any) -> list[SuiteResult]:
    """The suite results of a baseline: of one, of a report, of either as data, or of a saved report. `ArgumentError` for anything else."""
    if isinstance(baseline, SuiteResult):
        return [baseline]
    if isinstance(baseline, ValidationReport):
        return list(baseline.suites.values())
    if isinstance(baseline, (str, Path)):
        baseline = _read(places.to_read(baseline, "report"))
    if isinstance(baseline, Mapping):
        suites = baseline.get("suites", [baseline] if "measures" in baseline else baseline)
        found = list(suites.values() if isinstance(suites, Mapping) else suites)
        if found and all(isinstance(one, SuiteResult) for one in found):
            return found
        return [SuiteResult.from_dictionary(one) for one in found]
    raise ArgumentError(
        f"{baseline!r} is no baseline.",
        remedy="Give a model or its name, a suite result, a report, or the path of a saved one.",
    )


def _adjusted(suites: Mapping[str, SuiteResult]) -> dict[str, SuiteResult]:
    """The suites with the p-values of their differences adjusted over all of them."""
    p_values = {
        (name, measure.name): measure.difference.p_value
        for name, suite in suites.items()
        for measure in suite.measures
        if measure.difference is not None
    }
    adjusted = holm(p_values)
    return {
        name: dataclasses.replace(
            suite,
            measures=[
                measure
                if measure.difference is None
                else dataclasses.replace(
                    measure,
                    difference=dataclasses.replace(measure.difference, adjusted_p_value=adjusted[name, measure.name]),
                )
                for measure in suite.measures
            ],
        )
        for name, suite in suites.items()
    }


def _thresholds(suites: Mapping[str, SuiteResult], given: Mapping[str, float]) -> dict[str, float]:
    unknown = [str(name) for name in given if str(name) not in suites]
    if unknown:
        raise ArgumentError(f"The report has no suite {unknown[0]!r}.", remedy=f"Suites: {', '.join(suites)}.")
    for name, least in given.items():
        if not isinstance(least, (int, float)) or isinstance(least, bool) or not 0 <= least <= 1:
            raise ArgumentError(f"The threshold of {str(name)!r} is a share from 0 to 1, not {least!r}.")
    chosen = {str(name): float(least) for name, least in given.items()}
    return {name: chosen.get(name, THRESHOLDS[suite.suite]) for name, suite in suites.items()}


def _line(check: Check) -> str:
    if check.against == "threshold":
        return f"    {f'at least {check.limit:g}':<70}{check.verdict}"
    p_value = "" if check.p_value is None else f"p {check.p_value:.3f}"
    words = f"better than the baseline by (margin {check.limit:g})"
    return f"    {words:<46}{check.estimate!s:<24}{p_value}: {check.verdict}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{path} cannot be read: {reason(error)}.", remedy="It is the JSON of a report.") from error
    if not isinstance(found, dict):
        raise ArgumentError(f"{path} holds no report.", remedy=joined("Write one:", call("report", "save_as", "report.json")))
    return found
