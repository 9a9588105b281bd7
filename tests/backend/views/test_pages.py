"""Every page opens in a browser with the network off: its parts are there, and nothing complains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuroscope import events
from neuroscope.circuits.comparison import GrowthAnalysis, ModelGrowth
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.errors import ArgumentError
from neuroscope.features.ablation import NeuronAblator
from neuroscope.features.entanglement import EntangledFeatures, FeatureEntanglementAnalyzer
from neuroscope.features.neurons import NeuronAnalyzer
from neuroscope.lenses.attention import attention_patterns
from neuroscope.results import Provenance, Result
from neuroscope.steering.results import MODES, PositionDensity, SteeringResults
from neuroscope.tasks.evaluate import Evaluation
from neuroscope.tasks.statistics import Estimate
from neuroscope.views import page as pages
from neuroscope.views.entanglement import EntanglementVisualizer
from neuroscope.views.panels import Panel, markup
from tests import browser as browsers
from tests import tiny
from tests.backend.circuits.examples import handmade, induction_examples
from tests.backend.features.planted import planted_model, texts
from tests.backend.features.test_ablation import dataset
from tests.backend.features.test_entanglement import planted_domains

TEXT = "w5 w6 w7 w8 w5 w6"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsers.chromium() as found:
        yield found


@pytest.fixture(scope="module")
def entangled() -> EntangledFeatures:
    return FeatureEntanglementAnalyzer(planted_model()).find_entanglement(*planted_domains())


@pytest.fixture(scope="module")
def results(entangled: EntangledFeatures) -> dict[str, Result]:
    tiny_model, known = tiny.model("gpt2", scale=0.05), handmade()
    neurons = NeuronAnalyzer(planted_model()).find_neurons_for(*texts(60))
    circuit = CircuitFinder(known, target=0.95).find_circuit("induction", induction_examples(36))
    return {
        "entangled": entangled,
        "circuit": circuit,
        "patching": ActivationPatcher(known, controls=2).test_causal_relationship(circuit),
        "answers": known.analyze("mathematical_reasoning", induction_examples(16)),
        "attribution": known.analyze("logit_attribution", induction_examples(16)),
        "lens": tiny_model.analyze("logit_lens", TEXT),
        "stream": tiny_model.analyze("residual_stream", TEXT),
        "neurons": neurons,
        "ablation": NeuronAblator(neurons.model, n=20).test_ablation(neurons, dataset(0), off_target=dataset(1)),
        "steering": steering(),
        "writing": tiny_model.analyze("creative_writing", TEXT),
    }


def steering() -> SteeringResults:
    """Figures as a steering experiment gives them, set by hand and all different."""

    def by_mode(base: float) -> dict[str, dict[str, Estimate]]:
        return {
            mode: {f"{strength:g}": estimate(base + 10 * number + strength) for strength in (-2.0, 0.0, 2.0)}
            for number, mode in enumerate(MODES)
        }

    def estimate(value: float) -> Estimate:
        return Estimate(value, value - 0.1, value + 0.3, 8)

    return SteeringResults(
        vector="formal_style",
        layer=5,
        component="residual",
        method="mean_difference",
        exists=True,
        reason=None,
        probe_auroc=0.9,
        probe_chance=estimate(0.5),
        probe_p_value=0.025,
        strengths=[-2.0, 0.0, 2.0],
        effect=by_mode(100),
        fluency=by_mode(200),
        preference=by_mode(300),
        growth={mode: estimate(0.1 * number) for number, mode in enumerate(MODES)},
        effect_growth={mode: estimate(0.2 * number) for number, mode in enumerate(MODES)},
        dose_response=dict.fromkeys(MODES, estimate(0.9)),
        effect_response=dict.fromkeys(MODES, estimate(0.9)),
        growth_p_value=0.01,
        random_growth=[0.01, -0.02],
        random_effect_growth=[0.03, -0.04],
        random_p_value=0.048,
        random_effect_p_value=0.095,
        density=[PositionDensity(at, estimate(0.5 + at)) for at in range(1, 4)],
        written={mode: {"-2": "a text"} for mode in MODES},
        provenance=Provenance("tiny", "hash", "torch", None, 0),
    )


#: How many plotly figures each page has.
FIGURES = {
    "entangled": 2,
    "circuit": 2,
    "patching": 3,
    "answers": 6,
    "attribution": 3,
    "lens": 2,
    "stream": 5,
    "writing": 5,
    "neurons": 2,
    "ablation": 1,
    "steering": 3,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_page_shows_its_figures_without_a_complaint(
    browser: Any, results: dict[str, Result], name: str, tmp_path: Path
) -> None:
    path = Path(results[name].save_page(str(tmp_path / f"{name}.html")))
    with browsers.opened(browser, path, "dark" if name in ("lens", "entangled") else "light") as (page, complaints):
        page.wait_for_function(f"document.querySelectorAll('.js-plotly-plot').length == {FIGURES[name]}")
        assert page.locator("h1").inner_text() == results[name].print_string()
        assert page.locator(".plotly-graph-div .main-svg").count() >= FIGURES[name]
        assert page.locator("figure").count() == FIGURES[name]
        inks = page.locator(".heatmap-label text").evaluate_all("all => all.map(text => getComputedStyle(text).fill)")
        assert set(inks) <= {page.locator("body").evaluate("body => getComputedStyle(body).color")}
        assert complaints == []


@pytest.mark.parametrize("name", FIGURES)
def test_every_page_says_at_its_foot_what_ran(results: dict[str, Result], name: str) -> None:
    (foot,) = pages.footnotes(results[name])
    given = results[name].as_dictionary().get("provenance") or results[name].as_dictionary()["circuit"]["provenance"]
    assert foot.startswith(f"{given['model']} · weights {given['weightsHash'][:12]} · torch")
    assert f"seed {given['seed']}" in foot


def test_a_result_of_two_models_names_both() -> None:
    one = Provenance(
        "bundled:gpt-oss-20b", "aaaaaaaaaaaaaaaa", "torch", None, 0, asked_for="gpt-oss-20b", dtype="bfloat16", device="cuda:0"
    )
    sides = [ModelGrowth.__new__(ModelGrowth) for _ in range(2)]
    for side, given in zip(sides, (one, replace(one, model="other", asked_for=None, found_dtype="float32")), strict=True):
        object.__setattr__(side, "provenance", given)
    growth = GrowthAnalysis("ioi", *sides, growth={})
    assert pages.footnotes(growth) == [
        "bundled:gpt-oss-20b (for gpt-oss-20b) · weights aaaaaaaaaaaa · torch · bfloat16 · cuda:0 · seed 0",
        "other · weights aaaaaaaaaaaa · torch · bfloat16 · cuda:0 · found in float32 · seed 0",
    ]


def test_a_head_is_picked_and_a_token_pointed_at(browser: Any, tmp_path: Path) -> None:
    model = handmade()
    found = attention_patterns(model, "w5 w6 w7 w8 w5")
    path = Path(found.save_page(str(tmp_path / "attention.html")))
    with browsers.opened(browser, path) as (page, complaints):
        assert page.locator(".attention .heads button").count() == 4
        assert page.locator(".attention .tokens span").count() == 5
        assert page.locator(".attention svg rect:not(.frame):not(.band)").count() == 15
        assert page.locator(".attention .chosen").inner_text().startswith("Layer 0, head 0")
        page.locator(".attention .tokens span").nth(2).hover()
        # The previous-token head: the third token looks at the second.
        weights = page.locator(".attention .tokens span").evaluate_all(
            "all => all.map(one => +one.style.getPropertyValue('--weight'))"
        )
        assert weights == pytest.approx([*found.patterns[0, 0, 2, :3], 0, 0], abs=1 / 255)
        assert max(range(5), key=lambda at: weights[at]) == 1
        page.locator(".attention .heads button").nth(2).click()
        assert page.locator(".attention .chosen").inner_text().startswith("Layer 1, head 0")
        page.locator(".attention select").select_option("induction")
        assert "induction" in page.locator(".attention .chosen").inner_text()
        assert complaints == []


def test_entangled_units_stand_as_cards_and_are_filtered(browser: Any, entangled: EntangledFeatures, tmp_path: Path) -> None:
    path = Path(EntanglementVisualizer(entangled).save_page(str(tmp_path / "units.html")))
    with browsers.opened(browser, path, "dark") as (page, complaints):
        cards = page.locator(".units article")
        assert cards.count() == min(12, len(entangled))
        assert entangled.units[0].site in cards.first.inner_text()
        assert cards.first.locator(".contexts .peak").count() == len(entangled.units[0].top_contexts)
        page.get_by_role("button", name="a + b").click()
        assert cards.count() == min(12, len(entangled))
        assert complaints == []


def test_without_a_browser_the_path_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    told: list[str] = []
    with events.listen(lambda event: told.append(getattr(event, "message", ""))):
        path = tiny.model("gpt2").analyze("attention_patterns", TEXT).open_browser()
    assert Path(path).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert any(path in message for message in told)


def test_a_result_without_a_figure_shows_its_summary() -> None:
    plain = Evaluation("a <model>", "hash", 0, [])
    assert plain._repr_html_().startswith("<pre>")
    assert "<model>" not in plain._repr_html_()
    with pytest.raises(ArgumentError, match="no figure"):
        pages.save_page(plain, "nowhere.html")


def test_what_a_model_writes_cannot_become_markup() -> None:
    drawn = markup(Panel("attention", "<b>", {"tokens": ["</script><script>alert(1)</script>"]}))
    assert drawn.count("</script>") == 1
    assert "<b>" not in drawn
