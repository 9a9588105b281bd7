"""WeightEdit: a change of a model's weights as a value."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuroscope.engines.weights import Weight, WeightSite, WeightSnapshot, WeightView
from neuroscope.errors import ArgumentError, EditError, did_you_mean
from neuroscope.provenance import other_precision, provenance, tell_precision
from neuroscope.results import Provenance, Result, plain
from neuroscope.sealed import SealedFiles
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import public, python_only

if TYPE_CHECKING:
    from neuroscope.engines.anatomy import Anatomy
    from neuroscope.models.model import TransformerModel

Delta = NDArray[np.float32]

FILES = SealedFiles("edit", ".edit", "1", EditError)


@public
@dataclass(frozen=True)
class EditedWeight:
    """One weight that an edit touches.

    name: as `model weights:` names it. before, after: SHA-256 of its stored bits, without the edit and with it. changed: how many of
    its `size` numbers the edit moves. relative_norm: norm of the change over that of the weight.
    """

    name: str
    before: str
    after: str
    changed: int
    size: int
    relative_norm: float


@public
@dataclass(frozen=True, kw_only=True)
class WeightEdit(Result):
    """A change of weights: what is added to which of them, on which model, and how it was found.

    `model applyEdit:` applies it and `model revert:` takes it back. It applies to the weights that it was made for, and to no others.
    title: what it is for. method: how it was computed. notes: what else of the model it reaches (a matrix that is embedding and
    unembedding at once, a key-value head that several query heads share).
    """

    title: str
    method: str
    weights: list[EditedWeight]
    notes: list[str] = field(default_factory=list)
    provenance: Provenance
    _deltas: Mapping[str, Delta] = field(repr=False)
    _tied: bool = field(default=False, repr=False)

    @classmethod
    @python_only
    def planned(
        cls,
        model: TransformerModel,
        deltas: Mapping[str, ArrayLike],
        *,
        title: str,
        method: str,
        tied: bool = False,
        task: str | None = None,
        seed: int = 0,
    ) -> Self:
        """The edit that adds `deltas` (by weight name, each of its weight's shape, rounded to float32) to the model as it is now.

        tied: consent to change embedding and unembedding at once where they are one matrix. Changes nothing. Raises `ArgumentError` for
        a change that has another shape, is not finite or touches a weight twice, `SiteError` for a weight that the model does not have,
        and `WeightError` for one that is quantised, or tied without consent.
        """
        if not deltas:
            raise ArgumentError("An edit changes at least one weight.", remedy="Name weights as `model weights:` does.")
        views = [model.weights(name) for name in deltas]
        for view, other in itertools.combinations(views, 2):
            if view.overlaps(other):
                raise ArgumentError(f"{view.name} and {other.name} share numbers.", remedy="Give one change for both.")
        rounded = {view.name: _delta(view, delta) for view, delta in zip(views, deltas.values(), strict=True)}
        return cls(
            title=title,
            method=method,
            weights=[_edited(view, rounded[view.name], tied) for view in views],
            notes=[note for view in views if (note := _note(view, model.architecture))],
            provenance=provenance(model, task, seed, weights=len(views)),
            _deltas=rounded,
            _tied=tied,
        )

    @python_only
    def here(self, model: TransformerModel) -> WeightEdit:
        """The edit in the model's precision: itself, or with a notice what its changes make of the same weights in another."""
        if not other_precision(self.provenance, model):
            return self
        tell_precision(f"The edit {self.title!r}", self.provenance, model)
        task, seed = self.provenance.task, self.provenance.seed
        return WeightEdit.planned(
            model, self._deltas, title=self.title, method=self.method, tied=self._tied, task=task, seed=seed
        )

    @classmethod
    def scaling(cls, weights: str | Sequence[str], by: float, of: TransformerModel, title: str | None = None) -> Self:
        """The edit that multiplies weights by a number: `WeightEdit scaling: '9.attn.W_O[2]' by: 0.5 of: model` turns a head down by half.

        Raises `ArgumentError` for a factor that is not a finite number, and what `planned` raises.
        """
        names = [weights] if isinstance(weights, str) else list(weights)
        factor = float(by)
        if not np.isfinite(factor):
            raise ArgumentError(f"Weights cannot be multiplied by {by!r}.", remedy="Give a finite number.")
        deltas = {name: (factor - 1.0) * of.weights(name).read().astype(np.float64) for name in names}
        return cls.planned(of, deltas, title=title or f"{', '.join(map(str, names))} times {factor:g}", method="scaling")

    @classmethod
    def load(cls, path: str) -> Self:
        """An edit that `save:` wrote. Raises `EditError` for a file that is absent, foreign, newer or changed."""
        source, header, tensors = FILES.read(path, absent="`anEdit save:` writes one.")
        with FILES.understood(source):
            return cls(
                title=header["title"],
                method=header["method"],
                weights=[EditedWeight(**weight) for weight in header["weights"]],
                notes=list(header["notes"]),
                provenance=Provenance(**header["provenance"]),
                _deltas={weight["name"]: tensors[weight["name"]] for weight in header["weights"]},
                _tied=bool(header["tied"]),
            )

    def save(self, path: str) -> str:
        """Write the edit into a file: what it adds, as safetensors, with the rest as JSON. Answers its path.

        The suffix `.edit` is added where it is missing. Raises `EditError` when the place cannot be written.
        """
        header = {
            "title": self.title,
            "method": self.method,
            "weights": [vars(weight) for weight in self.weights],
            "notes": self.notes,
            "provenance": {name: plain(value) for name, value in vars(self.provenance).items()},
            "tied": self._tied,
        }
        return str(FILES.write(Path(path), header, self._deltas))

    @property
    @python_only
    def deltas(self) -> Mapping[str, Delta]:
        """What is added, by weight name, each of its weight's shape."""
        return self._deltas

    def delta(self, name: str) -> ActivationTensor:
        """What is added to one weight, as a tensor. Raises `ArgumentError` for a weight that the edit does not touch."""
        from neuroscope.engines import host_ops

        found = self._deltas.get(name)
        if found is None:
            raise ArgumentError(f"{self.title!r} does not touch {name!r}.", remedy=did_you_mean(name, self._deltas))
        return ActivationTensor(host_ops().asarray(found), host_ops())

    @property
    def changed(self) -> int:
        """How many numbers it moves."""
        return sum(weight.changed for weight in self.weights)

    @property
    def edit(self) -> Self:
        """Itself: whatever proposes an edit has one."""
        return self

    @python_only
    def results(self, model: TransformerModel) -> dict[str, WeightSnapshot]:
        """Each touched weight as the edit would leave it on the model as it is now."""
        return {name: _with_delta(model.weights(name), delta, self._tied) for name, delta in self._deltas.items()}

    def print_string(self) -> str:
        """One line."""
        return f"a WeightEdit({self.title}: {self.changed:,} numbers of {', '.join(w.name for w in self.weights[:3])}" + (
            f" and {len(self.weights) - 3} more)" if len(self.weights) > 3 else ")"
        )

    def summary(self) -> str:
        """What it is for, what it touches, and by how much."""
        lines = [f"{self.title} ({self.method}), for {self.provenance.title}"]
        lines += [
            f"  {weight.name:<24}{weight.changed:>12,} of {weight.size:,} numbers, norm of the change {weight.relative_norm:.3g} of the weight's"
            for weight in self.weights[:20]
        ]
        if len(self.weights) > 20:
            lines.append(f"  and {len(self.weights) - 20} weights more")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def _delta(view: WeightView, delta: ArrayLike) -> Delta:
    found = np.asarray(delta, dtype=np.float64)
    if found.shape != view.shape:
        raise ArgumentError(f"The change of {view.name} has the shape {found.shape}, and the weight {view.shape}.")
    with np.errstate(over="ignore"):
        rounded: Delta = found.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise ArgumentError(f"The change of {view.name} is NaN or infinite.", remedy="Check how it was computed.")
    return rounded


def _with_delta(view: WeightView, delta: Delta, tied: bool) -> WeightSnapshot:
    """The weight with the change, every number that the change leaves alone bit for bit as it was."""
    before = view.snapshot()
    after = view.rounded(view.read().astype(np.float64) + delta, tied)
    return WeightSnapshot(after.name, after.dtype, np.where(delta != 0, after.bits, before.bits))


def _edited(view: WeightView, delta: Delta, tied: bool) -> EditedWeight:
    before, after = view.snapshot(), _with_delta(view, delta, tied)
    norm = float(np.linalg.norm(view.read().astype(np.float64)))
    return EditedWeight(
        view.name,
        before.digest,
        after.digest,
        int((before.bits != after.bits).sum()),
        int(delta.size),
        float(np.linalg.norm(delta.astype(np.float64))) / norm if norm else float("inf"),
    )


def _note(view: WeightView, anatomy: Anatomy) -> str | None:
    """What else of the model a change of this weight reaches."""
    site = WeightSite.parse(view.name)
    if view.tied:
        return f"{site} is embedding and unembedding at once: both change"
    if site.weight in (Weight.W_K, Weight.W_V, Weight.B_K, Weight.B_V) and anatomy.group > 1:
        first = 0 if site.unit is None else site.unit * anatomy.group
        served = (
            f"{anatomy.group} query heads each" if site.unit is None else f"query heads {first} to {first + anatomy.group - 1}"
        )
        return f"{site} is shared: it serves {served}"
    return None
