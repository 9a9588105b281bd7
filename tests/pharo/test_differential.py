"""Small portable programs print the same in NeuroScope's Smalltalk and in GNU Smalltalk."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroscope.errors import NeuroScopeError
from neuroscope_dsl import Workspace
from tests.pharo.smalltalk import gst, needs_gst

PROGRAMS = [line for line in (Path(__file__).parent / "programs.st").read_text().splitlines() if line.strip()]

#: Programs that print differently, and why.
_FRACTION = "a fraction prints in parentheses, as in Pharo; GNU Smalltalk 3.2 writes none"
_OVERFLOW = "this build of GNU Smalltalk does not notice that a product of small integers overflows"
_SQRT = "a perfect square has an exact root, as in Pharo"
_EXPONENT = "an integer with an exponent stays an integer, as in Pharo"
DIFFERENCES: dict[str, str] = {
    "3/4": _FRACTION,
    "(3/4) * (2/3)": _FRACTION,
    "(1/3) + (1/6)": _FRACTION,
    "10 reciprocal": _FRACTION,
    "100 factorial printString size": _OVERFLOW,
    "100 factorial / 98 factorial": _OVERFLOW,
    "4 sqrt": _SQRT,
    "1e3": _EXPONENT,
    "[nil foo] on: MessageNotUnderstood do: [:e | e return: e message selector]": "a symbol displays without its mark, as in Pharo",
}

pytestmark = needs_gst


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What GNU Smalltalk prints for each program, in order."""
    lines = []
    for index, program in enumerate(PROGRAMS):
        quoted = program.replace("'", "''")
        lines.append(f"Transcript showCr: '<<{index}>>', ([(Behavior evaluate: '{quoted}') displayString]")
        lines.append("    on: Error do: [:e | e return: 'error']), '<<end>>'.")
    path = tmp_path_factory.mktemp("differential") / "programs.st"
    path.write_text("\n".join(lines) + "\n")
    output = gst(path)
    found = []
    for index in range(len(PROGRAMS)):
        _, mark, rest = output.partition(f"<<{index}>>")
        found.append(rest.partition("<<end>>")[0] if mark else "no output")
    return found


def ours(program: str) -> str:
    workspace = Workspace()
    try:
        return workspace.display_string(workspace.run(program))
    except NeuroScopeError:
        return "error"


def test_there_are_enough_programs() -> None:
    assert len(set(PROGRAMS)) - len(DIFFERENCES) >= 150


@pytest.mark.parametrize("index", range(len(PROGRAMS)), ids=PROGRAMS)
def test_both_print_the_same(theirs: list[str], index: int) -> None:
    program = PROGRAMS[index]
    if program in DIFFERENCES:
        assert ours(program) != theirs[index], "this difference is gone; take it off the list"
    else:
        assert ours(program) == theirs[index]
