"""Seconds of every documented experiment on the models that ship, alone and beside one busy process per core.

    python benchmarks/bench_scripts.py [NUMBER …] [--json FILE]

Each runs in a process of its own, as `neuroscope examples run NUMBER`: wall seconds, CPU seconds (user and system) and the
largest memory. The first line is a process that only starts and loads the model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from neuroscope_bridge.cli.examples import examples

CORES = os.cpu_count() or 1


def measured(arguments: list[str]) -> dict[str, float]:
    """Wall and CPU seconds and the largest memory (MiB) of one run of `neuroscope`."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "neuroscope_bridge", *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"neuroscope {' '.join(arguments)} failed.")
    return {
        "wall": time.perf_counter() - begun,
        "cpu": used.ru_utime + used.ru_stime,
        "MiB": used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("numbers", type=int, nargs="*")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    built = [one.number for one in examples() if not one.missing]
    numbers = arguments.numbers or built
    found: dict[str, dict[str, dict[str, float]]] = {}
    print(f"load of the last minute before: {os.getloadavg()[0]:.1f} on {CORES} cores")
    for title, busy in (("alone", 0), ("beside one busy process per core", CORES)):
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        print(f"\n{title}\n{'':<10}{'seconds':>10}{'CPU':>10}{'MiB':>10}", flush=True)
        try:
            runs = {"start": ["verify", "bundled:gpt2-medium"]} | {
                str(n): ["examples", "run", str(n), "--quiet"] for n in numbers
            }
            for name, command in runs.items():
                one = measured(command)
                found.setdefault(title, {})[name] = one
                print(f"{name:<10}{one['wall']:>10.1f}{one['cpu']:>10.1f}{one['MiB']:>10.0f}", flush=True)
        finally:
            for other in others:
                other.kill()
                other.wait()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
