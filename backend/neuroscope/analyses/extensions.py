"""What analyses give to models: `model analyze: #factualRecall`."""

from __future__ import annotations

from typing import Any, cast

from neuroscope.analyses import registry
from neuroscope.extensions import extends
from neuroscope.models.model import TransformerModel
from neuroscope.results import Result


@extends(TransformerModel)
class AnalysesOfModels:
    """Questions to a model by name."""

    def analyze(self, analysis: str, on: Any = None) -> Result:
        """Run an analysis by name: `model analyze: #factualRecall on: 'The capital of France is'`.

        `on` is a text or, for some, a task, a `Dataset` or examples; without it the analysis takes its own. Raises
        `AnalysisNotFoundError` (names the nearest) and what `neuroscope.analyses.registry.analyze` does.
        """
        return registry.analyze(cast(TransformerModel, self), str(analysis), on)
