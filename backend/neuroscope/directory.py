"""Tables of the public classes: the module that defines each, and the modules that extend it. Nothing is imported before use."""

from __future__ import annotations

import functools
from importlib.metadata import entry_points

from neuroscope.errors import MissingExtraError
from neuroscope.remedies import install

#: Public class name → the module that defines it, imported on first use, so that `neuroscope --help` does not wait for a tensor
#: framework.
EXPORTS: dict[str, str] = {
    "ActivationCache": "neuroscope.tensors.cache",
    "ActivationHook": "neuroscope.hooks.hook",
    "ActivationPatcher": "neuroscope.circuits.patching",
    "ActivationTensor": "neuroscope.tensors.tensor",
    "AttentionPatterns": "neuroscope.lenses.attention",
    "CircuitAwareTrainer": "neuroscope.tuning.trainer",
    "CircuitFaithfulness": "neuroscope.tuning.results",
    "CircuitFinder": "neuroscope.circuits.finder",
    "CategoryRisk": "neuroscope.validation.risk",
    "AdaptedCircuit": "neuroscope.transfer.circuits",
    "Circuit": "neuroscope.circuits.circuit",
    "CircuitComparator": "neuroscope.circuits.comparison",
    "CircuitDiscovery": "neuroscope.circuits.discovery",
    "CircuitInstallation": "neuroscope.transfer.installation",
    "CircuitLibrary": "neuroscope.circuits.library",
    "CircuitWeights": "neuroscope.editing.extracted",
    "CircuitQualityAssurance": "neuroscope.circuits.quality",
    "CircuitTransfer": "neuroscope.transfer.circuits",
    "ComprehensiveValidator": "neuroscope.validation.validator",
    "CircuitTraining": "neuroscope.tuning.results",
    "Detection": "neuroscope.safety.detection",
    "Dataset": "neuroscope.tasks.dataset",
    "EntityBias": "neuroscope.editing.transforms",
    "ErasedComponent": "neuroscope.editing.transforms",
    "ErasureControl": "neuroscope.editing.transforms",
    "ExtractedWeight": "neuroscope.editing.extracted",
    "GateTrial": "neuroscope.transfer.installation",
    "StreamMap": "neuroscope.transfer.maps",
    "EntangledFeatures": "neuroscope.features.entanglement",
    "EntanglementVisualizer": "neuroscope.views.entanglement",
    "FaithfulnessCurve": "neuroscope.circuits.curve",
    "Example": "neuroscope.tasks.dataset",
    "FeatureEntanglementAnalyzer": "neuroscope.features.entanglement",
    "FactAnswer": "neuroscope.editing.measures",
    "FactCircuit": "neuroscope.editing.tracing",
    "FactEdit": "neuroscope.editing.facts",
    "FactExample": "neuroscope.tasks.records",
    "FactQuestion": "neuroscope.tasks.records",
    "FactRate": "neuroscope.editing.measures",
    "HarmfulCircuit": "neuroscope.safety.circuits",
    "HarmfulCircuits": "neuroscope.safety.circuits",
    "InterventionHook": "neuroscope.hooks.hook",
    "KeptCapability": "neuroscope.editing.transforms",
    "KnowledgeEditor": "neuroscope.editing.facts",
    "LogitAttribution": "neuroscope.lenses.attribution",
    "LogitLens": "neuroscope.lenses.logit_lens",
    "EditedWeight": "neuroscope.editing.edit",
    "ModificationMonitor": "neuroscope.validation.monitor",
    "ModificationSafetyAnalyzer": "neuroscope.validation.risk",
    "MonitoredChanges": "neuroscope.validation.monitor",
    "MetricPrompt": "neuroscope.tasks.metrics",
    "ModelComposer": "neuroscope.circuits.composition",
    "NeuronAblator": "neuroscope.features.ablation",
    "NeuronAnalyzer": "neuroscope.features.neurons",
    "NeuronSet": "neuroscope.features.neurons",
    "PatchedSite": "neuroscope.circuits.maps",
    "PatchingMap": "neuroscope.circuits.maps",
    "Probe": "neuroscope.safety.probe",
    "QualityReport": "neuroscope.circuits.quality",
    "RelatedFacts": "neuroscope.editing.facts",
    "RiskAssessment": "neuroscope.validation.risk",
    "RiskLevel": "neuroscope.validation.levels",
    "SafetyEditor": "neuroscope.safety.editor",
    "SafetyReport": "neuroscope.safety.judging",
    "SteeringExperiment": "neuroscope.steering.experiment",
    "SteeringVectors": "neuroscope.steering.vectors",
    "TrainedWeights": "neuroscope.tuning.results",
    "TrainingPoint": "neuroscope.tuning.course",
    "TokenScores": "neuroscope.safety.probe",
    "TransformerModel": "neuroscope.models.model",
    "ValidationReport": "neuroscope.validation.report",
    "ValidationReporter": "neuroscope.validation.report",
    "ValidationSuite": "neuroscope.validation.suites",
    "WeightEdit": "neuroscope.editing.edit",
    "WeightTransform": "neuroscope.editing.transforms",
}

#: Class name → the modules of upper rooms that extend it (`extensions`), imported when one of their methods is first used.
EXTENSIONS: dict[str, tuple[str, ...]] = {
    "Circuit": ("neuroscope.views.extensions", "neuroscope.editing.extensions"),
    "NeuronSet": ("neuroscope.editing.extensions",),
    "Result": ("neuroscope.views.extensions",),
    "TransformerModel": (
        "neuroscope.tasks.extensions",
        "neuroscope.steering.extensions",
        "neuroscope.editing.extensions",
        "neuroscope.analyses.extensions",
        "neuroscope.transfer.extensions",
    ),
    "ValidationReport": ("neuroscope.views.extensions",),
    "WeightView": ("neuroscope.tensors.extensions",),
}

#: Extra of the distribution → the packages that it brings, as they are imported. What none of them names, every install has.
EXTRAS: dict[str, tuple[str, ...]] = {
    "torch": ("torch", "transformers", "tokenizers", "safetensors", "scipy", "sklearn", "huggingface_hub", "jinja2"),
    "mlx": ("mlx", "mlx_lm"),
    "gguf": ("gguf", "accelerate"),
    "server": ("fastapi", "starlette", "uvicorn", "pydantic", "pydantic_core", "orjson"),
    "figures": ("plotly", "networkx"),
    "images": ("kaleido",),
    "frames": ("pandas",),
    "repl": ("prompt_toolkit",),
    "notebook": ("ipykernel", "jupyter_client", "tqdm"),
    "lm-eval": ("lm_eval",),
    "ray": ("ray",),
    "lora": ("peft",),
}


def missing(error: ModuleNotFoundError) -> MissingExtraError | None:
    """The error for a package that an extra would bring, or None if no extra has it."""
    package = (error.name or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if package in packages:
            return MissingExtraError(f"This needs the package {package}, which is not installed.", remedy=install(extra))
    return None


#: Entry points of this group name further classes, of packages that nothing here may import.
ANNOUNCED = "neuroscope.vocabulary"


@functools.cache
def announced() -> dict[str, str]:
    """Class name → module, from the entry points."""
    return {point.name: point.module for point in entry_points(group=ANNOUNCED)}
