"""Caches by pattern and by TransformerLens' names, sums of the stream, gradients, losses, edits in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import neuroscope
from neuroscope.engines.sites import Site
from neuroscope.errors import ArgumentError, SiteError
from neuroscope.models import aliases
from neuroscope.models.model import TransformerModel
from neuroscope.tensors.cache import ActivationCache
from tests import tiny

LONG, SHORT = "w5 w17 w40 w8 w22 w61", "w9 w40 w3"


@pytest.fixture(scope="module")
def model(framework: str) -> TransformerModel:
    return tiny.model("gpt2", on=framework)


@pytest.fixture(scope="module")
def cache(model: TransformerModel) -> ActivationCache:
    return model.run_with_caching(
        [LONG, SHORT],
        ["embedding", "residual", "attention", "mlpOutput", "attentionPattern", "headOutput", "logits", "0.residualPre"],
    )


def test_patterns_name_what_is_captured(model: TransformerModel) -> None:
    assert model.run_with_caching(LONG, "*.attentionPattern").sites == [f"{layer}.attentionPattern" for layer in range(3)]
    assert model.run_with_caching(LONG, "blocks.*.attn.hook_z").sites == [f"{layer}.headOutput" for layer in range(3)]
    assert len(model.run_with_caching(LONG, "1.headOutput[*]")) == 4
    assert len(model.run_with_caching(LONG, "1.residual@*")) == 6
    usual = model.run_with_caching(LONG).sites
    assert {"embedding", "0.residual", "2.attention", "1.mlpOutput"} < set(usual)
    assert len(usual) == 10
    assert set(model.run_with_caching(LONG, ["logits", "embedding"]).sites) == {"logits", "embedding"}
    for wrong, says in (
        ("1.residul", "residual"),
        ("7.residual", "no layer 7"),
        ([], "No site"),
        ([b"x"], "is a list of texts"),
        ("*.logits", "no layer"),
    ):
        with pytest.raises((SiteError, ArgumentError), match=says):
            model.run_with_caching(LONG, wrong)  # type: ignore[arg-type]
    with pytest.raises(SiteError, match="same number of tokens"):
        model.run_with_caching([LONG, SHORT], "1.residual@*")


def test_a_key_may_be_transformer_lens(cache: ActivationCache) -> None:
    pattern = cache["1.attentionPattern"]
    for key in (
        ("pattern", 1),
        ("pattern", -2),
        "blocks.1.attn.hook_pattern",
        ("attentionPattern", 1, "attn"),
        Site.parse("1.pattern"),
    ):
        assert cache[key].same(pattern), key
        assert key in cache
    assert ("mlp", 1) not in cache
    for wrong in (("pattern",), (1, "pattern"), ("pattern", "1"), 5, None, b"1.residual"):
        with pytest.raises(SiteError, match="is no site"):
            cache[wrong]  # type: ignore[index]
    with pytest.raises(SiteError, match=r"1\.mlp was not captured"):
        cache["1.mlp"]


@pytest.mark.parametrize(
    "site",
    ["1.residual@-1", "1.residual[7]", "1.headOutput[3]", "1.headOutput[3]@-1", "2.attentionPattern[1]@2", "1.residual[5]@1"],
)
def test_a_part_of_what_was_captured_is_that_part(model: TransformerModel, cache: ActivationCache, site: str) -> None:
    alone = model.run_with_caching([LONG, SHORT], site)[site]
    assert np.allclose(cache[site].numpy(), alone.numpy(), atol=1e-5)
    assert cache[site].mean() == pytest.approx(alone.mean(), abs=1e-5)


def test_parts_out_of_range_are_refused(cache: ActivationCache) -> None:
    for site, says in (("1.residual@5", "no token 5"), ("1.headOutput[4]", "no head 4"), ("1.residual[32]", "no unit 32")):
        with pytest.raises(SiteError, match=says):
            cache[site]


def test_the_stream_is_the_sum_of_its_parts(cache: ActivationCache) -> None:
    parts, streams = cache.decomposed_residual(), cache.accumulated_residual()
    assert parts.shape == (7, 2, 6, 32)
    assert streams.shape == (4, 2, 6, 32)
    assert cache.residual_labels[:3] == ["embedding", "0.attention", "0.mlpOutput"]
    for layer in range(4):
        assert np.allclose(
            parts.numpy()[: 2 * layer + 1].sum(0)[cache_mask(cache)], streams.numpy()[layer][cache_mask(cache)], atol=1e-4
        )
    assert cache.stack("residual").same(streams[1:])
    assert cache.layers("pattern") == [0, 1, 2]
    assert cache.mask == [[True] * 6, [True] * 3 + [False] * 3]
    assert streams.mean() == pytest.approx(streams.numpy()[:, cache_mask(cache)].mean(), abs=1e-6)


def cache_mask(cache: ActivationCache) -> Any:
    return np.array(cache.mask)


def test_the_last_normalised_stream_gives_the_logits(framework: str) -> None:
    model = tiny.model("llama", on=framework)
    cache = model.run_with_caching(LONG, ["embedding", "residual", "logits"])
    last = cache.accumulated_residual(normalised=True).numpy()[-1]
    unembedding = np.asarray(model.weights("unembed.W_U").read())
    found = last @ (unembedding if unembedding.shape[0] == 32 else unembedding.T)
    assert np.allclose(found, cache["logits"].numpy(), atol=1e-3)


def test_what_is_missing_is_named(model: TransformerModel) -> None:
    some = model.run_with_caching(LONG, ["1.residual", "2.residual"])
    with pytest.raises(SiteError, match="embedding was not captured"):
        some.accumulated_residual()
    with pytest.raises(SiteError, match=r"0\.residual was not captured.*\n.*\*\.residual"):
        model.run_with_caching(LONG, ["embedding", "1.residual"]).accumulated_residual()
    with pytest.raises(SiteError, match="No layer's mlp was captured"):
        some.stack("mlp")
    with pytest.raises(ArgumentError, match="has no gradients"):
        some.gradients  # noqa: B018


def test_gradients_are_those_of_small_steps(model: TransformerModel) -> None:
    def metric(logits: Any) -> Any:
        return logits[0, -1, 5] - logits[0, 1, 7] * 2

    cache = model.run_with_gradients([LONG, SHORT], metric, ["1.residual", "1.headOutput"])
    gradients = cache.gradients["1.residual"]
    assert gradients.shape == cache["1.residual"].shape == (2, 6, 32)
    for row, text in enumerate((LONG, SHORT)):
        for place in ((1, 3), (2, 20)):
            at = (0, *place)

            def moved(step: float, at: Any = at, text: str = text) -> float:
                def act(activations: Any, at: Any = at) -> None:
                    activations[at] = activations[at] + step

                return float(metric(model.run_with_hooks(text, [("1.residual", act)])))

            slope = (moved(0.01) - moved(-0.01)) / 0.02
            assert gradients[row, place[0], place[1]] == pytest.approx(slope, rel=2e-2, abs=2e-3)
    with pytest.raises(ArgumentError, match="has no gradient"):
        model.run_with_gradients(LONG, lambda logits: float(logits[0, 0, 0].item()), "1.residual")
    with pytest.raises(ArgumentError, match="not a function"):
        model.run_with_gradients(LONG, "loss", "1.residual")  # type: ignore[arg-type]


def test_losses_are_those_of_the_log_probabilities(model: TransformerModel) -> None:
    found = model.loss_per_token([LONG, SHORT])
    logs = model.logits(LONG).log_softmax().numpy()[0]
    ids = model.to_tokens(LONG)[0]
    assert np.allclose(found.numpy()[0], [-logs[at, ids[at + 1]] for at in range(5)], atol=1e-5)
    alone = [model.loss_per_token(text).numpy().ravel() for text in (LONG, SHORT)]
    assert model.loss([LONG, SHORT]) == pytest.approx(np.concatenate(alone).mean(), abs=1e-5)
    with pytest.raises(ArgumentError, match="one token"):
        model.loss("w5")


def test_edits_in_place_reach_the_run_and_the_cache(model: TransformerModel) -> None:
    plain = model.logits(LONG)

    def zero(activations: Any, hook: Any) -> None:
        assert str(hook) == "1.headOutput[2]"
        activations[:] = 0

    edited = model.run_with_hooks(LONG, [("1.headOutput[2]", zero)])
    doubled = model.run_with_hooks(LONG, [("blocks.*.hook_mlp_out", lambda a: a * 2)])
    assert not edited.same(plain)
    assert not doubled.same(edited)
    assert model.logits(LONG).same(plain), "a hook of one run is gone after it"
    cache = model.run_with_caching(LONG)
    cache["1.residual"][:, -1] = 0
    assert cache["1.residual"][0, -1].norm() == 0
    assert cache["1.residual"][0, 0].norm() > 0
    for wrong in ([("1.residual", 3)], [("1.residual",)], ["1.residual"]):
        with pytest.raises(ArgumentError, match="is no hook"):
            model.run_with_hooks(LONG, wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="edits whole components"):
        model.run_with_hooks(LONG, [("1.mlp[3]", zero)])


def test_other_libraries_names_are_understood(model: TransformerModel) -> None:
    logits, cache = model.run_with_cache(LONG, lambda name: name.endswith("Pattern"))
    assert np.allclose(logits, model.logits(LONG), atol=1e-5)
    assert cache.sites == [f"{layer}.attentionPattern" for layer in range(3)]
    assert model.run_with_cache([LONG, SHORT], "residual")[1].mask[1] == [True] * 3 + [False] * 3
    assert model.to_tokens([LONG, SHORT]).shape == (2, 6)
    assert model.to_string(model.to_tokens(SHORT)[0]).split() == SHORT.split()
    assert model.to_str_tokens(SHORT) == model.tokens(SHORT)
    assert model.to_single_token("w9") == 9
    with pytest.raises(ArgumentError, match="no argument 'return_type'"):
        model.run_with_cache(LONG, return_type="loss")
    with pytest.raises(ArgumentError, match="called dtype here"):
        TransformerModel.from_pretrained("gpt2", torch_dtype="float16")


def test_names_without_a_counterpart_are_answered(model: TransformerModel, cache: ActivationCache) -> None:
    asked: list[tuple[Any, str, str]] = [
        (model, "cfg", "model.architecture"),
        (model, "W_Q", "attn.W_Q"),
        (model, "reset_hooks", "clear_all_hooks"),
        (model, "forward", "model.logits"),
        (cache, "stack_activation", "cache.stack"),
        (neuroscope, "HookedTransformer", "TransformerModel.from_pretrained"),
        (neuroscope, "TransformerModle", "Did you mean 'TransformerModel'"),
    ]
    for owner, name, told in asked:
        with pytest.raises(AttributeError, match=told):
            getattr(owner, name)
    for site, told in (
        ("hook_embed", "embedding"),
        ("blocks.1.attn.hook_result", "W_O"),
        ("lm_head", "logits"),
        ("blocks.1.hook_mlp_in", "mlpRead"),
    ):
        with pytest.raises(SiteError, match=told):
            Site.parse(site)
        with pytest.raises(SiteError, match=told):
            model.run_with_caching(LONG, site)
    for name, here in (
        ("transformer.h.1.mlp", "1.mlpOutput"),
        ("model.layers.2", "2.residual"),
        ("blocks.1.ln1.hook_normalized", "1.layerNorm"),
    ):
        assert str(Site.parse(name)) == here
    assert model.run_with_caching(LONG, "gpt_neox.layers.*.attention").sites == [f"{layer}.attention" for layer in range(3)]
    assert not hasattr(model, "nonsense")
    assert aliases.follow("gpt2-small") == aliases.follow("gpt2")


def test_token_ids_stand_where_texts_may(model: TransformerModel) -> None:
    ids = model.to_tokens([LONG, " ".join(reversed(LONG.split()))])
    assert np.array_equal(model.logits(ids).numpy()[0], model.logits(LONG).numpy()[0])
    assert np.array_equal(model.loss_per_token(ids[0]).numpy(), model.loss_per_token(LONG).numpy())
    assert model.run_with_cache(ids)[1]["1.residual"].shape == (2, 6, 32)
    traced = model.run_with_gradients(ids[0], lambda logits: logits[0, -1, 42], "1.residual")
    assert traced.gradients["1.residual"].shape == (1, 6, 32)
    assert traced.tokens == [LONG.split()]


@pytest.mark.parametrize(
    ("ids", "what"),
    [
        (np.zeros((2, 3)), "float64"),
        (np.array([[3, 4], [5, 97]]), "0 to 96"),
        (np.array([[3, -4]]), "0 to 96"),
        (np.zeros((1, 0), dtype=np.int64), "positions"),
        (np.ones((1, 2, 3), dtype=np.int64), "positions"),
        (np.array([[3, 4], [5, 0]]), "padding"),
        (np.array([[0, 4], [5, 3]]), "padding"),
    ],
)
def test_an_array_that_holds_no_prompts_is_refused(model: TransformerModel, ids: Any, what: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        model.logits(ids)
    assert what in f"{caught.value.message} {caught.value.remedy}"
