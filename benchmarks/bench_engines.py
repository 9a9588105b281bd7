"""Forward, capture, sweep and generation on both engines, each in a process of its own, with peak memory.

    python benchmarks/bench_engines.py [--model bundled:gpt2-medium] [--rounds 5] [--only forward,capture]

What counts is the ratio of a job to the bare model's forward in the same process (mlx-lm's own model, transformers' own):
capture is to cost at most 1.2 times that. MLX on a Linux CPU is slow; it is meant for Apple silicon.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ENGINES = ("torch", "mlx")
JOBS = ("bare", "forward", "capture", "sweep", "generate")
CAPTURE_LIMIT = 1.2  #: of the bare forward
ROWS, POSITIONS, NEW_TOKENS = 16, 20, 16


def jobs(name: str, engine_name: str) -> dict[str, Callable[[], Any]]:
    """What is timed, ready to call."""
    from neuroscope import TransformerModel
    from neuroscope.circuits.pair_runs import PairRuns
    from neuroscope.circuits.sweeps import sweep
    from neuroscope.engines.protocol import GenerationSettings, TokenBatch
    from neuroscope.engines.sites import Component, Site
    from neuroscope.tasks.metrics import PromptMetric
    from neuroscope.tasks.pairs import PairBatch

    engine = TransformerModel.from_hugging_face(name, engine=engine_name).engine
    a, ops = engine.anatomy, engine.ops
    ids = np.random.default_rng(0).integers(3, a.vocabulary, (ROWS, POSITIONS))
    batch = TokenBatch.of(ids.tolist())
    kinds = (Component.RESIDUAL, Component.ATTENTION, Component.MLP_OUTPUT)
    sites = [Site(layer, kind) for layer in range(a.layers) for kind in kinds]
    heads = [Site(layer, Component.HEAD_OUTPUT, head=head) for layer in range(a.layers) for head in range(a.heads)]
    pairs = PairBatch(batch.take([0]), batch.take([1]), PromptMetric("logit_difference", ids[2:3, 0], ids[3:4, 0]))
    runs = PairRuns(engine, pairs)
    prompts, settings = batch.take(slice(0, 4)), GenerationSettings(max_tokens=NEW_TOKENS)

    def bare() -> Any:
        if engine_name == "torch":
            return engine.bare_logits(batch)
        model: Any = engine
        return ops.settled(model.model(ops.asarray(ids)))  # one batch; `bare_logits` goes row by row

    return {
        "bare": bare,
        "forward": lambda: engine.forward(batch),
        "capture": lambda: engine.forward(batch, capture=sites),
        "sweep": lambda: sweep(runs, runs.corrupt, runs.clean, heads),
        "generate": lambda: list(engine.generate(prompts, settings)),
    }


def measured(name: str, engine: str, rounds: int, only: list[str]) -> dict[str, dict[str, float]]:
    """Median seconds of each job, rounds of all jobs taking turns, and the process's peak memory after it."""
    ready = {job: call for job, call in jobs(name, engine).items() if job in only}
    for call in ready.values():
        call()
    times: dict[str, list[float]] = {job: [] for job in ready}
    for _ in range(rounds):
        for job, call in ready.items():
            begun = time.perf_counter()
            call()
            times[job].append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return {job: {"seconds": statistics.median(found), "peak": peak} for job, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:gpt2-medium")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(JOBS))
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)  # how the processes are started
    options = parser.parse_args()
    only = ["bare", *(job for job in options.only.split(",") if job != "bare")]
    if options.engine:
        print(json.dumps(measured(options.model, options.engine, options.rounds, only)))
        return
    table = Table(title=f"{options.model}, {ROWS} × {POSITIONS} tokens")
    for heading in ("job", *(f"{engine} {what}" for engine in ENGINES for what in ("ms", "× bare")), "mlx : torch"):
        table.add_column(heading, justify="left" if heading == "job" else "right")
    command = [sys.executable, __file__, "--model", options.model, "--rounds", str(options.rounds), "--only", options.only]
    found = {}
    for engine in ENGINES:
        done = subprocess.run([*command, "--engine", engine], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        found[engine] = json.loads(done.stdout.splitlines()[-1])
    for job in only:
        cells = [job]
        for engine in ENGINES:
            seconds = found[engine][job]["seconds"]
            cells += [f"{1000 * seconds:.1f}", f"{seconds / found[engine]['bare']['seconds']:.2f}"]
        table.add_row(*cells, f"{found['mlx'][job]['seconds'] / found['torch'][job]['seconds']:.1f}")
    console = Console()
    console.print(table)
    for engine in ENGINES:
        console.print(f"{engine}: peak memory of the process {found[engine]['bare']['peak']:.2f} GiB")
    if "capture" in only:
        ratio = found["mlx"]["capture"]["seconds"] / found["mlx"]["bare"]["seconds"]
        verdict = "within" if ratio <= CAPTURE_LIMIT else "ABOVE"
        console.print(f"capture on mlx costs {ratio:.2f} × the bare mlx-lm forward, {verdict} the limit of {CAPTURE_LIMIT}")


if __name__ == "__main__":
    main()
