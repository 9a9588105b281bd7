"""Circuits as drawings: what is drawn is what the circuit has."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.errors import CircuitError
from neuroscope.views.layered import circuit_graph, layout, svg
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples
from tests.backend.circuits.pairs import pairs_with_an_effect

_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def induction() -> Circuit:
    return CircuitFinder(handmade(), target=0.95).find_circuit("induction", induction_examples(36))


@pytest.fixture(scope="module")
def large() -> Circuit:
    return CircuitFinder(tiny.model("llama", scale=0.1), target=0.8).search(
        "induction", pairs_with_an_effect(tiny.model("llama", scale=0.1))
    )


def test_the_drawing_of_the_handmade_circuit_is_complete(induction: Circuit, tmp_path: Path) -> None:
    path = induction.draw(str(tmp_path / "induction"))
    root = ElementTree.parse(path).getroot()
    texts = {element.text for element in root.iter(f"{_SVG}text")}
    assert {"embedding", "0.0", "1.0", "logits"} <= texts
    titles = [element.text or "" for element in root.iter(f"{_SVG}title")]
    assert any("0.headOutput[0] → 1.key[0]" in title for title in titles)
    assert sum(element.get("class") == "edge" for element in root.iter(f"{_SVG}path")) == 3
    assert any("previous-token" in title for title in titles)


def test_layers_rise_and_every_edge_climbs(large: Circuit) -> None:
    drawn = layout(large)
    assert drawn.edges
    assert all(edge.end.y < edge.start.y for edge in drawn.edges)
    assert max(edge.weight for edge in drawn.edges) == 1


def test_of_a_large_circuit_the_strongest_edges_are_drawn_and_it_is_said(large: Circuit) -> None:
    drawn = layout(large, most=5)
    assert f"the 5 strongest of {large.edge_count} edges" in drawn.caption
    strongest = {(source, receiver) for source, receiver, _ in large.edges[:5]}
    assert {tuple(edge.title.split(": ")[0].split(" → ")) for edge in drawn.edges} == strongest
    assert f"all {large.edge_count} edges" in layout(large, most=10**6).caption
    ElementTree.fromstring(svg(large))
    assert len(circuit_graph(large, most=5).data) == len(drawn.edges) + 1


def test_a_place_that_cannot_be_written_is_an_error(induction: Circuit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CircuitError, match="cannot be written"):
        induction.draw(str(tmp_path / "file" / "drawing"))
