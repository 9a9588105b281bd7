"""Activation caches: what one run captured, by site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from neuroscope.engines.protocol import Array, ArrayOps, BoolArray
from neuroscope.engines.sites import Site, real_cells
from neuroscope.errors import SiteError, did_you_mean
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import public, python_only


@public
class ActivationCache:
    """Activations by site: `cache at: '5.residual'`. `tokens` are the texts of each row's tokens.

    Rows of different lengths are padded; `real` (rows, positions) marks the positions that hold tokens. Statistics of the
    activations (`mean`, `norm` …) use only those.
    """

    def __init__(
        self, activations: Mapping[Site, Array], ops: ArrayOps, tokens: list[list[str]], real: BoolArray | None = None
    ) -> None:
        self._activations = dict(activations)
        self._ops = ops
        self._real = None if real is None or bool(real.all()) else real
        self.tokens: list[list[str]] = tokens

    @property
    def sites(self) -> list[str]:
        """Every captured site, as text."""
        return [str(site) for site in self._activations]

    def __getitem__(self, site: str | Site) -> ActivationTensor:
        parsed = Site.parse(site)
        found = self._activations.get(parsed)
        if found is None:
            raise SiteError(
                f"{parsed} was not captured.",
                site=parsed,
                remedy=did_you_mean(str(parsed), self.sites, listing="Captured"),
            )
        return self._tensor(parsed, found)

    def __contains__(self, site: str | Site) -> bool:
        return Site.parse(site) in self._activations

    def __iter__(self) -> Iterator[ActivationTensor]:
        return (tensor for _, tensor in self.items())

    def __len__(self) -> int:
        return len(self._activations)

    @python_only
    def items(self) -> Iterator[tuple[Site, ActivationTensor]]:
        return ((site, self._tensor(site, array)) for site, array in self._activations.items())

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
