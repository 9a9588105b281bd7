"""python -m tests.mutation: mutants of some rooms, sampled, each against the tests that run its line."""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import random
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.processes import Tested, fork, prepare, run_against, trace

ROOT = Path(__file__).parents[2]
#: Each room's sources and the tests that are its own.
ROOMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "circuits": ("circuits", ("circuits",)),
    "tasks": ("tasks", ("tasks",)),
    "features": ("features", ("features",)),
    "steering": ("steering", ("steering",)),
    "lenses": ("lenses", ("lenses", "analyses")),
    "engines": ("engines", ("engines", "models", "hooks")),
    "analyses": ("analyses", ("analyses",)),
    "views": ("views", ("views",)),
}
_NAMED = ("circuits", "tasks", "features", "steering", "lenses", "engines")
_JUSTIFIED = ROOT / "tests" / "mutants.toml"
#: A test file without mutants may take this long.
_LONGEST = 1800.0


@dataclass(frozen=True)
class Judged:
    """What became of a mutant: killed, survived, justified (survives, with a reason), or not run by any test of its room."""

    mutant: Mutant
    outcome: str
    tests: int
    seconds: float
    reason: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    prepare()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    reasons = _justified()
    report: dict[str, list[Judged]] = {}
    for room in options.rooms:
        report[room] = _room(room, options, out, reasons)
        _write(report, options, out)
        print(_line(room, report[room]), flush=True)
    print(f"\n{out / 'report.md'}")
    low = [room for room, judged in report.items() if _share(judged) < options.least]
    if low:
        print(f"Below {options.least:.0%}: {', '.join(low)}")
    return int(bool(low))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--rooms", nargs="+", choices=list(ROOMS), default=list(_NAMED))
    parser.add_argument("--modules", nargs="+", default=[], help="only modules whose names hold one of these")
    parser.add_argument("--sample", type=int, default=40, help="mutants of each room, drawn without replacement")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--budget", type=float, default=90.0, help="seconds of tests for each mutant, quickest first")
    parser.add_argument("--least", type=float, default=0.0, help="the share killed below which this fails")
    parser.add_argument("--out", default=str(ROOT / "build" / "mutants"))
    return parser.parse_args(arguments)


def _room(room: str, options: argparse.Namespace, out: Path, reasons: Mapping[str, str]) -> list[Judged]:
    folder, tests = ROOMS[room]
    sources = sorted((ROOT / "backend" / "neuroscope" / folder).rglob("*.py"))
    offered = [
        (mutant, path)
        for path in sources
        for mutant in mutants_of(_module(path), path)
        if not options.modules or any(part in mutant.module for part in options.modules)
    ]
    drawn = offered if options.all else random.Random(options.seed).sample(offered, min(options.sample, len(offered)))
    tested = _tested(tests, sources, out)
    print(f"{room}: {len(drawn)} of {len(offered)} mutants, {sum(len(one.seconds) for one in tested)} tests", flush=True)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        return list(pool.map(lambda each: _judged(*each, tested, options.budget, out, reasons), drawn))


def _judged(
    mutant: Mutant, path: Path, tested: Sequence[Tested], budget: float, out: Path, reasons: Mapping[str, str]
) -> Judged:
    began = time.monotonic()
    chosen = _chosen(mutant, path, tested, budget)
    reason = reasons.get(mutant.key, "")
    if not chosen:
        return Judged(mutant, "justified" if reason else "not run", 0, 0.0, reason)
    log = out / f"{threading.get_ident()}.log"
    patience = 30 + 8 * sum(chosen.values())
    status = fork(lambda: run_against(mutant, path, list(chosen)), patience, log)
    outcome = "killed" if status != 0 else "justified" if reason else "survived"
    log.unlink(missing_ok=True)
    return Judged(mutant, outcome, len(chosen), time.monotonic() - began, reason if status == 0 else "")


def _chosen(mutant: Mutant, path: Path, tested: Sequence[Tested], budget: float) -> dict[str, float]:
    """Tests with their seconds: first those that run the line, then the others of files whose set-ups run it."""
    first: dict[str, float] = {}
    then: dict[str, float] = {}
    for one in tested:
        mine = [test for test, lines in one.lines.items() if mutant.line in lines.get(str(path), ())]
        first |= {test: one.seconds[test] for test in mine}
        if mine or mutant.line in one.shared.get(str(path), ()):
            then |= {test: seconds for test, seconds in one.seconds.items() if test not in mine}
    found: dict[str, float] = {}
    for tests in (first, then):
        for test, seconds in sorted(tests.items(), key=lambda each: each[1]):
            if not found or sum(found.values()) + seconds <= budget:
                found[test] = seconds
    return found


def _tested(tests: Sequence[str], sources: Sequence[Path], out: Path) -> list[Tested]:
    """What each test file runs, from a run without mutants; kept until a source or a test changes."""
    files = []
    for name in tests:
        place = ROOT / "tests" / "backend" / name
        files += [place] if place.suffix else sorted(place.rglob("test_*.py"))
    found = []
    for file in files:
        answer = out / f"{file.stem}-{_state(sources, file)}.json"
        if not answer.exists():
            status = fork(
                lambda file=file, answer=answer: trace(str(file), [str(path) for path in sources], answer),  # type: ignore[misc]
                _LONGEST,
                out / f"{file.stem}.log",
            )
            if not answer.exists():
                sys.exit(f"{file} could not be run: see {out / f'{file.stem}.log'}")
            if status:
                print(f"{file.name}: tests that fail without a mutant are left out", flush=True)
        found.append(Tested(**json.loads(answer.read_text())))
    return found


def _state(sources: Sequence[Path], file: Path) -> str:
    known = hashlib.sha256(",".join(map(str, sources)).encode())
    for path in [*sorted((ROOT / "backend").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py")), file]:
        if path.parent != Path(__file__).parent:
            known.update(path.read_bytes())
    return known.hexdigest()[:16]


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT / "backend").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _justified() -> dict[str, str]:
    """The reason why a mutant may survive, by its key."""
    if not _JUSTIFIED.exists():
        return {}
    return {each["mutant"]: each["reason"] for each in tomllib.loads(_JUSTIFIED.read_text(encoding="utf-8"))["survivor"]}


def _share(judged: Sequence[Judged]) -> float:
    """Killed among those that no reason excuses."""
    counted = [each for each in judged if each.outcome != "justified"]
    return sum(each.outcome == "killed" for each in counted) / len(counted) if counted else 1.0


def _line(room: str, judged: Sequence[Judged]) -> str:
    counts = Counter(each.outcome for each in judged)
    told = ", ".join(f"{counts[name]} {name}" for name in ("killed", "survived", "not run", "justified"))
    return f"{room:<10} {_share(judged):>5.0%}   {told}   {sum(each.seconds for each in judged):.0f} s"


def _write(report: Mapping[str, Sequence[Judged]], options: argparse.Namespace, out: Path) -> None:
    data = {room: [asdict(each) | {"key": each.mutant.key} for each in judged] for room, judged in report.items()}
    (out / "report.json").write_text(json.dumps({"seed": options.seed, "rooms": data}, ensure_ascii=False, indent=1))
    lines = ["# Mutants", "", f"Seed {options.seed}, {'all' if options.all else options.sample} a room.", ""]
    lines += [f"    {_line(room, judged)}" for room, judged in report.items()]
    for room, judged in report.items():
        for outcome in ("survived", "not run", "justified"):
            mine = [each for each in judged if each.outcome == outcome]
            if mine:
                lines += ["", f"## {room}: {outcome}", ""]
                lines += [f"- `{each.mutant.key}` (line {each.mutant.line}, {each.tests} tests) {each.reason}" for each in mine]
    (out / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
