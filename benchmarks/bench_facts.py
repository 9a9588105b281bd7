"""Facts edited, each alone, together, or one after the other:  python -m benchmarks.bench_facts bundled:gpt2-medium --facts 60

Each fact of a built-in relation gets another object of the same relation. Alone, it is edited, measured, and taken back; the table gives
means over facts with 95 % intervals, all and by relation, and the median seconds of processors that one edit takes, with its measuring and without, in
seconds and in forward passes: of the whole model over the prompts that the edit is made with, measured beside each edit. The settings of `editing` were chosen on every
third country (`--part chosen`); the others (`--part reported`, the default) took no part in that.

    --together 32    that many facts by one edit
    --sequence 20    that many edits, each on top of those before it, until one is refused
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from neuroscope import KnowledgeEditor, TransformerModel
from neuroscope.editing import facts, measures, planning
from neuroscope.editing.facts import FactEdit
from neuroscope.editing.measures import FactRate
from neuroscope.editing.methods import METHODS
from neuroscope.engines.protocol import LogitRequest
from neuroscope.errors import EditError
from neuroscope.results import plain
from neuroscope.tasks.countries import RELATIONS
from neuroscope.tasks.lexicon import COUNTRIES, Country
from neuroscope.tasks.statistics import mean_of

FIGURES = ("efficacy", "paraphrase", "specificity", "own_facts", "portability")
#: The topics whose facts are kept, by relation.
KEPT = {"capital": "capitals", "language": "languages", "continent": "continents", "currency": "currencies"}
#: One in so many countries is for choosing settings.
CHOSEN = 3


def countries(part: str) -> list[Country]:
    """The countries that settings were chosen on, the others, or all."""
    return [one for at, one in enumerate(COUNTRIES) if part == "all" or (at % CHOSEN == 0) == (part == "chosen")]


def statements(relations: Sequence[str], count: int, seed: int, part: str) -> list[tuple[str, str]]:
    """Relations with facts that have another country's object, in the relation's first wording: of the first relation as many as there
    are, of the others equally many."""
    among = countries(part)
    counts = [min(count, len(among))]
    rest = min(count - counts[0], len(among) * (len(relations) - 1))
    counts += [len(share) for share in np.array_split(np.arange(rest), max(len(relations) - 1, 1))]
    found = []
    for relation, few in zip(relations, counts, strict=False):
        random = np.random.default_rng(seed)
        for index in random.permutation(len(among))[:few]:
            country = among[index]
            others = sorted({str(getattr(other, relation)) for other in COUNTRIES} - {str(getattr(country, relation))})
            found.append((relation, f"{RELATIONS[relation][0].text.format(c=country)} {random.choice(others)}"))
    return found


def alone(editor: KnowledgeEditor, asked: list[tuple[str, str]], method: str, layer: int | None) -> dict[str, Any]:
    """Mean rates over facts that are each edited alone, of all and by relation, how many could not be, perplexity's ratio, and seconds an edit."""
    found: list[tuple[str, FactEdit]] = []
    refused, seconds, passes = [], [], []
    with _timed() as made:
        for relation, statement in asked:
            passes.append(_pass(editor, statement))
            begun = time.process_time()
            try:
                edit = editor.propose_fact(statement, preserving_related=[KEPT[relation]], method=method, layer=layer)
                found.append((relation, edit))
                print(f"  {len(found)} of {len(asked)}: {_line(edit)}", flush=True)
            except EditError as error:
                refused.append(f"{statement}: {error.brief}")
            seconds.append(time.process_time() - begun)
            print(f"  {made[-1]:.1f} s, with measuring {seconds[-1]:.1f} s; a forward pass {passes[-1]:.2f} s", flush=True)
    edits = [one for _, one in found]
    ratios = [one.perplexity_after.value / one.perplexity_before.value for one in edits]
    by_relation = {
        name: [one for relation, one in found if relation == name] for name in dict.fromkeys(name for name, _ in found)
    }
    return {
        "facts": len(edits),
        "refused": refused,
        "seconds": float(np.median(made)),
        "secondsWithMeasuring": float(np.median(seconds)),
        "forwardPass": float(np.median(passes)),
        "inForwardPasses": float(np.median(np.array(made) / np.array(passes)[: len(made)]))
        if len(made) == len(passes)
        else None,
        "layers": dict(sorted(Counter(one.layer for one in edits).items())),
        "strengths": dict(sorted(Counter(str(one.strength) for one in edits).items())),
        **{name: _mean(edits, name) for name in FIGURES},
        **{f"{name}OfRelations": {of: _mean(some, name) for of, some in by_relation.items()} for name in FIGURES},
        "perplexityRatio": mean_of(ratios) if ratios else None,
        "missed": [one.statements[0] for one in edits if one.efficacy.generation.value < 1],
    }


def _pass(editor: KnowledgeEditor, statement: str) -> float:
    """Seconds of one pass of the whole model over the prompts that an edit of the fact is made with: the median of three."""
    model, wanted = editor.model, editor._wanted(editor._fact(statement, None, None, None))
    batch, found = model.encode(list(wanted.prompts)), []
    for _ in range(3):
        begun = time.process_time()
        model.engine.forward(batch, logits=LogitRequest.last(batch))
        found.append(time.process_time() - begun)
    return float(np.median(found))


@contextmanager
def _timed() -> Iterator[list[float]]:
    """The seconds of processors that each edit takes to be made, without what measures it."""
    found: list[float] = []

    def timed(*given: Any, **named: Any) -> Any:
        begun = time.process_time()
        change = planning.best_change(*given, **named)
        found.append(time.process_time() - begun)
        return change

    vars(facts)["best_change"] = timed
    try:
        yield found
    finally:
        vars(facts)["best_change"] = planning.best_change


def _line(edit: FactEdit) -> str:
    rates = ", ".join(
        f"{name} {rate.probability.value:.2f} {rate.generation.value:.2f}"
        for name in FIGURES
        if (rate := getattr(edit, name)) is not None
    )
    return f"{edit.statements[0]}; layer {edit.layer}, {edit.strength}; {rates}"


def together(editor: KnowledgeEditor, asked: list[tuple[str, str]], method: str, layer: int | None) -> dict[str, Any]:
    """The rates of facts that one edit changes, and the seconds it takes, without its measuring and with it."""
    begun = time.process_time()
    with _timed() as made:
        one = editor.propose_facts([statement for _, statement in asked], method=method, layer=layer)
    seconds = time.process_time() - begun
    return {
        "facts": len(asked),
        "refused": [],
        "seconds": made[0],
        "secondsWithMeasuring": seconds,
        "layers": {one.layer: 1},
        "strengths": {str(one.strength): 1},
        **{name: getattr(one, name) for name in FIGURES},
        "perplexityRatio": one.perplexity_after.value / one.perplexity_before.value,
        "growth": one.growth,
    }


def sequence(editor: KnowledgeEditor, asked: list[tuple[str, str]], method: str, layer: int | None) -> None:
    """Edits on top of each other, each with what it did and how the weights have grown."""
    for at, (_, statement) in enumerate(asked, 1):
        try:
            one = editor.update_fact(statement, method=method, layer=layer)
        except EditError as error:
            print(f"  {at}: {error}")
            break
        held = sum(_holds(editor.model, each.statements[0]) for each in editor.edits)
        print(
            f"  {at}: layer {one.layer}, growth {one.growth:.3f}, perplexity {one.perplexity_after}, {held} of {at} facts hold",
            flush=True,
        )
    editor.model.revert_edits()


def _holds(model: TransformerModel, statement: str) -> bool:
    prompt, _, answer = statement.rpartition(" ")
    return measures.begins_with(measures.written(model, [prompt])[0], answer)


def _mean(found: list[FactEdit], name: str) -> FactRate | None:
    return measures.mean_rate([rate for one in found if (rate := getattr(one, name)) is not None])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="bundled:gpt2-medium")
    parser.add_argument("--facts", type=int, default=60)
    parser.add_argument("--relations", nargs="+", choices=tuple(RELATIONS), default=list(RELATIONS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["alphaedit"])
    parser.add_argument("--part", choices=("reported", "chosen", "all"), default="reported")
    parser.add_argument("--layer", type=int, default=None)
    parser.add_argument("--engine", choices=("torch", "mlx"), default=None)
    parser.add_argument("--together", type=int, default=None)
    parser.add_argument("--sequence", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    model = TransformerModel.from_hugging_face(arguments.model, engine=arguments.engine)
    editor = KnowledgeEditor(model, seed=arguments.seed)
    count = arguments.together or arguments.sequence or arguments.facts
    asked = statements(arguments.relations, count, arguments.seed, arguments.part)
    results = {}
    for method in arguments.methods:
        print(f"{method} on {model.title}, {model.engine.name}", flush=True)
        if arguments.sequence:
            sequence(editor, asked, method, arguments.layer)
            continue
        if arguments.together:
            table = together(editor, asked, method, arguments.layer)
        else:
            table = alone(editor, asked, method, arguments.layer)
        results[method] = table
        for name, value in table.items():
            print(f"  {name:<22}{value}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(plain(results), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
