"""Parser and runtime speed: lines per second on a generated script, and the cost of common messages.

python benchmarks/bench_parser.py [LINES]
"""

from __future__ import annotations

import sys
import time
import timeit

from neuroscope_dsl import Workspace
from neuroscope_dsl.parser import parse

UNIT = """"Steering by layer"
steeringVector{0} := SteeringVectors load: #formalStyle.
hook{0} := ActivationHook
    layer: {0}
    component: #residual
    action: [:activations :position |
        position > 5 ifTrue: [
            activations := activations + (steeringVector{0} * 1.5)].
        activations].
model hookManager addHook: hook{0}; yourself.
"""

#: A program, and how many messages (or turns) it makes.
PROGRAMS = {
    "integer loop: sum := sum + (i * i)": ("sum := 0. 1 to: 200000 do: [:i | sum := sum + (i * i)]", 200_000),
    "block value: [:x | x * 2 + 1]": ("b := [:x | x * 2 + 1]. 1 to: 200000 do: [:i | b value: i]", 200_000),
    "collection add:": ("c := OrderedCollection new. 1 to: 200000 do: [:i | c add: i]", 200_000),
    "inject:into: over an interval": ("(1 to: 200000) inject: 0 into: [:a :x | a + x]", 200_000),
    "method call (27 fib)": (
        "Integer >> fib\n  self < 2 ifTrue: [^self].\n  ^(self - 1) fib + (self - 2) fib\n27 fib",
        832_040,
    ),
}


def script(lines: int) -> str:
    """A script of at least `lines` lines."""
    per_unit = UNIT.count("\n")
    return "".join(UNIT.format(index) for index in range(-(-lines // per_unit)))


def main() -> None:
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    parse("1")  # builds the parse table
    print("| parsing | seconds | lines/s |\n|---|---|---|")
    for count in (lines // 10, lines, lines * 4):
        text = script(count)
        seconds = min(_timed(lambda text=text: parse(text)) for _ in range(3))
        total = text.count("\n")
        print(f"| {total:,} lines, {len(text) / 1024:,.0f} KiB | {seconds:.3f} | {total / seconds:,.0f} |")
    workspace = Workspace()
    print("\n| running | ns each |\n|---|---|")
    for title, (program, count) in PROGRAMS.items():
        seconds = min(_timed(lambda program=program: workspace.run(program)) for _ in range(3))
        print(f"| {title} | {seconds / count * 1e9:.0f} |")
    block = workspace.run("[:x | x * 2 + 1]")
    for title, function in (("block called from Python", block), ("the same Python function", lambda x: x * 2 + 1)):
        seconds = min(timeit.repeat(lambda function=function: function(3.0), number=100_000, repeat=3)) / 100_000
        print(f"| {title} | {seconds * 1e9:.0f} |")


def _timed(run: object) -> float:
    assert callable(run)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
