"""KnowledgeEditor: facts found and changed (documented script 8).

A fact is traced to where the model keeps it (`tracing`), a value is sought that makes the model say the new object (`targets`), and the
output matrix of that layer's MLP is changed so that the subject's key gives the value (`methods`), while the keys of related facts give
what they gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroscope import events
from neuroscope.editing import measures, methods, transactions
from neuroscope.editing.edit import WeightEdit
from neuroscope.editing.keys import Memory, Numbers, keys_at, memory, moments
from neuroscope.editing.measures import FactRate
from neuroscope.editing.probes import Question, divided, kept_prompts, probes, related
from neuroscope.editing.statements import Fact, split_statement, subject_token
from neuroscope.editing.targets import Target, contexts, find_target
from neuroscope.editing.tracing import FactCircuit, about, trace
from neuroscope.errors import ArgumentError, EditError
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.results import Provenance, Result
from neuroscope.tasks.statistics import Estimate, wilson
from neuroscope.vocabulary import public

#: Related facts that are kept exactly, as a share of the directions there are.
_KEPT_SHARE = 6


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
    is still the new one. related: by topic. kept_shift: the largest change of what the layer writes at a kept key, in shares of what it writes there.
    """

    statements: list[str]
    method: str
    layer: int
    edit: WeightEdit
    target_probability: float
    efficacy: FactRate
    paraphrase: FactRate | None
    specificity: FactRate | None
    own_facts: FactRate | None
    portability: FactRate | None
    before: Mapping[str, FactRate]
    related: list[RelatedFacts] = field(default_factory=list)
    kept_shift: float | None
    perplexity_before: Estimate
    perplexity_after: Estimate
    applied: bool
    provenance: Provenance

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
        lines.append(f"  norm of the change {size:.3g} of the weight's" + _shift(self.kept_shift))
        return "\n".join(lines)


@dataclass(frozen=True)
class _Plan:
    """What an edit of facts will be, before it is measured."""

    edit: WeightEdit
    layer: int
    targets: list[Target]
    kept: dict[str, list[Question]]
    others: dict[str, list[Question]]
    kept_shift: float | None


@public
class KnowledgeEditor(Instrument):
    """Finds where a model keeps a fact, and changes facts."""

    def __init__(self, model: TransformerModel, seed: int | None = None) -> None:
        super().__init__(model, seed)
        self._contexts: list[str] | None = None
        self._edits: list[FactEdit] = []

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
    ) -> FactEdit:
        """Make the model say a statement, and measure what that did. The edit is applied; `model revert:` takes it back.

        circuit: where the fact is (`find_factual_knowledge_circuit`), by default traced now. preserving_related: topics of facts that
        must stay (`probes.TOPICS`). method: rome, memit or alphaedit. Raises `EditError` where the edit cannot be made; then nothing
        is changed.
        """
        return self.update_facts([statement], circuit, preserving_related, method, subject, target)

    def propose_fact(
        self,
        statement: str,
        circuit: Any = None,
        preserving_related: Any = (),
        method: str = "alphaedit",
        subject: str | None = None,
        target: str | None = None,
    ) -> FactEdit:
        """The same without applying it: measured on trial, for `model applyEdit:` later. Raises what `update_fact` raises."""
        return self._edited([statement], circuit, preserving_related, method, subject, target, apply=False)

    def update_facts(
        self,
        statements: Sequence[str],
        circuit: Any = None,
        preserving_related: Any = (),
        method: str = "alphaedit",
        subject: str | None = None,
        target: str | None = None,
    ) -> FactEdit:
        """Make the model say several statements, by one edit. Raises what `update_fact` raises."""
        listed = [statements] if isinstance(statements, str) else list(statements)
        return self._edited(listed, circuit, preserving_related, method, subject, target, apply=True)

    # --- inside -----------------------------------------------------------------------------------------------------------

    def _edited(
        self,
        statements: Sequence[str],
        circuit: Any,
        topics: Any,
        method: str,
        subject: str | None,
        target: str | None,
        *,
        apply: bool,
    ) -> FactEdit:
        if not statements:
            raise ArgumentError("There is no fact to change.", remedy="Give a statement.")
        method = methods.NAMES.name(method)
        facts = [self._fact(one, circuit, subject, target) for one in statements]
        among = related(topics, [fact.subject for fact in facts])
        plan = self._planned(facts, self._layer(facts[0], circuit), method, among)
        known = {one.subject for questions in plan.kept.values() for one in questions}
        asked = [probes(fact, but=known) for fact in facts]
        before = _together([measures.judged(self.model, one) for one in asked])
        losses = measures.general_loss(self.model, self.seed)
        said = {topic: self._said(questions) for topic, questions in plan.others.items()}
        transactions.apply(self.model, plan.edit)
        try:
            after = _together([measures.judged(self.model, one) for one in asked])
            topics_after = [
                RelatedFacts(topic, len(plan.kept[topic]), self._said(plan.kept[topic]), said[topic], self._said(questions))
                for topic, questions in plan.others.items()
            ]
            losses_after = measures.general_loss(self.model, self.seed)
        except BaseException:
            transactions.revert(self.model, plan.edit)
            raise
        if not apply:
            transactions.revert(self.model, plan.edit)
        found = FactEdit(
            statements=[str(fact) for fact in facts],
            method=method,
            layer=plan.layer,
            edit=plan.edit,
            target_probability=float(np.mean([target.probability for target in plan.targets])),
            efficacy=after["efficacy"],
            paraphrase=after.get("paraphrase"),
            specificity=after.get("specificity"),
            own_facts=after.get("ownFacts"),
            portability=after.get("portability"),
            before=before,
            related=topics_after,
            kept_shift=plan.kept_shift,
            perplexity_before=measures.perplexity(*losses),
            perplexity_after=measures.perplexity(*losses_after),
            applied=apply,
            provenance=plan.edit.provenance,
        )
        self._edits.append(found)
        if found.efficacy.generation.value < 1:
            events.notice(
                f"{self.model.title} writes {found.efficacy.generation.value:.0%} of the new objects after the edit {plan.edit.title!r}.",
                "warning",
            )
        return found

    def _fact(self, statement: str, circuit: Any, subject: str | None, target: str | None) -> Fact:
        """The statement in parts; about the circuit's subject, where there is one."""
        read = split_statement(statement, subject=subject, target=target)
        if not isinstance(circuit, FactCircuit):
            wanted = about(self.model, [self._known(fact) for fact in read], self.seed).subject
            return next(fact for fact in read if fact.subject == wanted)
        mine = [fact for fact in read if fact.subject == circuit.subject]
        if not mine:
            raise ArgumentError(
                f"The circuit is of {circuit.statement!r}, about {circuit.subject!r}; {statement!r} is about {read[0].subject!r}.",
                remedy="Find the circuit of a statement about the same subject.",
            )
        return mine[0]

    def _layer(self, fact: Fact, circuit: Any) -> int:
        if circuit is None:
            circuit = trace(self.model, [self._known(fact)], seed=self.seed)
            if not circuit.exists:
                events.notice(f"{circuit.statement!r} was not traced: {circuit.reason}. The middle layer is edited.", "warning")
                return self.model.architecture.layers // 2
        found = getattr(circuit, "layer", None)
        if not isinstance(found, int):
            raise ArgumentError(f"{circuit!r} is not a circuit of a fact.", remedy="Use findFactualKnowledgeCircuit:.")
        if circuit.provenance.weights_hash != self.model.weights_hash:
            raise EditError(
                f"The circuit of {getattr(circuit, 'statement', circuit)!r} was found on other weights than {self.model.title} has now.",
                remedy="Find it again on this model.",
            )
        if not circuit.exists:
            raise EditError(f"There is no circuit to edit: {circuit.reason}.", remedy="Trace a fact that the model knows.")
        return found

    def _known(self, fact: Fact) -> Fact:
        """The fact as the model has it now."""
        return fact.with_object(self.model.predictions(fact.prompt, 1)[0][0])

    def _planned(self, facts: Sequence[Fact], layer: int, method: str, among: Mapping[str, list[Question]]) -> _Plan:
        model = self.model
        if self._contexts is None:
            self._contexts = contexts(model, self.seed)
        targets = []
        with events.progress("values for facts", total=len(facts), unit="facts") as job:
            for fact in facts:
                targets.append(find_target(model, layer, fact, self._contexts, kept_prompts(fact)))
                job.advance()
        texts = [f"{before}{fact.prompt}" for fact in facts for before in self._contexts]
        owners = [fact for fact in facts for _ in self._contexts]
        columns = [subject_token(model, text, fact.end(text)) for text, fact in zip(texts, owners, strict=True)]
        place = memory(model, layer, model.encode(texts), columns)
        keys = keys_at(model, place, texts, columns)
        added = np.repeat(np.stack([target.delta for target in targets]), len(self._contexts), axis=0)
        share = max(1, keys.shape[1] // _KEPT_SHARE // max(len(among), 1))
        kept, others = divided(among, share, self.seed)
        rows = self._keys_of([one for questions in kept.values() for one in questions], place)
        moment = moments(model, place, seed=0)
        change = methods.change(method, keys, added, moment, kept=rows)
        title = str(facts[0]) if len(facts) == 1 else f"{len(facts)} facts"
        edit = WeightEdit.planned(
            model, place.deltas(change), title=title, method=method, task=facts[0].relation, seed=self.seed
        )
        return _Plan(edit, layer, targets, kept, others, self._shift(place, rows, change))

    def _keys_of(self, questions: Sequence[Question], place: Memory) -> Numbers | None:
        """(n, keys) at the subjects of questions, and at the last tokens of their prompts."""
        if not questions:
            return None
        prompts = [one.prompt for one in questions]
        at = [subject_token(self.model, one.prompt, one.fact.end()) for one in questions]
        return keys_at(self.model, place, prompts, at)

    def _shift(self, place: Memory, rows: Numbers | None, change: Numbers) -> float | None:
        if rows is None:
            return None
        writes = np.concatenate([self.model.weights(name).read() for name in place.names]).astype(np.float64)
        norms = np.linalg.norm(rows @ writes, axis=1)
        return float((np.linalg.norm(rows @ change, axis=1) / np.maximum(norms, 1e-12)).max())

    def _said(self, questions: Sequence[Question]) -> Estimate | None:
        """How many questions the model answers by itself; None without any."""
        if not questions:
            return None
        texts = measures.written(self.model, [one.prompt for one in questions])
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
