"""The notebooks in examples/notebooks, made of the pages in docs/notebooks: `make notebooks`.

A page's text is Markdown cells, each of its fences that begin with ```python a code cell. Nothing is run and no output is stored.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "notebooks"
NOTEBOOKS = ROOT / "examples" / "notebooks"

_CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")


def notebook(page: Path) -> dict[str, Any]:
    """A page as a notebook (nbformat 4.5)."""
    cells = []
    for number, part in enumerate(_CODE.split(page.read_text(encoding="utf-8"))):
        text, code = part.strip(), number % 2 == 1
        if not text:
            continue
        cell: dict[str, Any] = {"cell_type": "code" if code else "markdown", "id": f"{page.stem}-{number}", "metadata": {}}
        if code:
            cell |= {"execution_count": None, "outputs": []}
        else:
            text = _LINK.sub(lambda link: f"]({_moved(link[1])})", text)
        cells.append({**cell, "source": text.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _moved(link: str) -> str:
    """A link between pages as one from a notebook: to its neighbour, or back into docs."""
    path, mark, place = link.partition("#")
    moved = path.removesuffix(".md") + ".ipynb" if "/" not in path else f"../../docs/{path.removeprefix('../')}"
    return moved + mark + place


def main() -> None:
    """Write them all."""
    NOTEBOOKS.mkdir(exist_ok=True)
    for page in sorted(PAGES.glob("*.md")):
        text = json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"
        (NOTEBOOKS / f"{page.stem}.ipynb").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
