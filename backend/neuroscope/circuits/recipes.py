"""The circuits that the documented scripts load, and the program that finds them.

`neuroscope library build` finds them on a model, measures their quality, and stores them in the user's library. The shipped
ones were found on the bundled gpt2-medium: `NEUROSCOPE_LIBRARY=backend/neuroscope/circuits/shipped neuroscope library build`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neuroscope import events
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.library import CircuitLibrary, LibraryEntry
from neuroscope.circuits.quality import ASPECTS, CircuitQualityAssurance, QualityReport
from neuroscope.models.model import TransformerModel
from neuroscope.names import Names


@dataclass(frozen=True)
class Recipe:
    """A circuit of the library: its place, its task, and a description in a sentence."""

    folder: str
    name: str
    task: str
    note: str


RECIPES = (
    Recipe(
        "syntax", "subject_verb_agreement", "subject_verb_agreement", "the verb agrees with its subject across a distractor"
    ),
    Recipe("syntax", "pronoun_resolution", "pronoun_resolution", "a name decides the pronoun that follows"),
    Recipe("semantics", "entity_recognition", "indirect_object_identification", "which of two people is meant"),
    Recipe("semantics", "relation_extraction", "capital_of_country", "from a country to its capital"),
    Recipe(
        "sentiment",
        "tokenization",
        "induction",
        "an induction circuit: a token seen before is recognised, and what followed it comes again",
    ),
    Recipe("sentiment", "emotion_detection", "emotion_detection", "the emotion of an exclamation"),
    Recipe("sentiment", "sentiment_polarity", "sentiment_analysis", "whether a review is positive or negative"),
)


def build(model: TransformerModel, names: Sequence[str] = (), *, seed: int | None = None) -> Iterator[LibraryEntry]:
    """Find, assure and store the circuits of all recipes (or the named ones), one by one."""
    known = Names("recipe for", {recipe.name: recipe for recipe in RECIPES}, listing="Recipes")
    chosen = [known[name] for name in names] or list(RECIPES)
    with events.progress("building the library", total=len(chosen), unit="circuits") as job:
        for recipe in chosen:
            circuit = CircuitFinder(model, seed=seed).find_circuit(recipe.task)
            report = assured(circuit, seed=seed)
            yield CircuitLibrary.save(
                circuit, f"{recipe.folder}/{recipe.name}", quality=report.as_dictionary(), note=recipe.note
            )
            job.advance()


def assured(circuit: Circuit, *, seed: int | None = None) -> QualityReport:
    """The complete quality report of a circuit."""
    assurance = CircuitQualityAssurance(seed=seed)
    assurance.circuit = circuit
    report = QualityReport()
    report.overall_score = assurance.calculate_overall_score()
    for aspect in ASPECTS:
        setattr(report, aspect, assurance.score(aspect))
    return report
