"""Reports: verdicts, JSON that keeps to its schema, a page that needs no network, and what is refused."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from neuroscope.errors import ArgumentError, NeuroScopeError
from neuroscope.validation.differences import holm
from neuroscope.validation.outcomes import SuiteResult
from neuroscope.validation.report import ValidationReport, ValidationReporter
from neuroscope_dsl.workspace import Workspace
from tests import browser as browsers
from tests.backend.validation.made import MARGINS, result, right
from tests.backend.views.drawn import shown


def suites(lost: int = 0) -> dict[str, SuiteResult]:
    """Three suites, the first of which has `lost` items of two hundred less than its baseline."""
    performance, before = (
        result("performance", accuracy={"sums": right(100, wrong), "facts": right(100, 3)}) for wrong in (lost, 0)
    )
    safety = result(
        "safety",
        refusals={"refusals": right(100, 0)},
        answers={"answers": right(100, 6)},
        trap_answers={"traps": right(100, 40)},
    )
    slower = [3.0 + number % 5 for number in range(60)]
    general = result("general", accuracy={"sums": right(150, 6)}, loss={"prose": slower, "code": slower})
    quicker = result("general", accuracy={"sums": right(150, 6)}, loss={"prose": [one - 1 for one in slower], "code": slower})
    return {
        "originalPerformance": performance.compared_with(before, MARGINS),
        "safety": safety,
        "generalCapabilities": general.compared_with(quicker, MARGINS),
    }


@pytest.fixture(scope="module")
def report() -> ValidationReport:
    return ValidationReporter.generate_report(suites(lost=20))


def verdicts(report: ValidationReport) -> dict[tuple[str, str, str], str]:
    return {(check.suite, check.measure, check.against): check.verdict for check in report.checks}


# --- verdicts -------------------------------------------------------------------------------------------------------------


def test_every_score_has_a_verdict(report: ValidationReport) -> None:
    assert verdicts(report) == {
        ("originalPerformance", "accuracy", "threshold"): "pass",
        ("originalPerformance", "accuracy", "baseline"): "fail",  # ten points
        ("safety", "refusals", "threshold"): "pass",
        ("safety", "answers", "threshold"): "inconclusive",  # 94 of 100
        ("safety", "trap_answers", "threshold"): "fail",  # 60 of 100
        ("generalCapabilities", "accuracy", "threshold"): "pass",
        ("generalCapabilities", "accuracy", "baseline"): "pass",
        ("generalCapabilities", "loss", "baseline"): "fail",  # 0.05 nats per token, which are not within 0.05
    }
    assert report.verdict == "fail"
    assert not report.passed
    fine = ValidationReporter.generate_report({"p": result("performance", accuracy={"sums": right(100, 0)})})
    assert fine.passed


def test_p_values_are_adjusted_over_all_differences(report: ValidationReport) -> None:
    found = {
        (name, measure.name): measure.difference
        for name, suite in report.suites.items()
        for measure in suite.measures
        if measure.difference is not None
    }
    assert len(found) == 3
    expected = holm({key: difference.p_value for key, difference in found.items()})
    assert {key: difference.adjusted_p_value for key, difference in found.items()} == expected
    assert "adjusted over the 3 differences" in report.summary()


def test_thresholds_can_be_set(report: ValidationReport) -> None:
    name = ("safety", "trap_answers", "threshold")
    assert verdicts(report.threshold_for(0.4, "safety"))[name] == "pass"
    assert verdicts(report)[name] == "fail"  # the report itself stays
    assert report.thresholds == {"originalPerformance": 0.5, "safety": 0.9, "generalCapabilities": 0.5}
    made = ValidationReporter.generate_report(suites(), thresholds={"safety": 0.4})
    assert made.thresholds["safety"] == 0.4
    for least in (1.5, -0.1, True, "high"):
        with pytest.raises(ArgumentError, match=r"share from 0 to 1|is a number"):
            report.threshold_for(least, "safety")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no suite 'safty'"):
        report.threshold_for(0.9, "safty")


@pytest.mark.parametrize("given", [0.93, {"score": 0.93}, None, "pass"])
def test_plain_numbers_are_refused_with_what_would_be_right(given: object) -> None:
    with pytest.raises(ArgumentError, match=r"'safety' is .* which is no suite result") as caught:
        ValidationReporter.generate_report({"safety": given})  # type: ignore[dict-item]
    assert "validator.test_safety(" in str(caught.value)


@pytest.mark.parametrize("given", [{}, [], 0.5, None])
def test_a_report_is_made_of_a_dictionary(given: object) -> None:
    with pytest.raises(ArgumentError, match="suite results by name"):
        ValidationReporter.generate_report(given)  # type: ignore[arg-type]


def test_scripts_make_reports_and_set_thresholds(report: ValidationReport, tmp_path: Path) -> None:
    workspace = Workspace()
    for name, suite in suites(lost=20).items():
        workspace.bind(name, suite)
    text = """
        results := Dictionary new.
        results at: #originalPerformance put: originalPerformance; at: #safety put: safety;
            at: #generalCapabilities put: generalCapabilities.
        report := ValidationReporter generateReport: results."""
    assert workspace.run(text).as_dictionary() == report.as_dictionary()
    assert workspace.run("(report threshold: 0.4 for: #safety) thresholds at: #safety") == 0.4
    assert workspace.run("(report at: #safety) n") == report["safety"].n == 300
    assert workspace.run("report passed") is False
    path = tmp_path / "report.json"
    assert workspace.run(f"report saveAs: '{path}'") == str(path)
    assert workspace.run(f"(ValidationReporter load: '{path}') verdict") == "fail"
    with pytest.raises(NeuroScopeError, match="no suite result"):
        workspace.run("results at: #speed put: 12. ValidationReporter generateReport: results")


# --- JSON -----------------------------------------------------------------------------------------------------------------


def test_the_schema_is_one_and_reports_keep_to_it(report: ValidationReport) -> None:
    schema = ValidationReporter.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(report.as_dictionary(), allow_nan=False)), schema)
    jsonschema.validate(ValidationReporter.generate_report(suites()).as_dictionary(), schema)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("verdict"),
        lambda data: data.update(schema="neuroscope.validation-report/2"),
        lambda data: data["checks"][0].update(verdict="maybe"),
        lambda data: data["suites"]["safety"].update(extra=1),
        lambda data: data["suites"]["safety"]["provenance"].pop("weightsHash"),
        lambda data: data["suites"]["safety"]["measures"][0]["items"][0].update(id="x"),
        lambda data: data["suites"]["safety"]["measures"][0]["score"].update(n="100"),
    ],
)
def test_the_schema_refuses_what_a_report_never_is(report: ValidationReport, spoil: Any) -> None:
    data = copy.deepcopy(report.as_dictionary())
    spoil(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, ValidationReporter.schema())


def test_a_report_that_was_saved_is_read_again(report: ValidationReport, tmp_path: Path) -> None:
    path = report.save_as(str(tmp_path / "deep" / "report.json"))
    again = ValidationReporter.load(path)
    assert again.as_dictionary() == report.as_dictionary()
    assert again.verdict == report.verdict
    with pytest.raises(ArgumentError, match="not written as"):
        report.save_as(str(tmp_path / "report.pdf"))
    (tmp_path / "other.json").write_text('{"schema": "x"}')
    with pytest.raises(ArgumentError, match="no report of the schema"):
        ValidationReporter.load(str(tmp_path / "other.json"))
    (tmp_path / "half.json").write_text(Path(path).read_text()[:500])
    with pytest.raises(ArgumentError, match="cannot be read"):
        ValidationReporter.load(str(tmp_path / "half.json"))
    with pytest.raises(ArgumentError, match="cannot be written"):
        report.save_as("/dev/null/report.json")


# --- pages ----------------------------------------------------------------------------------------------------------------


def test_scores_differences_and_margins_are_drawn_as_they_are(report: ValidationReport) -> None:
    page = shown(report)
    assert page.heading == report.print_string()
    assert page.summary == report.summary()
    scores = page.figure("Scores")
    shares = [
        (name, measure) for name, suite in report.suites.items() for measure in suite.measures if measure.kind.unit == "share"
    ]
    mine, limits = scores.trace("this model"), scores.trace("threshold")
    assert mine["y"] == [f"{name}: {measure.title}" for name, measure in shares]
    assert mine["x"] == pytest.approx([measure.score.value for _, measure in shares])
    assert mine["error_x"]["arrayminus"] == pytest.approx([m.score.value - m.score.low for _, m in shares])
    assert limits["x"] == [report.thresholds[name] for name, _ in shares]
    assert scores.trace("baseline")["x"] == pytest.approx([1 - 3 / 200, 1 - 6 / 150])
    points = page.figure("Better than the baseline by, in points")
    assert points.trace("fail")["x"] == pytest.approx([-10])
    assert points.trace("pass")["x"] == pytest.approx([0])
    assert points.trace("margin")["x"] == pytest.approx([-5, -5])
    nats = page.figure("Better than the baseline by, in nats per token")
    assert nats.trace("fail")["x"] == pytest.approx([-0.05])
    tasks = page.figure("originalPerformance: answers right, task by task").trace("this model")
    assert tasks["y"] == ["sums", "facts"]
    assert tasks["x"] == pytest.approx([0.8, 0.97])
    assert shown(report["safety"]).figure("Scores").trace("this model")["x"] == pytest.approx([1, 0.94, 0.6])


def test_the_page_asks_the_network_for_nothing(report: ValidationReport, tmp_path: Path) -> None:
    text = Path(report.save_as(str(tmp_path / "report.html"))).read_text(encoding="utf-8")
    for markup in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text):
        assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", markup), markup
    assert not re.search(r"@import|url\(\s*['\"]?https?:", text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsers.chromium() as found:
        yield found


@pytest.mark.slow
def test_the_page_opens_offline(browser: Any, report: ValidationReport, tmp_path: Path) -> None:
    path = Path(report.save_as(str(tmp_path / "report.html")))
    with browsers.opened(browser, path) as (page, complaints):
        page.wait_for_selector(".js-plotly-plot .main-svg")
        # Scores; differences in points and in nats; the tasks of two measures that have several.
        assert page.locator(".js-plotly-plot").count() == 5
        assert "fail" in page.locator("pre").inner_text()
    assert complaints == []
