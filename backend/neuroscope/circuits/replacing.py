"""What a patched site gets instead of its own activation.

`pair`      the activation in the other run of the same pair (Vig et al. 2020; Meng et al. 2022)
`resample`  that in the other run of another pair, drawn at random (Chan et al. 2022)
`mean`      the mean over all tokens of all other runs (Wang et al. 2022); of attention's matrices the mean over runs
`zero`      nothing
"""

from __future__ import annotations

import numpy as np

from neuroscope.circuits.ablated import derangement
from neuroscope.circuits.pair_runs import PairRuns, RunOfPairs
from neuroscope.engines.protocol import Array
from neuroscope.engines.sites import ATTENTION_MATRICES, Component, Site
from neuroscope.errors import DatasetError
from neuroscope.names import only

REPLACEMENTS = ("pair", "resample", "mean", "zero")


def checked_replacement(name: str) -> str:
    """The replacement's name. Raises `ArgumentError` with the nearest names."""
    return only("replacement", REPLACEMENTS, listing="Replacements")[name]


class Replacement:
    """Activations (rows, positions, …) that sites get, from one of the two runs of some pairs.

    Raises `DatasetError` where the pairs do not allow the kind: `resample` and the mean of attention need prompts of one length,
    `resample` at least two pairs.
    """

    def __init__(self, runs: PairRuns, source: RunOfPairs, kind: str = "pair", *, seed: int = 0) -> None:
        self.runs, self.source, self.kind, self.seed = runs, source, kind, seed
        self._kept: dict[Site, Array] = {}
        if kind == "resample":
            self._alike("The replacement resample")
            if runs.rows < 2:
                raise DatasetError(
                    "The replacement resample needs another pair.", remedy="Give two pairs, or patch with `pair`."
                )

    def values(self, site: Site) -> Array:
        """What the component of a layer gets."""
        if site not in self._kept:
            self._kept[site] = self._instead(site, self._captured(site))
        return self._kept[site]

    def forget(self) -> None:
        """Free what was computed for the sites asked for so far."""
        self._kept.clear()

    def _captured(self, site: Site) -> Array:
        """The activations of the source run: those that it keeps, or computed again by its layer alone."""
        run, layer = self.source, site.layer
        if layer is None:
            return run.streams[0]
        known = {
            Component.RESIDUAL_PRE: run.streams[layer],
            Component.RESIDUAL: run.streams[layer + 1],
            Component.MLP_READ: run.mids[layer],
            Component.HEAD_OUTPUT: run.heads[layer],
            Component.MLP_OUTPUT: run.mlps[layer],
        }
        if site.component in known:
            return known[site.component]
        runs = self.runs
        again = runs.engine.forward(
            runs.pairs.clean,
            capture=[site],
            start=layer,
            residual=run.streams[layer],
            stop=layer + 1,
            logits=None,
            prefix=runs.prefix,
        )
        return again[site]

    def _instead(self, site: Site, values: Array) -> Array:
        ops = self.runs.engine.ops
        if self.kind == "pair":
            return values
        if self.kind == "zero":
            return values * 0
        if self.kind == "resample":
            return values[ops.asarray(derangement(self.runs.rows, self.seed))]
        if site.component in ATTENTION_MATRICES:
            self._alike(f"The mean of {site.component}")
            return values * 0 + ops.asarray(ops.wide(values).sum(0) / self.runs.rows)
        real = ops.asarray(self.runs.pairs.corrupt.real.astype(np.float32))
        weights = real.reshape(*real.shape, *[1] * (len(values.shape) - 2))
        mean = (ops.wide(values) * weights).sum(0).sum(0) / ops.wide(real).sum()
        return values * 0 + ops.asarray(mean)

    def _alike(self, what: str) -> None:
        lengths = np.unique(self.runs.pairs.clean.lengths)
        if len(lengths) > 1:
            raise DatasetError(
                f"{what} needs prompts of the same number of tokens, not of {lengths[0]} to {lengths[-1]}.",
                remedy="Give pairs of one length, or patch with `pair`.",
            )
