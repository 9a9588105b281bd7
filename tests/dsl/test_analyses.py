"""Analyses and entanglement by message."""

from __future__ import annotations

import pytest

from neuroscope.errors import NeuroScopeError
from neuroscope.features.entanglement import EntangledFeatures
from neuroscope.lenses.logit_lens import LogitLens
from neuroscope_dsl.workspace import Workspace
from tests import tiny


@pytest.fixture
def workspace() -> Workspace:
    made = Workspace()
    made.bind("model", tiny.model("gpt2"))
    return made


def test_an_analysis_is_run_by_message(workspace: Workspace) -> None:
    assert isinstance(workspace.run("model analyze: #logitLens on: 'w5 w6 w7'"), LogitLens)
    assert workspace.run("(model analyze: #attentionPatterns on: 'w5 w6 w7') tokens size") == 3


def test_own_domains_come_as_a_dictionary(workspace: Workspace) -> None:
    text = """
        texts := [:first | (1 to: 60) collect: [:n |
            'w', (first + (n \\\\ 7)) printString, ' w', (10 + (n // 2)) printString, ' w', (30 + (n * first \\\\ 19)) printString]].
        domains := Dictionary new.
        domains at: #tales put: (texts value: 50).
        domains at: #sums put: (texts value: 60).
        (FeatureEntanglementAnalyzer for: model) findEntanglement: domains against: (texts value: 70)"""
    found = workspace.run(text)
    assert isinstance(found, EntangledFeatures)
    assert found.domains == ["tales", "sums"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model analyze: #logitLense on: 'w5 w6'", "logit_lens"),
        ("model analyze: #logitLens on: 'w5'", "too short"),
        ("(FeatureEntanglementAnalyzer for: model) findEntanglement: #(#mathematics #poetri #code)", "poetri"),
        ("EntanglementVisualizer for: 3", "shows EntangledFeatures"),
    ],
)
def test_faults_are_told_where_they_are(workspace: Workspace, text: str, says: str) -> None:
    with pytest.raises(NeuroScopeError) as caught:
        workspace.run(text)
    assert says in str(caught.value)
