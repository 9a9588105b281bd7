"""The library: named circuits as `.circuit` files, with versions.

Circuits are searched in the user's library (`NEUROSCOPE_LIBRARY`, or `neuroscope/circuits` in the platform's data folder), then
among those that ship. `syntax/agreement.circuit` is the newest version of a circuit, and `syntax/agreement@1.circuit` its
first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroscope import events, places
from neuroscope.circuits.circuit import Circuit, as_circuit
from neuroscope.circuits.estimates import normalised
from neuroscope.circuits.evaluation import CircuitEvaluation
from neuroscope.circuits.quality import ASPECTS
from neuroscope.circuits.storage import FILES, SUFFIX, CircuitFile, read, write
from neuroscope.engines.precision import epsilon
from neuroscope.errors import ArgumentError, CircuitError, did_you_mean
from neuroscope.files import keep, locked, planned
from neuroscope.kinds import misfit
from neuroscope.naming import fold
from neuroscope.remedies import Remedy
from neuroscope.results import Result, titled
from neuroscope.tasks.statistics import Estimate
from neuroscope.vocabulary import public

SHIPPED = Path(__file__).parent / "shipped"
_VERSIONED = re.compile(r"(.+)@(\d+)$")


@public
@dataclass(frozen=True)
class LibraryEntry(Result):
    """The header of a circuit's file in the library."""

    name: str
    version: int
    folder: str
    task: str
    model: str
    weights_hash: str
    dtype: str
    edges: int
    faithfulness: Estimate
    held_out_faithfulness: Estimate
    random_circuit_faithfulness: Estimate
    note: str
    quality: Mapping[str, Any] | None
    path: str

    @property
    def overall_score(self) -> float | None:
        """The overall score of its quality report, or None."""
        return None if self.quality is None else self.quality["overallScore"]

    def summary(self) -> str:
        lines = [
            f"{self.folder}/{self.name}, version {self.version}" + (f": {self.note}" if self.note else ""),
            f"  task             {self.task}",
            f"  model            {self.model} (weights {self.weights_hash[:12]}…, {self.dtype})",
            f"  edges            {self.edges}",
            f"  faithfulness     {self.faithfulness}; held out {self.held_out_faithfulness}",
            f"  random circuits  {self.random_circuit_faithfulness}",
        ]
        if self.quality is not None:
            scores = [f"{name} {self.quality[name]['score']:.2f}" for name in ASPECTS if self.quality.get(name)]
            lines.append(f"  quality          {', '.join(scores)}; overall {self.overall_score:.2f}")
        return "\n".join([*lines, f"  file             {self.path}"])

    def print_string(self) -> str:
        return f"a LibraryEntry({self.folder}/{self.name} v{self.version}: {self.task} in {self.model}, {self.edges} edges)"


@public
class CircuitLibrary:
    """Named circuits. All methods are class methods."""

    @classmethod
    def load(cls, name: str, version: int | None = None) -> Circuit:
        """A circuit by name, in any spelling, by default its newest version. Raises `CircuitError` with the nearest names."""
        return _read(_path_of(str(name), version)).circuit()

    @classmethod
    def load_circuit(cls, path: str) -> Circuit:
        """A circuit from a file, relative to the library's folders or the working folder. Raises `CircuitError` for changed or
        foreign files.
        """
        given = Path(str(path))
        here = places.to_read(given, "circuit")
        if here.is_file():
            return read(here).circuit()
        for folder in folders():
            inside = (folder / given).resolve()
            if not given.is_absolute() and inside.is_relative_to(folder.resolve()) and inside.is_file():
                with places.own():
                    return read(inside).circuit()
        raise CircuitError(
            f"There is no circuit file {given} here or in {' or '.join(map(str, folders()))}.",
            remedy=_nearest(given.stem),
        )

    @classmethod
    def save(cls, circuit: Circuit, name: str, quality: Mapping[str, Any] | None = None, note: str = "") -> LibraryEntry:
        """Store a circuit in the user's library under `name` or `folder/name`, as a new version if it exists.

        quality: a quality report as data. note: a description in a sentence.
        """
        circuit = as_circuit(circuit, "The library")
        target = places.library_folder() / f"{_checked(str(name))}{SUFFIX}"
        places.check_writable()
        with places.own(), planned("The circuit", target, CircuitError), locked(target.parent):
            version = 1
            if target.is_file():
                version = read(target).version + 1
                keep(target, target.with_name(f"{target.stem}@{version - 1}{SUFFIX}"))
            return _entry(read(write(circuit, target, version=version, quality=quality, note=note)))

    @classmethod
    def entries(cls) -> list[LibraryEntry]:
        """Every circuit's newest version, by folder and name. An invalid file is left out, with a notice."""
        found = []
        for path in _newest().values():
            try:
                found.append(_entry(_read(path)))
            except CircuitError as error:
                events.notice(error.message)
        return sorted(found, key=lambda entry: (entry.folder, entry.name))

    @classmethod
    def entry(cls, name: str) -> LibraryEntry:
        """The header of a circuit's file, without loading a model."""
        return _entry(_read(_path_of(str(name), None)))

    @classmethod
    def search(cls, text: str) -> list[LibraryEntry]:
        """Entries whose name, folder, task or model contains a text."""
        wanted = fold(str(text))
        return [e for e in cls.entries() if any(wanted in fold(part) for part in (e.name, e.folder, e.task, e.model))]

    @classmethod
    def verify(cls, name: str) -> VerifiedCircuit:
        """Load a circuit's model, measure its held-out faithfulness again, and compare it with the file's."""
        file = _read(_path_of(str(name), None))
        circuit = file.circuit()
        evaluation = CircuitEvaluation(
            circuit.model.engine, circuit.pairs, ablation=circuit.ablation, seed=circuit.provenance.seed
        )
        found = normalised(evaluation.metric(circuit.mask), evaluation.empty, evaluation.clean, units=circuit.pairs.units)
        return VerifiedCircuit(
            file.name, circuit.provenance.title, circuit.held_out_faithfulness, found, circuit.model.engine.precision
        )


@public
@dataclass(frozen=True)
class VerifiedCircuit(Result):
    """A stored circuit measured again."""

    name: str
    model: str
    stored: Estimate
    measured: Estimate
    dtype: str = "float32"

    @property
    def agrees(self) -> bool:
        """Whether both figures are the same, up to differences between machines."""
        return abs(self.stored.value - self.measured.value) < max(1e-2, 16 * epsilon(self.dtype))

    def print_string(self) -> str:
        verdict = "agrees" if self.agrees else "DIFFERS"
        return f"{self.name} on {self.model}: faithfulness stored {self.stored}, measured {self.measured}: {verdict}"


def folders() -> tuple[Path, Path]:
    return places.library_folder(), SHIPPED


def _newest() -> dict[str, Path]:
    """Folded name → file, the user's before the shipped."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.rglob(f"*{SUFFIX}")):
            if _VERSIONED.match(path.stem) is None and not path.name.startswith("."):
                found.setdefault(fold(path.stem), path)
    return found


def _path_of(name: str, version: int | None) -> Path:
    path = _newest().get(fold(Path(name).name.removesuffix(SUFFIX)))
    if path is None:
        raise CircuitError(f"The library has no circuit {name!r}.", remedy=_nearest(name))
    if version is None or _read(path).version == version:
        return path
    older = path.with_name(f"{path.stem}@{version}{SUFFIX}")
    if not older.is_file():
        versions = {*_older(path), _read(path).version}
        raise CircuitError(
            f"{path.stem} has no version {version}.", remedy=f"Versions: {', '.join(str(v) for v in sorted(versions))}."
        )
    return older


def _read(path: Path) -> CircuitFile:
    """A file of the library's own folders, which anybody may read by its name."""
    with places.own():
        return read(path)


def _older(path: Path) -> Iterator[int]:
    for other in path.parent.glob(f"{path.stem}@*{SUFFIX}"):
        match = _VERSIONED.match(other.stem)
        if match is not None:
            yield int(match[2])


def _nearest(name: str) -> str:
    names = [path.stem for path in _newest().values()]
    return (
        did_you_mean(name, names, listing="Circuits")
        if names
        else Remedy(
            "The library is empty: circuits that you save are in it.",
            shell="The library is empty: `neuroscope library build` fills it.",
        )
    )


def _checked(name: str) -> str:
    parts = name.removesuffix(SUFFIX).split("/")
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", part) for part in parts):
        raise ArgumentError(f"{name!r} cannot name a circuit.", remedy="Use letters, digits and _, with / for a folder.")
    return "/".join(parts)


def _entry(file: CircuitFile) -> LibraryEntry:
    with FILES.understood(file.path):
        entry = _described(file)
        wrong = misfit(entry)
        if wrong is not None:
            raise TypeError(wrong)
    return entry


def _described(file: CircuitFile) -> LibraryEntry:
    header = file.header
    estimates = {
        name: Estimate.from_dictionary(header["figures"][name])
        for name in ("faithfulness", "held_out_faithfulness", "random_circuit_faithfulness")
    }
    return LibraryEntry(
        file.name,
        file.version,
        file.path.parent.name,
        header["task"],
        titled(header["provenance"]["model"], header["provenance"].get("asked_for")),
        header["provenance"]["weights_hash"],
        header["provenance"].get("dtype") or "float32",
        len(file.tensors["edges"]),
        **estimates,
        note=header["note"],
        quality=header["quality"],
        path=str(file.path),
    )
