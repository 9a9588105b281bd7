"""The class library's Smalltalk half means the same in GNU Smalltalk: what it lacks of the prelude is loaded there, from our text."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from neuroscope_dsl.prelude import PreludeMethod, definitions
from tests.pharo.test_differential import ours

PROGRAMS = [line for line in (Path(__file__).parent / "prelude.st").read_text().splitlines() if line.strip()]
METHODS = list(definitions())

pytestmark = pytest.mark.skipif(shutil.which("gst") is None, reason="GNU Smalltalk is not installed")


def _gst(lines: list[str], folder: Path) -> str:
    path = folder / "program.st"
    path.write_text("\n".join(lines) + "\n")
    done = subprocess.run(["gst", str(path)], capture_output=True, timeout=120, check=False)
    return done.stdout.decode() + done.stderr.decode()


def _lacking(folder: Path) -> list[PreludeMethod]:
    """The methods that GNU Smalltalk has the class for, and neither this class nor one above it has."""
    asked = []
    for index, method in enumerate(METHODS):
        there = f"Smalltalk includesKey: #{method.class_name}"
        known = f"(Smalltalk at: #{method.class_name}){' class' if method.class_side else ''} canUnderstand: #{method.selector}"
        asked.append(f"(({there}) and: [({known}) not]) ifTrue: [Transcript showCr: '<<{index}>>'].")
    return [METHODS[int(index)] for index in re.findall(r"<<(\d+)>>", _gst(asked, folder))]


def _definition(method: PreludeMethod) -> str:
    """The method in GNU Smalltalk's brackets; pattern and body are the prelude's."""
    header, _, body = method.text.partition("\n")
    side, _, pattern = header.partition(" >> ")
    return f"{side} extend [\n{pattern} [\n{body}]\n]"


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> list[PreludeMethod]:
    return _lacking(tmp_path_factory.mktemp("lacking"))


@pytest.fixture(scope="module")
def theirs(lacking: list[PreludeMethod], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What GNU Smalltalk prints for each program once it has the prelude, in order."""
    lines = [_definition(method) for method in lacking]
    for index, program in enumerate(PROGRAMS):
        quoted = program.replace("'", "''")
        lines.append(f"Transcript showCr: '<<{index}>>', ([(Behavior evaluate: '{quoted}') displayString]")
        lines.append("    on: Error do: [:e | e return: 'error: ', e messageText printString]), '<<end>>'.")
    output = _gst(lines, tmp_path_factory.mktemp("prelude"))
    found = []
    for index in range(len(PROGRAMS)):
        _, mark, rest = output.partition(f"<<{index}>>")
        found.append(rest.partition("<<end>>")[0] if mark else f"no output: {output[-300:]}")
    return found


def test_much_of_the_prelude_is_news_to_gnu_smalltalk(lacking: list[PreludeMethod]) -> None:
    assert len(lacking) >= 100


def test_the_programs_send_what_was_loaded(lacking: list[PreludeMethod]) -> None:
    sent = " ".join(PROGRAMS)
    used = [method for method in lacking if all(part in sent for part in re.findall(r"\w+:?|\W+", method.selector))]
    assert len(used) >= 80


@pytest.mark.parametrize("index", range(len(PROGRAMS)), ids=PROGRAMS)
def test_the_prelude_means_the_same_in_gnu_smalltalk(theirs: list[str], index: int) -> None:
    assert theirs[index] == ours(PROGRAMS[index])
