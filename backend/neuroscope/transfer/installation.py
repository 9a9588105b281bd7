"""Installing an adapted circuit behind a layer of the target, and measuring whether that helps.

The stream of the target becomes h + g · c A, where c is what the source's circuit has written (`carrier`) and A the map. The gate g is
chosen among a few strengths on items of the task: the one with the largest rise of accuracy, if a paired test finds that rise significant
after Bonferroni's correction; otherwise 0, and the hook changes nothing. Other items judge, beside controls at the same gate (where g is 0,
at the best of the others): random circuits of the source of the same size, the circuit's mean addition at every token, and, where the
streams are equally wide, the circuit without the map.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from neuroscope import events
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.controls import connected_random
from neuroscope.engines.protocol import TokenBatch
from neuroscope.errors import ArgumentError, CircuitError, SiteError, did_you_mean
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.remedies import Remedy
from neuroscope.results import Provenance, Result
from neuroscope.tasks import registry
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.evaluate import answered
from neuroscope.tasks.fitting import Fit
from neuroscope.tasks.registry import Task
from neuroscope.tasks.statistics import Estimate, difference_test, rate, ratio_of
from neuroscope.transfer.carrier import Carrier, Constant, Writer, writing
from neuroscope.transfer.circuits import AdaptedCircuit
from neuroscope.transfer.maps import Numbers, StreamMap, divergences
from neuroscope.vocabulary import public

_LEVEL = 0.05
_UNRELATED = 54
#: An accuracy above which hardly anything can be gained.
_CEILING = 0.95
_LAYER = re.compile(r"(?:layer|transformer\.h\.|model\.layers\.)?[ _]?(-?\d+)(?:\.residual)?", re.IGNORECASE)


@public
@dataclass(frozen=True)
class GateTrial:
    """A gate on the items that choose: the change of accuracy, and the p-value that it is 0."""

    gate: float
    difference: Estimate
    p_value: float


@public
@dataclass(frozen=True, kw_only=True)
class CircuitInstallation(Result):
    """A circuit of one model behind a layer of another, and what it does there.

    gate: the chosen strength; 0 where none helps. helps: whether accuracy rises significantly on the items that judge and by more than with
    every control. before, after, difference: the target's accuracy on them alone, installed, and paired. tried: the strength at which
    `at_tried` (the circuit's) and `controls` are measured: the gate, or the best of the others where that is 0; changes of accuracy on the
    items that judge. source_accuracy, circuit_accuracy: of the source and of its circuit alone, on the same items. unrelated_kl,
    tried_kl: KL(target ‖ installed) in nats a token on other texts, at `gate` and at `tried`. shared: kinds of unit that could not be
    held out.
    """

    task: str
    layer: int
    gate: float
    helps: bool
    conclusion: str
    map_r2: StreamMap
    before: Estimate
    after: Estimate
    difference: Estimate
    trials: list[GateTrial]
    tried: float
    at_tried: Estimate
    controls: Mapping[str, Estimate]
    source_accuracy: Estimate
    circuit_accuracy: Estimate
    unrelated_kl: Estimate
    tried_kl: Estimate
    shared: list[str]
    notes: list[str]
    provenance: Provenance
    source_provenance: Provenance
    _hook: ActivationHook = field(repr=False)
    _target: TransformerModel = field(repr=False)
    _circuit: Circuit = field(repr=False)

    @property
    def circuit(self) -> Circuit:
        """The circuit in its own model."""
        return self._circuit

    @property
    def installed(self) -> bool:
        """Whether its hook is on the target."""
        return any(hook is self._hook for hook in self._target.hook_manager)

    def uninstall(self) -> TransformerModel:
        """Take the hook off the target and answer it: as it was, bit for bit. Raises `ArgumentError` if it is not installed."""
        self._target.hook_manager.remove_hook(self._hook)
        return self._target

    def print_string(self) -> str:
        verdict = "helps" if self.helps else "does not help"
        return f"a CircuitInstallation({self.task} at layer {self.layer}, gate {self.gate:g}: {verdict})"

    def summary(self) -> str:
        quality = self.map_r2
        lines = [
            f"Circuit for {self.task} of {quality.source} behind layer {self.layer} of {quality.target}",
            f"  conclusion         {self.conclusion}",
            f"  map                R² {quality.raw}, standardised {quality.standardised}",
            f"  behaviour kept     round trip {quality.round_trip}; source's stream instead {quality.substituted}",
            f"  accuracy           {self.before} before, {self.after} after; difference {self.difference}, n {self.difference.n}",
            f"  source             {self.source_accuracy}; its circuit alone {self.circuit_accuracy}",
            "  gates              "
            + ", ".join(f"{one.gate:g}: {one.difference.value:+.3f} (p {one.p_value:.3g})" for one in self.trials),
            f"  at gate {self.tried:<11g}{self.at_tried}",
            *(f"  {name:<19}{value}" for name, value in self.controls.items()),
            f"  unrelated text     KL {self.unrelated_kl} nats a token; at gate {self.tried:g} {self.tried_kl}",
        ]
        lines += [f"  not held out       {', '.join(self.shared)}"] if self.shared else []
        return "\n".join([*lines, *(f"  note               {note}" for note in self.notes)])


#: The installations of each model object, the oldest first.
_installed: weakref.WeakKeyDictionary[TransformerModel, list[CircuitInstallation]] = weakref.WeakKeyDictionary()


def installed_on(model: TransformerModel) -> list[CircuitInstallation]:
    """The installations whose hooks are on a model, the oldest first."""
    return [one for one in _installed.get(model, []) if one.installed]


def remember(installation: CircuitInstallation) -> None:
    """Count it among its model's installations."""
    model = installation._target
    _installed[model] = [*installed_on(model), installation]


def hook_name(task: str, layer: int) -> str:
    """The name of an installation's hook."""
    return f"circuit for {task} at layer {layer}"


def layer_named(model: TransformerModel, at: Any) -> int:
    """A layer of `#layer10`, `10` or `transformer.h.10`. Raises `SiteError` with what would be right."""
    layers = model.architecture.layers
    match = _LAYER.fullmatch(str(at).strip())
    if match is None or isinstance(at, bool):
        names = [f"layer{number}" for number in range(layers)]
        raise SiteError(
            f"{at!r} is not a layer of {model.title}.", site=str(at), remedy=did_you_mean(str(at), names, listing="Layers")
        )
    return model.architecture.checked_layer(int(match[1]), at)


def install(target: TransformerModel, adapted: Any, at: Any) -> CircuitInstallation:
    """Install and measure. Whatever fails leaves the target without the hook."""
    if not isinstance(adapted, AdaptedCircuit):
        raise ArgumentError(
            f"A model installs an adapted circuit, not {adapted!r}.",
            remedy=Remedy(
                "CircuitTransfer(source, target).adapt_circuit(circuit)",
                smalltalk="(CircuitTransfer from: source to: target) adaptCircuit: circuit",
            ),
        )
    transfer, circuit = adapted.transfer, adapted.circuit
    if not _same(target, transfer.target):
        raise CircuitError(
            f"The circuit was adapted to {transfer.target.title}, not to {target.title} (or to other weights of it).",
            remedy="Adapt it to this model, with a CircuitTransfer to it.",
        )
    circuit.check(transfer.source)
    layer = layer_named(target, at)
    name = hook_name(adapted.task, layer)
    if any(hook.name == name for hook in target.hook_manager):
        raise ArgumentError(f"There is a {name} of {target.title} already.", remedy="`anInstallation uninstall` takes it off.")
    (fits, chooses, judges), shared = transfer.parts(circuit)
    quality = transfer.map_between(adapted.source_layer, layer, [_asked(one) for one in fits])
    carrier = Carrier(circuit, circuit.mask, target, adapted.source_layer, quality.there.matrix)
    trying = _Trying(target, registry.get(adapted.task), layer, f"{name}, on trial")
    with events.progress("choosing the gate", total=len(transfer.gates), unit="gates") as job:
        base, trials = trying.hits(None, 0.0, chooses), []
        for gate in transfer.gates:
            test = difference_test(trying.hits(carrier, gate, chooses) - base, _units(chooses))
            trials.append(GateTrial(gate, test.estimate, min(1.0, test.p_value * len(transfer.gates))))
            job.advance()
    best = max(trials, key=lambda one: (one.difference.value, -one.gate))
    gate = best.gate if best.difference.value > 0 and best.p_value < _LEVEL else 0.0
    judged = _judged(trying, carrier, best.gate, judges, adapted, quality)
    notes = list(judged.notes)
    if judged.alone.mean() >= _CEILING:
        notes.append("The target answers nearly all of these items without the circuit, so there is little to gain.")
    alone, tried = judged.alone, judged.changes["circuit"]
    difference = tried if gate else Estimate(0.0, 0.0, 0.0, len(judges))
    controls = {kind: change for kind, change in judged.changes.items() if kind != "circuit"}
    helps = bool(gate and tried.low > 0 and all(tried.value > control.value for control in controls.values()))
    kl = _kl(target, layer, carrier, best.gate, transfer.unrelated(_UNRELATED), trying.name)
    sources = [answered(model, judges, trying.task) for model in (transfer.source, _alone(adapted, carrier))]
    whole, own = (np.mean([one.right for one in found]) for found in sources)
    if own < whole / 2:
        notes.append(
            f"The circuit alone, all else mean-ablated, answers {own:.0%} of the items in its own model, which answers {whole:.0%}: what is "
            "carried cannot do the task by itself."
        )
    hook = target.hook_manager.add_hook(writing(carrier, layer, gate, name))
    found = CircuitInstallation(
        task=adapted.task,
        layer=layer,
        gate=gate,
        helps=helps,
        conclusion=_conclusion(gate, best, tried, controls),
        map_r2=quality,
        before=rate(alone, _units(judges)),
        after=rate(judged.installed if gate else alone, _units(judges)),
        difference=difference,
        trials=trials,
        tried=best.gate,
        at_tried=tried,
        controls=controls,
        source_accuracy=rate([one.right for one in sources[0]], _units(judges)),
        circuit_accuracy=rate([one.right for one in sources[1]], _units(judges)),
        unrelated_kl=kl if gate else Estimate(0.0, 0.0, 0.0, kl.n),
        tried_kl=kl,
        shared=shared,
        notes=notes,
        provenance=provenance(target, adapted.task, transfer.seed, chooses=len(chooses), judges=len(judges), fits=len(fits)),
        source_provenance=adapted.provenance,
        _hook=hook,
        _target=target,
        _circuit=circuit,
    )
    remember(found)
    return found


def _same(model: TransformerModel, other: TransformerModel) -> bool:
    """Whether two model objects have the same weights and read every text alike."""
    prints = [Fit(one.tokenizer, None).fingerprint for one in (model, other)]
    alike = model.tokenizer is other.tokenizer or (prints[0] is not None and prints[0] == prints[1])
    return model.weights_hash == other.weights_hash and alike


@dataclass(frozen=True)
class _Trying:
    """The target under a writer, on items of a task."""

    target: TransformerModel
    task: Task
    layer: int
    name: str

    def hits(self, writer: Writer | None, gate: float, items: Sequence[Example]) -> Numbers:
        """(items,): 1 where the answer is right."""
        hooks = [] if writer is None else [writing(writer, self.layer, gate, self.name)]
        with self.target.hook_manager.temporarily(*hooks):
            return np.array([float(one.right) for one in answered(self.target, items, self.task)])


@dataclass(frozen=True)
class _Judged:
    alone: Numbers
    installed: Numbers
    changes: dict[str, Estimate]
    notes: list[str]


def _judged(
    trying: _Trying, carrier: Carrier, gate: float, items: Sequence[Example], adapted: AdaptedCircuit, quality: StreamMap
) -> _Judged:
    """The changes of accuracy with the circuit and with each control, at one gate."""
    transfer, circuit, notes = adapted.transfer, adapted.circuit, []
    random = np.random.default_rng([transfer.seed, 11])
    writers: dict[str, list[Writer]] = {"circuit": [carrier], "random circuit": []}
    for _ in range(transfer.random_circuits):
        mask = connected_random(circuit.graph, circuit.edge_count, random)
        writers["random circuit"].append(Carrier(circuit, mask, trying.target, adapted.source_layer, quality.there.matrix))
    ids = [trying.target.encode(_asked(one)).ids[0].tolist() for one in items]
    writers["mean vector"] = [Constant(np.concatenate([added[1:] for added in carrier.added(ids)]).mean(0))]
    width = quality.there.matrix.shape
    if width[0] == width[1]:
        writers["without the map"] = [Carrier(circuit, circuit.mask, trying.target, adapted.source_layer, np.eye(width[0]))]
    else:
        notes.append(f"The control without the map does not apply: the streams are {width[0]} and {width[1]} wide.")
    alone = trying.hits(None, 0.0, items)
    found = {kind: np.mean([trying.hits(one, gate, items) for one in mine], axis=0) for kind, mine in writers.items()}
    changes = {kind: difference_test(hits - alone, _units(items)).estimate for kind, hits in found.items()}
    return _Judged(alone, found["circuit"], changes, notes)


def _alone(adapted: AdaptedCircuit, carrier: Carrier) -> TransformerModel:
    source = adapted.transfer.source
    return TransformerModel(carrier.engine, source.tokenizer, f"circuit of {source.name}", source.loaded_hash)


def _kl(target: TransformerModel, layer: int, writer: Writer, gate: float, texts: Sequence[str], name: str) -> Estimate:
    """KL(target ‖ target with the circuit) in nats a token, with its interval over texts."""
    batch: TokenBatch = target.encode(list(texts))
    bare = target.run(batch).logits
    with target.hook_manager.temporarily(writing(writer, layer, gate, name)):
        changed = target.run(batch).logits
    return ratio_of(divergences(target, bare, changed, batch.real), cast(Any, batch.lengths))


def _conclusion(gate: float, best: GateTrial, tried: Estimate, controls: Mapping[str, Estimate]) -> str:
    if not gate:
        return (
            f"The circuit does not help: no gate raises accuracy significantly (best {best.gate:g}: {best.difference.value:+.3f}, "
            f"p {best.p_value:.3g}), so the gate is 0 and the target is as before."
        )
    if tried.low <= 0:
        return f"Gate {gate:g} raised accuracy on the items that chose it, but not significantly on others ({tried}): not shown to help."
    better = [kind for kind, control in controls.items() if control.value >= tried.value]
    if better:
        return f"Accuracy rises by {tried}, but by as much with the control ({', '.join(better)}): not the circuit's doing."
    return f"The circuit helps: accuracy rises by {tried} on items that chose nothing, more than with any control."


def _units(items: Sequence[Example]) -> list[frozenset[str]]:
    return [one.independent_units for one in items]


def _asked(item: Example) -> str:
    return item.clean
