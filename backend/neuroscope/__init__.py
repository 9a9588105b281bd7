"""NeuroScope: look inside language models, test what you think you see, change it, and prove what the change did."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import neuroscope.waiting  # noqa: F401  # before anything loads the library that reads what it sets
from neuroscope import bars
from neuroscope.directory import EXPORTS, announced, missing

__version__ = "0.1.0"

__all__ = ["EXPORTS", "__version__", "connect", *sorted(EXPORTS)]


if bars.at_a_prompt():
    bars.show()

if TYPE_CHECKING:  # what `__getattr__` imports on first use, for type checkers and editors
    from neuroscope.circuits.circuit import Circuit as Circuit
    from neuroscope.circuits.comparison import CircuitComparator as CircuitComparator
    from neuroscope.circuits.composition import ModelComposer as ModelComposer
    from neuroscope.circuits.curve import FaithfulnessCurve as FaithfulnessCurve
    from neuroscope.circuits.discovery import CircuitDiscovery as CircuitDiscovery
    from neuroscope.circuits.finder import CircuitFinder as CircuitFinder
    from neuroscope.circuits.library import CircuitLibrary as CircuitLibrary
    from neuroscope.circuits.maps import PatchedSite as PatchedSite
    from neuroscope.circuits.maps import PatchingMap as PatchingMap
    from neuroscope.circuits.patching import ActivationPatcher as ActivationPatcher
    from neuroscope.circuits.quality import CircuitQualityAssurance as CircuitQualityAssurance
    from neuroscope.circuits.quality import QualityReport as QualityReport
    from neuroscope.editing.edit import EditedWeight as EditedWeight
    from neuroscope.editing.edit import WeightEdit as WeightEdit
    from neuroscope.editing.extracted import CircuitWeights as CircuitWeights
    from neuroscope.editing.extracted import ExtractedWeight as ExtractedWeight
    from neuroscope.editing.facts import FactEdit as FactEdit
    from neuroscope.editing.facts import KnowledgeEditor as KnowledgeEditor
    from neuroscope.editing.facts import RelatedFacts as RelatedFacts
    from neuroscope.editing.measures import FactAnswer as FactAnswer
    from neuroscope.editing.measures import FactRate as FactRate
    from neuroscope.editing.tracing import FactCircuit as FactCircuit
    from neuroscope.editing.transforms import EntityBias as EntityBias
    from neuroscope.editing.transforms import ErasedComponent as ErasedComponent
    from neuroscope.editing.transforms import ErasureControl as ErasureControl
    from neuroscope.editing.transforms import KeptCapability as KeptCapability
    from neuroscope.editing.transforms import WeightTransform as WeightTransform
    from neuroscope.features.ablation import NeuronAblator as NeuronAblator
    from neuroscope.features.entanglement import EntangledFeatures as EntangledFeatures
    from neuroscope.features.entanglement import FeatureEntanglementAnalyzer as FeatureEntanglementAnalyzer
    from neuroscope.features.neurons import NeuronAnalyzer as NeuronAnalyzer
    from neuroscope.features.neurons import NeuronSet as NeuronSet
    from neuroscope.hooks.hook import ActivationHook as ActivationHook
    from neuroscope.hooks.hook import InterventionHook as InterventionHook
    from neuroscope.lenses.attention import AttentionPatterns as AttentionPatterns
    from neuroscope.lenses.attribution import LogitAttribution as LogitAttribution
    from neuroscope.lenses.logit_lens import LogitLens as LogitLens
    from neuroscope.models.model import TransformerModel as TransformerModel
    from neuroscope.safety.circuits import HarmfulCircuit as HarmfulCircuit
    from neuroscope.safety.circuits import HarmfulCircuits as HarmfulCircuits
    from neuroscope.safety.detection import Detection as Detection
    from neuroscope.safety.editor import SafetyEditor as SafetyEditor
    from neuroscope.safety.judging import SafetyReport as SafetyReport
    from neuroscope.safety.probe import Probe as Probe
    from neuroscope.safety.probe import TokenScores as TokenScores
    from neuroscope.steering.experiment import SteeringExperiment as SteeringExperiment
    from neuroscope.steering.vectors import SteeringVectors as SteeringVectors
    from neuroscope.tasks.dataset import Dataset as Dataset
    from neuroscope.tasks.dataset import Example as Example
    from neuroscope.tasks.metrics import MetricPrompt as MetricPrompt
    from neuroscope.tasks.records import FactExample as FactExample
    from neuroscope.tasks.records import FactQuestion as FactQuestion
    from neuroscope.tensors.cache import ActivationCache as ActivationCache
    from neuroscope.tensors.tensor import ActivationTensor as ActivationTensor
    from neuroscope.transfer.circuits import AdaptedCircuit as AdaptedCircuit
    from neuroscope.transfer.circuits import CircuitTransfer as CircuitTransfer
    from neuroscope.transfer.installation import CircuitInstallation as CircuitInstallation
    from neuroscope.transfer.installation import GateTrial as GateTrial
    from neuroscope.transfer.maps import StreamMap as StreamMap
    from neuroscope.tuning.course import TrainingPoint as TrainingPoint
    from neuroscope.tuning.results import CircuitFaithfulness as CircuitFaithfulness
    from neuroscope.tuning.results import CircuitTraining as CircuitTraining
    from neuroscope.tuning.results import TrainedWeights as TrainedWeights
    from neuroscope.tuning.trainer import CircuitAwareTrainer as CircuitAwareTrainer
    from neuroscope.validation.levels import RiskLevel as RiskLevel
    from neuroscope.validation.monitor import ModificationMonitor as ModificationMonitor
    from neuroscope.validation.monitor import MonitoredChanges as MonitoredChanges
    from neuroscope.validation.report import ValidationReport as ValidationReport
    from neuroscope.validation.report import ValidationReporter as ValidationReporter
    from neuroscope.validation.risk import CategoryRisk as CategoryRisk
    from neuroscope.validation.risk import ModificationSafetyAnalyzer as ModificationSafetyAnalyzer
    from neuroscope.validation.risk import RiskAssessment as RiskAssessment
    from neuroscope.validation.suites import ValidationSuite as ValidationSuite
    from neuroscope.validation.validator import ComprehensiveValidator as ComprehensiveValidator
    from neuroscope.views.entanglement import EntanglementVisualizer as EntanglementVisualizer
    from neuroscope_bridge.client import connect as connect
    from neuroscope_bridge.rest.client import LMStudioRESTClient as LMStudioRESTClient
else:

    def __getattr__(name: str) -> Any:
        if name == "connect":
            return _connect()
        module = EXPORTS.get(name) or (None if name.startswith("_") else announced().get(name))
        if module is None:
            raise AttributeError(_unknown(name))
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise missing(error) or error from error


def _unknown(name: str) -> str:
    from neuroscope.elsewhere import OF_THE_PACKAGE
    from neuroscope.errors import did_you_mean
    from neuroscope.vocabulary import planned

    if name.startswith("_"):
        return f"module 'neuroscope' has no attribute {name!r}"
    here = OF_THE_PACKAGE.get(name)
    told = did_you_mean(name, __all__) if here is None else f"Here it is {here}."
    return planned(name) or f"module 'neuroscope' has no attribute {name!r}. {told}"


def _connect() -> Any:
    """`neuroscope.connect(url)`, found through an entry point, since nothing here may import the bridge."""
    from importlib.metadata import entry_points

    found = entry_points(group="neuroscope", name="connect")
    if not found:
        from neuroscope.errors import MissingExtraError

        raise MissingExtraError(
            "The package neuroscope_bridge, which has the client, is not installed.",
            remedy="Reinstall neuroscope-interp (pip install -e .).",
        )
    return next(iter(found)).load()


def __dir__() -> list[str]:
    return sorted(__all__)
