"""Activation caches: what one run captured, by site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from neuroscope.elsewhere import OF_CACHES
from neuroscope.engines.protocol import Array, ArrayOps, BoolArray, Engine, Port
from neuroscope.engines.sites import ATTENTION_MATRICES, GLOBAL, Component, Site, real_cells
from neuroscope.errors import ArgumentError, SiteError, did_you_mean
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import public, python_only

if TYPE_CHECKING:

    class _Extended: ...
else:
    from neuroscope.extensions import Extensible as _Extended

#: A site, its text, or TransformerLens' pair of a component's name and a layer: `("pattern", 5)`.
Key = str | Site | tuple[Any, ...]


@public
class ActivationCache(_Extended):
    """Activations by site: `cache at: '5.residual'`, in Python also `cache["pattern", 5]` and `cache["blocks.5.hook_resid_post"]`.

    `tokens` are the texts of each row's tokens. Rows of different lengths are padded; `mask` (rows, positions) marks the positions that
    hold tokens. Statistics of the activations (`mean`, `norm` …) use only those. A tensor read from here shares memory with the cache:
    what is written to it stays.
    """

    names_elsewhere: ClassVar[Mapping[str, str]] = OF_CACHES

    def __init__(
        self,
        activations: Mapping[Site, Array],
        ops: ArrayOps,
        tokens: list[list[str]],
        real: BoolArray | None = None,
        *,
        engine: Engine | None = None,
        gradients: Mapping[Site, Array] | None = None,
    ) -> None:
        self._activations = dict(activations)
        self._ops = ops
        self._mask = real
        self._real = None if real is None or bool(real.all()) else real
        self._engine = engine
        self._gradients = gradients
        self.tokens: list[list[str]] = tokens

    @property
    def sites(self) -> list[str]:
        """Every captured site, as text."""
        return [str(site) for site in self._activations]

    @property
    def mask(self) -> list[list[bool]]:
        """Which positions of each row hold tokens, not padding."""
        if self._mask is not None:
            return self._mask.tolist()
        return [[True] * len(row) for row in self.tokens]

    @property
    def gradients(self) -> ActivationCache:
        """The gradients at the same sites. Raises `ArgumentError` for a run without gradients."""
        if self._gradients is None:
            raise ArgumentError(
                "This run has no gradients.", remedy="Run with them: model.run_with_gradients(prompts, metric, sites)."
            )
        return ActivationCache(self._gradients, self._ops, self.tokens, self._mask, engine=self._engine)

    def __getitem__(self, site: Key) -> ActivationTensor:
        parsed = self._parsed(site)
        found = self._activations.get(parsed)
        if found is None and parsed.whole in self._activations:
            return self._narrowed(parsed)
        if found is None:
            raise SiteError(
                f"{parsed} was not captured.",
                site=parsed,
                remedy=did_you_mean(str(parsed), self.sites, listing="Captured"),
            )
        return self._tensor(parsed, found)

    def __contains__(self, site: Key) -> bool:
        parsed = self._parsed(site)
        return parsed in self._activations or parsed.whole in self._activations

    def __iter__(self) -> Iterator[ActivationTensor]:
        return (tensor for _, tensor in self.items())

    def __len__(self) -> int:
        return len(self._activations)

    @python_only
    def keys(self) -> list[Site]:
        return list(self._activations)

    @python_only
    def items(self) -> Iterator[tuple[Site, ActivationTensor]]:
        return ((site, self._tensor(site, array)) for site, array in self._activations.items())

    # --- the stream, layer by layer -------------------------------------------------------------------------------

    def stack(self, component: str) -> ActivationTensor:
        """A component of every captured layer, in order: (layers, rows, positions, …). `layers` has their numbers.

        Raises `SiteError` if no layer of it was captured, or its layers have different shapes.
        """
        kind = Component.parse(component)
        found = self._of(kind)
        if not found:
            names = sorted({site.component.value for site in self._activations})
            raise SiteError(
                f"No layer's {kind} was captured.", site=kind, remedy=did_you_mean(kind.value, names, listing="Captured")
            )
        shapes = {tuple(array.shape) for array in found.values()}
        if len(shapes) > 1:
            raise SiteError(f"The captured {kind} has several shapes: {sorted(shapes)}.", site=kind)
        cells = None if self._real is None else real_cells(Site(0, kind), self._real)
        stacked = self._ops.settled(self._ops.stack(list(found.values()), 0))
        return ActivationTensor(stacked, self._ops, None if cells is None else cells[None])

    def layers(self, component: str) -> list[int]:
        """The layers of which a component was captured."""
        return list(self._of(Component.parse(component)))

    def accumulated_residual(self, normalised: bool = False) -> ActivationTensor:
        """The residual stream before the first layer and after each: (layers + 1, rows, positions, d_model).

        normalised: as the final norm reads each, for the logit lens. Raises `SiteError` for what was not captured: the embedding (or
        `0.residualPre`) and the residual of every layer; `ArgumentError` if the cache belongs to no model.
        """
        streams = [self._entry(), *self._all(Component.RESIDUAL)]
        if normalised:
            engine = self._known_engine("The final norm")
            last = engine.anatomy.layers - 1
            streams = [engine.normalise(last, Port.FINAL, stream) for stream in streams]
        return self._of_stream(streams)

    def decomposed_residual(self) -> ActivationTensor:
        """What the embedding, each layer's attention and each layer's MLP add to the stream: (1 + 2 · layers, rows, positions, d_model).

        Their sum is the residual stream after the last layer; `residual_labels` names them. Raises `SiteError` for what was not captured.
        """
        attention, mlps = self._all(Component.ATTENTION), self._all(Component.MLP_OUTPUT)
        return self._of_stream([self._entry(), *(part for both in zip(attention, mlps, strict=True) for part in both)])

    @property
    def residual_labels(self) -> list[str]:
        """The sites of the parts of `decomposed_residual`."""
        kinds = (Component.ATTENTION, Component.MLP_OUTPUT)
        return ["embedding", *(str(Site(layer, kind)) for layer in self._of(Component.ATTENTION) for kind in kinds)]

    def _of_stream(self, parts: list[Array]) -> ActivationTensor:
        cells = None if self._real is None else self._real[None, :, :, None]
        return ActivationTensor(self._ops.settled(self._ops.stack(parts, 0)), self._ops, cells)

    def _entry(self) -> Array:
        for site in (Site(None, Component.EMBEDDING), Site(0, Component.RESIDUAL_PRE)):
            if site in self._activations:
                return self._activations[site]
        raise SiteError("The embedding was not captured.", site="embedding", remedy="Run with sites that include 'embedding'.")

    def _all(self, kind: Component) -> list[Array]:
        found = self._of(kind)
        layers = max(found, default=-1) + 1 if self._engine is None else self._engine.anatomy.layers
        missing = [layer for layer in range(layers) if layer not in found]
        if missing or not found:
            site = Site(missing[0] if missing else 0, kind)
            raise SiteError(f"{site} was not captured.", site=site, remedy=f"Run with sites that include '*.{kind}'.")
        return [found[layer] for layer in range(layers)]

    def _of(self, kind: Component) -> dict[int, Array]:
        """The whole captured arrays of a component, by layer."""
        found = {
            site.layer: array for site, array in self._activations.items() if site.component is kind and site == site.whole
        }
        return {layer: found[layer] for layer in sorted(layer for layer in found if layer is not None)}

    def _known_engine(self, what: str) -> Engine:
        if self._engine is None:
            raise ArgumentError(f"{what} needs the model, which this cache does not know.", remedy="Capture with the model.")
        return self._engine

    # --- one site -------------------------------------------------------------------------------------------------

    def _parsed(self, key: Key) -> Site:
        if isinstance(key, tuple):
            if not 2 <= len(key) <= 3 or not isinstance(key[0], str) or isinstance(key[1], bool) or not isinstance(key[1], int):
                raise SiteError(f"{key!r} is no site.", site=str(key), remedy='Write "5.attentionPattern" or ("pattern", 5).')
            site = Site(key[1], Component.parse(key[0]))
        elif isinstance(key, (str, Site)):
            site = Site.parse(key)
        else:
            raise SiteError(f"{key!r} is no site.", site=str(key), remedy='Write "5.attentionPattern" or ("pattern", 5).')
        if self._engine is not None and site.component not in GLOBAL and site.layer is not None and site.layer < 0:
            return replace(site, layer=self._engine.anatomy.checked_layer(site.layer, site))
        return site

    def _narrowed(self, site: Site) -> ActivationTensor:
        """A head, neuron or token of a component that was captured whole."""
        whole = self._tensor(site.whole, self._activations[site.whole])
        index: list[Any] = [slice(None)] * whole.ndim
        matrix = site.component in ATTENTION_MATRICES
        if self._engine is not None:
            site.checked(self._engine.anatomy)
        if site.neuron is not None:
            index[-1] = site.neuron
        if site.position is not None:
            lengths = np.array([len(row) for row in self.tokens])
            if not -lengths.min() <= site.position < lengths.min():
                raise SiteError(f"There is no token {site.position}: the shortest prompt has {lengths.min()}.", site=site)
            first = np.zeros(len(lengths), np.int64) if self._mask is None else self._mask.argmax(1)
            index[0] = np.arange(len(lengths))
            index[2 if matrix else 1] = first + np.where(site.position < 0, lengths + site.position, site.position)
        if site.head is None:
            return whole[tuple(index)]
        axis = 1 if matrix else 2
        if site.position is None:
            return whole[(*index[:axis], site.head, *index[axis + 1 :])]
        # numpy puts the axes of two separated indices first, so heads are taken before positions
        headed = whole[(slice(None),) * axis + (site.head,)]
        return headed[index[0], index[2 if matrix else 1]]

    def _tensor(self, site: Site, array: Array) -> ActivationTensor:
        return ActivationTensor(array, self._ops, None if self._real is None else real_cells(site, self._real))

    def print_string(self) -> str:
        return f"an ActivationCache({len(self)} sites)"

    def __repr__(self) -> str:
        return self.print_string()

    def as_dictionary(self) -> dict[str, Any]:
        """Tokens, and the shape of each captured site, without its values."""
        shapes = {str(site): [int(size) for size in array.shape] for site, array in self._activations.items()}
        return {"tokens": self.tokens, "sites": shapes}
