"""The site grammar: what it reads, prints and refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.sites import GLOBAL, PER_HEAD, PER_KEY_VALUE_HEAD, Component, Site
from neuroscope.errors import SiteError

ANATOMY = Anatomy("gpt2", 12, 8, 2, 64, 8, 256, 100, 128)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    component = draw(st.sampled_from(list(Component)))
    layer = None if component in GLOBAL else draw(st.integers(-50, 50))
    index = draw(st.none() | st.integers(0, 10**6))
    headed = component in PER_HEAD or component in PER_KEY_VALUE_HEAD
    position = draw(st.none() | st.integers(-100, 100))
    return Site(layer, component, index if headed else None, None if headed else index, position)


@given(sites())
def test_printing_a_site_and_reading_it_again_is_the_identity(site: Site) -> None:
    assert Site.parse(str(site)) == site


@given(st.text())
def test_any_text_is_a_site_or_a_site_error(text: str) -> None:
    try:
        Site.parse(text)
    except SiteError as error:
        assert error.remedy


@pytest.mark.parametrize("name", ["headOutput", "head_output", "HEADOUTPUT"])
def test_components_match_without_case_and_underscores(name: str) -> None:
    assert Component.parse(name) is Component.HEAD_OUTPUT


def test_an_unknown_component_names_the_nearest() -> None:
    with pytest.raises(SiteError, match="residul") as caught:
        Component.parse("residul")
    assert "'residual'" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("12.residual", "Layers run from 0 to 11"),
        ("-13.residual", "Layers run from 0 to 11"),
        ("3.headOutput[8]", "from 0 to 7"),
        ("3.key[2]", "from 0 to 1"),
        ("3.mlp[256]", "from 0 to 255"),
        ("3.router", "Use mlp or mlpOutput"),
        ("3.embedding", "Write embedding"),
        ("residual", "Layers run from 0 to 11"),
    ],
)
def test_what_the_model_does_not_have_is_refused_with_what_would_be_right(text: str, says: str) -> None:
    with pytest.raises(SiteError) as caught:
        Site.parse(text).checked(ANATOMY)
    assert says in str(caught.value)


def test_negative_layers_count_from_the_end() -> None:
    assert Site.parse("-1.mlp").checked(ANATOMY) == Site(11, Component.MLP)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("5.resid_pre", "5.residualPre"),
        ("5.resid_mid", "5.mlpRead"),
        ("5.resid_post", "5.residual"),
        ("5.attn_out", "5.attention"),
        ("5.mlp_out@-1", "5.mlpOutput@-1"),
        ("5.mlp_post[7]", "5.mlp[7]"),
        ("5.z[3]", "5.headOutput[3]"),
        ("5.q[1]", "5.query[1]"),
        ("5.pattern", "5.attentionPattern"),
        ("5.attn_scores", "5.attentionScores"),
        ("blocks.5.hook_resid_pre", "5.residualPre"),
        ("blocks.5.attn.hook_z[3]@2", "5.headOutput[3]@2"),
        ("blocks.5.mlp.hook_post", "5.mlp"),
        ("blocks.-1.attn.hook_v", "-1.value"),
    ],
)
def test_names_of_transformer_lens_are_understood(theirs: str, ours: str) -> None:
    assert str(Site.parse(theirs)) == ours


def test_what_heads_write_says_how_to_have_it() -> None:
    with pytest.raises(SiteError, match="is not a component") as caught:
        Site.parse("5.result")
    assert "attn.W_O" in str(caught.value.remedy)
