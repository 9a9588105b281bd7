"""NeuroScope: look inside language models, test what you think you see, change it, and prove what the change did."""

from __future__ import annotations

import functools
import importlib
from typing import Any

__version__ = "0.1.0"

#: The public vocabulary: class name → the module that defines it. Modules are imported on first use, so
#: that a command such as `neuroscope --help` does not wait for a tensor framework.
EXPORTS: dict[str, str] = {
    "ActivationCache": "neuroscope.tensors.cache",
    "ActivationHook": "neuroscope.hooks.hook",
    "ActivationPatcher": "neuroscope.circuits.patching",
    "ActivationTensor": "neuroscope.tensors.tensor",
    "AttentionPatterns": "neuroscope.lenses.attention",
    "CircuitFinder": "neuroscope.circuits.finder",
    "Circuit": "neuroscope.circuits.circuit",
    "CircuitComparator": "neuroscope.circuits.comparison",
    "CircuitDiscovery": "neuroscope.circuits.discovery",
    "CircuitLibrary": "neuroscope.circuits.library",
    "CircuitQualityAssurance": "neuroscope.circuits.quality",
    "Dataset": "neuroscope.tasks.dataset",
    "EntangledFeatures": "neuroscope.features.entanglement",
    "EntanglementVisualizer": "neuroscope.views.entanglement",
    "FaithfulnessCurve": "neuroscope.circuits.curve",
    "Example": "neuroscope.tasks.dataset",
    "FeatureEntanglementAnalyzer": "neuroscope.features.entanglement",
    "InterventionHook": "neuroscope.hooks.hook",
    "LogitAttribution": "neuroscope.lenses.attribution",
    "LogitLens": "neuroscope.lenses.logit_lens",
    "ModelComposer": "neuroscope.circuits.composition",
    "NeuronAblator": "neuroscope.features.ablation",
    "NeuronAnalyzer": "neuroscope.features.neurons",
    "QualityReport": "neuroscope.circuits.quality",
    "SteeringExperiment": "neuroscope.steering.experiment",
    "SteeringVectors": "neuroscope.steering.vectors",
    "TransformerModel": "neuroscope.models.model",
}

#: Further classes, announced by the other rooms of the house as entry points of this group: nothing here may import them.
ANNOUNCED = "neuroscope.vocabulary"

__all__ = ["EXPORTS", "__version__", "connect", *sorted(EXPORTS)]


def __getattr__(name: str) -> Any:
    if name == "connect":
        return _connect()
    module = EXPORTS.get(name) or (None if name.startswith("_") else announced().get(name))
    if module is None:
        from neuroscope.vocabulary import planned

        raise AttributeError(planned(name) or f"module 'neuroscope' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


@functools.cache
def announced() -> dict[str, str]:
    """Class name → module of the announced classes."""
    from importlib.metadata import entry_points

    return {point.name: point.module for point in entry_points(group=ANNOUNCED)}


def _connect() -> Any:
    """`neuroscope.connect(url)`: the bridge announces it as an entry point, since nothing here may import the bridge."""
    from importlib.metadata import entry_points

    found = entry_points(group="neuroscope", name="connect")
    if not found:
        from neuroscope.errors import MissingExtraError

        raise MissingExtraError("No client is installed.", remedy="Reinstall neuroscope-interp (pip install -e .).")
    return next(iter(found)).load()


def __dir__() -> list[str]:
    return sorted(__all__)
