"""Pages that `make site` makes of the code: the classes for Python, and the dialect's classes with their messages."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from mkdocs.structure.files import File

from neuroscope.directory import EXPORTS
from neuroscope_dsl.documentation import describe
from neuroscope_dsl.runtime.classes import LIBRARY
from neuroscope_dsl.workspace import Workspace


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages; mkdocs calls this."""
    rooms: dict[str, list[str]] = defaultdict(list)
    for name, module in sorted(EXPORTS.items()):
        rooms[module.split(".")[1]].append(f"::: {module}.{name}\n")
    for room, entries in rooms.items():
        files.append(File.generated(config, f"reference/{room}.md", content=f"# {room}\n\n" + "\n".join(entries)))
    files.append(File.generated(config, "reference/dialect.md", content=dialect()))
    return files


def dialect() -> str:
    """Every class of the dialect's library, with its comment and its messages."""
    workspace = Workspace()
    classes = (f"## {name}\n\n```text\n{describe(workspace, name)}\n```\n" for name in sorted(LIBRARY))
    return "# The dialect's classes\n\n" + "\n".join(classes)
