"""One session runs its worst scripts, another asks for small things: how long the other waits, and how much memory is taken.

python benchmarks/bench_attacks.py [NAME…]

Ends with 1 if in one of 100 cases the other waits longer than 250 ms, or if a script takes more than its session's memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.bridge.attacks import SCRIPTS, attacked
from tests.bridge.serving import serving

#: Seconds that another session may wait, in 99 of 100 cases, and MiB that a session may take.
WAIT, MEMORY = 0.25, 512


def main() -> int:
    wanted = sys.argv[1:] or list(SCRIPTS)
    held = True
    print("| script | ended | seconds | p99 ms | longest ms | memory MiB |\n|---|---|---|---|---|---|")
    with serving("--max-memory", str(MEMORY)) as (process, address):
        for name in wanted:
            found = attacked(process, address, SCRIPTS[name])
            held = held and found["p99"] <= WAIT and found["memory"] <= MEMORY and found["ended"] is not None
            print(
                f"| {name} | {found['ended']} | {found['took']:.1f} | {found['p99'] * 1e3:.0f} | {found['most'] * 1e3:.0f} |"
                f" {found['memory']:.0f} |",
                flush=True,
            )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
