"""What waiting threads cost: documented script 1 on the bundled model, alone and beside one busy process per core.

    python benchmarks/bench_threads.py [--repeats 3] [--script FILE]

Four ways to run it take turns, so that whatever else the machine does falls on all alike: as it is (`ours`), on one thread, on
every core with OpenMP's own long spin (`spinning`), and on every core with threads that sleep at once (`passive`). Seconds are
the least of all turns; CPU seconds (user and system) beside them. Shown too: `ours` over `one thread`.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "examples" / "01_causal_tracing_for_known_phenomena.st"
CORES = str(os.cpu_count() or 1)

WAYS: dict[str, dict[str, str]] = {
    "ours": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "spinning": {"OMP_NUM_THREADS": CORES, "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
    "passive": {"OMP_NUM_THREADS": CORES, "OMP_WAIT_POLICY": "PASSIVE"},
}
_SET_BY_USERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def seconds(script: Path, way: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    environment = {name: value for name, value in os.environ.items() if name not in _SET_BY_USERS} | way
    command = [sys.executable, "-m", "neuroscope_bridge", "run", "--quiet", "--embedded", str(script)]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(script: Path, repeats: int) -> dict[str, tuple[float, float]]:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(repeats):
        for name, way in WAYS.items():
            found[name].append(seconds(script, way))
    return {name: (min(wall for wall, _ in runs), min(cpu for _, cpu in runs)) for name, runs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--script", type=Path, default=SCRIPT)
    arguments = parser.parse_args()
    print(f"load of the last minute before: {os.getloadavg()[0]:.1f} on {CORES} cores")
    for title, busy in (("alone", 0), ("beside one busy process per core", int(CORES))):
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            found = measured(arguments.script, arguments.repeats)
        finally:
            for other in others:
                other.kill()
                other.wait()
        print(f"\n{title}\n{'':<14}{'seconds':>10}{'CPU':>10}")
        for name, (wall, cpu) in found.items():
            print(f"{name:<14}{wall:>10.1f}{cpu:>10.1f}")
        print(f"ours over one thread: {found['ours'][0] / found['one thread'][0]:.2f}")


if __name__ == "__main__":
    main()
