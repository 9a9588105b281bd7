"""The mutants are the faults that they say, and every one is of its own."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from tests.mutation.__main__ import ROOT, justified
from tests.mutation.mutants import mutants_of, mutated
from tests.mutation.processes import code_of, swapped

SOURCE = '''
"""A docstring with 3 numbers."""
SIZE = 8
_BATCH = 16


def half(values, at=-1, ready: bool = True):
    if not values:
        raise ValueError(f"{len(values) + 1} values")
    values[0] = 2.5
    if ready:
        at += 1
    return values[at] / 2 if at < SIZE and ready else None


def lines(pairs):
    found = [
        first - 1
        for first, _ in zip(pairs, pairs, strict=True)
    ]
    job.advance(len(found) + 1)
    if random.random() < 0.5:
        return None
    return dumps(found, indent=2) / (sum(found) + 1e-9)


def print_string(self):
    return "text" + "text"
'''


def test_mutants_are_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    found = mutants_of("module", path)
    told = {(mutant.before, mutant.after) for mutant in found}
    assert {
        ("8", "9"),
        ("-1", "1"),
        ("True", "False"),
        ("not values", "values"),
        ("values[0] = 2.5", "(left out)"),
        ("2.5", "5.0"),
        ("ready", "not ready"),
        ("at += 1", "(left out)"),
        ("values[at] / 2", "values[at] * 2"),
        ("values[at] / 2", "values[at]"),
        ("at < SIZE", "at <= SIZE"),
        ("at < SIZE", "at >= SIZE"),
        ("at < SIZE and ready", "at < SIZE or ready"),
    } <= told
    assert not any("text" in mutant.before or "len" in mutant.before or "docstring" in mutant.before for mutant in found)
    sources = {ast.unparse(mutated(path, mutant.number)) for mutant in found}
    assert len(sources) == len(found)
    assert ast.unparse(ast.parse(SOURCE)) not in sources
    assert len({mutant.key for mutant in found}) == len(found)
    assert path.read_text() == SOURCE


def test_a_mutant_is_in_place_of_its_piece(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    number = next(mutant.number for mutant in mutants_of("module", path) if mutant.after == "values[at] * 2")
    space: dict[str, object] = {}
    exec(compile(mutated(path, number), str(path), "exec"), space)
    assert space["half"]([1.0, 3.0], 0) == 6.0  # type: ignore[operator]


def test_a_mutant_knows_what_runs_it(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    found = {(mutant.before, mutant.after): mutant for mutant in mutants_of("module", path)}
    at = {text.strip(): number for number, text in enumerate(SOURCE.splitlines(), 1)}
    first = at["if not values:"]
    assert (found["8", "9"].lines, found["8", "9"].at_import) == ((at["SIZE = 8"],) * 2, True)
    # A default is made at import, and met where the body begins; a condition is its own line, not its body's.
    assert (found["-1", "1"].lines[0], found["-1", "1"].at_import) == (first, True)
    assert (found["not values", "values"].lines, found["not values", "values"].at_import) == ((first, first), False)
    listed = found["first - 1", "first + 1"]
    assert listed.lines == (at["found = ["], at["]"])
    assert ("2", "3") in {(mutant.before, mutant.after) for mutant in found.values() if mutant.function == "half"}
    # Neither `strict`, `indent`, progress, the size of a batch nor the guard changes what comes out.
    told = {mutant.before for mutant in found.values() if mutant.function == "lines"}
    assert told - {"first - 1", "1", "0.5", "sum(found) + 1e-09"} == {
        "dumps(found, indent=2) / (sum(found) + 1e-09)",
        "return dumps(found, indent=2) / (sum(found) + 1e-09)",
    }
    assert "16" not in {mutant.before for mutant in found.values()}


def test_a_mutant_takes_the_place_of_its_function_wherever_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "swapped_module.py"
    path.write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("swapped_module")
    held, functions = module.half, [module.half, module.lines, module.print_string]
    mutants = {mutant.after: mutant for mutant in mutants_of("swapped_module", path)}
    assert held([1.0, 3.0], 0) == 1.5
    assert swapped(functions, code_of(path, mutants["values[at] * 2"]), path)
    assert held([1.0, 3.0], 0) == 6.0
    # One at import is in no function, so the process must be a cold one.
    assert not swapped([], code_of(path, mutants["9"]), path)


def test_every_justified_survivor_is_a_mutant_still() -> None:
    modules = {key.split(":")[0] for key in justified()}
    paths = {module: ROOT / "backend" / Path(*module.split(".")).with_suffix(".py") for module in modules}
    offers = {mutant.key for module, path in paths.items() for mutant in mutants_of(module, path)}
    stale = sorted(set(justified()) - offers)
    assert not stale, f"tests/mutants.toml has reasons for mutants that are no more: {stale}"
    assert all(len(reason) > 20 for reason in justified().values())
