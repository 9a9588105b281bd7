"""KnowledgeEditor: facts found and changed (documented script 8).

A fact is traced to where the model keeps it (`tracing`). A value is sought that makes the model say the new object (`targets`), and the
output matrix of one layer's MLP is changed so that the subject's key gives the value (`methods`), while the keys of related facts give
what they gave; which layer, and how strongly, is found on trial (`planning`). What came of it is measured (`measures`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neuroscope import events
from neuroscope.editing import measures, methods, transactions
from neuroscope.editing.edit import WeightEdit
from neuroscope.editing.growth import LARGEST, checked_growth, growth
from neuroscope.editing.keys import Memory, Numbers
from neuroscope.editing.measures import FactAnswer, FactRate
from neuroscope.editing.planning import Change, Kept, Wanted, best_change, tried
from neuroscope.editing.probes import Probes, Question, bystanders, divided, kept_prompts, probes, related, rewordings
from neuroscope.editing.statements import Fact, split_statement
from neuroscope.editing.targets import Target, contexts
from neuroscope.editing.tracing import FactCircuit, about, editable, trace
from neuroscope.errors import ArgumentError, EditError
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.remedies import Remedy
from neuroscope.results import Provenance, Result
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.records import FactExample
from neuroscope.tasks.statistics import Estimate, wilson
from neuroscope.vocabulary import public

#: Related facts that are kept exactly, as a share of the directions there are.
_KEPT_SHARE = 20


@public
@dataclass(frozen=True)
class RelatedFacts:
    """A topic of related facts: how many still have their answer, of those kept by the edit and of others that share no subject with them.

    before, after: the share that the model says, held out from what is kept; None where nothing is held out.
    """

    topic: str
    kept: int
    kept_after: Estimate | None
    before: Estimate | None
    after: Estimate | None


@public
@dataclass(frozen=True, kw_only=True)
class FactEdit(Result):
    """Facts that were changed, with what the change did.

    efficacy: of the statements themselves; paraphrase: of the same in other words; specificity: of the same relation of other subjects,
    none of them kept, which have their objects as before; own_facts: of other relations of the subject; portability: of what follows (alias, reversal, one hop on). Each
    by probability and by generation, None where there are no such questions; before: the same without the edit, where the object asked for
    is still the new one. answers: of each kind the first few questions. related: by topic. strength: λ of the change, None for ROME. kept_shift: the largest change of what the layer
    writes at a kept key, in shares of what it writes there. growth: the norm of the layer's output matrix over what it was loaded with.
    """

    statements: list[str]
    method: str
    layer: int
    strength: float | None
    edit: WeightEdit
    target_probability: float
    efficacy: FactRate
    paraphrase: FactRate | None
    specificity: FactRate | None
    own_facts: FactRate | None
    portability: FactRate | None
    before: Mapping[str, FactRate]
    answers: list[FactAnswer] = field(default_factory=list)
    related: list[RelatedFacts] = field(default_factory=list)
    kept_shift: float | None
    perplexity_before: Estimate
    perplexity_after: Estimate
    growth: float
    applied: bool
    provenance: Provenance
    _facts: tuple[Fact, ...] = field(default=(), repr=False)

    def print_string(self) -> str:
        """One line."""
        what = self.statements[0] if len(self.statements) == 1 else f"{len(self.statements)} facts"
        return f"a FactEdit({what}, {self.method} at layer {self.layer}, efficacy {self.efficacy.probability})"

    def summary(self) -> str:
        """The edit and its figures, each with what it was before."""
        what = self.statements[0] if len(self.statements) == 1 else f"{len(self.statements)} facts"
        size = max(weight.relative_norm for weight in self.edit.weights)
        lines = [
            f"{what}: {self.method} in layer {self.layer} of {self.provenance.title}"
            + ("" if self.applied else " (not applied)"),
            f"  {'':<14}{'by probability':<26}{'by generation':<26}before (by generation)",
        ]
        for name in ("efficacy", "paraphrase", "specificity", "own_facts", "portability"):
            rate: FactRate | None = getattr(self, name)
            if rate is not None:
                before = self.before.get(_camel(name))
                lines.append(
                    f"  {name.replace('_', ' '):<14}{rate.probability!s:<26}{rate.generation!s:<26}{before.generation if before else ''}"
                )
        for topic in self.related:
            lines.append(
                f"  {topic.topic}: {topic.kept} kept, {topic.kept_after} of them said after; held out {topic.before} before, {topic.after} after"
            )
        lines.append(f"  perplexity    {self.perplexity_before} before, {self.perplexity_after} after")
        lines.append(
            f"  norm of the change {size:.3g} of the weight's, which is {self.growth:.3g} of what was loaded"
            + _shift(self.kept_shift)
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Plan:
    """What an edit of facts will be, before it is measured."""

    edit: WeightEdit
    layer: int
    targets: list[Target]
    strength: float | None
    kept: dict[str, list[Question]]
    others: dict[str, list[Question]]
    kept_shift: float | None
    growth: float


@public
class KnowledgeEditor(Instrument):
    """Finds where a model keeps a fact, and changes facts."""

    def __init__(self, model: TransformerModel, seed: int | None = None) -> None:
        super().__init__(model, seed)
        self._contexts: list[str] | None = None
        self._edits: list[FactEdit] = []
        self._before: tuple[str, measures.Known] | None = None
        #: How large a weight may become by edits, in norms that it was loaded with, before an edit is refused.
        self.largest_growth: float = LARGEST

    @property
    def edits(self) -> list[FactEdit]:
        """What this editor changed or proposed, the oldest first."""
        return list(self._edits)

    def find_factual_knowledge_circuit(
        self, statement: str, layer: int | None = None, subject: str | None = None, target: str | None = None
    ) -> FactCircuit:
        """Trace a fact: `'The capital of France is Paris'`.

        layer: the last layer to consider, by default all. subject, target: subject and object of the statement, where they cannot be told.
        Raises `ArgumentError` for what is not a statement or does not name them, and `SiteError` for a layer that the model does not have.
        """
        return trace(self.model, split_statement(statement, subject=subject, target=target), layer=layer, seed=self.seed)

    def update_fact(
        self,
        statement: str,
        circuit: Any = None,
        preserving_related: Any = (),
        method: str = "alphaedit",
        subject: str | None = None,
        target: str | None = None,
        layer: int | None = None,
    ) -> FactEdit:
        """Make the model say a statement, and measure what that did. The edit is applied; `model revert:` takes it back.

        circuit: where the fact is (`find_factual_knowledge_circuit`): the layer is chosen of its `layers`, by default of the first half
        of the model's. preserving_related: topics of facts that must stay (`probes.TOPICS`). method: rome, memit or alphaedit. layer: to edit,
        by default chosen on trial (`planning`). Raises `EditError` where the edit cannot be made, or would make a weight larger than
        `largest_growth` times what it was loaded with; then nothing is changed.
        """
        return self.update_facts([statement], circuit, preserving_related, method, subject, target, layer)

    def propose_fact(
        self,
        statement: str,
        circuit: Any = None,
        preserving_related: Any = (),
        method: str = "alphaedit",
        subject: str | None = None,
        target: str | None = None,
        layer: int | None = None,
    ) -> FactEdit:
        """The same without applying it: measured on trial, for `model applyEdit:` later. Raises what `update_fact` raises."""
        return self._edited(
            self._read([statement], circuit, subject, target), circuit, preserving_related, method, layer, apply=False
        )

    def update_facts(
        self,
        statements: Sequence[str] | Dataset,
        circuit: Any = None,
        preserving_related: Any = (),
        method: str = "alphaedit",
        subject: str | None = None,
        target: str | None = None,
        layer: int | None = None,
    ) -> FactEdit:
        """Make the model say several statements, by one edit. Raises what `update_fact` raises.

        statements: sentences, or a dataset of facts (`Dataset fromFile:` reads CounterFact, zsRE and RippleEdits), which are judged by the
        questions that come with them.
        """
        return self._edited(
            self._read(statements, circuit, subject, target), circuit, preserving_related, method, layer, apply=True
        )

    def propose_facts(
        self,
        statements: Sequence[str] | Dataset,
        circuit: Any = None,
        preserving_related: Any = (),
        method: str = "alphaedit",
        layer: int | None = None,
    ) -> FactEdit:
        """The same without applying it, as `propose_fact`. Raises what `update_fact` raises."""
        return self._edited(
            self._read(statements, circuit, None, None), circuit, preserving_related, method, layer, apply=False
        )

    # --- inside -----------------------------------------------------------------------------------------------------------

    def _read(self, statements: Any, circuit: Any, subject: str | None, target: str | None) -> list[tuple[Fact, Any]]:
        """Facts, each with the record of a dataset that it comes from, or None."""
        if isinstance(statements, Dataset):
            return [(self._recorded(record), record) for record in statements]
        listed = [statements] if isinstance(statements, str) else list(statements)
        return [(self._fact(one, circuit, subject, target), None) for one in listed]

    def _edited(
        self, wanted: Sequence[tuple[Fact, Any]], circuit: Any, topics: Any, method: str, layer: int | None, *, apply: bool
    ) -> FactEdit:
        if not wanted:
            raise ArgumentError("There is no fact to change.", remedy="Give a statement.")
        method = methods.NAMES.name(method)
        facts = [fact for fact, _ in wanted]
        among = related(topics, [fact.subject for fact in facts])
        plan = self._planned(facts, self._layers(circuit, layer), method, among)
        known = {one.subject for questions in plan.kept.values() for one in questions}
        asked = [self._compared(probes(fact, record, but=known)) for fact, record in wanted]
        unedited = self._unedited()
        was, losses = measures.judged(unedited, asked), unedited.losses(self.seed)
        said = {topic: _said(unedited, questions) for topic, questions in plan.others.items()}
        transactions.apply(self.model, plan.edit)
        try:
            edited = measures.Known(self.model)
            now, losses_after = measures.judged(edited, asked), edited.losses(self.seed)
            topics_after = [
                RelatedFacts(topic, len(kept), _said(edited, kept), said[topic], _said(edited, plan.others[topic]))
                for topic, kept in plan.kept.items()
            ]
        except BaseException:
            transactions.revert(self.model, plan.edit)
            raise
        if not apply:
            transactions.revert(self.model, plan.edit)
        before, after = (_together([one.rates for one in judged]) for judged in (was, now))
        found = FactEdit(
            statements=[str(fact) for fact in facts],
            method=method,
            layer=plan.layer,
            strength=plan.strength,
            edit=plan.edit,
            target_probability=float(np.mean([target.probability for target in plan.targets])),
            efficacy=after["efficacy"],
            paraphrase=after.get("paraphrase"),
            specificity=after.get("specificity"),
            own_facts=after.get("ownFacts"),
            portability=after.get("portability"),
            before=before,
            answers=[answer for pair in zip(was, now, strict=True) for answer in measures.shown(*pair)],
            related=topics_after,
            kept_shift=plan.kept_shift,
            perplexity_before=measures.perplexity(*losses),
            perplexity_after=measures.perplexity(*losses_after),
            growth=plan.growth,
            applied=apply,
            provenance=plan.edit.provenance,
            _facts=tuple(facts),
        )
        self._edits.append(found)
        if found.efficacy.generation.value < 1:
            events.notice(
                f"{self.model.title} writes {found.efficacy.generation.value:.0%} of the new objects after the edit {plan.edit.title!r}.",
                "warning",
            )
        return found

    def _unedited(self) -> measures.Known:
        """What the model answers as it is, remembered from the last edit where that one's weights are back."""
        if len(self.model.hook_manager):  # which may answer otherwise next time
            return measures.Known(self.model)
        state = self.model.weights_hash
        if self._before is None or self._before[0] != state:
            self._before = state, measures.Known(self.model)
        return self._before[1]

    def _fact(self, statement: str, circuit: Any, subject: str | None, target: str | None) -> Fact:
        """The statement in parts; about the circuit's subject, where there is one."""
        read = split_statement(statement, subject=subject, target=target)
        if not isinstance(circuit, FactCircuit):
            if len(read) == 1:
                return read[0]
            wanted = about(self.model, [self._known(fact) for fact in read], self.seed).subject
            return next(fact for fact in read if fact.subject == wanted)
        mine = [fact for fact in read if fact.subject == circuit.subject]
        if not mine:
            raise ArgumentError(
                f"The circuit is of {circuit.statement!r}, about {circuit.subject!r}; {statement!r} is about {read[0].subject!r}.",
                remedy="Find the circuit of a statement about the same subject.",
            )
        return mine[0]

    def _recorded(self, record: Any) -> Fact:
        """The fact of a dataset's record. Raises `ArgumentError` for an example that is none."""
        if not isinstance(record, FactExample):
            raise ArgumentError(
                f"{record!r} is not a fact.",
                remedy=Remedy(
                    "Give a dataset of facts: CounterFact, zsRE or RippleEdits, by Dataset.from_file(path).",
                    smalltalk="Give a dataset of facts: CounterFact, zsRE or RippleEdits, by Dataset fromFile: path.",
                ),
            )
        if record.subject is not None:
            return Fact(record.clean, record.subject, record.answer or "")
        return self._fact(f"{record.clean}{record.answer}", None, None, record.answer)

    def _layers(self, circuit: Any, layer: int | None) -> list[int]:
        """The layers of which one is edited."""
        if layer is not None:
            return [self.model.architecture.checked_layer(layer)]
        if circuit is None:
            return tried(editable(self.model.architecture.layers))
        if not isinstance(circuit, FactCircuit):
            raise ArgumentError(
                f"{circuit!r} is not a circuit of a fact.",
                remedy=Remedy("Use find_factual_knowledge_circuit.", smalltalk="Use findFactualKnowledgeCircuit:."),
            )
        if circuit.provenance.weights_hash != self.model.weights_hash:
            raise EditError(
                f"The circuit of {circuit.statement!r} was found on other weights than {self.model.title} has now.",
                remedy="Find it again on this model.",
            )
        if not circuit.exists:
            raise EditError(f"There is no circuit to edit: {circuit.reason}.", remedy="Trace a fact that the model knows.")
        return tried(circuit.layers)

    def _known(self, fact: Fact) -> Fact:
        """The fact as the model has it now."""
        return fact.with_object(self.model.predictions(fact.prompt, 1)[0][0])

    def _compared(self, asked: Probes) -> Probes:
        """The probes with an object to compare the new one with: what the model says now, where nothing else is known."""
        fact = asked.fact
        if asked.old is not None and asked.old != fact.object:
            return asked
        likeliest = self.model.predictions(fact.prompt, len(fact.object) + 2)  # of which fewer can be beginnings of the object
        return replace(asked, old=next(text for text, _ in likeliest if not fact.object.startswith(text)))

    def _planned(self, facts: Sequence[Fact], layers: Sequence[int], method: str, among: Mapping[str, list[Question]]) -> _Plan:
        model = self.model
        share = max(1, model.architecture.d_mlp // _KEPT_SHARE // max(len(among), 1))
        kept, others = divided(among, share, self.seed)
        questions = [one for group in kept.values() for one in group]
        keeping = Kept([one.prompt for one in questions], [one.fact.end() for one in questions])
        title = str(facts[0]) if len(facts) == 1 else f"{len(facts)} facts"

        def edit_of(change: Change) -> WeightEdit:
            deltas = change.memory.deltas(change.change)
            return WeightEdit.planned(model, deltas, title=title, method=method, task=facts[0].relation, seed=self.seed)

        found = best_change(
            model,
            layers,
            [self._wanted(fact) for fact in facts],
            method,
            kept=keeping,
            spared=self._changed(),
            seed=self.seed,
            fits=lambda one: max(growth(model, edit_of(one)).values()) <= self.largest_growth,
        )
        edit = edit_of(found)
        grown = checked_growth(model, edit, self.largest_growth)
        rows = keeping.keys(model, found.memory)
        shift = None if rows is None else self._shift(found.memory, rows, found.change)
        return _Plan(edit, found.memory.layer, found.targets, found.strength, kept, others, shift, grown)

    def _wanted(self, fact: Fact) -> Wanted:
        if self._contexts is None:
            self._contexts = contexts(self.model, self.seed)
        seen, unseen = rewordings(fact)
        prompts = [*(f"{before}{fact.prompt}" for before in self._contexts), *seen]
        return Wanted(fact, prompts, unseen, kept_prompts(fact), bystanders(fact, self.seed))

    def _changed(self) -> Kept:
        """The prompts of facts that this editor changed before, as far as those edits are on the model."""
        there = self.model.edits
        facts = [fact for one in self._edits if any(one.edit is edit for edit in there) for fact in one._facts]
        prompts = [(text, fact) for fact in facts for text in (fact.prompt, *rewordings(fact)[0])]
        return Kept([text for text, _ in prompts], [fact.end(text) for text, fact in prompts])

    def _shift(self, place: Memory, rows: Numbers, change: Numbers) -> float:
        writes = np.concatenate([self.model.weights(name).read() for name in place.names]).astype(np.float64)
        norms = np.linalg.norm(rows @ writes, axis=1)
        return float((np.linalg.norm(rows @ change, axis=1) / np.maximum(norms, 1e-12)).max())


def _said(known: measures.Known, questions: Sequence[Question]) -> Estimate | None:
    """How many questions the model answers by itself; None without any."""
    if not questions:
        return None
    texts = known.written([one.prompt for one in questions])
    hits = [measures.begins_with(text, one.answer) for text, one in zip(texts, questions, strict=True)]
    return wilson(sum(hits), len(hits))


def _together(found: Sequence[Mapping[str, FactRate]]) -> dict[str, FactRate]:
    """One fact's rates as they are; of several facts the means over them."""
    if len(found) == 1:
        return dict(found[0])
    names = dict.fromkeys(name for rates in found for name in rates)
    means = {name: measures.mean_rate([rates[name] for rates in found if name in rates]) for name in names}
    return {name: mean for name, mean in means.items() if mean is not None}


def _camel(name: str) -> str:
    return "ownFacts" if name == "own_facts" else name


def _shift(kept: float | None) -> str:
    return "" if kept is None else f"; at kept keys the layer writes {kept:.1e} otherwise"
