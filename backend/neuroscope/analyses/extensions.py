"""Extension of models: `model analyze: #factualRecall`."""

from __future__ import annotations

from typing import Any, cast

from neuroscope.analyses import registry
from neuroscope.extensions import extends
from neuroscope.models.model import TransformerModel
from neuroscope.results import Result


@extends(TransformerModel)
class AnalysesOfModels:
    """`analyze:`."""

    def analyze(self, analysis: str, on: Any = None) -> Result:
        """Run an analysis by name: `model analyze: #factualRecall on: 'The capital of France is'`.

        `on` is a text or, for some, a task, a `Dataset` or examples; by default the analysis uses its own. Raises
        `AnalysisNotFoundError` (with the nearest names) and the errors of `neuroscope.analyses.registry.analyze`.
        """
        return registry.analyze(cast(TransformerModel, self), str(analysis), on)
