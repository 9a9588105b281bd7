"""Results in a notebook and in other programs' hands."""

from __future__ import annotations

import base64
import itertools
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.errors import ArgumentError, MissingExtraError
from neuroscope.results import Result
from neuroscope.views import notebook, static, theme
from neuroscope.views import page as pages
from neuroscope.views.panels import Panel
from tests import browser as browsers
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples
from tests.backend.views.test_pages import TEXT, steering

MIB = 1 << 20


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsers.chromium() as found:
        yield found


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    return CircuitFinder(handmade(), target=0.95).find_circuit("induction", induction_examples(36))


@pytest.fixture(scope="module")
def lens() -> Result:
    return tiny.model("gpt2", scale=0.05).analyze("logit_lens", TEXT)


def test_ten_results_share_their_plotting_script(monkeypatch: pytest.MonkeyPatch, lens: Result) -> None:
    monkeypatch.setattr(notebook, "_shown", itertools.count())
    cells = [result._repr_html_() for result in [lens, steering()] * 5]
    assert sum(map(len, cells)) < 5 * MIB
    assert ["window.neuroscopePlotly = " in cell for cell in cells] == [True, False, False, False, False] * 2
    assert max(map(len, cells)) < 1.2 * MIB
    assert len(pages.page(lens)) < 1.2 * MIB


def test_a_cell_shows_its_figure_first_still_then_live(
    browser: Any, monkeypatch: pytest.MonkeyPatch, lens: Result, tmp_path: Path
) -> None:
    monkeypatch.setattr(notebook, "_shown", itertools.count())
    complaints: list[str] = []
    first, second = lens._repr_html_(), steering()._repr_html_()
    for name, script in (("live", True), ("still", False)):
        file = tmp_path / f"{name}.html"
        file.write_text(f"<!doctype html><meta charset='utf-8'><body>{second}<hr>{first}", encoding="utf-8")
        context = browser.new_context(offline=True, java_script_enabled=script, viewport={"width": 1000, "height": 900})
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(file.as_uri())
        if script:
            frame = page.frame_locator("iframe").first
            frame.locator(".main-svg").first.wait_for()
            box = frame.locator(".main-svg").first.bounding_box()
            assert page.locator("iframe").count() == 2
            inside = page.frames[1]
            inside.wait_for_function("document.querySelectorAll('.js-plotly-plot').length == 3")
            page.wait_for_function(
                "(f => Math.abs(f.offsetHeight - f.contentDocument.body.scrollHeight) < 24)(document.querySelector('iframe'))"
            )
        else:
            box = page.locator("img").first.bounding_box()
            assert page.locator("img").count() == 5
        assert box["y"] < 400
        assert box["height"] > 200
        assert complaints == []
        context.close()


def test_every_figure_has_a_still_picture_with_its_numbers(lens: Result, circuit: Circuit) -> None:
    found = tiny.model("gpt2", scale=0.05).analyze("residual_stream", TEXT)
    for result in (lens, circuit, steering(), found):
        for drawn in pages.drawings(result):
            if not isinstance(drawn, Panel):
                picture = static.svg(drawn)
                assert ElementTree.fromstring(picture).tag.endswith("svg")
                assert "nan" not in picture
                assert len(picture) < 200_000
    texts = [node.text or "" for node in ElementTree.fromstring(static.svg(lens.figure(1))).iter()]
    assert sum(f"{value:.3g}" == text.rpartition(": ")[2] for row in lens.probability for value in row for text in texts) >= 24


def test_marks_stand_where_their_values_are() -> None:
    import plotly.graph_objects as go

    figure = go.Figure(go.Bar(x=["a", "b", "c"], y=[1.0, 2.0, -4.0]))
    boxes = [node.attrib for node in ElementTree.fromstring(static.svg(figure)).iter() if node.tag.endswith("rect")][1:]
    heights = [float(box["height"]) for box in boxes]
    assert [height / heights[0] for height in heights] == pytest.approx([1, 2, 4], abs=0.02)
    assert float(boxes[2]["y"]) == pytest.approx(float(boxes[0]["y"]) + heights[0], abs=0.2)  # below the others' foot
    line = go.Figure(go.Scatter(x=[1, 10, 100], y=[0, 1, 0], mode="markers"), layout={"xaxis": {"type": "log"}})
    spots = [
        float(node.attrib["cx"]) for node in ElementTree.fromstring(static.svg(line)).iter() if node.tag.endswith("circle")
    ]
    assert spots[2] - spots[1] == pytest.approx(spots[1] - spots[0], abs=0.2)
    error = {"type": "data", "symmetric": False, "array": [1.0], "arrayminus": [0.5]}
    drawn = ElementTree.fromstring(static.svg(go.Figure(go.Bar(x=["a"], y=[2.0], error_y=error))))
    (bar,) = (node.attrib for node in drawn.iter() if len(list(node)) == 1)
    (whisker,) = (node.attrib for node in drawn.iter() if node.attrib.get("stroke") == theme.INK)
    unit = float(bar["height"]) / 2
    assert float(whisker["y1"]) - float(bar["y"]) == pytest.approx(0.5 * unit, abs=0.2)
    assert float(bar["y"]) - float(whisker["y2"]) == pytest.approx(1.0 * unit, abs=0.2)
    stacked = go.Figure([go.Bar(x=["a"], y=[3.0]), go.Bar(x=["a"], y=[1.0])], layout={"barmode": "stack"})
    low, high = (node.attrib for node in ElementTree.fromstring(static.svg(stacked)).iter() if len(list(node)) == 1)
    assert float(high["y"]) + float(high["height"]) == pytest.approx(float(low["y"]), abs=0.2)


def test_text_cannot_become_markup_in_a_picture() -> None:
    import plotly.graph_objects as go

    picture = static.svg(go.Figure(go.Bar(x=["<script>alert(1)</script>", 'a"b'], y=[1, 2], name="<b>")))
    assert "<script" not in picture
    ElementTree.fromstring(picture)


def test_figures_and_images(lens: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lens.figure().layout.title.text.startswith("What each layer")
    assert lens.figure(2).layout.title.text.startswith("Distance")
    for number in (0, 3):
        with pytest.raises(ArgumentError, match="2 figures"):
            lens.figure(number)
    path = Path(lens.save_image(str(tmp_path / "new" / "lens.svg"), 2))
    assert path.read_text(encoding="utf-8") == static.svg(lens.figure(2))
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(MissingExtraError, match="kaleido"):
        lens.save_image(str(tmp_path / "lens.png"))
    with pytest.raises(ArgumentError, match=r"lens\.jpg"):
        lens.save_image(str(tmp_path / "lens.jpg"))
    assert [file.name for file in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(("ending", "signature"), [("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-")])
def test_an_image_of_each_kind(lens: Result, ending: str, signature: bytes, tmp_path: Path) -> None:
    pytest.importorskip("kaleido", reason="kaleido is not installed: pip install 'neuroscope-interp[images]'")
    try:
        path = lens.save_image(str(tmp_path / f"lens.{ending}"))
    except MissingExtraError as error:
        pytest.skip(f"no Chrome starts here: {error.message}")
    image = Path(path).read_bytes()
    assert image.startswith(signature)
    assert len(image) > 10_000
    if ending == "png":
        size = (int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big"))
        assert size == (1800, 2 * lens.figure().layout.height)


def test_a_browser_that_dies_is_an_error_with_a_remedy(lens: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import plotly.graph_objects as go

    def dies(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("The browser seemed to close immediately after starting.", "more")

    monkeypatch.setitem(sys.modules, "kaleido", ModuleType("kaleido"))
    monkeypatch.setattr(go.Figure, "to_image", dies)
    with pytest.raises(MissingExtraError, match="close immediately") as caught:
        lens.save_image(str(tmp_path / "lens.png"))
    assert "svg" in str(caught.value.remedy)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_rows_in_the_real_packages(circuit: Circuit, lens: Result, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = pytest.importorskip(package, reason=f"{package} is not installed")
    if package == "polars":
        monkeypatch.setitem(sys.modules, "pandas", None)
    for result, field in ((circuit, "controls"), (circuit, "curve"), (circuit, None), (lens, None), (Mixed(), None)):
        found = result.to_frame(field)
        assert isinstance(found, frames.DataFrame)
        data = result.as_dictionary()
        if field is not None:
            assert len(found) == len(data[field])
            assert found["faithfulness.value"].to_list() == [row["faithfulness"]["value"] for row in data[field]]
    mixed = Mixed().to_frame()
    assert [float(value) for value in mixed["value"]] == [1, 2.5, 3]
    assert [str(value) for value in mixed["of"]][1:] == ["x", "4"]


class Mixed(Result):
    """Rows as results have them: whole and other numbers, nothing, and lists in one column."""

    def as_dictionary(self) -> dict[str, Any]:
        rows = [
            {"value": 1, "of": None, "parts": [1]},
            {"value": 2.5, "of": "x", "parts": []},
            {"value": 3, "of": 4, "parts": None},
        ]
        return {"rows": rows}

    def print_string(self) -> str:
        return "mixed rows"


def test_rows_become_a_data_frame(circuit: Circuit, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType("pandas")
    made.DataFrame = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", made)
    found = circuit.to_frame("controls")
    data = circuit.as_dictionary()["controls"]
    assert found["faithfulness.value"] == [control["faithfulness"]["value"] for control in data]
    assert found["kind"] == [control["kind"] for control in data]
    with pytest.raises(ArgumentError, match="'nothing'") as caught:
        circuit.to_frame("nothing")
    assert "controls" in str(caught.value.remedy)
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingExtraError, match="pandas"):
        circuit.to_frame("controls")


def test_a_circuit_becomes_a_graph(circuit: Circuit, monkeypatch: pytest.MonkeyPatch) -> None:
    networkx = pytest.importorskip("networkx")
    graph = circuit.to_networkx()
    assert graph.number_of_edges() == circuit.edge_count
    edges = {(source, key): data["score"] for source, _, key, data in graph.edges(keys=True, data=True)}
    assert edges == {(source, receiver): score for source, receiver, score in circuit.edges}
    assert networkx.has_path(graph, "embedding", "logits")
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(MissingExtraError, match="networkx"):
        circuit.to_networkx()


def test_a_page_says_at_its_foot_what_ran(lens: Result) -> None:
    foot = re.search(r"<footer>(.*?)</footer>", pages.page(lens))
    assert foot is not None
    given = lens.provenance
    for part in (given.model, given.weights_hash[:12], "torch", "float32", "cpu", "seed 0", f"numpy {given.versions['numpy']}"):
        assert part in foot[1]
    assert foot[1] in lens._repr_html_()


def test_the_packed_script_is_plotlys() -> None:
    import gzip

    packed = re.search(r'"([A-Za-z0-9+/=]+)"', pages.plotting_script())
    assert packed is not None
    assert b"plotly.js (cartesian - minified) v4" in gzip.decompress(base64.b64decode(packed[1]))[:200]


def test_a_table_is_one_on_its_page() -> None:
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Table(header={"values": ["a", "<b>"]}, cells={"values": [[1, 2], ["x", "<i>"]]}), layout={"title": "T"}
    )
    found = pages.plotted(figure, 0, static=True)
    assert "<td>1</td><td>x</td></tr><tr><td>2</td><td>&lt;i&gt;</td>" in found
    assert ElementTree.fromstring(static.svg(figure)) is not None
