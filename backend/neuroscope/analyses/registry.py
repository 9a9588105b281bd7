"""The table of analyses, for scripts, the command line and the HTTP server.

All call `analyze`. An analysis takes the model, its input (None: its own example) and a seed, and returns a result with
figures.
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
    """An analysis: its name, title, question, input, and function."""

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
        "How does the model compute a sum: from which tokens, through which heads and MLPs, at which layer?",
        _PAIRS,
        answers.mathematical_reasoning,
        ("math", "mathematics", "arithmetic"),
    ),
    Analysis(
        "factual_recall",
        "Factual recall",
        "Where is a fact retrieved, and what carries it to the answer?",
        _PAIRS,
        answers.factual_recall,
        ("facts", "recall"),
    ),
    Analysis(
        "creative_writing",
        "Creative writing",
        "What does the model write when sampling, how uncertain was each choice, and which components made it?",
        _TEXT,
        writing.creative_writing,
        ("writing",),
    ),
    Analysis(
        "attention_patterns", "Attention patterns", "Where does every head attend, and what kind of head is it?", _TEXT,
        texts.attention, ("attention",),
    ),
    Analysis(
        "residual_stream",
        "Residual stream",
        "How does information accumulate in the stream, layer by layer?",
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
    """An analysis by name, in any spelling. Raises `AnalysisNotFoundError` with the nearest names."""
    return _BY_NAME[name]


def has(name: str) -> bool:
    """Whether there is an analysis of this name, in any spelling."""
    return name in _BY_NAME


def analyze(model: TransformerModel, name: str, on: Any = None, *, seed: int | None = None) -> Result:
    """Run an analysis.

    on: a text or, for analyses of pairs, also a task's name, a `Dataset`, or examples (`Example` or dictionaries with clean,
    corrupt, answer, wrong); None: the analysis' own. Raises `AnalysisNotFoundError`, `ArgumentError` for an unsuitable `on`,
    `DatasetError` if nothing fits the model's tokenizer.
    """
    analysis = get(name)
    if any(hook.enabled for hook in model.hook_manager):
        events.notice("Analyses use the bare model, without its hooks.", "warning")
    return analysis.run(model, on, settings.seed(seed))
