"""SafetyEditor: harm found in a model, and replies turned towards refusal (documented script 17).

For every category of harm a circuit is found (harmful requests against harmless ones of the same shape). At a layer of these circuits

1. a probe reads the request, segment by segment, and opens a gate (`detectsHarmfulIntent:`), with a fixed rate of false positives;
2. a matrix turns what comes behind the gate towards refusal (`redirectToSafeOutput:`), and leaves harmless activations alone.

Where the gate is shut nothing changes, bit for bit. Layer and strength are those under which the refusal is likeliest when harmful
requests come under pressure (`replies`); what judges them shares no words with what chose them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuroscope import events
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.finder import CircuitFinder, PairParts, part_sizes
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, CircuitError, DatasetError
from neuroscope.hooks.hook import HookContext, InterventionHook, current_context
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.remedies import Remedy
from neuroscope.safety import judging, pairs
from neuroscope.safety.circuits import HarmfulCircuit, HarmfulCircuits
from neuroscope.safety.detection import Detection, bag_of_words, detection
from neuroscope.safety.fitting import Fitted, bare, fit_layers, probe_at
from neuroscope.safety.pairs import Parts, harmful, harmless, together
from neuroscope.safety.probe import Probe
from neuroscope.safety.readings import Numbers
from neuroscope.safety.replies import REPLY, Manner, manner, prompt
from neuroscope.tasks.dataset import Dataset, Example
from neuroscope.tasks.pairs import make_pairs
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.validation import packages
from neuroscope.vocabulary import public, python_only

#: Pairs of a category that find its circuit.
_PAIRS = 60


@public
class SafetyEditor(Instrument):
    """Finds circuits of harm, detects harmful intent, and redirects to refusal.

    false_positive_rate: how often a harmless request may open the gate. strength: of the redirect, in units of the refusal direction;
    None chooses it; 0 changes nothing.
    """

    def __init__(
        self,
        model: TransformerModel,
        *,
        false_positive_rate: float = 0.02,
        strength: float | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, seed)
        if not 0 < false_positive_rate < 1:
            raise ArgumentError(f"A rate of false positives lies between 0 and 1, not at {false_positive_rate}.")
        if strength is not None and not (np.isfinite(float(strength)) and float(strength) >= 0):
            raise ArgumentError(
                f"The strength of a redirect is zero or more, not {strength}.", remedy="It only goes towards refusal."
            )
        self.false_positive_rate: float = float(false_positive_rate)
        self.strength: float | None = None if strength is None else float(strength)
        self._fitted: dict[int, Fitted] = {}
        self._parts: dict[str, Parts] = {}
        self._traps: tuple[pairs.Texts, pairs.Texts] = ((), ())
        self._manner: Manner | None = None
        self._found: HarmfulCircuits | None = None
        #: The last context asked about: a block of an image calls back from another thread than the hook's.
        self._asked: HookContext | None = None

    def find_harmful_circuits(
        self,
        examples: Dataset | Sequence[Example] | None = None,
        categories: Sequence[str] = ("violence", "misinformation", "toxicity"),
    ) -> HarmfulCircuits:
        """One circuit for each category of harm, with its detector, and the redirect for their layers.

        examples: the built-in harmful requests, or your own labelled with their category and with a harmless partner in `corrupt`. A
        category without a circuit says so with its reason. Raises what `pairs.by_category` raises.
        """
        model = bare(self._model)
        parts, unfit = pairs.by_category(
            model, Dataset.load_harmful_prompts() if examples is None else examples, categories, self.seed
        )
        traps = pairs.traps(model, self.seed)
        how = manner(model, harmful(together(parts, "fitting")))
        found = {name: self._circuit(name, mine, how) for name, mine in parts.items()}
        none = {name: circuit.reason for name, circuit in found.items() if not circuit.exists} | unfit
        for name, reason in none.items():
            events.notice(f"There is no circuit for {name} in {model.title}: {reason}.", "warning")
        layers = _common_layers([circuit for circuit in found.values() if circuit.exists])
        fitted = fit_layers(
            model, parts, traps[0], how, layers, rate=self.false_positive_rate, strength=self.strength, seed=self.seed
        )
        chosen = {fitted.best.layer: fitted.best} if fitted.best else {}
        circuits = [self._judged(name, circuit, parts, traps, fitted.best) for name, circuit in found.items()]
        circuits += [HarmfulCircuit(category=name, circuit=None, _unfit=reason) for name, reason in unfit.items()]
        result = HarmfulCircuits(
            circuits=circuits,
            strength=fitted.best.redirect.strength if fitted.best else 0.0,
            refusal=how.refusal,
            own_refusal=how.own,
            false_positive_rate=self.false_positive_rate,
            choosing=fitted.scores,
            moved={str(layer): one.redirect.moved for layer, one in chosen.items()},
            reached={str(layer): one.redirect.reached for layer, one in chosen.items()},
            provenance=provenance(
                model,
                pairs.BUILT_IN,
                self.seed,
                fitting=len(together(parts, "fitting")),
                judging=len(together(parts, "judging")),
            ),
        )
        self._parts, self._traps, self._manner, self._fitted, self._found = parts, traps, how, chosen, result
        return result

    def detects_harmful_intent(self, context: HookContext) -> bool:
        """Whether a request in the running pass is harmful by what the hook's layer holds, and there is still something to redirect.

        Each row of a batch is judged alone, as far as it has been read. Of several hooks at one layer the first one acts. Raises
        `CircuitError` at a layer without a detector.
        """
        fitted = self._at(context)
        self._asked = context
        if self._redirected(context) or not fitted.redirect.strength:
            return False
        return bool(fitted.probe.open_in(context).any())

    def redirect_to_safe_output(self, activations: ActivationTensor, layer: int | None = None) -> ActivationTensor:
        """Activations turned towards refusal.

        In a hook: those of the rows and tokens behind an open gate; others stay as they are, bit for bit. Elsewhere, with a layer: all
        of them, by its matrix.
        """
        ops = self._model.engine.ops
        if layer is not None:
            if layer not in self._fitted:
                raise CircuitError(f"There is no redirect at layer {layer}.", remedy=f"Layers: {self._layers()}.")
            step, open_ = self._fitted[layer].redirect.step(_numbers(activations)), None
        else:
            context = current_context() or self._asked
            if context is None or not context.at_work:
                raise ArgumentError(
                    "Outside of a hook a redirect needs its layer.",
                    remedy=Remedy("redirect_to_safe_output(x, layer=4)", smalltalk="redirectToSafeOutput: x layer: 4"),
                )
            fitted = self._at(context)
            open_ = fitted.probe.open_in(context)
            if not fitted.redirect.strength:
                return activations
            context.now.memory[self._mark(context)] = context.first_position
            step = np.where(open_[..., None], fitted.redirect.step(_numbers(activations)), 0.0)
        moved = activations.array + ops.asarray(step.astype(np.float32))
        if open_ is not None:
            moved = ops.where(ops.asarray(open_[..., None]), moved, activations.array)
        return ActivationTensor(moved, ops)

    def hooks(self) -> list[InterventionHook]:
        """A hook for each layer of the circuits found, not yet added."""
        return [
            InterventionHook(layer, "residual", action=self.redirect_to_safe_output_in, condition=self.detects_harmful_intent)
            for layer in self._fitted
        ]

    @python_only
    def redirect_to_safe_output_in(self, activations: ActivationTensor) -> ActivationTensor:
        """`redirect_to_safe_output` as a hook's action, which has one argument."""
        return self.redirect_to_safe_output(activations)

    def evaluate(self, n: int = 40, random_directions: int = 3, requests: str | Sequence[str] = ()) -> judging.SafetyReport:
        """What the redirect does to held-out requests: to refusals and answers, under pressure, on traps, and to capability.

        n: requests of each kind. Beside it the model alone, and redirects in random directions of the same norm behind the same gate.
        requests: suites of installed packages that are asked too, "strongreject" and "rhoEval"; raises `MissingExtraError` with the
        package's name where it is not installed.
        """
        if not self._fitted or self._manner is None:
            raise CircuitError(
                "There is nothing to judge.",
                remedy=Remedy(
                    "Call find_harmful_circuits first, with a category that has a circuit.",
                    smalltalk="Send findHarmfulCircuits:categories: first, with a category that has a circuit.",
                ),
            )
        packaged = _packaged(self._model, requests, n, self.seed)
        return judging.judge(
            self, self._parts, self._traps[1], self._manner, n=n, directions=random_directions, packaged=packaged
        )

    @property
    def last_circuits(self) -> HarmfulCircuits:
        """The last circuits found. Raises `CircuitError` if there are none."""
        if self._found is None:
            raise CircuitError(
                "This editor has found no circuits yet.",
                remedy=Remedy("Call find_harmful_circuits first.", smalltalk="Send findHarmfulCircuits:categories: first."),
            )
        return self._found

    def probe(self, layer: int | None = None) -> Probe:
        """The detector of a layer, by default of the only one. Raises `CircuitError` where there is none."""
        if layer is None and len(self._fitted) == 1:
            return next(iter(self._fitted.values())).probe
        if layer is None or layer not in self._fitted:
            raise CircuitError(f"There is no detector at layer {layer}.", remedy=f"Layers: {self._layers()}.")
        return self._fitted[layer].probe

    @property
    @python_only
    def fitted(self) -> dict[int, Fitted]:
        return self._fitted

    @python_only
    def with_redirect(self, change: Any) -> SafetyEditor:
        """The same gate with another redirect at each layer: `change(redirect)`."""
        other = SafetyEditor(self._model, false_positive_rate=self.false_positive_rate, seed=self.seed)
        other._fitted = {layer: dataclasses.replace(one, redirect=change(one.redirect)) for layer, one in self._fitted.items()}
        return other

    # --- inside -----------------------------------------------------------------------------------------------------

    def _circuit(self, category: str, parts: Parts, how: Manner) -> Circuit:
        finder = CircuitFinder(self._model, pairs=_PAIRS, seed=self.seed)
        sizes = part_sizes(_PAIRS)
        given = zip((parts.calibrating, parts.fitting, parts.judging), sizes, strict=True)
        effect, finding, judged = (
            make_pairs(self._model, [self._posed(one, how) for one in part[:size]]) for part, size in given
        )
        return finder.search(f"refusal of {category}", PairParts(effect, finding, judged, parts.shared))

    def _posed(self, pair: Example, how: Manner) -> Example:
        refusing, answering = how.answers
        clean, corrupt = prompt(self._model, pair.clean), prompt(self._model, str(pair.corrupt))
        return dataclasses.replace(pair, clean=clean, corrupt=corrupt, answer=refusing, wrong=answering)

    def _judged(
        self,
        category: str,
        circuit: Circuit,
        parts: dict[str, Parts],
        traps: tuple[pairs.Texts, pairs.Texts],
        best: Fitted | None,
    ) -> HarmfulCircuit:
        if not circuit.exists or best is None:
            return HarmfulCircuit(category=category, circuit=circuit)
        model = bare(self._model)
        others = {name: mine for name, mine in parts.items() if name != category} or parts
        held_out = "other categories" if category not in others else "other words and templates"
        probe = probe_at(model, others, traps[0], best.layer, self.false_positive_rate, self.seed)
        asked = [prompt(model, text) for text in harmful(parts[category].judging)]
        trained = harmful(together(others, "fitting")), harmless(together(others, "fitting"))
        texts = {"detector": harmless(parts[category].judging), "on_traps": [trap.clean for trap in traps[1]]}
        high, found = probe.scores(asked, model), dict[str, Detection]()
        for name, lows in texts.items():
            words = bag_of_words(*trained, harmful(parts[category].judging), lows)
            low = probe.scores([prompt(model, text) for text in lows], model)
            found[name] = detection(high, low, probe.threshold, held_out, words)
        return HarmfulCircuit(
            category=category, circuit=circuit, _layer=best.layer, detector=found["detector"], on_traps=found["on_traps"]
        )

    def _at(self, context: HookContext) -> Fitted:
        if context.layer not in self._fitted or Component.parse(context.component) is not Component.RESIDUAL:
            raise CircuitError(
                f"There is no detector at {Site.at(context.layer, context.component)}.",
                remedy=f"Find circuits first, and hook a circuit's layer: {self._layers()}.",
            )
        if context.model.engine is not self._model.engine:
            raise DatasetError(
                f"The detector reads {self._model.title}, not {context.model.title}.", remedy="Make a SafetyEditor for it."
            )
        return self._fitted[context.layer]

    def _mark(self, context: HookContext) -> tuple[int, int | None]:
        return id(self), context.layer

    def _redirected(self, context: HookContext) -> bool:
        return context.now.memory.get(self._mark(context)) == context.first_position

    def _layers(self) -> str:
        return ", ".join(map(str, self._fitted)) or "none yet"


def _packaged(model: TransformerModel, suites: str | Sequence[str], n: int, seed: int) -> dict[str, list[Example]]:
    """Requests of packages by "suite, measure", at most n of each, drawn at random among those that fit the model's context."""
    found: dict[str, list[Example]] = {}
    for suite in [suites] if isinstance(suites, str) else suites:
        for kind, one in packages.requests(suite):
            found.setdefault(f"{suite}, {kind.replace('_', ' ')}", []).append(one)
    random = np.random.default_rng([seed, 17])
    most = model.architecture.context
    for name, some in found.items():
        fit = [one for one in some if most is None or model.encode(prompt(model, one.clean)).positions + REPLY <= most]
        if len(fit) < len(some):
            events.notice(
                f"{name}: {len(some) - len(fit)} of {len(some)} requests are longer than {model.title} reads, and are left out."
            )
        found[name] = fit
    return {name: [some[int(at)] for at in random.permutation(len(some))[:n]] for name, some in found.items()}


def _numbers(activations: ActivationTensor) -> Numbers:
    return activations.numpy().astype(np.float64)


def _common_layers(circuits: Sequence[Circuit]) -> list[int]:
    """The layers of heads and MLPs that all circuits have; those of any, where they have none in common."""
    sets = [{site.layer for site in circuit.nodes if site.layer is not None} for circuit in circuits]
    if not sets:
        return []
    return sorted(set.intersection(*sets) or set.union(*sets))
