"""The notebooks: each is what its page makes, is stored without outputs, and runs, cell by cell, in this process.

What a cell ends with is shown as a notebook shows it. The numbers of TransformerLens' demos were measured with TransformerLens 4.3
(`benchmarks/peers/demos.py` writes them).
"""

from __future__ import annotations

import ast
import base64
import functools
import importlib
import importlib.util
import itertools
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroscope import CircuitLibrary
from neuroscope.circuits.maps import PatchingMap
from neuroscope.results import Result
from neuroscope.views import notebook
from tests import browser as browsers

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
MEASURED = json.loads((Path(__file__).parent / "demos.json").read_text(encoding="utf-8"))

#: Lines of code of TransformerLens' notebooks at 4cd36aa (July 2026), without blank lines and comments.
THEIRS = {"main_demo": 472, "exploratory_analysis": 692}


def cells(name: str) -> list[str]:
    """The code of a notebook's cells."""
    found = json.loads((ROOT / "examples" / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


@functools.cache
def ran(name: str) -> tuple[dict[str, Any], list[Any], list[str]]:
    """A notebook's names after its last cell, what its cells ended with, and the HTML of those that have some."""
    names: dict[str, Any] = {"__name__": "__main__"}
    ends, shown = [], []
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for number, source in enumerate(cells(name)):
                tree = ast.parse(source)
                last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
                exec(compile(tree, f"{name} cell {number}", "exec"), names)
                if isinstance(last, ast.Expr):
                    ends.append(eval(compile(ast.Expression(last.value), f"{name} cell {number}", "eval"), names))
                    if hasattr(ends[-1], "_repr_html_"):
                        shown.append(ends[-1]._repr_html_())
        finally:
            os.chdir(before)
    return names, ends, shown


def test_there_are_ten() -> None:
    assert len(NOTEBOOKS) >= 10


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_what_its_page_makes_and_runs(path: Path) -> None:
    specification = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "notebooks.py")
    assert specification is not None
    assert specification.loader is not None
    maker = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(maker)
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored == maker.notebook(maker.PAGES / f"{path.stem}.md"), "run: make notebooks"
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in stored["cells"] if "outputs" in cell)
    for cell in stored["cells"]:
        for link in re.findall(r"\]\((?!\w+:)([^)#\s]+)", "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""):
            assert (path.parent / link).exists(), link
    _, ends, shown = ran(path.stem)
    assert ends
    assert all(html.strip() for html in shown)
    assert sum(map(len, shown)) < 5 << 20


@pytest.mark.study
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_in_a_kernel_of_its_own(path: Path, tmp_path: Path) -> None:
    client = pytest.importorskip("nbclient", reason="nbclient is not installed")
    read = importlib.import_module("nbformat").read(path, as_version=4)
    client.NotebookClient(read, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in read.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert [output for output in outputs if output.output_type == "error"] == []


@pytest.mark.parametrize("index", ["docs/README.md", "docs/llms.txt", "mkdocs.yml"])
def test_they_are_in_every_index(index: str) -> None:
    text = (ROOT / index).read_text(encoding="utf-8")
    assert [path.stem for path in NOTEBOOKS if f"notebooks/{path.stem}.md" not in text] == []


@pytest.mark.parametrize("name", THEIRS)
def test_a_demo_takes_no_more_lines_than_in_transformer_lens(name: str) -> None:
    lines = [
        line for source in cells(name) for line in source.splitlines() if line.strip() and not line.strip().startswith("#")
    ]
    assert len(lines) < THEIRS[name] / 3


def test_the_main_demo_gives_transformer_lens_numbers() -> None:
    names, _, _ = ran("main_demo")
    wanted = MEASURED["main_demo"]
    assert names["model"].loss_per_token(names["text"]).numpy()[0] == pytest.approx(wanted["loss_per_token"], abs=2e-4)
    assert names["found"].clean_metric.value == pytest.approx(wanted["clean"], abs=2e-4)
    assert names["found"].numpy() == pytest.approx(np.array(wanted["residual"]), abs=2e-4)
    assert names["scores"] == pytest.approx(np.array(wanted["induction"]), abs=2e-4)
    assert names["copying"] == pytest.approx(np.array(wanted["copying"]), abs=2e-4)
    assert names["full_copying"] == pytest.approx(np.array(wanted["full_copying"]), abs=2e-4)
    assert names["ablated"] == pytest.approx(wanted["ablated"], abs=2e-4)


def test_the_exploratory_demo_gives_transformer_lens_numbers() -> None:
    names, ends, _ = ran("exploratory_analysis")
    wanted = MEASURED["exploratory_analysis"]
    assert names["difference"] == pytest.approx(wanted["difference"], abs=2e-4)
    assert names["heads"] == pytest.approx(np.array(wanted["heads"]), abs=2e-4)
    assert names["parts"] == pytest.approx(wanted["parts"], abs=2e-4)
    assert names["lens"] == pytest.approx(wanted["lens"], abs=2e-4)
    maps = [end for end in ends if type(end).__name__ == "PatchingMap"]
    assert maps[0].numpy() == pytest.approx(np.array(wanted["residual"]), abs=2e-4)
    assert np.array(maps[1].values) == pytest.approx(np.array(wanted["sublayers"]).ravel(), abs=2e-4)
    for found, kind in zip((names["outputs"], names["values"], names["places"]), ("z", "v", "pattern"), strict=True):
        assert found == pytest.approx(np.array(wanted[kind]), abs=2e-4)
    assert names["ablated"] == pytest.approx(wanted["ablated"], abs=2e-4)
    assert names["after"] == pytest.approx(np.array(wanted["after"]), abs=2e-4)


def test_they_find_what_they_say() -> None:
    circuit = ran("ioi")[0]["circuit"]
    assert circuit.trustworthy
    assert circuit.held_out_faithfulness.low > max(control.faithfulness.high for control in circuit.controls)
    assert ran("steering")[0]["results"].exists
    editing = ran("editing")[0]
    assert editing["model"].weights_hash == editing["before"]
    assert editing["change"].efficacy.generation.value == 1.0


def test_a_result_shows_its_figure_in_the_first_400_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "_shown", itertools.count())
    results = [end for end in ran("ioi")[1] if isinstance(end, Result)]
    assert len(results) >= 5
    outputs = [*(result._repr_html_() for result in results), f"<pre>{results[0].summary()}</pre>"]
    file = tmp_path / "notebook.html"
    cells = "".join(f"<section style='min-height:400px'>{output}</section>" for output in outputs)
    file.write_text(f"<!doctype html><meta charset='utf-8'><body style='margin:0'>{cells}", encoding="utf-8")
    with browsers.chromium() as browser, browsers.opened(browser, file) as (page, complaints):
        for number in range(len(results)):
            page.frame_locator("iframe").nth(number).locator(".main-svg, .panel").first.wait_for()
        tops = page.evaluate("[...document.querySelectorAll('section')].map(one => one.getBoundingClientRect().y)")
        coloured = [_coloured(page, top) for top in tops]
        assert complaints == []
    assert coloured.pop() < 50  # the summary alone
    assert min(coloured) > 1000, coloured


def _coloured(page: Any, top: float) -> int:
    """How many pixels of 400 rows from `top` on are coloured: neither white nor grey nor black."""
    clip = {"x": 0, "y": top, "width": 1280, "height": 400}
    picture = base64.b64encode(page.screenshot(full_page=True, clip=clip)).decode()
    return int(
        page.evaluate(
            """async (picture) => {
                const image = new Image(); image.src = "data:image/png;base64," + picture; await image.decode();
                const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d"); canvas.drawImage(image, 0, 0);
                const data = canvas.getImageData(0, 0, image.width, image.height).data; let found = 0;
                for (let at = 0; at < data.length; at += 4) {
                    const [low, , high] = data.slice(at, at + 3).sort(); found += high - low > 40;
                }
                return found }""",
            picture,
        )
    )


def test_the_pictures_of_the_readme_are_what_is_measured(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    assert len(pictures) == 4
    assert all(f"(docs/pictures/{picture.name})" in readme and picture.stat().st_size < 150_000 for picture in pictures)
    drawn = CircuitLibrary.load("entity_recognition").draw(str(tmp_path / "circuit.svg"))
    assert Path(drawn).read_bytes() == (ROOT / "docs" / "pictures" / "circuit.svg").read_bytes()
    found = next(end for end in ran("ioi")[1] if isinstance(end, PatchingMap))
    marks = re.findall(
        r"<title>[^<]*: (\S+)</title>", (ROOT / "docs" / "pictures" / "patching.svg").read_text(encoding="utf-8")
    )
    assert found.numpy().ravel() == pytest.approx(list(map(float, marks)), abs=6e-3)
