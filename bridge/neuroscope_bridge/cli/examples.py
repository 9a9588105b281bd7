"""`neuroscope examples`: the documented experiments by number.

An experiment is a documented script, `NN_title.st` (or `.py`), unchanged, and, if the script only defines something, a
companion `NN_call.st` that uses it. Variables that the scripts do not define come from `workspace.st`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from neuroscope import vocabulary
from neuroscope.errors import ArgumentError
from neuroscope.files import save
from neuroscope_bridge.cli import show
from neuroscope_bridge.cli.run import RunOptions, prepared, run_files
from neuroscope_bridge.files import FileError, check_folder

#: The scripts' placeholder for a model.
_MODEL, _PATH = "gpt2-medium", "/path/to/model"
_NOT_CODE = re.compile(r"\"[^\"]*\"|'(?:[^']|'')*'|#\w+|\$.")


@dataclass(frozen=True)
class Example:
    """A documented experiment: its number, script and companion."""

    number: int
    script: Path
    companion: Path | None

    @property
    def title(self) -> str:
        """The title in the script's first line."""
        first = self.script.read_text(encoding="utf-8").lstrip().splitlines()[0]
        comment = first.strip("\"#' \t")
        return comment if comment != first else self.script.stem.partition("_")[2].replace("_", " ")

    @property
    def files(self) -> list[Path]:
        return [self.script] if self.companion is None else [self.script, self.companion]

    @property
    def text(self) -> str:
        return "\n".join(path.read_text(encoding="utf-8") for path in self.files)

    @property
    def missing(self) -> list[str]:
        """Classes in the script that do not exist yet."""
        named = set(re.findall(r"\b[A-Z]\w*", _NOT_CODE.sub(" ", self.text))) - set(vocabulary.names())
        return sorted(name for name in named if vocabulary.planned(name) is not None)

    @property
    def leaves_model(self) -> bool:
        """Whether the script uses a variable `model` that it does not bind."""
        code = _NOT_CODE.sub(" ", self.text)
        return re.search(r"\bmodel\b(?!\s*:)", code) is not None and re.search(r"\bmodel\s*:=", code) is None


def examples_folder() -> Path:
    """The folder of the scripts, in the source tree or the installation. Raises `FileError` if neither has it."""
    tree = Path(__file__).parents[3] / "examples"
    installed = Path(sysconfig.get_path("data")) / "share" / "neuroscope" / "examples"
    for folder in (tree, installed):
        if (folder / "workspace.st").is_file():
            return folder
    raise FileError(f"The examples are in neither {tree} nor {installed}.", remedy="Install NeuroScope again.")


def examples() -> list[Example]:
    """All experiments by number; a Smalltalk script takes precedence over a Python one of the same number."""
    folder = examples_folder()
    found: dict[int, Example] = {}
    for script in sorted(folder.glob("[0-9][0-9]_*"), key=lambda path: (path.name[:2], path.suffix != ".st", path.name)):
        number = int(script.name[:2])
        companion = script.with_name(f"{number:02d}_call{script.suffix}")
        if script != companion and number not in found:
            found[number] = Example(number, script, companion if companion.is_file() else None)
    return list(found.values())


def example(number: int) -> Example:
    """The experiment of a number. Raises `ArgumentError`."""
    known = {one.number: one for one in examples()}
    if number == 15:
        raise ArgumentError(
            "Experiment 15 is five analyses without a script.",
            remedy="neuroscope analyze bundled:gpt2-medium attention_patterns    (neuroscope analyses lists them)",
        )
    if number not in known:
        numbers = ", ".join(str(one) for one in known)
        raise ArgumentError(f"There is no experiment {number}.", remedy=f"Experiments with a script: {numbers}.")
    return known[number]


def list_examples(as_json: bool) -> None:
    """List number, title, and whether it runs."""
    entries = [
        {"number": one.number, "title": one.title, "script": str(one.script), "missing": one.missing} for one in examples()
    ]
    if as_json:
        print(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    table = Table("", "experiment", "", box=None, pad_edge=False)
    for entry in entries:
        lacks = entry["missing"]
        assert isinstance(lacks, list)
        table.add_row(str(entry["number"]), str(entry["title"]), f"not available yet ({', '.join(lacks)})" if lacks else "")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)


def show_example(number: int) -> None:
    """Print the script and its companion."""
    print("\n\n".join(path.read_text(encoding="utf-8").rstrip() for path in example(number).files))


def copy_example(number: int, folder: Path) -> None:
    """Copy an experiment's scripts and `workspace.st` to a folder, which is made if needed. Replaces no file.

    Prints the files, and to standard error the command that runs them.
    """
    chosen = example(number)
    sources = [examples_folder() / "workspace.st", *chosen.files]
    targets = [folder / source.name for source in sources]
    check_folder(folder)
    changed = [
        target
        for source, target in zip(sources, targets, strict=True)
        if target.exists() and target.read_bytes() != source.read_bytes()
    ]
    if changed:
        raise FileError(
            f"{changed[0]} exists and is another file; nothing was copied.", remedy="Copy to another folder, or remove it."
        )
    for source, target in zip(sources, targets, strict=True):
        save(target, source.read_bytes(), "The script")
        print(target)
    if chosen.script.suffix == ".st":
        model = f" --model {_MODEL}" if chosen.leaves_model else ""
        print(f"Run: neuroscope run --embedded{model} {' '.join(map(str, targets))}", file=sys.stderr)


def run_example(number: int, options: RunOptions) -> None:
    """Run an experiment with workspace variables and a model bound, by default on the models that ship."""
    chosen = example(number)
    if chosen.missing:
        raise ArgumentError(
            f"Experiment {number} needs {', '.join(chosen.missing)}, which NeuroScope does not have yet.",
            remedy="neuroscope examples list shows which experiments run.",
        )
    aliases = list(options.aliases)
    if _PATH in chosen.text and not any(alias.startswith(f"{_PATH}=") for alias in aliases):
        aliases.append(f"{_PATH}=bundled:{_MODEL}")
    files = [examples_folder() / "workspace.st", *chosen.files]
    model = options.model or (_MODEL if chosen.leaves_model else None)
    complete = dataclasses.replace(options, files=files, aliases=aliases, model=model)
    if chosen.script.suffix == ".st":
        run_files(complete)
    else:
        _run_python(chosen, complete)
    if options.figures is not None:
        drawn = [*options.figures.glob("*.svg")] or [*options.figures.glob("*.html")]
        # Variables' own figures before nested ones.
        _tell_next(number, min(drawn, key=lambda path: (len(path.name), path.name), default=None))


def _run_python(chosen: Example, options: RunOptions) -> None:
    """Run a Python script with its own server, client and hooks."""
    from neuroscope_bridge.rest.client import LMStudioRESTClient

    hooks = [{"layer_name": f"transformer.h.{layer}", "component": "residual"} for layer in (5, 10)]
    with prepared(options), show.progress_shown(options.quiet):
        client = LMStudioRESTClient.default()
        client.load_model(options.model or f"bundled:{_MODEL}")
        names: dict[str, Any] = {"client": client, "hooks": hooks}
        for path in chosen.files:
            names.update(runpy.run_path(str(path), names))


def _tell_next(number: int, picture: Path | None) -> None:
    """Print the picture's path and three commands to try."""
    others = {
        3: "neuroscope examples run 3 --figures figures     steer a model's style: dose and response",
        11: "neuroscope examples run 11 --figures figures    generate and test hypotheses about a circuit",
        2: "neuroscope examples run 2 --figures figures     find and ablate neurons for a concept",
    }
    lines = [] if picture is None else [f"To look at:  {picture}"]
    lines += ["Try next:", *[f"  {text}" for other, text in others.items() if other != number][:2]]
    lines.append(
        "  neuroscope serve --embedded                     then open http://127.0.0.1:50111: activations while a model generates"
    )
    show.stderr.print("\n".join(lines), highlight=False, soft_wrap=True)
    sys.stderr.flush()
