"""What capturing costs, and what HTTP costs: tokens a second of one generation, in four ways that take turns.

python bench_rest.py [--model bundled:gpt2-medium] [--tokens 96] [--rounds 9]

direct    TransformerModel in Python, no capture
capture   the same with the residual streams of two layers captured and taken to numpy
http      POST /v1/completions on a server in a process of its own
stream    the same as server-sent events, read one by one

Prints tokens a second (median of the rounds), and the two ratios that NeuroScope promises: capture/direct >= 0.85,
http/direct >= 0.9. Each round runs every way once, so that a machine that is busy is busy for all.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from neuroscope import TransformerModel
from neuroscope.engines.protocol import GenerationSettings

PROMPT = "The capital of France is"


@contextmanager
def served(model: str) -> Iterator[tuple[str, int]]:
    """A server in a process of its own: its address and the process's id."""
    command = [sys.executable, "-m", "neuroscope_bridge", "serve", "--quiet", "--zmq", "tcp://127.0.0.1:*"]
    server = subprocess.Popen(
        [*command, "--http", "127.0.0.1:0", "--model", model], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield server.stdout.readline().split()[-1], server.pid
    finally:
        server.terminate()
        server.wait(20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:gpt2-medium")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    model = TransformerModel.from_hugging_face(options.model)
    layers = model.architecture.layers
    sites = [f"{layers // 3}.residual", f"{2 * layers // 3}.residual"]
    settings = long_settings(model, options.tokens)

    def direct() -> int:
        return sum(1 for _ in model.stream(PROMPT, settings))

    def capture() -> int:
        count = 0
        for step in model.stream(PROMPT, settings, sites):
            for array in step.activations.values():
                model.engine.ops.to_numpy(array).copy()
            count += 1
        return count

    with served(options.model) as (url, _):
        body = {"prompt": PROMPT, "max_tokens": options.tokens, "temperature": settings.temperature, "seed": settings.seed}
        with httpx.Client(base_url=url, timeout=600) as client:

            def http() -> int:
                return int(client.post("/v1/completions", json=body).json()["usage"]["completion_tokens"])

            def stream() -> int:
                with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
                    return sum(line.startswith("data: {") for line in response.iter_lines())

            speeds = measured({"direct": direct, "capture": capture, "http": http, "stream": stream}, options.rounds)
    print(f"{options.model}, {options.tokens} tokens, median of {options.rounds} rounds")
    for name, found in speeds.items():
        print(f"  {name:8} {statistics.median(found):8.1f} tokens/s")
    promised = {"capture": 0.85, "http": 0.9, "stream": 0.0}
    kept = True
    for name, least in promised.items():
        ratio = statistics.median(a / b for a, b in zip(speeds[name], speeds["direct"], strict=True))
        kept &= ratio >= least
        print(f"  {name}/direct {ratio:.3f}" + (f"  (promised {least})" if least else ""))
    return 0 if kept else 1


def long_settings(model: TransformerModel, tokens: int) -> GenerationSettings:
    """Settings under which the model does not end before the last token, so that every way generates the same ones."""
    for seed in range(500):
        settings = GenerationSettings(max_tokens=tokens, temperature=3.0, seed=seed, end_tokens=model.end_tokens)
        if sum(1 for _ in model.stream(PROMPT, settings)) == tokens:
            return settings
    raise SystemExit(f"The model ends before {tokens} tokens whatever the seed; ask for fewer.")


def measured(ways: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Tokens a second of each way in each round; one round before the first is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            count = way()
            if number:
                speeds[name].append(count / (time.perf_counter() - start))
    return speeds


if __name__ == "__main__":
    raise SystemExit(main())
