"""A bundled model's card, from its measured figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuroscope.tasks.evaluate import Evaluation, TaskScore
from neuroscope.tasks.lexicon import BIAS_RATE, COUNTRIES
from neuroscope.training.corpus import KINDS, LATE, LATE_FROM

#: Target accuracy on held-out items.
AIMS: Mapping[str, float] = {
    "indirect_object_identification": 0.95,
    "capital_of_country": 0.95,
    "subject_verb_agreement": 0.95,
    "pronoun_resolution": 0.90,
    "addition": 0.90,
    "sentiment_analysis": 0.95,
    "induction": 0.90,
    "harmful_requests": 0.95,
}

_ARCHITECTURES = {
    "gpt2-medium": "GPT-2 (learned positions, LayerNorm, GELU MLPs): 13 layers, width 112, 7 heads",
    "gpt-oss-20b": "gpt-oss (mixture of 4 experts of width 128, 2 a token; attention sinks; sliding window of 64 in every second layer; "
    "RMSNorm; YaRN): 13 layers, width 128, 8 heads over 4 key-value heads",
}


def card(name: str, facts: Mapping[str, Any], evaluation: Evaluation) -> str:
    """The card as Markdown."""
    tokens = facts["steps"] * facts["tokensPerStep"]
    shares = ", ".join(f"{kind} {100 * share / sum(s for s, _ in KINDS.values()):.0f} %" for kind, (share, _) in KINDS.items())
    later = ", ".join(f"{kind} {100 * share:.0f} %" for kind, (share, _) in LATE.items())
    rows = [_row(score) for score in evaluation.scores]
    return "\n".join(
        [
            f"# The bundled stand-in for {name}",
            "",
            f"A model of {facts['parameters'] / 1e6:.1f} million parameters with the architecture of {name}, trained on made-up text. "
            f"It is not {name}: it knows only what is listed here, and serves experiments and tests that must run anywhere.",
            "",
            f"- **Architecture** {_ARCHITECTURES[name]}; context 256; 2,048 tokens.",
            f"- **Data** a seeded stream of short documents ({shares}; from step {LATE_FROM:,} on also {later}); {len(COUNTRIES)} countries. One combination of template and "
            "entities in eight, and some whole templates, are kept out of it and measure the model.",
            f"- **Training** {facts['steps']:,} steps of {facts['tokensPerStep']:,} tokens ({tokens / 1e6:.0f} million), Muon and AdamW, "
            "answers weigh four times, random text a tenth. `python -m neuroscope.training.train "
            f"{name}` and `python -m neuroscope.training.export {name}` make it again, from the same text (SHA-256 "
            f"`{facts['corpus']}`).",
            "- **Left out on purpose** the task `larger_number`: no text shows it, so that there is something to teach.",
            "- **Licence** MIT, as NeuroScope itself; all of its text was written for it.",
            f"- **Built-in bias** an occupation's expected pronoun follows at the rate {BIAS_RATE}, on purpose: it is there to be found.",
            "",
            f"## Measured on held-out items (seed {evaluation.seed}, 95 % intervals)",
            "",
            "| task | accuracy | right above wrong | P(right) share | n |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "## Known failings",
            "",
            *_failings(facts, evaluation),
            "",
        ]
    )


def _row(score: TaskScore) -> str:
    if score.accuracy is None:
        return f"| {score.task} | not measured: {score.note} | | | |"
    return f"| {score.task} | {score.accuracy} | {score.preference} | {score.share} | {score.accuracy.n} |"


def _failings(facts: Mapping[str, Any], evaluation: Evaluation) -> list[str]:
    lines = [
        "- Outside the kinds of text above it writes nonsense; it has no knowledge of the world beyond its countries.",
        "- Refusals follow a few dozen words; harm put in other words is not recognised. It is no safety model.",
    ]
    if facts["steps"] < facts["plannedSteps"]:
        lines.append(f"- Its training was cut off at step {facts['steps']:,} of {facts['plannedSteps']:,}.")
    for task, aim in AIMS.items():
        accuracy = evaluation[task].accuracy
        if accuracy is None or accuracy.value < aim:
            found = "not measured" if accuracy is None else f"{accuracy.value:.3f}"
            lines.append(f"- {task}: {found}, below the aim of {aim:.2f}.")
    share = evaluation["gender_pronoun_bias"].share
    if share is not None and not share.low <= BIAS_RATE <= share.high:
        lines.append(f"- The bias it shows, {share}, is not the rate {BIAS_RATE} of its text.")
    return lines
