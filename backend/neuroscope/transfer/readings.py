"""What neurons read in the residual stream."""

from __future__ import annotations

import numpy as np

from neuroscope.engines.weights import Weight, WeightSite
from neuroscope.errors import ArgumentError, CircuitError, SiteError
from neuroscope.features.neurons import NeuronSet
from neuroscope.models.model import TransformerModel
from neuroscope.transfer.maps import Numbers


def read_by(neurons: NeuronSet, model: TransformerModel) -> Numbers:
    """(neurons, d_model): the directions whose products with the stream, over the norm's scale, go through the neurons' nonlinearity (of a
    gated MLP, the gate's), less their biases.

    Raises `CircuitError` for neurons of another model, `ArgumentError` for none and for those of experts.
    """
    if neurons.provenance.weights_hash != model.weights_hash:
        raise CircuitError(
            f"The neurons of {neurons.provenance.title} are not of {model.title} as it is.", remedy="Find them on this model."
        )
    if not neurons.neurons:
        raise ArgumentError(f"There are no neurons for {neurons.concept}: {neurons.reason}.")
    if model.architecture.experts:
        raise ArgumentError(f"The neurons of {model.title} are of experts: which of them read depends on the token.")
    layer, weight = neurons.layer, Weight.W_GATE if _has(model, neurons.layer, Weight.W_GATE) else Weight.W_IN
    found = np.stack([model.weights(WeightSite(layer, weight, unit=one.id)).read() for one in neurons.neurons])
    found = found.reshape(len(neurons.neurons), -1).astype(np.float64)
    if _has(model, layer, Weight.LN2):
        found = found * model.weights(WeightSite(layer, Weight.LN2)).read()
    centred = _has(model, layer, Weight.LN2_BIAS)  # LayerNorm takes the mean away, RMSNorm does not
    return np.asarray(found - found.mean(1, keepdims=True) if centred else found, dtype=np.float64)


def _has(model: TransformerModel, layer: int, weight: Weight) -> bool:
    try:
        model.weights(WeightSite(layer, weight))
    except SiteError:
        return False
    return True
