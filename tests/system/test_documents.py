"""What the documents show: snippets run, or are at least of the language and of things that exist; commands parse; links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

import neuroscope
from neuroscope import vocabulary
from neuroscope.errors import NeuroScopeError
from neuroscope.models.model import TransformerModel
from neuroscope.naming import fold
from neuroscope_bridge.cli.app import app
from neuroscope_dsl import nodes
from neuroscope_dsl.compiler.scopes import walk
from neuroscope_dsl.runtime.classes import LIBRARY
from neuroscope_dsl.workspace import Workspace

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docs" / "llms.txt",
]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")

#: Run here, with `model` bound to the small model that ships; longer ones are documented scripts, which tests/system runs.
RUN = {
    "analyses.md": (1,),
    "data.md": (1,),
    "editing.md": (2,),
    "engines.md": (3,),
    "language.md": (1, 2),
    "notebooks.md": (1,),
    "steering.md": (3, 6),
}


@dataclass(frozen=True)
class Snippet:
    document: str
    language: str
    text: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.document}: {self.text.splitlines()[0]}"


def snippets(*languages: str) -> list[Snippet]:
    found = []
    for path in DOCUMENTS:
        number = 0
        for language, text in _FENCE.findall(path.read_text(encoding="utf-8")):
            if language in ("python", "smalltalk"):
                number += 1
            if language in languages:
                found.append(Snippet(path.name, language, text, number in RUN.get(path.name, ())))
    return found


@pytest.fixture(scope="module")
def model() -> TransformerModel:
    return TransformerModel.from_hugging_face("bundled:gpt2-medium")


def test_every_snippet_to_run_is_there() -> None:
    assert sum(snippet.runs for snippet in snippets("python", "smalltalk")) == sum(map(len, RUN.values()))


@pytest.mark.parametrize("snippet", [one for one in snippets("python", "smalltalk") if one.runs], ids=str)
def test_it_runs(snippet: Snippet, model: TransformerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if snippet.language == "python":
        exec(compile(snippet.text, str(snippet), "exec"), {"model": fresh(model)})
    else:
        workspace = Workspace()
        workspace.bind("model", fresh(model))
        workspace.run(snippet.text, file=str(snippet))
        for statement, told in re.findall(r'^(.+?)\.\s+"(\d+|#\(.*\))"$', snippet.text, re.MULTILINE):
            assert workspace.print_string(workspace.evaluate(statement)) == told


def fresh(model: TransformerModel) -> TransformerModel:
    """The model without the hooks of other snippets."""
    return TransformerModel(model.engine, model.tokenizer, model.name, model.loaded_hash, model.ran)


@pytest.mark.parametrize("snippet", snippets("smalltalk"), ids=str)
def test_a_script_is_of_the_language_and_its_messages_exist(snippet: Snippet) -> None:
    workspace = Workspace()
    tree = workspace.check(snippet.text, file=snippet.document)
    own = {item.selector for item in tree.items if isinstance(item, nodes.MethodDefinition)}
    for part in walk(tree):
        if isinstance(part, nodes.Variable) and part.name[0].isupper():
            assert part.name in workspace.class_names(), part.name
        if isinstance(part, (nodes.Send, nodes.Message)) and part.selector not in own:
            assert part.selector in library_selectors() or fold(part.selector.partition(":")[0]) in operations(), part.selector


def library_selectors() -> set[str]:
    return {selector for owner in LIBRARY.values() for selector in (*owner.methods, *owner.class_methods)}


def operations() -> set[str]:
    """The first words of all messages of the vocabulary, and of its constructors."""
    if not _operations:
        _operations.update({"for", "new"})
        for name in vocabulary.names():
            python = vocabulary.find(name)
            assert python is not None
            _operations.update(vocabulary.operations(python))
            _operations.update(fold(word) for word in getattr(python.__init__, "__annotations__", {}))
    return _operations


_operations: set[str] = set()


@pytest.mark.parametrize("snippet", snippets("python"), ids=str)
def test_a_program_is_one_and_imports_what_exists(snippet: Snippet) -> None:
    for node in ast.walk(ast.parse(snippet.text)):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("neuroscope")
            and "harness" not in node.module
        ):
            module = importlib.import_module(node.module)
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_commands_are_parsed_as_they_are_written() -> None:
    command = typer.main.get_command(app)
    seen = 0
    for snippet in snippets("sh"):
        for line in snippet.text.replace("\\\n", " ").splitlines():
            if not line.startswith("neuroscope "):
                continue
            words = shlex.split(line, comments=True)
            if "--install-completion" in words:
                continue
            words = [word for word in words[1 : words.index("<a.st") if "<a.st" in words else None] if word not in ("&",)]
            seen += 1
            parsed(command, words)
    assert seen >= 15


def parsed(command: Any, words: list[str]) -> None:
    """Parse a command's words without running it; a group goes on to its command."""
    context = command.make_context("neuroscope", list(words), resilient_parsing=False)
    if hasattr(command, "commands"):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, name
        parsed(found, rest)


def test_every_link_leads_somewhere() -> None:
    broken = []
    for path in DOCUMENTS:
        for target in _LINK.findall(re.sub(_FENCE, "", path.read_text(encoding="utf-8"))):
            if re.match(r"\w+:", target):
                continue
            file, _, place = target.partition("#")
            there = (path.parent / file) if file else path
            if not there.exists() or (place and place not in anchors(there)):
                broken.append(f"{path.name}: {target}")
    assert broken == []


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub and the site give to headings."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_guide_is_in_the_index_and_for_machines() -> None:
    guides = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    for index in ("docs/README.md", "docs/llms.txt", "mkdocs.yml"):
        text = (ROOT / index).read_text(encoding="utf-8")
        assert [name for name in sorted(guides) if name not in text] == []


def test_every_code_of_an_error_is_explained() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    codes = {kind.code for kind in NeuroScopeError.__subclasses__() if kind.__module__ == "neuroscope.errors"}
    assert sorted(code for code in codes if f"`{code}`" not in text) == []
    assert neuroscope.__version__
