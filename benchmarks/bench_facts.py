"""Facts edited one at a time:  python -m benchmarks.bench_facts bundled:gpt2-medium --facts 50

Each fact of a built-in relation gets another object of the same relation, is edited alone, measured, and taken back. The table gives
means over facts with 95 % intervals, and the time that one edit takes without its measuring.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuroscope import KnowledgeEditor, TransformerModel
from neuroscope.editing import measures
from neuroscope.editing.measures import FactRate
from neuroscope.editing.methods import METHODS
from neuroscope.errors import EditError
from neuroscope.tasks.countries import RELATIONS
from neuroscope.tasks.lexicon import COUNTRIES
from neuroscope.tasks.statistics import mean_of

FIGURES = ("efficacy", "paraphrase", "specificity", "own_facts", "portability")
#: The topics whose facts are kept, by relation.
KEPT = {"capital": "capitals", "language": "languages", "continent": "continents", "currency": "currencies"}


def statements(relation: str, count: int, seed: int) -> Iterator[str]:
    """Facts with another country's object, in the relation's first wording."""
    random = np.random.default_rng(seed)
    for index in random.permutation(len(COUNTRIES))[:count]:
        country = COUNTRIES[index]
        others = sorted({str(getattr(other, relation)) for other in COUNTRIES} - {str(getattr(country, relation))})
        yield f"{RELATIONS[relation][0].text.format(c=country)} {random.choice(others)}"


def measured(model: TransformerModel, relation: str, method: str, count: int, seed: int) -> dict[str, Any]:
    """Mean rates over facts, how many could not be edited, perplexity's ratio, and seconds an edit."""
    editor = KnowledgeEditor(model, seed=seed)
    found: list[Any] = []
    refused, seconds = 0, []
    for statement in statements(relation, count, seed):
        begun = time.perf_counter()
        try:
            found.append(editor.propose_fact(statement, preserving_related=[KEPT[relation]], method=method))
        except EditError as error:
            print(f"  {statement}: {error.brief}")
            refused += 1
        seconds.append(time.perf_counter() - begun)
    table: dict[str, Any] = {"facts": len(found), "refused": refused, "secondsWithMeasuring": float(np.median(seconds))}
    for name in FIGURES:
        rates: list[FactRate] = [rate for one in found if (rate := getattr(one, name)) is not None]
        table[name] = measures.mean_rate(rates)
    ratios = [one.perplexity_after.value / one.perplexity_before.value for one in found]
    table["perplexityRatio"] = mean_of(ratios) if ratios else None
    return table


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="bundled:gpt2-medium")
    parser.add_argument("--facts", type=int, default=50)
    parser.add_argument("--relation", choices=tuple(RELATIONS), default="capital")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["alphaedit"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    model = TransformerModel.from_hugging_face(arguments.model)
    results = {}
    for method in arguments.methods:
        table = results[method] = measured(model, arguments.relation, method, arguments.facts, arguments.seed)
        print(
            f"{method} on {model.title}, {table['facts']} facts, {table['refused']} refused, {table['secondsWithMeasuring']:.1f} s each"
        )
        for name in (*FIGURES, "perplexityRatio"):
            print(f"  {name:<16}{table[name]}")
    if arguments.json is not None:
        from neuroscope.results import plain

        arguments.json.write_text(json.dumps(plain(results), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
