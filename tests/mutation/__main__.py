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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scipy.stats import binomtest

from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.processes import FAILED, STALE, Tested, Work, fork, prepare, run_against, run_warm, trace

ROOT = Path(__file__).parents[2]
#: Each room's sources and the tests that are its own.
ROOMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "circuits": ("circuits", ("circuits",)),
    "tasks": ("tasks", ("tasks",)),
    "features": ("features", ("features",)),
    "steering": ("steering", ("steering",)),
    "lenses": ("lenses", ("lenses", "analyses")),
    "engines": ("engines", ("engines", "hooks")),
    "analyses": ("analyses", ("analyses",)),
    "views": ("views", ("views",)),
}
_NAMED = ("circuits", "tasks", "features", "steering", "lenses", "engines")
_JUSTIFIED = ROOT / "tests" / "mutants.toml"


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
    reasons = justified()
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
    parser.add_argument("--budget", type=float, default=10.0, help="CPU seconds of tests for each mutant, quickest first")
    parser.add_argument("--longest", type=float, default=2.0, help="CPU seconds above which a test is left out")
    parser.add_argument("--tests", nargs="+", default=[], help="only test files whose names hold one of these")
    parser.add_argument("--again", action="store_true", help="take what the last run killed as killed, and run the others")
    parser.add_argument("--least", type=float, default=0.0, help="the share killed below which this fails")
    parser.add_argument("--out", default=str(ROOT / "build" / "mutants"))
    return parser.parse_args(arguments)


def _offered(room: str) -> list[tuple[Mutant, Path]]:
    """Every mutant of a room with its file."""
    return [(mutant, path) for path in _sources(room) for mutant in mutants_of(_module(path), path)]


def _sources(room: str) -> list[Path]:
    return sorted((ROOT / "backend" / "neuroscope" / ROOMS[room][0]).rglob("*.py"))


def _room(room: str, options: argparse.Namespace, out: Path, reasons: Mapping[str, str]) -> list[Judged]:
    every = [each for each in _offered(room) if not options.modules or any(part in each[0].module for part in options.modules)]
    drawn = every if options.all else random.Random(options.seed).sample(every, min(options.sample, len(every)))
    tested = _tested(room, options, out)
    print(f"{room}: {len(drawn)} of {len(every)} mutants, {sum(len(one.seconds) for one in tested)} tests", flush=True)
    before = _killed(out / f"{room}.json") if options.again else {}
    found = {mutant: before[mutant.key] for mutant, _ in drawn if mutant.key in before}
    warm, cold = list[Work](), list[Work]()
    for mutant, path in drawn:
        if mutant not in found:
            tests, ran_before = _chosen(mutant, path, tested, options.budget)
            if not tests:
                found[mutant] = Judged(mutant, "not run", 0, 0.0)
            (cold if ran_before else warm).append(Work(mutant, path, tuple(tests), 5 + 4 * sum(tests.values())))
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        shares = [[each for each in warm if each.tests][at :: options.jobs] for at in range(options.jobs)]
        for answers in pool.map(lambda share: _warm(share, out), shares):
            found |= {judged.mutant: judged for judged in answers}
        left = [each for each in [*warm, *cold] if each.mutant not in found]
        found |= {judged.mutant: judged for judged in pool.map(lambda work: _cold(work, out), left)}
    judged = [found[mutant] for mutant, _ in drawn]
    return [
        replace(each, outcome="justified", reason=reasons[each.mutant.key])
        if each.outcome != "killed" and each.mutant.key in reasons
        else each
        for each in judged
    ]


def _warm(share: Sequence[Work], out: Path) -> list[Judged]:
    """What became of mutants that can take the place of their functions in a process that has collected the tests."""
    if not share:
        return []
    files = sorted({test.split("::")[0] for work in share for test in work.tests})
    log, answers = out / f"warm-{threading.get_ident()}.log", out / f"warm-{threading.get_ident()}.json"
    answers.unlink(missing_ok=True)

    def answer(work: Work, status: int | None, seconds: float) -> None:
        with answers.open("a") as file:
            file.write(json.dumps([work.mutant.number, work.mutant.module, status, seconds]) + "\n")

    fork(lambda: run_warm(share, files, log.with_suffix(".one.log"), answer), None, log)
    known = {(work.mutant.number, work.mutant.module): work for work in share}
    found = []
    for number, module, status, seconds in map(json.loads, answers.read_text().splitlines() if answers.exists() else ()):
        if status not in (STALE, FAILED):
            found.append(_outcome(known[number, module], status, seconds))
    return found


def _cold(work: Work, out: Path) -> Judged:
    began = time.monotonic()
    log = out / f"{threading.get_ident()}.log"
    status = fork(lambda: run_against(work.mutant, work.path, work.tests, 10 + work.seconds), 120 + 15 * work.seconds, log)
    return _outcome(work, status, time.monotonic() - began)


def _outcome(work: Work, status: int | None, seconds: float) -> Judged:
    return Judged(work.mutant, "survived" if status == 0 else "killed", len(work.tests), seconds)


def _chosen(mutant: Mutant, path: Path, tested: Sequence[Tested], budget: float) -> tuple[dict[str, float], bool]:
    """The tests that run the mutant's statement with their seconds, quickest first (file by file and engine by engine, whose set-ups
    they share), and whether it runs before any test does."""
    first, last = mutant.lines
    lines = set(range(first, last + 1))
    ran_before = mutant.at_import or any(lines & set(one.loading.get(str(path), ())) for one in tested)
    groups: dict[tuple[str, bool], dict[str, float]] = {}
    for one in tested:
        for test, ran in one.lines.items():
            mine = ran.get(str(path), ())
            if lines.intersection(mine) or (mutant.at_import and mine and first in one.loading.get(str(path), ())):
                groups.setdefault((test.split("::")[0], "mlx" in test), {})[test] = one.seconds[test]
    found: dict[str, float] = {}
    for tests in sorted(groups.values(), key=lambda tests: sum(tests.values())):
        for test, seconds in sorted(tests.items(), key=lambda each: each[1]):
            if not found or sum(found.values()) + seconds <= budget:
                found[test] = seconds
    return found, ran_before


def _tested(room: str, options: argparse.Namespace, out: Path) -> list[Tested]:
    """What each test file runs, from a run without mutants; kept until a source, the file, or what tests share changes."""
    sources = _sources(room)
    files = [file for name in ROOMS[room][1] for file in sorted((ROOT / "tests" / "backend" / name).rglob("test_*.py"))]
    if options.tests:
        files = [file for file in files if any(part in file.name for part in options.tests)]
    found = []
    for file in files:
        answer = out / f"{file.stem}-{_state(sources, file)}.json"
        if not answer.exists():
            status = fork(
                lambda file=file, answer=answer: trace(str(file), list(map(str, sources)), options.longest, answer),  # type: ignore[misc]
                None,
                out / f"{file.stem}.log",
            )
            if not answer.exists():
                sys.exit(f"{file} could not be run: see {out / f'{file.stem}.log'}")
            if status:
                print(
                    f"{file.name}: tests that fail without a mutant or take above {options.longest:g} s are left out",
                    flush=True,
                )
        found.append(Tested(**json.loads(answer.read_text())))
    return found


def _state(sources: Sequence[Path], file: Path) -> str:
    known = hashlib.sha256(",".join(map(str, sources)).encode())
    shared = [path for path in (ROOT / "tests").rglob("*.py") if not path.name.startswith("test_")]
    for path in [*sorted((ROOT / "backend").rglob("*.py")), *sorted(shared), file]:
        if path.parent != Path(__file__).parent:
            known.update(path.read_bytes())
    return known.hexdigest()[:16]


def _killed(report: Path) -> dict[str, Judged]:
    if not report.exists():
        return {}
    found = json.loads(report.read_text())["mutants"]
    return {
        each["key"]: Judged(
            Mutant(**each["mutant"] | {"lines": tuple(each["mutant"]["lines"])}), "killed", each["tests"], each["seconds"]
        )
        for each in found
        if each["outcome"] == "killed"
    }


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT / "backend").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def justified() -> dict[str, str]:
    """The reason why a mutant may survive, by its key."""
    if not _JUSTIFIED.exists():
        return {}
    return {each["mutant"]: each["reason"] for each in tomllib.loads(_JUSTIFIED.read_text(encoding="utf-8"))["survivor"]}


def _counted(judged: Sequence[Judged]) -> tuple[int, int]:
    """Killed, and how many that no reason excuses."""
    counted = [each for each in judged if each.outcome != "justified"]
    return sum(each.outcome == "killed" for each in counted), len(counted)


def _share(judged: Sequence[Judged]) -> float:
    killed, counted = _counted(judged)
    return killed / counted if counted else 1.0


def _line(room: str, judged: Sequence[Judged]) -> str:
    counts = Counter(each.outcome for each in judged)
    told = ", ".join(f"{counts[name]} {name}" for name in ("killed", "survived", "not run", "justified"))
    killed, counted = _counted(judged)
    interval = binomtest(killed, counted).proportion_ci(method="wilson") if counted else (0.0, 1.0)
    shown = f"{_share(judged):.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{room:<10} {shown}   {told}   {sum(each.seconds for each in judged):.0f} s"


def _write(report: Mapping[str, Sequence[Judged]], options: argparse.Namespace, out: Path) -> None:
    for room, judged in report.items():
        data = [asdict(each) | {"key": each.mutant.key} for each in judged]
        (out / f"{room}.json").write_text(json.dumps({"seed": options.seed, "mutants": data}, ensure_ascii=False, indent=1))
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
