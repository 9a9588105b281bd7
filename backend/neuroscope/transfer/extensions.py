"""What transfer gives to models: circuits of other models, installed behind a layer."""

from __future__ import annotations

from typing import Any, cast

from neuroscope.extensions import extends
from neuroscope.models.model import TransformerModel
from neuroscope.models.saving import KEEPERS
from neuroscope.transfer import installation
from neuroscope.transfer.installation import CircuitInstallation
from neuroscope.transfer.keeping import Installations

KEEPERS.append(Installations())


@extends(TransformerModel)
class TransfersOfModels:
    """Circuits of other models, as hooks: the model's own weights stay."""

    def install_circuit(self, circuit: Any, at: Any) -> CircuitInstallation:
        """Install an adapted circuit behind a layer (`#layer10` or 10), at a gate that is 0 unless it helps; answers what was measured.

        `uninstall` takes it off. Raises `ArgumentError` for what is not adapted or is installed there already, `CircuitError` for a
        circuit adapted to another model, and `SiteError` for a layer that the model does not have.
        """
        return installation.install(cast(TransformerModel, self), circuit, at)

    @property
    def installed_circuits(self) -> list[CircuitInstallation]:
        """The circuits of other models that are installed, the oldest first."""
        return installation.installed_on(cast(TransformerModel, self))
