"""Steering vectors: a direction at a site of a model, added to activations to increase a quality, subtracted to decrease it.

With p_i and n_i the mean activations of the i-th contrast pair's texts (without the first tokens, which are attention sinks),

    mean_difference    v = mean(p_i − n_i)
    pca                v = (u · mean(p_i − n_i)) u, with u the first right singular vector of the differences

so that with either method, strength 1 is the distance between the means of the two kinds of text.

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
from neuroscope.errors import ArgumentError, DatasetError, SiteError, did_you_mean, joined
from neuroscope.features.readings import read_sites
from neuroscope.hooks.hook import current_context
from neuroscope.models.model import TransformerModel
from neuroscope.names import only
from neuroscope.naming import fold, snake_case
from neuroscope.provenance import tell_dtype, tell_weights
from neuroscope.remedies import Name, Remedy, call
from neuroscope.steering import contrast
from neuroscope.steering.contrast import ContrastPairs
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import both_sides, public, python_only

METHODS = ("mean_difference", "pca")

Vector = NDArray[np.float32]


@public
class SteeringVector(ActivationTensor):
    """A named direction (width,) at a site; arithmetic as with any activations."""

    def __init__(
        self,
        array: Array,
        ops: ArrayOps,
        *,
        name: str,
        site: Site,
        method: str,
        pairs: ContrastPairs,
        title: str,
        weights_hash: str,
        dtype: str,
    ) -> None:
        super().__init__(array, ops)
        self._name, self._site, self._method, self._pairs = name, site, method, pairs
        self._title, self._weights_hash, self._dtype = title, weights_hash, dtype
        self._told: set[str] = set()

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
        """The contrast pairs it was computed from and is judged by."""
        return self._pairs

    @property
    def weights_hash(self) -> str:
        """Hash of the weights that it was computed on."""
        return self._weights_hash

    @property
    def precision(self) -> str:
        """The floating type of the model that it was computed on."""
        return self._dtype

    @property
    @python_only
    def title(self) -> str:
        """The model that it was computed on."""
        return self._title

    @python_only
    def check(self, model: TransformerModel) -> None:
        """Warn, once for each state of the weights and each precision, unless the vector was computed on these and in this."""
        what = f"The steering vector {self._name}"
        tell_weights(what, self._title, self._weights_hash, model, self._told)
        if self._weights_hash == model.weights_hash:
            tell_dtype(what, self._dtype, model, self._told)

    def print_string(self) -> str:
        return f"a SteeringVector({self._name} at {self._site}, {self._method}, norm {self.norm():.3g})"

    def as_dictionary(self) -> dict[str, Any]:
        """Name, site, method, number of pairs, and the values."""
        about = {
            "name": self._name,
            "site": str(self._site),
            "method": self._method,
            "pairs": len(self._pairs),
            "weightsHash": self._weights_hash,
            "dtype": self._dtype,
        }
        return about | super().as_dictionary()


class _Store:
    """The vectors of one model by name and site, and the user's contrasts by name."""

    def __init__(self) -> None:
        self.vectors: dict[tuple[str, Site], SteeringVector] = {}
        self.contrasts: dict[str, ContrastPairs] = {}
        #: Cache for hooks, which look up a vector at every token: the name as written, with the site.
        self.asked: dict[tuple[str, int | None, str], SteeringVector] = {}


_stores: weakref.WeakKeyDictionary[TransformerModel, _Store] = weakref.WeakKeyDictionary()


@public
class SteeringVectors:
    """The steering vectors of one model. A name is a built-in contrast, or one that you define or read."""

    def __init__(self, model: TransformerModel) -> None:
        if not isinstance(model, TransformerModel):
            raise ArgumentError(f"Steering vectors need a TransformerModel, not {model!r}.")
        self._model = model
        self._store = _stores.setdefault(model, _Store())

    @classmethod
    @both_sides
    def load(
        cls, name: str, model: TransformerModel | None = None, layer: int | None = None, component: str | None = None
    ) -> SteeringVector:
        """A vector by name: one that was defined, added or read, otherwise computed from its contrast pairs.

        In a hook's action, model, layer and component are the hook's. Elsewhere a model is needed, and the layer is by default
        the middle one. `(SteeringVectors for: model) load: #name` uses that model. Raises `ArgumentError` for an unknown name,
        with the nearest.
        """
        context = current_context()
        if model is None:
            if context is None:
                raise ArgumentError(
                    f"The vector {name} needs a model, and there is none here.",
                    remedy=joined(
                        "Load it in a hook's action, or give the model:",
                        call("SteeringVectors", "load", str(name), model=Name("model"), layer=10),
                    ),
                )
            model = context.model
        if context is not None and context.model is model:
            layer = context.layer if layer is None else layer
            component = context.component if component is None else component
        store = _stores.get(model)
        found = None if store is None else store.asked.get((name, layer, component or ""))
        if found is None:
            return cls(model).vector(name, layer, component)
        found.check(model)
        return found

    @property
    def model(self) -> TransformerModel:
        return self._model

    @property
    def names(self) -> list[str]:
        """All names that `load:` accepts for this model."""
        return sorted({*contrast.names(), *self._store.contrasts})

    def vector(self, name: str, layer: int | None = None, component: str | None = None) -> SteeringVector:
        """A vector by name, at a layer (by default the middle one) and component (by default the residual stream).

        A vector that was computed on other weights, before an edit for example, is answered with a warning; `define:` computes it anew.
        """
        site = self._site(layer, component)
        pairs = self.contrast(name)
        found = self._store.vectors.get((pairs.name, site))
        if found is None:
            found = self._computed(pairs, site, "mean_difference")
            self.add(found)
        found.check(self._model)
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
        """Compute a vector and store it under its name, replacing any other.

        positive, negative: your own contrast pairs, in the same order (at least 8); without them `name` is a known contrast.
        method: mean_difference or pca. Raises `DatasetError` for texts that are not pairs or too few.
        """
        method, site = checked_method(method), self._site(layer, component)
        if (positive is None) != (negative is None):
            raise ArgumentError(
                "Contrast pairs need both sides.",
                remedy=call("vectors", "define", str(name), positive=Name("texts"), negative=Name("texts")),
            )
        if positive is not None and negative is not None:
            pairs = ContrastPairs.of(str(name), positive, negative)
        else:
            pairs = self.contrast(name)
        vector = self._computed(pairs, site, method)
        self.add(vector)
        return vector

    @python_only
    def add(self, vector: SteeringVector) -> None:
        """Store a vector under its name and site. Raises `ArgumentError` if its width is not the site's, or a number is not finite."""
        self._check_width(vector)
        if not np.isfinite(vector.numpy()).all():
            raise ArgumentError(
                f"The vector {vector.name} holds NaN or infinity.", remedy="Compute it again, from a model in float32."
            )
        self._store.vectors[vector.name, vector.site] = vector
        self._store.contrasts[vector.name] = vector.pairs
        self._store.asked.clear()

    def _check_width(self, vector: SteeringVector) -> None:
        site = vector.site.checked(self._model.architecture)
        width = self._model.architecture.width(site.component)
        if vector.shape != (width,):
            raise ArgumentError(
                f"The vector {vector.name} is {' × '.join(map(str, vector.shape))} wide, but {site} of {self._model.title} is {width} wide.",
                remedy="A vector steers the model that it was computed on; compute it again with define:.",
            )

    def save(self, path: str) -> str:
        """Write every vector of this model, with its contrast pairs, to one safetensors file. Return its path."""
        from neuroscope.steering import storage

        if not self._store.vectors:
            raise ArgumentError(f"{self._model.title} has no steering vectors yet.", remedy="define: or load: makes them.")
        return str(storage.write(self._model, list(self._store.vectors.values()), path))

    def read(self, path: str) -> list[SteeringVector]:
        """Add the vectors of a file that `save:` wrote, all or none. Raises `ArgumentError` for vectors that do not fit this
        model.
        """
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
                f"{kind} cannot have steering vectors.", site=kind, remedy="Use residual, attention, mlpOutput or mlp."
            )
        return Site(anatomy.layers // 2 if layer is None else layer, kind).checked(anatomy)

    @python_only
    def contrast(self, name: str) -> ContrastPairs:
        """Contrast pairs by name: your own, or built-in ones. Raises `ArgumentError` with the nearest names."""
        own = {fold(known): pairs for known, pairs in self._store.contrasts.items()}
        found = own.get(fold(str(name))) or contrast.named(str(name))
        if found is None:
            raise ArgumentError(
                f"There is no steering vector {str(name)!r}.",
                remedy=joined(
                    did_you_mean(snake_case(str(name)), self.names, listing="Steering vectors") + " Or define your own:",
                    Remedy(
                        f"SteeringVectors(model).define({str(name)!r}, positive=texts, negative=texts).",
                        smalltalk=f"(SteeringVectors for: model) define: {str(name)!r} positive: texts negative: texts.",
                    ),
                ),
            )
        return found

    def _computed(self, pairs: ContrastPairs, site: Site, method: str) -> SteeringVector:
        fit, _ = pairs.split()
        ops = self._model.engine.ops
        array = ops.asarray(between(self._model, fit.positive, fit.negative, site, method))
        return SteeringVector(
            array,
            ops,
            name=pairs.name,
            site=site,
            method=method,
            pairs=pairs,
            title=self._model.title,
            weights_hash=self._model.weights_hash,
            dtype=self._model.precision,
        )


def checked_method(name: str) -> str:
    """`mean_difference` or `pca`, from any spelling."""
    return only("method of a steering vector", METHODS, listing="Methods")[name]


def direction(differences: Vector, method: str) -> Vector:
    """The steering vector (width,) of paired differences (pairs, width); see the module's docstring."""
    mean = differences.mean(0)
    if method == "mean_difference":
        return np.asarray(mean, dtype=np.float32)
    first = np.linalg.svd(differences.astype(np.float64), full_matrices=False)[2][0]
    return np.asarray((first @ mean) * first, dtype=np.float32)


def between(
    model: TransformerModel, positive: Sequence[str], negative: Sequence[str], site: Site, method: str = "mean_difference"
) -> Vector:
    """The direction (width,) from negative to positive texts, in pairs, at a site or one of its heads."""
    return direction(np.subtract(*(read_site(model, texts, site) for texts in (positive, negative))), method)


def contrast_direction(model: TransformerModel, positive: Sequence[str], negative: Sequence[str], site: Site) -> Vector:
    """`between` for unnamed texts: the vector that `define:` would compute.

    With too few pairs to hold any out, all are used.
    """
    try:
        fit, _ = ContrastPairs.of("contrast", positive, negative).split()
    except DatasetError:
        return between(model, positive, negative, site)
    return between(model, fit.positive, fit.negative, site)


def read_site(model: TransformerModel, texts: Sequence[str], site: Site) -> Vector:
    """(texts, width): the mean activations of each text at a site or one of its heads, without its first token."""
    with events.quietly():
        found = read_sites(model, texts, [site.whole], at_end=False)[0]
    return found if site.head is None else found[:, site.head]
