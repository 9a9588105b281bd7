"""Head roles: what a head attends to, and its effect.

A role is an effect, measured by path patching (`paths`): the receivers of the role read the head's corrupt write instead of its
clean one, and the decrease of the metric is a share of the gap between clean and corrupt prompts. A head has the role if that
share is at least `FLOOR` in size, its interval excludes 0, the test against 0 passes among all heads tried (Benjamini &
Hochberg 1995), and the head attends as the role says. Without a gap there are no roles. In this order:

1. On the task, path head → logits: the direct writers.
2. On the task, paths head → queries of the direct writers, for heads that attend to a place (`attended`) from the last token.
3. On random sequences repeated once (`repeats`), for heads that attend there in this way:
       induction        head → logits
       previous-token   head → keys of the heads that attend as induction heads
4. On the task, paths head → keys, and → values, of S-inhibition heads (of the direct writers in other tasks), for heads that
   attend on repeats as induction, duplicate-token or previous-token heads.

In the indirect-object task the roles of 1 and 2 have the names of Wang et al. (2022):
    name mover       attends to the indirect object, and its direct effect is above 0
    negative mover   attends to the indirect object, and its direct effect is below 0
    S-inhibition     attends to the second mention of the subject, and its effect by the name movers' queries is above 0
Other roles of 1 and 2 are called "attends to 'X'", or "direct writer" without such a place.

With a circuit's mask, 1, 2 and 4 use only its edges: effects through other edges are not part of the circuit.

Sources: Wang et al. 2022, "Interpretability in the Wild"; Olsson et al. 2022; Goldowsky-Dill et al. 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from neuroscope.circuits.attended import ANSWER, SECOND_WRONG, Attended, in_indirect_object
from neuroscope.circuits.effect import paired_effect
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.paths import PathPatcher, Paths
from neuroscope.engines.protocol import BoolArray, Engine
from neuroscope.engines.sites import Component, Site
from neuroscope.lenses.repeats import REPEAT_THRESHOLD, repeat_pairs, repeat_scores
from neuroscope.parallel.team import Team
from neuroscope.tasks.pairs import PairBatch
from neuroscope.tasks.statistics import Estimate, difference_test, ratio_of

#: Smallest share of the gap for a role.
FLOOR = 0.01
_LEVEL = 0.05
_REPEATS = 24
_NAMED = 4

Decode = Callable[[int], str]


@dataclass(frozen=True)
class Role:
    """The role of a head. attention: to the place or token it attends to (0 to 1).

    effect: share of the gap between clean and corrupt metric along the head's paths; above 0 in favour of the answer. None in
    older circuit files.
    """

    head: Site
    role: str
    attention: float
    effect: Estimate | None = None
    acts_on: str = ""

    def as_dictionary(self) -> dict[str, Any]:
        return {
            "head": str(self.head),
            "role": self.role,
            "attention": self.attention,
            "effect": None if self.effect is None else self.effect.as_dictionary(),
            "actsOn": self.acts_on,
        }

    @classmethod
    def from_dictionary(cls, data: dict[str, Any]) -> Role:
        """The inverse of `as_dictionary`."""
        effect = data.get("effect")
        found = None if effect is None else Estimate.from_dictionary(effect)
        return cls(Site.parse(data["head"]), data["role"], data["attention"], found, data.get("actsOn", ""))


@dataclass(frozen=True)
class _Trial:
    """A candidate role: the head has it if the paths have an effect of the right sign."""

    head: int
    attention: float
    acts_on: str
    paths: Paths
    name: Callable[[float], str | None]


def head_roles(
    engine: Engine,
    pairs: PairBatch,
    heads: Sequence[Site],
    *,
    task: str,
    mask: BoolArray | None = None,
    seed: int = 0,
    decode: Decode | None = None,
    team: Team | None = None,
) -> list[Role]:
    """Roles of heads (sites of headOutput), in the heads' order, each head's strongest first.

    pairs: of the task, other than those that found the circuit. mask: the circuit's edges (receivers, sources); by default all
    edges of the graph. decode: returns the text of a token, to name places. team: the workers who patch paths; None: this thread does.
    """
    if not heads:
        return []
    graph = Graph.of(engine.anatomy)
    sources = [graph.source_of(site) for site in heads]
    search = _Roles(engine, graph, pairs, sources, graph.valid if mask is None else mask, task, seed, decode, team)
    on_task, on_repeats = search.on_task(), search.on_repeats()
    return [role for site in heads for role in _of(site, on_task, on_repeats)]


def _of(site: Site, on_task: Sequence[Role], on_repeats: Sequence[Role]) -> list[Role]:
    """One head's roles, strongest first. Each role occurs once: with its largest effect on the task, or else on repeats."""
    mine: dict[str, Role] = {}
    for roles in (on_task, on_repeats):
        for role in sorted((role for role in roles if role.head == site), key=_size, reverse=True):
            mine.setdefault(role.role, role)
    return sorted(mine.values(), key=_size, reverse=True)


def _size(role: Role) -> float:
    return 0.0 if role.effect is None else abs(role.effect.value)


def _always(name: str) -> Callable[[float], str | None]:
    return lambda _: name


def _when_above(name: str, *, otherwise: str | None = None) -> Callable[[float], str | None]:
    """A name for positive effects, and another, or none, for negative ones."""
    return lambda effect: name if effect > 0 else otherwise


class _Roles:
    """The search for roles, in the steps of the module's docstring."""

    def __init__(
        self,
        engine: Engine,
        graph: Graph,
        pairs: PairBatch,
        sources: Sequence[int],
        mask: BoolArray,
        task: str,
        seed: int,
        decode: Decode | None,
        team: Team | None,
    ) -> None:
        self.engine, self.graph, self.pairs, self.sources, self.mask = engine, graph, pairs, sources, mask
        self.indirect = task.startswith("indirect_object")
        self.seed, self.team = seed, team

        layers = sorted({self._at(source)[0] for source in sources})
        self.attended = Attended(engine, pairs, layers, decode)
        self.scores = repeat_scores(engine, list(range(graph.layers)), seed)

    def on_task(self) -> list[Role]:
        patcher = PathPatcher(self.engine, self.pairs)
        direct = self._given(patcher, [trial for source in self.sources if (trial := self._direct(source))])
        writers = [self.graph.source_of(role.head) for role in direct]
        movers = [self.graph.source_of(role.head) for role in direct if role.role == "name mover"]
        steering = self._given(patcher, self._by_queries(movers if self.indirect else writers))
        inhibiting = [self.graph.source_of(role.head) for role in steering if role.role == "S-inhibition"]
        moving = self._given(patcher, self._by_values(inhibiting if self.indirect else writers))
        return [*direct, *steering, *moving]

    def on_repeats(self) -> list[Role]:
        pairs = repeat_pairs(self.engine, _REPEATS, self.seed)
        inducing = [source for source in range(self.graph.sources) if self._score(source, "induction") >= REPEAT_THRESHOLD]
        if pairs is None or not inducing:
            return []
        direct, keys = [], []
        for source in self.sources:
            induces, previous = (self._score(source, name) for name in ("induction", "previous-token"))
            if induces >= REPEAT_THRESHOLD:
                paths = Paths(source, (self.graph.logits,))
                acts_on = "logits, on repeated sequences"
                direct.append(_Trial(source, induces, acts_on, paths, _when_above("induction")))
            reached, readers = self._into(source, inducing, Component.KEY, self.graph.valid)
            if previous >= REPEAT_THRESHOLD and reached is not None:
                acts_on = f"keys of {self._listed(readers)}, on repeated sequences"
                keys.append(_Trial(source, previous, acts_on, reached, _when_above("previous-token")))
        patcher = PathPatcher(self.engine, pairs)
        return [*self._given(patcher, direct), *self._given(patcher, keys)]

    # --- the steps ------------------------------------------------------------------------------------------------

    def _direct(self, source: int) -> _Trial | None:
        if not self.mask[self.graph.logits, source]:
            return None
        place = self.attended.place(*self._at(source))
        to_answer = self.attended.attention(*self._at(source), ANSWER) if self.indirect else 0.0
        plain = "direct writer" if place is None else f"attends to {self._called(place[0])}"
        name = _when_above("name mover", otherwise="negative mover") if to_answer else _always(plain)
        attention = to_answer or (0.0 if place is None else place[1])
        return _Trial(source, attention, "logits", Paths(source, (self.graph.logits,)), name)

    def _by_queries(self, heads: Sequence[int]) -> list[_Trial]:
        trials = []
        for source in self.sources:
            place = self.attended.place(*self._at(source))
            to_second = self.attended.attention(*self._at(source), SECOND_WRONG) if self.indirect else 0.0
            paths, readers = self._into(source, heads, Component.QUERY, self.mask)
            if paths is None or place is None:
                continue
            plain = f"attends to {self._called(place[0])}"
            name = _when_above("S-inhibition", otherwise=plain) if to_second else _always(plain)
            trials.append(_Trial(source, to_second or place[1], f"queries of {self._listed(readers)}", paths, name))
        return trials

    def _by_values(self, heads: Sequence[int]) -> list[_Trial]:
        trials = []
        for source in self.sources:
            kind, attention = self._kind(source)
            for component in (Component.KEY, Component.VALUE):
                paths, readers = self._into(source, heads, component, self.mask)
                if kind and paths is not None:
                    acts_on = f"{component.value}s of {self._listed(readers)}"
                    trials.append(_Trial(source, attention, acts_on, paths, _always(kind)))
        return trials

    # --- measuring ------------------------------------------------------------------------------------------------

    def _given(self, patcher: PathPatcher, trials: Sequence[_Trial]) -> list[Role]:
        """The roles of the trials whose paths have an effect."""
        units, gaps = patcher.units, patcher.gaps
        if not trials or not paired_effect(gaps, np.zeros(len(gaps)), units).exists:
            return []
        falls = patcher.falls([trial.paths for trial in trials], self.team)
        tested = stats.false_discovery_control([difference_test(fall, units).p_value for fall in falls], method="bh")
        found = []
        for trial, fall, value in zip(trials, falls, tested, strict=True):
            effect = ratio_of(fall, gaps, units)
            certain = value < _LEVEL and (effect.low > 0 or effect.high < 0)
            name = trial.name(effect.value) if certain and abs(effect.value) >= FLOOR else None
            if name is not None:
                found.append(Role(self.graph.source_site(trial.head), name, trial.attention, effect, trial.acts_on))
        return found

    def _into(self, source: int, heads: Sequence[int], kind: Component, mask: BoolArray) -> tuple[Paths | None, list[int]]:
        """The paths of the mask from a source into queries, keys or values of heads, and the heads that read them."""
        receivers: dict[int, None] = {}
        readers = []
        for reader in heads:
            layer, head = self._at(reader)
            shared = head // (self.graph.heads // self.graph.key_value_heads)
            receiver = self.graph.receiver(layer, kind, head if kind is Component.QUERY else shared)
            if mask[receiver, source]:
                receivers[receiver] = None
                readers.append(reader)
        return (Paths(source, tuple(receivers)) if receivers else None), readers

    # --- looking --------------------------------------------------------------------------------------------------

    def _kind(self, source: int) -> tuple[str, float]:
        """The kind of a head by its attention on repeats, and its score."""
        attention, kind = max((self._score(source, name), name) for name in self.scores)
        return (kind, attention) if attention >= REPEAT_THRESHOLD else ("", 0.0)

    def _score(self, source: int, name: str) -> float:
        site = self.graph.source_site(source)
        return 0.0 if site.head is None or site.layer is None else float(self.scores[name][site.layer][site.head])

    def _at(self, source: int) -> tuple[int, int]:
        site = self.graph.source_site(source)
        assert site.layer is not None
        assert site.head is not None
        return site.layer, site.head

    def _called(self, place: str) -> str:
        return in_indirect_object(place) if self.indirect else place

    def _listed(self, heads: Sequence[int]) -> str:
        named = ["{}.{}".format(*self._at(source)) for source in heads]
        return ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
