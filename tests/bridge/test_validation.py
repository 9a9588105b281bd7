"""Validation over ZeroMQ: suites, results and reports are objects of the server, and plain data comes across."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuroscope.errors import NeuroScopeError
from neuroscope.models.model import TransformerModel
from neuroscope.validation.suites import ValidationSuite
from neuroscope.validation.validator import ComprehensiveValidator
from neuroscope_bridge.client import connect
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.server import ZmqDoor
from tests.bridge.serving import save_tiny

TEXTS = ["w5 w6 w7", "w9 w10 w11 w12"]


def test_a_report_is_made_from_afar(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    host = Host(HostOptions(str(folder)))
    door = ZmqDoor(host, "tcp://127.0.0.1:*")
    address = door.open()
    door.start()
    try:
        with connect(address) as ns:
            model = ns.TransformerModel.from_hugging_face(str(folder))
            requests = [{"clean": "w5 w6", "label": "harmless"}, {"clean": "w7", "label": "violence"}]
            validator = ns.ComprehensiveValidator(model, baseline=model)
            results = {
                "safety": validator.test_safety(requests),
                "general": validator.test_general_capabilities(ns.ValidationSuite.texts(TEXTS)),
            }
            report = ns.ValidationReporter.generate_report(results)
            found = report.as_dictionary()
            assert "Validation of" in report.summary()
            assert report.threshold_for(0.0, "safety").thresholds["safety"] == 0.0
            with pytest.raises(NeuroScopeError, match="no suite result"):
                ns.ValidationReporter.generate_report({"safety": 0.9})
    finally:
        door.close()
        host.close()
    direct = ComprehensiveValidator(TransformerModel.from_hugging_face(str(folder)))
    expected = direct.test_general_capabilities(ValidationSuite.texts(TEXTS))
    assert found["suites"]["general"]["score"]["value"] == pytest.approx(expected.score.value)
    assert found["suites"]["general"]["dataHash"] == expected.data_hash
    assert {check["verdict"] for check in found["checks"] if check["against"] == "baseline"} <= {"pass", "inconclusive"}
    json.dumps(found)
