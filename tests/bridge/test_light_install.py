"""A light install: what a client and the lists need is declared without an extra, and everything imported is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import neuroscope
from neuroscope.directory import EXTRAS, missing

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {"neuroscope", "neuroscope_dsl", "neuroscope_bridge"}
LIGHT = """
import importlib.util
import sys

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] in {absent!r} else found(name, package)


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())
"""


def light(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python where nothing that an extra brings can be imported."""
    absent = {package for packages in EXTRAS.values() for package in packages} - {"pydantic", "pydantic_core"}  # typer's own
    return subprocess.run(
        [sys.executable, "-c", LIGHT.format(absent=absent) + code], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_client_a_script_and_the_lists_need_no_extra() -> None:
    done = light(
        "import neuroscope\nneuroscope.connect\nfrom neuroscope import LMStudioRESTClient\n"
        "from neuroscope_bridge.client import block\nfrom neuroscope_bridge.cli import main\n"
        "for asked in (['run', '-e', '#(3 9 4) sorted'], ['tasks'], ['examples', 'list'], ['--version'], ['doctor']):\n"
        "    try:\n        main(asked)\n    except SystemExit as end:\n        assert not end.code, asked\n"
    )
    assert done.returncode == 0, done.stderr
    assert "#(3 4 9)" in done.stdout


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("from neuroscope import CircuitFinder", "torch"),
        ("from neuroscope import TransformerModel; TransformerModel.from_pretrained('bundled:gpt2-medium')", "torch"),
        ("from neuroscope_bridge.cli import main; main(['serve', '--zmq', 'off', '--http', '127.0.0.1:0'])", "server"),
        ("from neuroscope_bridge.cli import main; main(['repl'])", "repl"),
    ],
)
def test_what_needs_an_extra_names_it(code: str, extra: str) -> None:
    done = light(code)
    assert done.returncode == 1
    assert f"pip install 'neuroscope-interp[{extra}]'" in done.stderr


def requirements(extra: str | None, seen: frozenset[str] = frozenset()) -> set[str]:
    """The distributions that an extra requires, those of extras that it names included."""
    found: set[str] = set()
    for text in PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]:
        own = re.match(r"neuroscope-interp\[(.+)\]", text)
        if own is None:
            found.add(_folded(re.split(r"[\[<>=;! ]", text, maxsplit=1)[0]))
        else:
            for other in own[1].split(","):
                assert other not in seen
                found |= requirements(other, seen | {other})
    return found


def _folded(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_declared_where_the_directory_says() -> None:
    distributions = packages_distributions() | {
        "lm_eval": ["lm-eval"],
        "ray": ["ray"],
        "ipykernel": ["ipykernel"],
        "jupyter_client": ["jupyter-client"],
    }
    distributions |= {
        "pandas": ["pandas"],
        "polars": ["polars"],
        "kaleido": ["kaleido"],
        "mlx": ["mlx"],
        "mlx_lm": ["mlx-lm"],
        "peft": ["peft"],
        "ray": ["ray"],
    }
    extra_of = {package: extra for extra, packages in EXTRAS.items() for package in packages}
    imported: set[str] = set()
    for folder in ("backend", "dsl", "bridge"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {name.name.partition(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.partition(".")[0])
    outside = {name for name in imported - OWN if name not in sys.stdlib_module_names}
    assert {"torch", "httpx", "jinja2", "pydantic_core"} <= outside
    for package in outside:
        declared = requirements(extra_of.get(package))
        assert {_folded(name) for name in distributions[package]} & declared, (package, extra_of.get(package))


def test_the_extras_are_whole() -> None:
    assert {"torch", "mlx", "server", "figures", "repl", "hub", "all"} <= PROJECT["optional-dependencies"].keys()
    everything = requirements("all")
    for extra in PROJECT["optional-dependencies"].keys() - {"all", "dev", "docs", "mlx", "lm-eval", "lora", "ray"}:
        assert requirements(extra) <= everything, extra
    assert requirements("torch") <= requirements("dev")


def test_what_no_extra_brings_is_not_explained_away() -> None:
    assert missing(ModuleNotFoundError("No module named 'mine'", name="mine")) is None
    told = missing(ModuleNotFoundError("No module named 'scipy.stats'", name="scipy.stats"))
    assert told is not None
    assert told.remedy == "pip install 'neuroscope-interp[torch]'"


def test_the_citation_is_of_this_version() -> None:
    assert f"version: {neuroscope.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_a_client_alone_is_at_most_150_megabytes() -> None:
    """What the dependencies' own records say lies on the disk, with compiled files, and this package."""
    wanted, seen = [*requirements(None)], set[str]()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        needed = [Requirement(text) for text in distribution(name).requires or ()]
        wanted += [_folded(one.name) for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    files = [Path(str(file.locate())) for name in seen for file in distribution(name).files or ()]
    files += [
        file
        for package in ("backend", "dsl", "bridge")
        for file in (ROOT / package).rglob("*")
        if "__pycache__" not in file.parts
    ]
    size = sum(file.stat().st_size for file in files if file.is_file())
    assert {"numpy", "pyzmq", "httpx", "httpcore"} <= seen  # what they need in turn is counted
    assert "torch" not in seen
    assert 50e6 < size <= 150e6, f"{size / 1e6:.0f} MB"
