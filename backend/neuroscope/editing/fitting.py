"""A weight transform in the making: fitted component by component, tried, and held against three others (`transforms`).

Of each capability so many leading directions are kept exactly as keep it on the items that fit; the rest of it only makes moving dear.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope import events
from neuroscope.circuits.circuit import Circuit
from neuroscope.editing import evidence, measures
from neuroscope.editing.edit import WeightEdit
from neuroscope.editing.erasure import KEPT_COST, RIDGE, Eraser, leace, mean_difference, random_like
from neuroscope.editing.evidence import Concept, Keep, Readings
from neuroscope.editing.kernel import Matrix
from neuroscope.editing.transforms import (
    MARGIN,
    EntityBias,
    ErasedComponent,
    ErasureControl,
    KeptCapability,
    WeightTransform,
    doubts_of,
)
from neuroscope.editing.writers import Prompts, Writer, added, folded, writers
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import EditError
from neuroscope.provenance import provenance
from neuroscope.tasks.statistics import Estimate, difference_test, mean_of, rate, ratio_of

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

METHOD = "null-space constrained LEACE"
#: Leading directions of each kept capability that do not move at all: the first of these numbers with which it is not lost.
EXACTLY = (1, 4, 8, 16, 32)
#: Random directions whose mean is the control.
_DRAWS = 5
_ANSWERS = list[frozenset[str]]


@dataclass
class _Solving:
    """Fits the eraser of one component after the other, and notes what is to be said of each. rows: what each writes on the concept's prompts."""

    labels: Matrix
    exactly: int
    components: dict[Writer, ErasedComponent] = field(default_factory=dict)
    rows: dict[Writer, Matrix] = field(default_factory=dict)

    def __call__(self, writer: Writer, rows: Mapping[str, Matrix]) -> Eraser | None:
        kept = [values for kind, values in rows.items() if kind.startswith("kept ")]
        concept = self.rows[writer] = rows["concept"]
        note, eraser = "it writes nothing of the concept", None
        try:
            eraser = leace(
                concept,
                self.labels,
                kept=kept,
                text=rows["text"],
                exactly=self.exactly,
                centred=writer.bias is not None,
                kept_cost=KEPT_COST,
                ridge=RIDGE,
            )
        except EditError as error:
            note = error.brief
        if eraser is None:
            self.components[writer] = ErasedComponent(str(writer.site), None, None, note)
            return None
        kept_shift = max((eraser.shift(values) for values in kept), default=0.0)
        self.components[writer] = ErasedComponent(str(writer.site), eraser.shift(concept), kept_shift)
        return eraser


@dataclass
class Fitting:
    """One transform in the making. wanted: how many of `keep` the caller asked for."""

    circuit: Circuit
    model: TransformerModel
    concept: Concept
    keep: Sequence[Keep]
    wanted: int
    seed: int

    def transform(self) -> WeightTransform:
        before = self._read()
        self.keep = [self._if_known(one, before) for one in self.keep]
        bias = self._bias(before)
        reason = self._nothing(before)
        common: dict[str, Any] = {
            "concept": self.concept.name,
            "preserving": [one.name for one in self.keep[: self.wanted]],
            "method": METHOD,
            "exists": reason is None,
            "reason": reason,
            "bias_before": bias,
            "imbalance_before": self._imbalance(before),
            "capability_before": self._capability(before),
            "perplexity_before": measures.perplexity(before.losses, before.tokens),
            "shared": self.concept.shared,
            "provenance": provenance(
                self.model, self.concept.name, self.seed, fitted=len(self.concept.prompts), held_out=len(before.shares)
            ),
            "_circuit": self.circuit,
        }
        if reason is not None:
            events.notice(f"There is nothing to erase of {self.concept.name}: {reason}", "warning")
            return WeightTransform(**common)
        return self._erased(before, common)

    def _nothing(self, before: Readings) -> str | None:
        """Why there is nothing to erase, or None. Nothing is fitted yet, so that every item may tell."""
        fitting = self.concept.fitting
        shares = np.concatenate([before.shares, evidence.expected(self.model, fitting)])
        test = difference_test(shares - 0.5, [*self._units(), *(one.independent_units for one in fitting)])
        if test.p_value < 0.05 and test.estimate.value > 0:
            return None
        low, high = test.estimate.low + 0.5, test.estimate.high + 0.5
        mean = Estimate(float(shares.mean()), low, high, len(shares))
        return f"On {len(shares)} items the model does not prefer the expected answer: {mean}, where .5 is no bias."

    def _if_known(self, one: Keep, before: Readings) -> Keep:
        """A preference that the model does not have is measured, but no room is left for it: it is noise of the very kind to be erased."""
        known = one.accuracy or rate(before.kept[one.name], [each.independent_units for each in one.held_out]).low > 0.5
        return one if known else dataclasses.replace(one, room=False)

    def _erased(self, before: Readings, common: Mapping[str, Any]) -> WeightTransform:
        writing = writers(self.model, self.circuit.nodes)
        prompts, before_choice = self._prompts(), self._chosen_right()
        tried = []
        for exactly in EXACTLY:
            solving = _Solving(self.concept.labels, exactly)
            deltas, found = folded(self.model, writing, prompts, solving)
            with added(self.model, deltas):
                lost = float(max(before_choice - self._chosen_right(), default=0.0))
            tried.append((lost, exactly, solving, deltas, found))
            if lost <= MARGIN / 2 or not found:
                break
        _, exactly, solving, deltas, found = min(tried, key=lambda one: (one[0] if one[4] else np.inf, one[1]))
        if not found:
            raise EditError(
                f"No component of the circuit for {self.circuit.task} can be changed: {next(iter(solving.components.values())).note}.",
                remedy="Keep less, or take another circuit.",
            )
        title = f"{self.concept.name} erased, keeping {', '.join(common['preserving'])}"
        edit = WeightEdit.planned(self.model, deltas, title=title, method=METHOD, task=self.concept.name, seed=self.seed)
        after = self._tried(edit.deltas)
        controls = self._controls(writing, found, solving.rows)
        result = WeightTransform(
            **common,
            components=[solving.components[writer] for writer in writing],
            bias_after=self._bias(after),
            bias_change=difference_test(after.shares - before.shares, self._units()).estimate,
            imbalance_after=self._imbalance(after),
            by_entity=self._by_entity(before, after),
            capability_after=self._capability(after),
            capability_change=self._capability_change(before, after),
            kept=[self._kept(one, before, after) for one in self.keep],
            perplexity_after=measures.perplexity(after.losses, after.tokens),
            loss_change=ratio_of(after.losses - before.losses, before.tokens),
            weights_changed=edit.changed,
            kept_directions=exactly,
            edit=edit,
            controls=controls,
        )
        result.doubts.extend(doubts_of(result))
        for doubt in result.doubts:
            events.notice(f"The erasure of {self.concept.name}: {doubt}", "warning")
        return result

    def _prompts(self) -> dict[str, Prompts]:
        found = {"concept": Prompts.last(self.model, self.concept.prompts)}
        found |= {f"kept {one.name}": Prompts.last(self.model, one.prompts) for one in self.keep if one.room}
        return {**found, "text": Prompts.whole(self.model, evidence.general_texts(self.seed))}

    def _chosen_right(self) -> Matrix:
        """Share of right answers of each kept capability on the examples that fit, which choose how much of it is kept exactly."""
        return np.array([evidence.right(self.model, one, one.fitting).mean() for one in self.keep if one.room])

    def _controls(
        self, writing: Sequence[Writer], found: Mapping[Writer, Eraser], spread: Mapping[Writer, Matrix]
    ) -> list[ErasureControl]:
        concept = {"concept": self._prompts()["concept"]}
        z = self.concept.labels
        layers = sorted({writer.site.layer for writer in writing if writer.site.layer is not None})
        blocks = [Site(layer, kind) for layer in layers for kind in (Component.ATTENTION, Component.MLP_OUTPUT)]
        whole, _ = folded(
            self.model, writers(self.model, blocks), concept, lambda _, rows: leace(rows["concept"], z, ridge=RIDGE)
        )
        means, _ = folded(self.model, writing, concept, lambda _, rows: mean_difference(rows["concept"], z))
        tried = [("LEACE of whole layers", [self._tried(whole)]), ("mean difference", [self._tried(means)])]
        random = np.random.default_rng([self.seed, 24])
        draws = []
        for _ in range(_DRAWS):
            deltas: dict[str, Matrix] = {}
            for writer, eraser in found.items():
                for name, delta in writer.deltas(self.model, random_like(eraser, spread[writer], random)).items():
                    deltas[name] = deltas.get(name, 0.0) + delta
            draws.append(self._tried(deltas))
        tried.append(("random direction", draws))
        return [self._control(method, readings) for method, readings in tried]

    def _control(self, method: str, draws: Sequence[Readings]) -> ErasureControl:
        mean = Readings(
            np.mean([one.shares for one in draws], axis=0),
            {name: np.mean([one.kept[name] for one in draws], axis=0) for name in draws[0].kept},
            np.mean([one.losses for one in draws], axis=0),
            draws[0].tokens,
        )
        capability = self._capability(mean) if len(draws) == 1 else mean_of(*self._asked(mean))
        return ErasureControl(method, self._bias(mean), capability, measures.perplexity(mean.losses, mean.tokens))

    def _tried(self, deltas: Mapping[str, Any]) -> Readings:
        """What the model is with these added to its weights, for now."""
        with added(self.model, deltas):
            return self._read()

    def _read(self) -> Readings:
        return evidence.readings(self.model, self.concept, self.keep, self.seed)

    def _units(self) -> _ANSWERS:
        return [one.independent_units for one in self.concept.held_out]

    def _bias(self, found: Readings) -> Estimate:
        return mean_of(found.shares, self._units())

    def _entities(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for at, one in enumerate(self.concept.held_out):
            found.setdefault(one.meta.get("entities") or str(one.answer).strip(), []).append(at)
        return found

    def _imbalance(self, found: Readings) -> float:
        return float(np.mean([abs(found.shares[rows].mean() - 0.5) for rows in self._entities().values()]))

    def _by_entity(self, before: Readings, after: Readings) -> list[EntityBias]:
        return [
            EntityBias(name, *(mean_of(one.shares[rows]) for one in (before, after)))
            for name, rows in sorted(self._entities().items())
        ]

    def _asked(self, found: Readings) -> tuple[Matrix, _ANSWERS]:
        """Of the capabilities that the caller asked to keep: right or not, and the units of each item."""
        keep = self.keep[: self.wanted]
        units = [example.independent_units for one in keep for example in one.held_out]
        return np.concatenate([found.kept[one.name] for one in keep]), units

    def _capability(self, found: Readings) -> Estimate:
        return rate(*self._asked(found))

    def _capability_change(self, before: Readings, after: Readings) -> Estimate:
        rows, units = self._asked(before)
        return difference_test(self._asked(after)[0] - rows, units).estimate

    def _kept(self, one: Keep, before: Readings, after: Readings) -> KeptCapability:
        units = [example.independent_units for example in one.held_out]
        was, now = before.kept[one.name], after.kept[one.name]
        return KeptCapability(
            one.name,
            "accuracy" if one.accuracy else "preference",
            rate(was, units),
            rate(now, units),
            difference_test(now - was, units).estimate,
        )
