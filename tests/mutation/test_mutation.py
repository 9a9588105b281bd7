"""The mutants are the faults that they say, and every one is of its own."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.mutation.mutants import mutants_of, mutated

SOURCE = '''
"""A docstring with 3 numbers."""
SIZE = 8


def half(values, at=-1, ready: bool = True):
    if not values:
        raise ValueError(f"{len(values) + 1} values")
    values[0] = 2.5
    if ready:
        at += 1
    return values[at] / 2 if at < SIZE and ready else None


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
    assert path.read_text() == SOURCE


def test_a_mutant_is_in_place_of_its_piece(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    number = next(mutant.number for mutant in mutants_of("module", path) if mutant.after == "values[at] * 2")
    space: dict[str, object] = {}
    exec(compile(mutated(path, number), str(path), "exec"), space)
    assert space["half"]([1.0, 3.0], 0) == 6.0  # type: ignore[operator]
