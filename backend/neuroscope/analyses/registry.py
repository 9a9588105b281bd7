"""Analyses by name: what a script, the command line and the HTTP server can ask of a model in one word.

Every door goes through `analyze`. An analysis takes the model, what to look at (None: its own example), and a seed, and answers
a result with figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neuroscope import events, settings
from neuroscope.analyses import answers, stream, texts, writing
from neuroscope.errors import AnalysisNotFoundError
from neuroscope.models.model import TransformerModel
from neuroscope.names import Names
from neuroscope.results import Result

Run = Callable[[TransformerModel, Any, int], Result]


@dataclass(frozen=True)
class Analysis:
    """An analysis with its name, the question it answers, what it works on, and the function that runs it."""

    name: str
    title: str
    asks: str
    works_on: str
    run: Run
    aliases: tuple[str, ...] = ()

    def as_dictionary(self) -> dict[str, object]:
        return {
            "name": self.name,
            "title": self.title,
            "asks": self.asks,
            "worksOn": self.works_on,
            "aliases": list(self.aliases),
        }


_TEXT = "a text"
_PAIRS = "a prompt, a task, or pairs"

ANALYSES: tuple[Analysis, ...] = (
    Analysis(
        "mathematical_reasoning",
        "Mathematical reasoning",
        "How does the model come to a sum: from which tokens, through which heads and MLPs, at which layer?",
        _PAIRS,
        answers.mathematical_reasoning,
        ("math", "mathematics", "arithmetic"),
    ),
    Analysis(
        "factual_recall",
        "Factual recall",
        "Where is a fact looked up, and what carries it to the answer?",
        _PAIRS,
        answers.factual_recall,
        ("facts", "recall"),
    ),
    Analysis(
        "creative_writing",
        "Creative writing",
        "What does the model write when it may choose, how free was each choice, and which parts made it?",
        _TEXT,
        writing.creative_writing,
        ("writing",),
    ),
    Analysis(
        "attention_patterns", "Attention patterns", "Where does every head look, and as what kind of head?", _TEXT,
        texts.attention, ("attention",),
    ),
    Analysis(
        "residual_stream",
        "Residual stream",
        "How does information gather in the stream, layer by layer?",
        _TEXT,
        stream.residual_stream,
        ("stream",),
    ),
    Analysis(
        "logit_lens", "Logit lens", "What would the model predict if it stopped after each layer?", _TEXT,
        texts.lens, ("lens",),
    ),
    Analysis(
        "logit_attribution", "Direct logit attribution", "Which heads and MLPs write the answer's lead?", _PAIRS,
        texts.attribution, ("direct_logit_attribution", "dla"),
    ),
)  # fmt: skip

_BY_NAME = Names(
    "analysis",
    {analysis.name: analysis for analysis in ANALYSES},
    aliases={alias: analysis.name for analysis in ANALYSES for alias in analysis.aliases},
    listing="Analyses",
    error=AnalysisNotFoundError,
)


def get(name: str) -> Analysis:
    """The analysis of that name, snake or camel case, string or symbol. `AnalysisNotFoundError` names the nearest."""
    return _BY_NAME[name]


def analyze(model: TransformerModel, name: str, on: Any = None, *, seed: int | None = None) -> Result:
    """Run an analysis.

    on: a text or, where the analysis works on pairs, also a task's name, a `Dataset`, or examples (`Example` or dictionaries
    with clean, corrupt, answer, wrong); None takes the analysis' own. Raises `AnalysisNotFoundError`, `ArgumentError` for
    what cannot be analysed, `DatasetError` where nothing fits the model's tokenizer.
    """
    analysis = get(name)
    if any(hook.enabled for hook in model.hook_manager):
        events.notice("Analyses look at the bare model: its hooks are left out.", "warning")
    return analysis.run(model, on, settings.seed(seed))
