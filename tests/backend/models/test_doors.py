"""The same question by another door: captured logits, padding, the class a model is asked of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuroscope.engines.protocol import GenerationSettings
from neuroscope.hooks.hook import ActivationHook, InterventionHook
from neuroscope.models import registry
from neuroscope.models.model import TransformerModel
from tests import tiny

LONG, SHORT = "w5 w6 w7 w8", "w9 w10"
SITES = ["embedding", "1.residual", "1.mlp", "1.mlp[3]", "1.headOutput", "1.headOutput[1]", "1.key", "1.attentionPattern"]
SITES += ["1.attentionPattern[0]", "1.residual@-1", "logits"]


@pytest.fixture(scope="module")
def model(framework: str) -> TransformerModel:
    return tiny.model("llama", on=framework)


def test_captured_logits_are_the_logits(model: TransformerModel) -> None:
    expected = model.logits(LONG).numpy()
    cache = model.run_with_caching(LONG, ["logits"])
    assert cache.sites == ["logits"]
    assert model.run_with_caching(LONG, "logits").sites == ["logits"]
    np.testing.assert_array_equal(cache["logits"].numpy(), expected)
    np.testing.assert_array_equal(model.run_with_caching(LONG, ["logits@-1"])["logits@-1"].numpy(), expected[:, -1])
    both = model.run(LONG, ["logits", "0.residual"], logits=None)
    np.testing.assert_array_equal(model.engine.ops.to_numpy(both["logits"]), expected)


def test_a_hook_on_the_logits_acts_whether_or_not_they_are_asked_for(model: TransformerModel) -> None:
    hook = InterventionHook(None, "logits", lambda activations: activations * 2.0)
    expected = model.logits(LONG).numpy() * 2
    with model.hook_manager.temporarily(hook):
        model.run_with_caching(LONG, ["1.residual"])
        np.testing.assert_allclose(model.run_with_caching(LONG, ["logits"])["logits"].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("site", SITES)
def test_what_a_cache_says_of_itself_leaves_padding_out(model: TransformerModel, site: str) -> None:
    batch = model.run_with_caching([LONG, SHORT], [site])[site]
    rows = [model.run_with_caching(text, [site])[site] for text in (LONG, SHORT)]
    values = np.concatenate([row.numpy().ravel() for row in rows]).astype(np.float64)
    for tensor, cells in ((batch, values), (batch * 2.0, 2 * values), (batch.abs(), abs(values)), (batch.copy(), values)):
        assert tensor.mean() == pytest.approx(cells.mean(), rel=1e-4, abs=1e-5)
        assert tensor.norm() == pytest.approx(np.linalg.norm(cells), rel=1e-4)
        assert tensor.max() == pytest.approx(cells.max(), rel=1e-4)
        assert tensor.min() == pytest.approx(cells.min(), rel=1e-4, abs=1e-5)
    assert batch.dot(batch) == pytest.approx((values**2).sum(), rel=1e-4)
    assert batch.cosine(batch * 3.0) == pytest.approx(1.0)
    assert batch.shape[0] == 2  # the values themselves are there


def test_one_unit_of_a_padded_tensor_leaves_padding_out(model: TransformerModel) -> None:
    batch = model.run_with_caching([LONG, SHORT], ["1.residual"])["1.residual"]
    rows = [model.run_with_caching(text, ["1.residual"])["1.residual"].numpy()[0, :, 7] for text in (LONG, SHORT)]
    assert batch[..., 7].mean() == batch.by_unit[7].mean()
    assert batch[..., 7].mean() == pytest.approx(np.concatenate(rows).mean(), rel=1e-4)


def test_a_hook_sees_which_cells_are_padding(model: TransformerModel) -> None:
    seen: list[float] = []

    def look(activations: Any) -> Any:
        seen.append(activations.mean())
        return activations

    with model.hook_manager.temporarily(ActivationHook(1, "residual", look)):
        for texts in ([LONG, SHORT], LONG, SHORT):
            model.run(model.encode(texts, side="left"))
    assert seen[0] == pytest.approx((4 * seen[1] + 2 * seen[2]) / 6, rel=1e-4)


class Mine(TransformerModel):
    """A model with something of the user's own."""


def test_a_model_is_of_the_class_that_it_is_asked_of(framework: str, tmp_path: Any) -> None:
    folder = str(tiny.saved("llama"))
    assert type(Mine.from_hugging_face(folder, engine=framework)) is Mine
    with registry.sharing(registry.ModelRegistry()):
        assert type(TransformerModel.from_hugging_face(folder, engine=framework)) is TransformerModel
        assert type(Mine.from_hugging_face(folder, engine=framework)) is Mine
    Mine.from_hugging_face(folder, engine=framework).save(str(tmp_path / "saved"))
    assert type(Mine.load(str(tmp_path / "saved"), engine=framework)) is Mine


def test_stop_texts_end_a_stream_of_one_prompt_and_are_refused_for_several(model: TransformerModel) -> None:
    every = [int(step.tokens[0]) for step in model.stream(LONG, GenerationSettings(max_tokens=6))]
    word = model.decode(every, after=model.encode(LONG).ids[0]).split()[2]
    some = [int(step.tokens[0]) for step in model.stream(LONG, GenerationSettings(max_tokens=6, stop=(word,)))]
    assert len(some) < len(every)
    assert some == every[: len(some)]
    with pytest.raises(Exception, match="one prompt"):
        list(model.stream(model.encode([LONG, SHORT], side="left"), GenerationSettings(stop=(word,))))
