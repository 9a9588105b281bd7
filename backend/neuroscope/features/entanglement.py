"""Features that respond in several unrelated domains: neurons, and directions of the residual stream.

1. Texts of each domain, and background texts of other domains; half of each one's templates (for a user's texts: groups,
   `features.grouping`) choose, the other half judges.
2. A unit's value on a text is its mean over the text's tokens except the first, minus what the classes of these tokens explain
   (`features.conditioned`): a unit for digits or line breaks is not a unit for mathematics or programs. Units are the MLP
   neurons of every layer (of every expert, in a mixture) and, of the residual stream after it, the first principal components
   of the choosing texts, in both directions. Its value on a template is the mean over the template's texts.
3. In every layer the units with the largest second-best AUROC on the choosing templates are candidates.
4. The judging templates test each of them for responses in at least two domains, with a false-discovery rate of `level`
   (`features.entangled`). The control is the same with shuffled templates.
5. Contexts on judging texts, and a hypothesis from them.

A response is relative to the background: "larger on mathematics than on geography, reviews, letters, …, token classes aside".

Sources: Bau et al. 2018; Elhage et al. 2022, "Toy Models of Superposition" (polysemantic units); Benjamini & Heller 2008.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError, DatasetError
from neuroscope.features.conditioned import read
from neuroscope.features.contexts import Context, hypothesis, strongest
from neuroscope.features.entangled import Judged, judge, responses, second_largest, selectivity
from neuroscope.features.grouping import group_texts
from neuroscope.features.ranks import grouped, smallest_p
from neuroscope.features.texts import DOMAINS, Text, several
from neuroscope.models.instrument import Instrument
from neuroscope.models.model import TransformerModel
from neuroscope.names import Names
from neuroscope.provenance import provenance
from neuroscope.remedies import Remedy
from neuroscope.results import Provenance, Result
from neuroscope.tasks import synonyms
from neuroscope.vocabulary import public

_NEURONS = 10
_DIRECTIONS = 4
_COMPONENTS = 8
_BATCH = 16
_FEWEST_TEXTS = 40


@public
@dataclass(frozen=True)
class EntangledUnit(Result):
    """One neuron or direction that responds in several domains.

    kind: "neuron" or "direction". auroc: by domain, against the background, on held-out texts. q_value: for responding in at
    least two domains. selectivity: 1 in only one domain, 0 equally in all (Morcos et al. 2018).
    """

    kind: str
    layer: int
    unit: int
    site: str
    domains: list[str]
    auroc: dict[str, float]
    selectivity: float
    q_value: float
    top_contexts: list[Context]
    hypothesis: str

    @property
    def strength(self) -> float:
        """The second largest of its AUROCs: that of the weaker of its two best domains."""
        return sorted(self.auroc.values())[-2]

    def print_string(self) -> str:
        return f"an EntangledUnit({self.site}: {', '.join(self.domains)})"


@public
@dataclass(frozen=True)
class EntangledFeatures(Result):
    """The units that respond in at least two domains, strongest first.

    matrix: (domains, domains): number of units that respond in both; on the diagonal, in that domain and another. candidates:
    number of judged units. shuffled: number found when the judging templates are assigned to domains and background at random.
    """

    domains: list[str]
    background: list[str]
    units: list[EntangledUnit]
    matrix: list[list[int]]
    candidates: int
    shuffled: int
    level: float
    provenance: Provenance

    @property
    def neurons(self) -> list[EntangledUnit]:
        return [unit for unit in self.units if unit.kind == "neuron"]

    @property
    def directions(self) -> list[EntangledUnit]:
        return [unit for unit in self.units if unit.kind == "direction"]

    def __iter__(self) -> Iterator[EntangledUnit]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)

    def print_string(self) -> str:
        return f"an EntangledFeatures({len(self.neurons)} neurons and {len(self.directions)} directions of {', '.join(self.domains)})"

    def summary(self) -> str:
        width = max(map(len, self.domains))
        lines = [
            f"Entanglement of {', '.join(self.domains)} in {self.provenance.title}",
            f"  against          {', '.join(self.background)}",
            f"  found            {len(self.neurons)} neurons and {len(self.directions)} directions of the {self.candidates} likeliest, "
            f"false discoveries at most {self.level:.0%}",
            f"  shuffled texts   {self.shuffled} found",
            "  units that respond in both",
            *(
                f"    {domain:<{width}}  " + "  ".join(f"{count:>4}" for count in row)
                for domain, row in zip(self.domains, self.matrix, strict=True)
            ),
        ]
        for unit in self.units[:8]:
            scores = ", ".join(f"{domain} {value:.2f}" for domain, value in unit.auroc.items())
            lines += [
                f"  {unit.site}  q {unit.q_value:.2g}, selectivity {unit.selectivity:.2f}, AUROC {scores}",
                f"    {unit.hypothesis}",
            ]
        return "\n".join(lines)


@public
class FeatureEntanglementAnalyzer(Instrument):
    """Finds entangled units of one model. texts: number of texts per domain. level: the false-discovery rate."""

    def __init__(self, model: TransformerModel, *, texts: int = 120, level: float = 0.05, seed: int | None = None) -> None:
        super().__init__(model, seed)
        if not 0 < level < 1:
            raise ArgumentError(f"A false-discovery rate must be between 0 and 1, not {level}.")
        if texts < _FEWEST_TEXTS:
            raise ArgumentError(f"{texts} texts of a domain are too few.", remedy=f"Use at least {_FEWEST_TEXTS}.")
        self.texts: int = texts
        self.level: float = level

    def find_entanglement(
        self, domains: Sequence[str] | Mapping[str, Sequence[str]], against: Sequence[str] | None = None
    ) -> EntangledFeatures:
        """Find units that respond in at least two of the domains: names, or a dictionary of your own texts.

        against: background texts; by default those of the other built-in domains. The result is empty if no unit survives the
        correction. Raises `ArgumentError` for an unknown domain (with the nearest) or fewer than two, and `DatasetError` for
        too few texts.
        """
        texts, background = self._texts(domains, against)
        names = list(texts)
        halves = [_halves(group, self.seed) for group in (*texts.values(), background[1])]
        choosing, judging = ([half[side] for half in halves] for side in (0, 1))
        self._enough([*names, "the background"], choosing, judging)
        candidates = self._candidates(choosing, judging)
        judged = judge(candidates.values[:-1], candidates.values[-1], level=self.level)
        units = self._units(names, [[text.text for text in group] for group in judging], candidates, judged)
        return EntangledFeatures(
            domains=names,
            background=background[0],
            units=sorted(units, key=lambda unit: (-unit.strength, unit.layer, unit.unit)),
            matrix=(judged.responds.astype(int) @ judged.responds.astype(int).T).tolist(),
            candidates=len(candidates.units),
            shuffled=int(self._shuffled(candidates.values).found.sum()),
            level=self.level,
            provenance=provenance(
                self._model, None, self.seed, texts=min(map(len, texts.values())), candidates=len(candidates.units)
            ),
        )

    def _texts(
        self, given: Sequence[str] | Mapping[str, Sequence[str]], against: Sequence[str] | None
    ) -> tuple[dict[str, list[Text]], tuple[list[str], list[Text]]]:
        """The texts of each domain, and the background's names and texts."""
        random = np.random.default_rng(self.seed)
        if isinstance(given, Mapping):
            own = {str(name): list(dict.fromkeys(map(str, texts))) for name, texts in given.items()}
            names = list(own)
        else:
            own = {}
            names = list(dict.fromkeys(_domain(name) for name in ([given] if isinstance(given, str) else given)))
        if len(names) < 2:
            raise ArgumentError(
                f"Entanglement needs at least two domains, not {names}.",
                remedy=f"Name two or more: {', '.join(DOMAINS)}.",
            )
        others = ["own texts"] if against is not None else [name for name in DOMAINS if name not in names]
        if not others:
            raise ArgumentError(
                "All domains are requested, so none is left as background.",
                remedy=Remedy("Give texts: against=['…', …].", smalltalk="Give texts: against: #('…' …)."),
            )
        texts = {name: several(DOMAINS[name], self.texts, random) for name in names if name not in own}
        if against is not None:
            background = [Text(text, text) for text in dict.fromkeys(map(str, against))]
        else:
            share = -(-self.texts // len(others))
            background = [text for name in others for text in several(DOMAINS[name], share, random)]
        every = [text.text for found in (*texts.values(), background) for text in found]
        every += [text for mine in own.values() for text in mine]
        for name, mine in own.items():
            texts[name] = group_texts(mine, [text for text in every if text not in set(mine)])[0]
        if against is not None:
            rest = [text.text for found in texts.values() for text in found]
            background = group_texts([text.text for text in background], rest)[0]
        return {name: texts[name] for name in names}, (others, background)

    def _enough(self, names: Sequence[str], choosing: Sequence[list[Text]], judging: Sequence[list[Text]]) -> None:
        """Raise `DatasetError` if there are too few texts to find even a perfect unit."""
        units = (_NEURONS + _DIRECTIONS) * self._model.architecture.layers
        counts = [len({text.group for text in group}) for group in judging]
        for name, chooses, group in zip(names, choosing, judging, strict=True):
            pairs = zip(names[:-1], counts[:-1], strict=True)
            least = max(smallest_p(mine, counts[-1]) for other, mine in pairs if name in (other, names[-1]))
            if not chooses or (len(names) - 2) * least > self.level / units:
                alike = len({text.group for text in (*chooses, *group)})
                raise DatasetError(
                    f"There are {len(chooses) + len(group)} different texts of {name}, in {alike} independent groups; this is too few to find units among {units} and judge them.",
                    remedy=f"Give at least {_FEWEST_TEXTS}, from as many templates as you can.",
                )

    def _candidates(self, choosing: list[list[Text]], judging: list[list[Text]]) -> _Candidates:
        layers = range(self._model.architecture.layers)
        labels = [_keys(side) for side in (choosing, judging)]
        units: list[_Unit] = []
        columns: list[NDArray[np.float64]] = []
        for component in (Component.MLP, Component.RESIDUAL):
            first, second = (
                read(self._model, [[text.text for text in group] for group in part], component, layers, name=name)
                for part, name in ((choosing, "choosing by"), (judging, "judging by"))
            )
            effects = first.effects()
            values = first.beyond(effects), second.beyond(effects)
            for layer in layers:
                basis = None if component is Component.MLP else _principal(values[0][layer])
                chooses, judges = (
                    grouped(side[layer] if basis is None else basis.read(side[layer]), [key for part in keys for key in part])
                    for side, keys in zip(values, labels, strict=True)
                )
                scores = second_largest(responses(*_split(chooses, labels[0])))
                for index in np.argsort(-scores, kind="stable")[: _NEURONS if basis is None else _DIRECTIONS]:
                    units.append(_Unit(layer, int(index), basis))
                    columns.append(judges[:, index])
        domains, background = _split(np.stack(columns, axis=1), labels[1])
        return _Candidates(units, [*domains, background])

    def _shuffled(self, values: list[NDArray[np.float64]]) -> Judged:
        """The control: the judging templates shuffled."""
        random = np.random.default_rng(self.seed)
        every = random.permutation(np.concatenate(values))
        *dealt, rest = np.split(every, np.cumsum([len(part) for part in values])[:-1])
        return judge(dealt, rest, level=self.level)

    def _units(
        self, names: list[str], judging: list[list[str]], candidates: _Candidates, judged: Judged
    ) -> list[EntangledUnit]:
        found = [int(index) for index in np.flatnonzero(judged.found)]
        units = [candidates.units[index] for index in found]
        contexts = self._contexts(names, judging, units)
        answer = []
        for index, unit, mine in zip(found, units, contexts, strict=True):
            responding = [name for name, yes in zip(names, judged.responds[:, index], strict=True) if yes]
            answer.append(
                EntangledUnit(
                    kind="neuron" if unit.basis is None else "direction",
                    layer=unit.layer,
                    unit=unit.index,
                    site=unit.site,
                    domains=responding,
                    auroc={name: float(value) for name, value in zip(names, judged.aurocs[:, index], strict=True)},
                    selectivity=selectivity(judged.aurocs[:, index]),
                    q_value=float(judged.q_values[index]),
                    top_contexts=strongest(mine, responding),
                    hypothesis=hypothesis(mine, responding),
                )
            )
        return answer

    def _contexts(self, names: list[str], judging: list[list[str]], units: list[_Unit]) -> list[list[Context]]:
        """For each unit, every judging text of the domains with its activation at every token."""
        found: list[list[Context]] = [[] for _ in units]
        if not units:
            return found
        sites = sorted({Site(unit.layer, unit.component) for unit in units}, key=str)
        model = self._model
        labelled = [(name, text) for name, texts in zip(names, judging, strict=False) for text in texts]
        with events.progress("reading contexts", total=len(labelled), unit="texts") as job:
            for first in range(0, len(labelled), _BATCH):
                part = labelled[first : first + _BATCH]
                batch = model.encode([text for _, text in part])
                run = model.engine.forward(batch, capture=sites, logits=None, stop=max(unit.layer for unit in units) + 1)
                values = {site: model.engine.ops.to_numpy(run[site]) for site in sites}
                tokens = [
                    [model.token_text(token) for token in ids[real]] for ids, real in zip(batch.ids, batch.real, strict=True)
                ]
                for unit, mine in zip(units, found, strict=True):
                    read = unit.read(values[Site(unit.layer, unit.component)])
                    for row, (name, _) in enumerate(part):
                        activations = [float(value) for value in read[row][batch.real[row]]]
                        # The first token is an attention sink; a unit's value there does not depend on the text.
                        peak = int(np.argmax(activations[1:])) + 1 if len(activations) > 1 else 0
                        mine.append(Context(name, tokens[row], activations, peak))
                job.advance(len(part))
        return found


@dataclass(frozen=True)
class _Basis:
    """Principal components of a layer's readings, in both directions: unit 2 i is component i, unit 2 i + 1 its opposite."""

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]  # (components, d_model)

    def read(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """(…, d_model) → (…, 2 · components)."""
        along = (values - self.mean) @ self.axes.T
        return np.stack([along, -along], axis=-1).reshape(*along.shape[:-1], -1)


@dataclass(frozen=True)
class _Unit:
    """A neuron (no basis) or a direction."""

    layer: int
    index: int
    basis: _Basis | None = field(repr=False)

    @property
    def component(self) -> Component:
        return Component.MLP if self.basis is None else Component.RESIDUAL

    @property
    def site(self) -> str:
        if self.basis is None:
            return str(Site(self.layer, Component.MLP, neuron=self.index))
        sign = "−" if self.index % 2 else "+"
        return f"{Site(self.layer, Component.RESIDUAL)} {sign}PC{self.index // 2 + 1}"

    def read(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """The unit's values from its component's: (…, width) → (…)."""
        if self.basis is None:
            return values[..., self.index].astype(np.float64)
        along = (values - self.basis.mean) @ self.basis.axes[self.index // 2]
        return -along if self.index % 2 else along


@dataclass(frozen=True)
class _Candidates:
    """The candidates with their values on the judging texts: (texts, units) for each domain and, last, the background."""

    units: list[_Unit]
    values: list[NDArray[np.float64]]


def _domain(name: object) -> str:
    more = "Or give your own texts by name, as a dictionary."
    return Names(
        "domain", {known: known for known in DOMAINS}, aliases=synonyms.aliases(DOMAINS), listing="Domains", more=more
    )[name]


def _halves(texts: list[Text], seed: int) -> tuple[list[Text], list[Text]]:
    """Texts of one half of the groups, rounded down, and of the other."""
    groups = list(dict.fromkeys(text.group for text in texts))
    order = np.random.default_rng(seed).permutation(len(groups))
    chosen = {groups[int(index)] for index in order[: len(groups) // 2]}
    return [text for text in texts if text.group in chosen], [text for text in texts if text.group not in chosen]


def _keys(texts: list[list[Text]]) -> list[list[tuple[int, str]]]:
    """The group of each text; domains have disjoint groups."""
    return [[(number, text.group) for text in part] for number, part in enumerate(texts)]


def _split(
    values: NDArray[np.float64], keys: list[list[tuple[int, str]]]
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """Values of all groups (groups, units) by domain, and the background's."""
    *domains, background = np.split(values, np.cumsum([len(set(part)) for part in keys])[:-1])
    return domains, background


def _principal(values: NDArray[np.float64]) -> _Basis:
    from sklearn.decomposition import PCA

    pca = PCA(n_components=min(_COMPONENTS, *values.shape), svd_solver="full").fit(values.astype(np.float64))
    return _Basis(pca.mean_, pca.components_)
