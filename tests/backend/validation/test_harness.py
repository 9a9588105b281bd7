"""The adapter for lm-evaluation-harness beside the harness' own Hugging Face class, on a bundled model and on a tiny one."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neuroscope.errors import ArgumentError, MissingExtraError
from neuroscope.models import bundled
from neuroscope.models.model import TransformerModel
from tests import tiny

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs lm-evaluation-harness: pip install 'neuroscope-interp[lm-eval]'"
)

PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is", " Rome"),
    ("The capital of Germany is ", "Berlin"),  # the space belongs to the continuation
    ("When Mary and John went to the shop, John gave a drink to", " Mary."),
    ("", "The capital of Spain is Madrid."),
    ("12+30=", "42"),
    ("The capital of France is Paris. " * 60, "The capital of Italy is Rome."),  # longer than the context of 256
]
LONG = "The capital of France is Paris. The nurse said that she was late. " * 40


def requests(*arguments: tuple[Any, ...]) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=one) for one in arguments]


@pytest.fixture(scope="module", params=["gpt2-medium", "gpt-oss-20b"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A bundled model, copied to a folder: as the harness loads it, and as NeuroScope does."""
    from lm_eval.models.huggingface import HFLM

    from neuroscope.validation.harness import NeuroScopeLM

    folder = tmp_path_factory.mktemp("harness") / "model"
    shutil.copytree(bundled.path(request.param), folder)
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
    return theirs, NeuroScopeLM(TransformerModel.from_hugging_face(str(folder)), batch_size=4)


@needs_harness
def test_continuations_are_as_likely_as_the_harness_finds_them(both: tuple[Any, Any]) -> None:
    theirs, ours = (lm.loglikelihood(requests(*PAIRS)) for lm in both)
    np.testing.assert_allclose([one[0] for one in ours], [one[0] for one in theirs], atol=1e-4, rtol=1e-4)
    assert [one[1] for one in ours] == [bool(one[1]) for one in theirs]
    assert {one[1] for one in ours} == {True, False}


@needs_harness
def test_whole_texts_are_as_likely_as_the_harness_finds_them(both: tuple[Any, Any]) -> None:
    texts = requests((LONG,), ("The capital of France is Paris.",))
    theirs, ours = (lm.loglikelihood_rolling(texts) for lm in both)
    assert len(both[1].model.encode(LONG).ids[0]) > 2 * both[1].model.architecture.context  # several windows
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


@needs_harness
def test_it_writes_what_the_harness_writes(both: tuple[Any, Any]) -> None:
    asked = requests(
        ("The capital of France is", {"until": ["."], "max_gen_toks": 12}),
        ("12+30=", {"until": [], "max_gen_toks": 6, "do_sample": False}),
        ("When Mary and John went to the shop, John gave a drink to", {"until": ["\n", "."], "max_new_tokens": 8}),
    )
    theirs, ours = (lm.generate_until(asked) for lm in both)
    assert ours == theirs
    assert ours[0].strip()


@needs_harness
def test_hooks_and_edits_are_at_work() -> None:
    from neuroscope.validation.harness import NeuroScopeLM

    model = tiny.model("gpt2")
    lm = NeuroScopeLM(model)
    ((before, _),) = lm.loglikelihood(requests(("w5 w6", " w7")))
    weight = model.weights("1.mlp.W_out")
    weight.write(weight.read() * 0)
    ((after, _),) = lm.loglikelihood(requests(("w5 w6", " w7")))
    assert before != pytest.approx(after, abs=1e-3)
    logits = model.logits("w5 w6").numpy()[0, -1].astype(np.float64)
    assert after == pytest.approx(logits[7] - math.log(np.exp(logits).sum()), abs=1e-4)


@needs_harness
@pytest.mark.parametrize("engine", tiny.ENGINES)
def test_both_engines_answer_the_same(engine: str) -> None:
    from neuroscope.validation.harness import NeuroScopeLM

    lm = NeuroScopeLM(tiny.model("llama", on=engine), batch_size=2)
    asked = requests(("w5 w6", " w7 w8"), ("w9", " w10"), ("", "w4 w5"))
    expected = NeuroScopeLM(tiny.model("llama")).loglikelihood(asked)
    np.testing.assert_allclose([one[0] for one in lm.loglikelihood(asked)], [one[0] for one in expected], atol=1e-4)


@needs_harness
def test_what_cannot_be_asked_says_why() -> None:
    from neuroscope.validation.harness import NeuroScopeLM

    lm = NeuroScopeLM(tiny.model("gpt2"))
    with pytest.raises(ArgumentError, match="spaces alone"):
        lm.loglikelihood(requests(("  ", "w5")))
    with pytest.raises(ArgumentError, match="no room for a prompt"):
        lm.generate_until(requests(("w5", {"max_gen_toks": 200})))
    with pytest.raises(ArgumentError, match="exceeds the context"):
        lm.loglikelihood(requests(("w5", " w6" * 200)))
    with pytest.raises(ArgumentError, match="no chat template"):
        lm.apply_chat_template([{"role": "user", "content": "w5"}])
    with pytest.raises(ArgumentError, match="asks a TransformerModel"):
        NeuroScopeLM(5)  # type: ignore[arg-type]


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "neuroscope.validation.harness", raising=False)
    with pytest.raises(MissingExtraError, match="lm-evaluation-harness") as caught:
        import neuroscope.validation.harness  # noqa: F401
    assert "neuroscope-interp[lm-eval]" in str(caught.value)
