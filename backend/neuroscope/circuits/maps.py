"""Maps of patched sites, on prompts of one's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.circuits.estimates import normalised
from neuroscope.circuits.pair_runs import Numbers
from neuroscope.engines.sites import Site
from neuroscope.errors import SiteError, did_you_mean
from neuroscope.results import Provenance, Result
from neuroscope.tasks.dependence import Units
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public, python_only

_SHOWN = 10


@public
@dataclass(frozen=True)
class PatchedSite:
    """One site of a map. share: of the gap between clean and corrupt metric. metric: with the site patched, the mean over pairs."""

    site: Site
    share: Estimate
    metric: float
    token: str | None = None

    @property
    def value(self) -> float:
        return self.share.value

    def print_string(self) -> str:
        return f"a PatchedSite({self.site}: {_shown(self.share)})"

    def as_dictionary(self) -> dict[str, Any]:
        site = self.site
        return {
            "site": str(site),
            "layer": site.layer,
            "component": site.component.value,
            "head": site.head,
            "neuron": site.neuron,
            "position": site.position,
            "token": self.token,
            **self.share.as_dictionary(),
            "metric": self.metric,
        }


@public
@dataclass(frozen=True)
class PatchingMap(Result):
    """The effect of patching each of many sites, one at a time.

    Each value is a share of the gap between clean and corrupt metric, over pairs: denoising, the part of the gap that the site's
    clean activation recovers in the corrupt run; noising, the part that is lost when it is replaced in the clean run. 1 is the whole
    gap. Intervals are Fieller's, for pairs that share units too; a single pair has none. `path`: the part that is lost when the
    `receivers` alone read the site's corrupt write. method: `exact`, `attribution` (first order) or `path`.

    tokens: those of the first pair's clean prompt, as labels. note: what to know before reading it.
    """

    sites: list[PatchedSite]
    direction: str
    method: str
    replacement: str
    metric: str
    clean_metric: Estimate
    corrupt_metric: Estimate
    tokens: list[str]
    n: int
    note: str | None
    provenance: Provenance
    receivers: list[str] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        """The share of every site, in the order of `sites`."""
        return [one.value for one in self.sites]

    def strongest(self, count: int = _SHOWN) -> list[PatchedSite]:
        """The sites with the largest shares in size, the largest first."""
        return sorted(self.sites, key=lambda one: -abs(one.value))[: max(0, int(count))]

    def table(self) -> list[dict[str, Any]]:
        """One row a site, for `pandas.DataFrame(found.table())`."""
        return [one.as_dictionary() for one in self.sites]

    def __getitem__(self, site: str | Site) -> PatchedSite:
        wanted = Site.parse(site)
        for one in self.sites:
            if one.site == wanted:
                return one
        names = [str(one.site) for one in self.sites]
        raise SiteError(f"{wanted} was not patched.", site=wanted, remedy=did_you_mean(str(wanted), names, listing="Patched"))

    def __iter__(self) -> Iterator[PatchedSite]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    @python_only
    def numpy(self) -> NDArray[np.float64]:
        """The shares as an array with an axis for each of layer, head or neuron, and position that differs; NaN where not patched.

        The axes' values are in `axes`. Raises `SiteError` for sites of several components.
        """
        axes = self.axes
        index = {name: {value: at for at, value in enumerate(values)} for name, values in axes.items()}
        found = np.full([len(values) for values in axes.values()], np.nan)
        for one in self.sites:
            found[tuple(index[name][_coordinate(one.site, name)] for name in axes)] = one.value
        return found

    @property
    @python_only
    def axes(self) -> dict[str, list[Any]]:
        """Axis → its values, for `numpy`."""
        kinds = {one.site.component for one in self.sites}
        if len(kinds) > 1:
            raise SiteError(
                f"A map of {', '.join(sorted(kind.value for kind in kinds))} is not one array.",
                remedy="Patch one component at a time, or read `table`.",
            )
        found: dict[str, list[Any]] = {}
        for name in ("layer", "head", "neuron", "position"):
            values = sorted(
                {_coordinate(one.site, name) for one in self.sites}, key=lambda value: -1 if value is None else value
            )
            if len(values) > 1:
                found[name] = values
        return found or {"layer": [self.sites[0].site.layer]}

    def print_string(self) -> str:
        return f"a PatchingMap({len(self)} sites, {self.direction}, {self.n} pair{'s' if self.n != 1 else ''})"

    def summary(self) -> str:
        what = {"denoising": "recovered of the gap", "noising": "lost of the gap"}[self.direction]
        behind = f", read by {', '.join(self.receivers[:4])}{' …' if len(self.receivers) > 4 else ''}" if self.receivers else ""
        lines = [
            f"{self.direction.capitalize()} {len(self)} sites of {self.provenance.title} ({self.method}, {self.replacement}{behind}), "
            f"{self.n} pair{'s' if self.n != 1 else ''}",
            f"  {self.metric:<18} clean {_shown(self.clean_metric)}, corrupt {_shown(self.corrupt_metric)}",
            f"  {'site':<22} {what}",
        ]
        lines += [
            f"    {one.site!s:<20} {_shown(one.share):<26} {'' if one.token is None else repr(one.token)}".rstrip()
            for one in self.strongest()
        ]
        return "\n".join(lines if self.note is None else [*lines, f"  {self.note}"])


def patched(
    sites: Sequence[Site], metrics: Numbers, base: Numbers, other: Numbers, units: Units | None, tokens: Sequence[str]
) -> list[PatchedSite]:
    """The sites with their shares of the gap: metrics (sites, rows) between those of the base and the other run (rows,)."""
    return [
        PatchedSite(site, normalised(values, base, other, units=units), float(values.mean()), _token(site, tokens))
        for site, values in zip(sites, metrics, strict=True)
    ]


def _token(site: Site, tokens: Sequence[str]) -> str | None:
    return None if site.position is None else tokens[site.position]


def _coordinate(site: Site, name: str) -> Any:
    return getattr(site, name)


def _shown(value: Estimate) -> str:
    return str(value) if math.isfinite(value.low) else f"{value.value:.3f}"
