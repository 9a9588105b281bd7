"""Steering vectors: a direction at a site of a model, added to activations to bring a quality out, subtracted to take it away.

With p_i and n_i the mean activations of the i-th contrast pair's two texts (without the first tokens, which are attention sinks),

    mean_difference    v = mean(p_i − n_i)
    pca                v = (u · mean(p_i − n_i)) u, with u the first right singular vector of the differences

so that strength 1 is the whole way between the two kinds of text, whichever method found the direction.

Sources: Turner et al. 2023 (activation addition); Rimsky et al. 2023 (mean difference over contrast pairs); Zou et al. 2023
(principal direction of the differences).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope import events
from neuroscope.engines.protocol import Array, ArrayOps
from neuroscope.engines.sites import GLOBAL, Component, Site
from neuroscope.errors import ArgumentError, DatasetError, SiteError, did_you_mean
from neuroscope.features.readings import read_sites
from neuroscope.hooks.hook import current_context
from neuroscope.models.model import TransformerModel
from neuroscope.names import only
from neuroscope.naming import fold, snake_case
from neuroscope.steering import contrast
from neuroscope.steering.contrast import ContrastPairs
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import both_sides, public, python_only

METHODS = ("mean_difference", "pca")

Vector = NDArray[np.float32]


@public
class SteeringVector(ActivationTensor):
    """A named direction (width,) at a site; arithmetic as with any activations."""

    def __init__(self, array: Array, ops: ArrayOps, *, name: str, site: Site, method: str, pairs: ContrastPairs) -> None:
        super().__init__(array, ops)
        self._name, self._site, self._method, self._pairs = name, site, method, pairs

    @property
    def name(self) -> str:
        return self._name

    @property
    def layer(self) -> int | None:
        return self._site.layer

    @property
    def component(self) -> str:
        return self._site.component.value

    @property
    def method(self) -> str:
        return self._method

    @property
    @python_only
    def site(self) -> Site:
        return self._site

    @property
    @python_only
    def pairs(self) -> ContrastPairs:
        """What it was computed from, and what judges it."""
        return self._pairs

    def print_string(self) -> str:
        return f"a SteeringVector({self._name} at {self._site}, {self._method}, norm {self.norm():.3g})"

    def as_dictionary(self) -> dict[str, Any]:
        """Name, site, method, number of pairs, and the values."""
        about = {"name": self._name, "site": str(self._site), "method": self._method, "pairs": len(self._pairs)}
        return about | super().as_dictionary()


class _Store:
    """The vectors of one model by name and site, and the user's own contrasts by name."""

    def __init__(self) -> None:
        self.vectors: dict[tuple[str, Site], SteeringVector] = {}
        self.contrasts: dict[str, ContrastPairs] = {}
        #: As hooks ask, for every token: the name as they write it, with the site.
        self.asked: dict[tuple[str, int | None, str], SteeringVector] = {}


_stores: weakref.WeakKeyDictionary[TransformerModel, _Store] = weakref.WeakKeyDictionary()


@public
class SteeringVectors:
    """The steering vectors of one model. A name is one of the contrasts that come along, or one that you define or read."""

    def __init__(self, model: TransformerModel) -> None:
        if not isinstance(model, TransformerModel):
            raise ArgumentError(f"Steering vectors belong to a TransformerModel, not to {model!r}.")
        self._model = model
        self._store = _stores.setdefault(model, _Store())

    @classmethod
    @both_sides
    def load(
        cls, name: str, model: TransformerModel | None = None, layer: int | None = None, component: str | None = None
    ) -> SteeringVector:
        """The vector of that name: one that was defined, stored or read, otherwise computed now from its contrast pairs.

        In a hook's action, model, layer and component are the hook's own. Elsewhere a model is needed; the layer is by
        default the middle one. `(SteeringVectors for: model) load: #name` takes that model. Raises `ArgumentError` for an unknown
        name, with the nearest.
        """
        context = current_context()
        if model is None:
            if context is None:
                raise ArgumentError(
                    f"The vector {name} belongs to a model, and here is none.",
                    remedy="Load it in a hook's action, or say SteeringVectors load: #name model: model layer: 10.",
                )
            model = context.model
        if context is not None and context.model is model:
            layer = context.layer if layer is None else layer
            component = context.component if component is None else component
        store = _stores.get(model)
        found = None if store is None else store.asked.get((name, layer, component or ""))
        return cls(model).vector(name, layer, component) if found is None else found

    @property
    def model(self) -> TransformerModel:
        return self._model

    @property
    def names(self) -> list[str]:
        """Every name that `load:` knows for this model."""
        return sorted({*contrast.names(), *self._store.contrasts})

    def vector(self, name: str, layer: int | None = None, component: str | None = None) -> SteeringVector:
        """The vector of that name at a layer (by default the middle one) and component (by default the residual stream)."""
        site = self._site(layer, component)
        pairs = self.contrast(name)
        found = self._store.vectors.get((pairs.name, site))
        if found is None:
            found = self._computed(pairs, site, "mean_difference")
            self.add(found)
        self._store.asked[name, layer, component or ""] = found
        return found

    def define(
        self,
        name: str,
        positive: Sequence[str] | None = None,
        negative: Sequence[str] | None = None,
        layer: int | None = None,
        component: str | None = None,
        method: str = "mean_difference",
    ) -> SteeringVector:
        """Compute a vector and keep it under its name, in place of one that was there.

        positive, negative: your own contrast pairs, text beside text (at least 8); without them `name` is a contrast that is
        known. method: mean_difference or pca. Raises `DatasetError` for texts that are no pairs or too few.
        """
        method, site = checked_method(method), self._site(layer, component)
        if (positive is None) != (negative is None):
            raise ArgumentError("Contrast pairs need both sides.", remedy="define: #name positive: texts negative: texts")
        if positive is not None and negative is not None:
            pairs = ContrastPairs.of(str(name), positive, negative)
        else:
            pairs = self.contrast(name)
        vector = self._computed(pairs, site, method)
        self.add(vector)
        return vector

    @python_only
    def add(self, vector: SteeringVector) -> None:
        """Keep a vector under its name and site. Raises `ArgumentError` when its width is not the site's."""
        self._check_width(vector)
        self._store.vectors[vector.name, vector.site] = vector
        self._store.contrasts[vector.name] = vector.pairs
        self._store.asked.clear()

    def _check_width(self, vector: SteeringVector) -> None:
        site = vector.site.checked(self._model.architecture)
        width = self._model.architecture.width(site.component)
        if vector.shape != (width,):
            raise ArgumentError(
                f"The vector {vector.name} is {' × '.join(map(str, vector.shape))} wide, and {site} of {self._model.title} {width}.",
                remedy="A vector steers the model that it was computed on; compute it anew with define:.",
            )

    def save(self, path: str) -> str:
        """Write every vector of this model, with its contrast pairs, into one safetensors file; answers its path."""
        from neuroscope.steering import storage

        if not self._store.vectors:
            raise ArgumentError(f"{self._model.title} has no steering vectors yet.", remedy="define: or load: makes them.")
        return str(storage.write(self._model, list(self._store.vectors.values()), path))

    def read(self, path: str) -> list[SteeringVector]:
        """Take in the vectors of a file that `save:` wrote. All or none: what does not fit this model is an error."""
        from neuroscope.steering import storage

        read = storage.read(self._model, path)
        for vector in read:
            self._check_width(vector)
        for vector in read:
            self.add(vector)
        return read

    def __iter__(self) -> Iterator[SteeringVector]:
        return iter(list(self._store.vectors.values()))

    def __len__(self) -> int:
        return len(self._store.vectors)

    def print_string(self) -> str:
        return f"a SteeringVectors for {self._model.title} ({len(self)} computed; {', '.join(self.names)})"

    def __repr__(self) -> str:
        return self.print_string()

    def _site(self, layer: int | None, component: str | None) -> Site:
        anatomy = self._model.architecture
        kind = Component.parse(component or Component.RESIDUAL)
        if kind in GLOBAL or kind is Component.ROUTER or anatomy.width(kind) is None:
            raise SiteError(
                f"{kind} holds no steering vectors.", site=kind, remedy="Use residual, attention, mlpOutput or mlp."
            )
        return Site(anatomy.layers // 2 if layer is None else layer, kind).checked(anatomy)

    @python_only
    def contrast(self, name: str) -> ContrastPairs:
        """The contrast pairs of that name: your own, or those that come along. `ArgumentError` names the nearest."""
        own = {fold(known): pairs for known, pairs in self._store.contrasts.items()}
        found = own.get(fold(str(name))) or contrast.named(str(name))
        if found is None:
            raise ArgumentError(
                f"There is no steering vector {str(name)!r}.",
                remedy=did_you_mean(snake_case(str(name)), self.names, listing="Steering vectors")
                + " Or make your own: (SteeringVectors for: model) define: #name positive: texts negative: texts.",
            )
        return found

    def _computed(self, pairs: ContrastPairs, site: Site, method: str) -> SteeringVector:
        fit, _ = pairs.split()
        ops = self._model.engine.ops
        array = ops.asarray(between(self._model, fit.positive, fit.negative, site, method))
        return SteeringVector(array, ops, name=pairs.name, site=site, method=method, pairs=pairs)


def checked_method(name: str) -> str:
    """`mean_difference` or `pca` by any spelling."""
    return only("method of a steering vector", METHODS, listing="Methods")[name]


def direction(differences: Vector, method: str) -> Vector:
    """The steering vector (width,) of paired differences (pairs, width); see the module's text."""
    mean = differences.mean(0)
    if method == "mean_difference":
        return np.asarray(mean, dtype=np.float32)
    first = np.linalg.svd(differences.astype(np.float64), full_matrices=False)[2][0]
    return np.asarray((first @ mean) * first, dtype=np.float32)


def between(
    model: TransformerModel, positive: Sequence[str], negative: Sequence[str], site: Site, method: str = "mean_difference"
) -> Vector:
    """The direction (width,) from negative to positive texts, which stand in pairs, at a site or one of its heads."""
    return direction(np.subtract(*(read_site(model, texts, site) for texts in (positive, negative))), method)


def contrast_direction(model: TransformerModel, positive: Sequence[str], negative: Sequence[str], site: Site) -> Vector:
    """`between` for texts that come without a name: of pairs that `define:` would take, the vector that it would compute.

    Of fewer pairs, from which none can be held out to judge by, all count.
    """
    try:
        fit, _ = ContrastPairs.of("contrast", positive, negative).split()
    except DatasetError:
        return between(model, positive, negative, site)
    return between(model, fit.positive, fit.negative, site)


def read_site(model: TransformerModel, texts: Sequence[str], site: Site) -> Vector:
    """(texts, width): the mean activations of each text at a site or one of its heads, its first token left out."""
    with events.quietly():
        found = read_sites(model, texts, [site.whole], at_end=False)[0]
    return found if site.head is None else found[:, site.head]
