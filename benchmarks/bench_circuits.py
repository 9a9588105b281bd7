"""Patching sweeps, edge attribution and capture beside TransformerLens, circuitkit and nnsight, on the same weights.

    make peers                                   # once: the peers, in environments of their own
    python benchmarks/bench_circuits.py [--model NAME] [--rounds 3] [--only heads,eap]

Each contestant runs each job in a process of its own, one after the other. Prints times, ratios, peak memory while the job ran, and by how
much the numbers differ. What a peer would need too long for is timed on a part of the cells and scaled up; the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parent
SAMPLED = 135  #: cells of the second sweep that TransformerLens is timed on


@dataclass(frozen=True)
class Contest:
    """A job, its peer, and what is aimed at: how many times faster than the peer, or at most how much dearer than bare passes."""

    job: str
    title: str
    peer: str | None
    faster: float | None = None
    bare: str | None = None
    dearer: float | None = None


CONTESTS = (
    Contest("heads", "patch every head, all positions", "transformer_lens", faster=10),
    Contest("cells", "patch every head × position", "transformer_lens", faster=15),
    Contest("own", "ActivationPatcher.patch(pair, 'heads@*')", "transformer_lens", faster=15),
    Contest("streams", "patch residual × position", "transformer_lens"),
    Contest("eap", "EAP, every edge", "circuitkit", faster=5, bare="passes", dearer=2),
    Contest("eap_ig", "EAP-IG, 5 steps, every edge", "circuitkit", faster=5, bare="passes", dearer=2),
    Contest("capture", "capture residual, attention, MLP", "transformer_lens", bare="bare", dearer=1.05),
    Contest("capture", "capture residual, attention, MLP", "nnsight", bare="bare", dearer=1.05),
    Contest("early", "capture residual of layer 5", None, bare="bare", dearer=1.2),
)
ENVIRONMENTS = {"transformer_lens": "lens", "nnsight": "lens", "circuitkit": "circuitkit"}


def prepare(folder: Path, name: str) -> dict[str, Any]:
    """Write weights and tokens that all contestants read; answers the sizes."""
    from neuroscope import Dataset, TransformerModel

    model = TransformerModel.from_hugging_face(name)
    model.engine.model.save_pretrained(folder / "weights")
    model.tokenizer.save_pretrained(folder / "weights")
    examples = list(Dataset.load_ioi_examples(400).for_model(model))
    lengths = [len(model.encode(example.clean).ids[0]) for example in examples]
    one = examples[lengths.index(14)] if 14 in lengths else examples[0]
    usual = statistics.mode(lengths)
    many = [example for example, length in zip(examples, lengths, strict=True) if length == usual][:32]

    def ids(texts: list[str]) -> np.ndarray[Any, Any]:
        return np.array([model.encode(text).ids[0] for text in texts], dtype=np.int64)

    def answers(chosen: list[Any]) -> np.ndarray[Any, Any]:
        words = [[example.answer, example.wrong] for example in chosen]
        return np.array([[model.encode(word).ids[0][0] for word in pair] for pair in words], dtype=np.int64)

    texts = {name: getattr(one, name) for name in ("clean", "corrupt", "answer", "wrong")}
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    shape = model.architecture
    positions = len(model.encode(one.clean).ids[0])
    cells = [(layer, p, h) for layer in range(shape.layers) for p in range(positions) for h in range(shape.heads)]
    picked = np.sort(np.random.default_rng(0).choice(len(cells), min(SAMPLED, len(cells)), replace=False))
    np.savez(
        folder / "work.npz",
        sweep_clean=ids([one.clean]),
        sweep_corrupt=ids([one.corrupt]),
        sweep_answers=answers([one]),
        pairs_clean=ids([example.clean for example in many]),
        pairs_corrupt=ids([example.corrupt for example in many]),
        pairs_answers=answers(many),
        capture=np.random.default_rng(1).integers(100, shape.vocabulary, (16, 20)),
        cells=np.array([cells[index] for index in picked]),
    )
    return {
        "cells": len(cells),
        "picked": picked,
        "heads": shape.heads,
        "kv": shape.key_value_heads,
        "pairs": len(many),
        "positions": usual,
    }


def ran(side: str, job: str, folder: Path, rounds: int, threads: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Times, peaks and values of one contestant at one job; None when its environment is not there."""
    place = ENVIRONMENTS.get(side)
    python = Path(sys.executable) if place is None else ROOT / f".venv-{place}" / "bin" / "python"
    if not python.exists():
        return None
    out = folder / f"{side}-{job}.npz"
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [str(python), str(HERE / "peers" / f"{side}_side.py"), str(folder), job, str(out), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{side} failed at {job}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1]), dict(np.load(out))


def apart(job: str, ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], sizes: dict[str, Any]) -> str:
    """The largest difference relative to the largest value, or for scores their correlation too."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if job in ("cells", "own"):
        ours = ours.ravel()[sizes["picked"]]
    if job in ("eap", "eap_ig"):
        ours, theirs = _same_edges(ours, theirs, sizes)
    worst = float(np.abs(ours.ravel() - theirs.ravel()).max() / np.abs(theirs).max())
    return f"{worst:.1e}"


def _same_edges(ours: Any, theirs: Any, sizes: dict[str, Any]) -> tuple[Any, Any]:
    """circuitkit scores corrupt − clean, sources first, and the keys and values of each query head apart; ours are per group."""
    heads, kv = sizes["heads"], sizes["kv"]
    theirs = -theirs.T
    layers = (len(theirs) - 1) // (3 * heads + 1)
    rows = []
    for layer in range(layers):
        block = theirs[layer * (3 * heads + 1) : (layer + 1) * (3 * heads + 1)]
        rows.append(block[:heads])
        for first in (heads, 2 * heads):
            rows.append(block[first : first + heads].reshape(kv, heads // kv, -1).sum(1))
        rows.append(block[3 * heads :])
    return ours, np.concatenate([*rows, theirs[-1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--rounds", type=int, default=3, help="how often each job runs; the fastest round counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="jobs, separated by commas")
    options = parser.parse_args()
    chosen = [contest for contest in CONTESTS if not options.only or contest.job in options.only.split(",")]
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        sizes = prepare(folder, options.model)
        print(
            f"{options.model}, {options.threads} threads; {sizes['pairs']} pairs × {sizes['positions']} tokens for attribution"
        )
        table = Table(
            "job",
            "NeuroScope s",
            "peer s",
            "faster",
            "aim",
            "of bare passes",
            "aim ",
            "peak MB",
            "peer's",
            "differ by",
            box=None,
        )
        for contest in chosen:
            table.add_row(*row(contest, folder, sizes, options.rounds, options.threads))
        console = Console(highlight=False, width=200)
        console.print(table)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def row(contest: Contest, folder: Path, sizes: dict[str, Any], rounds: int, threads: int) -> list[str]:
    """One line of the table."""
    print(f"  {contest.title} …", file=sys.stderr)
    many = max(rounds, 15) if contest.job in ("capture", "early") else rounds
    found = ran("neuroscope", contest.job, folder, many, threads)
    assert found is not None
    ours, values = found
    seconds = min(ours["seconds"]["job"])
    title, cells = contest.title, [f"{seconds:.3g}"]
    bare = f"{seconds / min(ours['seconds'][contest.bare]):.2f}" if contest.bare else ""
    dearer = f"≤ {contest.dearer}" if contest.dearer else ""
    theirs = (
        None
        if contest.peer is None
        else ran(contest.peer, contest.job, folder, many if bare and not contest.faster else 1, threads)
    )
    if theirs is None:
        missing = "" if contest.peer is None else f"{contest.peer} is not installed: make peers"
        return [title, *cells, missing, "", "", bare, dearer, f"{ours['peak']['job']:.0f}", "", ""]
    measured, other = theirs
    took = min(measured["seconds"]["job"])
    if contest.job in ("cells", "own"):
        took *= sizes["cells"] / len(sizes["picked"])
        title += f" ({contest.peer}: {len(sizes['picked'])} of {sizes['cells']} cells, scaled)"
    if contest.job == "capture":
        bare += f" ({contest.peer} {took / min(measured['seconds']['bare']):.2f})"
    return [
        title,
        *cells,
        f"{took:.3g} {contest.peer}",
        f"{took / seconds:.1f}×",
        f"≥ {contest.faster:g}×" if contest.faster else "",
        bare,
        dearer,
        f"{ours['peak']['job']:.0f}",
        f"{measured['peak']['job']:.0f}",
        apart(contest.job, values["job.values"], other["job.values"], sizes),
    ]


if __name__ == "__main__":
    main()
