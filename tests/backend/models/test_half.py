"""The suite of every engine in half precision: each site, edit and gradient is that of single precision, as far as the type goes.

Tolerances are multiples of the type's epsilon (2⁻⁷ for bfloat16, 2⁻¹⁰ for float16), relative to the largest value of the site; rounding
grows with the layers like a random walk. Choices of experts may tip, so a mixture is compared where its routes agree.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuroscope import events
from neuroscope.editing.edit import WeightEdit
from neuroscope.editing.keys import _place, memory
from neuroscope.editing.statements import Fact
from neuroscope.editing.targets import Search
from neuroscope.engines.precision import epsilon
from neuroscope.engines.protocol import Edit, Engine, LogitRequest, TokenBatch
from neuroscope.engines.sites import ATTENTION_MATRICES, Component, Site
from neuroscope.features.effects import attributed
from neuroscope.models.model import TransformerModel
from neuroscope.models.verify import every_site
from neuroscope.steering.vectors import SteeringVectors
from neuroscope.tasks.dataset import Example
from tests import tiny

HALF = ("bfloat16", "float16")
ARCHITECTURES = ("gpt2", "qwen3", "gemma3", "gpt_oss")
BATCH = TokenBatch.of([[5, 17, 40, 8, 77, 23, 60, 11, 9], [31, 7, 52, 66, 13, 90]])
#: Epsilons by which a value may be off, and the least cosine of two gradients, or of two edits' effects.
OFF, ALIKE = 8, {"bfloat16": 0.98, "float16": 0.9995}


def load(architecture: str, framework: str, dtype: str) -> TransformerModel:
    return TransformerModel.from_hugging_face(str(tiny.saved(architecture)), engine=framework, dtype=dtype)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_site_edit_and_gradient_is_that_of_single_precision(framework: str, architecture: str, dtype: str) -> None:
    engines = [load(architecture, framework, one).engine for one in ("float32", dtype)]
    sites = every_site(engines[0])
    routers = [site for site in sites if site.component is Component.ROUTER]
    routes = engines[0].forward(BATCH, capture=routers, logits=None)
    fixed = {site: engines[0].ops.to_numpy(routes[site]) for site in routers}  # the same experts in both
    found, gradients, moved = [], [], []
    request = LogitRequest.last(BATCH, np.array([[3, 8], [4, 5]]))
    head = Site(1, Component.HEAD_OUTPUT, head=2)
    for engine in engines:
        ops = engine.ops
        routing = [_imposed(engine, site, value) for site, value in fixed.items()]
        run = engine.forward(BATCH, capture=sites, edits=routing)
        found.append({site: ops.to_numpy(run[site]) for site in sites})
        assert all(value.dtype == np.float32 for value in found[-1].values())
        inner = [site for site in sites[:-1] if site not in fixed]
        got = engine.gradients(BATCH, lambda logits: logits[:, 0] - logits[:, 1], inner, edits=routing, logits=request)
        gradients.append({site: ops.to_numpy(got.gradients[site]) for site in inner})
        changed = engine.forward(BATCH, edits=[*routing, Edit(head, lambda value, _: value * 3)])
        moved.append(ops.to_numpy(changed.logits) - found[-1][sites[-1]])
    assert engines[1].precision == dtype
    for site in sites:
        expected, value = (one[site] for one in found)
        if site.component in ATTENTION_MATRICES:
            expected, value = np.tril(expected), np.tril(value)
        expected, value = (part[BATCH.real] if part.shape[:2] == BATCH.ids.shape else part[0] for part in (expected, value))
        assert abs(value - expected).max() <= OFF * epsilon(dtype) * abs(expected).max(), site
    for site, gradient in gradients[0].items():
        assert cosine(gradient, gradients[1][site]) > ALIKE[dtype], site
    assert cosine(moved[0][BATCH.real], moved[1][BATCH.real]) > ALIKE[dtype]


@pytest.mark.parametrize("dtype", HALF)
def test_values_of_facts_and_effects_of_neurons_have_their_gradients(framework: str, dtype: str) -> None:
    models = [
        TransformerModel(load("gpt2", framework, one).engine, tiny.tokenizer(), "tiny", "hash") for one in ("float32", dtype)
    ]
    fact = Fact("w5 w6 w7", "w6", " w9")
    delta = np.random.default_rng(0).standard_normal(models[0].architecture.d_model)
    (p, gradient), (q, half) = (
        Search(model, [1], fact, ["w5 w6 w7", "w8 w6 w7"], ["w6 w11"]).evaluate(1, delta)[:2] for model in models
    )
    np.testing.assert_allclose(q, p, rtol=0.2)
    assert cosine(gradient, half) > ALIKE[dtype]
    items = [Example("w5 w6 w7", answer=" w9", wrong=" w4"), Example("w5 w8 w7", answer=" w3", wrong=" w4")]
    terms, halves = (attributed(model, items, [0, 1, 2], steps=4) for model in models)
    assert cosine(terms, halves) > ALIKE[dtype]


def _imposed(engine: Engine, site: Site, value: np.ndarray) -> Edit:
    array = engine.ops.asarray(value)
    return Edit(site, lambda _, __: array)


def told_by(do: object) -> list[str]:
    heard: list[str] = []
    with events.listen(lambda event: heard.append(event.message) if isinstance(event, events.Notice) else None):
        do()  # type: ignore[operator]
    return heard


def test_a_vector_of_another_precision_says_so_once(framework: str, tmp_path: Path) -> None:
    single, half = (load("gpt2", framework, dtype) for dtype in ("float32", "bfloat16"))
    texts = [f"w{at} w{at + 1} w{at + 2}" for at in range(5, 45)]
    vector = SteeringVectors(single).define("planted", texts[:20], texts[20:], layer=1)
    assert vector.precision == "float32"
    assert not told_by(lambda: vector.check(single))
    (said,) = told_by(lambda: vector.check(half))
    assert "was found in float32 and is used here in bfloat16, on the same weights" in said
    assert not told_by(lambda: vector.check(half))
    path = SteeringVectors(single).save(str(tmp_path / "kept"))
    read = SteeringVectors(half)
    assert any("float32" in text and "bfloat16" in text for text in told_by(lambda: read.read(path)))
    assert read.vector("planted", 1).precision == "float32"


def test_an_edit_of_another_precision_is_told_applied_and_taken_back(framework: str) -> None:
    single, half = (load("gpt2", framework, dtype) for dtype in ("float32", "bfloat16"))
    view = half.weights("1.mlp.W_out")
    change = np.random.default_rng(0).normal(scale=0.05, size=view.shape)
    edit = WeightEdit.planned(single, {view.name: change}, title="a change", method="by hand")
    before, loaded = view.read(), half.weights_hash
    said = told_by(lambda: half.apply_edit(edit))
    assert any("'a change' was found in float32 and is used here in bfloat16" in text for text in said)
    assert half.edits == [edit]
    assert abs(view.read() - before - change).max() <= epsilon("bfloat16") * abs(before + change).max()
    half.revert(edit)
    assert half.weights_hash == loaded
    np.testing.assert_array_equal(view.read(), before)


def test_moments_of_one_precision_are_not_read_in_another(framework: str) -> None:
    model = load("gpt2", framework, "float32")
    place = memory(model, 1, model.encode(["w5 w6"]), [1])
    assert _place("hash", place, 0, None) != _place("hash in bfloat16", place, 0, None)
