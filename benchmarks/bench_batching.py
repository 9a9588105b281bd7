"""Eight streams of one server at once against one: tokens a second, and the time to the first token.

python bench_batching.py [--model bundled:gpt2-medium] [--tokens 48] [--streams 8] [--rounds 5]

One server in a process of its own, asked over HTTP. Every stream has a hook of its own (a scaled residual stream, each in another layer), a
prompt and a seed of its own. Each round runs one stream and then so many at once, so that a busy machine is busy for both.

rate     tokens a second of all streams together, against one stream alone
first    the time to the first token. "at once": all requests in the same instant. "coming and going": each client asks again when it has its
         answer, for answers of different lengths; 95th percentile of all requests but each client's first, against that of one such client
same     every stream must have the tokens that it has alone, sampled at temperature 3 with its own seeds; a stream that ends early asks again
cpu      the server's processor time for a token, one stream against all: what is left of the machine does not matter to it (Linux)

Exits with 1 if tokens differ, the rate is below 3 times, or the first token of clients that come and go takes more than 3 times as long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench_rest import served

PROMPTS = ("The capital of France is", "Two", "Once upon a time", "Hello", "The king and the", "A", "We went to", "It is")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:gpt2-medium")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with served(options.model) as (url, process):
        return asyncio.run(compared(url, process, options))


def processor(pid: int) -> float:
    """Seconds of processor time that a process has taken; NaN where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def compared(url: str, server: int, options: argparse.Namespace) -> int:
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        name = (await client.get("/v1/models")).json()["data"][0]["id"]
        layers = (await client.get(f"/v1/models/{name}")).json()["architecture"]["layers"]

        async def stream(number: int, tokens: int) -> tuple[list[str], float]:
            """The texts of a stream's tokens, and the seconds to the first."""
            hook = {"layer_name": str((3 * number) % layers), "action": "scale", "factor": 1 + 0.01 * number}
            found, first, seed, start = [], 0.0, 1000 * number, time.perf_counter()
            while len(found) < tokens:
                body = {
                    "prompt": PROMPTS[number % len(PROMPTS)],
                    "max_tokens": tokens - len(found),
                    "temperature": 3,
                    "seed": seed,
                }
                body |= {"stream": True, "hooks": [hook], "logprobs": 0}
                seed += 1
                async with client.stream("POST", "/v1/completions", json=body) as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data: {"):
                            first = first or time.perf_counter() - start
                            found.append(json.loads(line[6:])["choices"][0]["text"])
            return found, first

        async def all_at_once(numbers: range) -> tuple[list[Any], float, float]:
            """What each found, tokens a second, and tokens in a second of the server's processor time."""
            start, spent = time.perf_counter(), processor(server)
            found = await asyncio.gather(*(stream(number, options.tokens) for number in numbers))
            tokens = sum(len(texts) for texts, _ in found)
            return found, tokens / (time.perf_counter() - start), tokens / (processor(server) - spent)

        async def coming_and_going(clients: int) -> list[float]:
            async def one(number: int) -> list[float]:
                lengths = np.random.default_rng(number).integers(options.tokens // 2, options.tokens + 1, 4)
                return [(await stream(number, int(length)))[1] for length in lengths][1:]

            return [first for firsts in await asyncio.gather(*(one(number) for number in range(clients))) for first in firsts]

        alone = [(await stream(number, options.tokens))[0] for number in range(options.streams)]
        rates: list[tuple[float, float]] = []
        spent: list[float] = []
        firsts: dict[str, list[float]] = {"one": [], "at once": [], "one coming": [], "coming and going": []}
        same = True
        for number in range(options.rounds):
            (single,), one, cost = await all_at_once(range(number % options.streams, number % options.streams + 1))
            found, many, costs = await all_at_once(range(options.streams))
            same &= [texts for texts, _ in found] == alone
            rates.append((one, many))
            spent.append(costs / cost)
            firsts["one"].append(single[1])
            firsts["at once"] += [first for _, first in found]
            firsts["one coming"] += await coming_and_going(1)
            firsts["coming and going"] += await coming_and_going(options.streams)
    p95 = {name: float(np.quantile(values, 0.95)) for name, values in firsts.items()}
    ratio, waiting = statistics.median(many / one for one, many in rates), p95["coming and going"] / p95["one coming"]
    print(f"{options.model}, {options.streams} streams of {options.tokens} tokens, {options.rounds} rounds")
    print(f"  one  {statistics.median(one for one, _ in rates):8.1f} tokens/s")
    print(f"  all  {statistics.median(many for _, many in rates):8.1f} tokens/s, {ratio:.2f} times (promised 3)")
    print(f"  cpu  {statistics.median(spent):.2f} times the tokens in a second of the server's processor time")
    print(f"  first token, 95th percentile: one {1000 * p95['one']:.0f} ms, all at once {1000 * p95['at once']:.0f} ms")
    print(
        f"  coming and going: one {1000 * p95['one coming']:.0f} ms, all {1000 * p95['coming and going']:.0f} ms, "
        f"{waiting:.2f} times (promised 3)"
    )
    print(f"  the same tokens as alone: {'yes' if same else 'NO'}")
    return 0 if same and ratio >= 3 and waiting <= 3 else 1


if __name__ == "__main__":
    raise SystemExit(main())
