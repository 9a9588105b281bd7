"""lm-evaluation-harness, through its `local-completions`, asks a model that `neuroscope serve` serves: the guide's recipe.

It finds the likelihoods that the adapter finds in this process, which the harness' own Hugging Face class confirms elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neuroscope.models import bundled
from neuroscope.models.model import TransformerModel
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.jobs import HttpOptions

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'lm-eval[api]'")
pytest.importorskip("tenacity", reason="lm-evaluation-harness' API models are not installed: pip install 'lm-eval[api]'")

MODEL = "bundled:gpt2-medium"
PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is", " Rome"),
    ("When Mary and John went to the shop, John gave a drink to", " Mary."),
    ("12+30=", "42"),
    ("The nurse said that", " she was late."),
]


def requests(*arguments: tuple[Any, ...]) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=one) for one in arguments]


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Any, Any]]:
    """The served model as the harness asks it, and the adapter on the same model."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from neuroscope.validation.harness import NeuroScopeLM

    model = TransformerModel.from_hugging_face(MODEL)
    host = Host(HostOptions(MODEL))
    door = HttpDoor(host, "127.0.0.1:0", HttpOptions())
    url = door.open()
    door.start()
    served = LocalCompletionsAPI(
        model=MODEL,
        base_url=f"{url}/v1/completions",
        tokenizer=str(bundled.path("gpt2-medium")),
        max_length=model.architecture.context,
        batch_size=3,
    )
    yield served, NeuroScopeLM(model)
    door.close()
    host.close()


def test_continuations_are_as_likely_over_http(both: tuple[Any, Any]) -> None:
    served, ours = (lm.loglikelihood(requests(*PAIRS)) for lm in both)
    np.testing.assert_allclose([one[0] for one in served], [one[0] for one in ours], atol=1e-3)
    assert [one[1] for one in served] == [one[1] for one in ours]
    assert {one[1] for one in served} == {True, False}


def test_whole_texts_are_as_likely_over_http(both: tuple[Any, Any]) -> None:
    texts = requests(("The capital of France is Paris. The nurse said that she was late. " * 20,), ("The capital of Spain.",))
    served, ours = (lm.loglikelihood_rolling(texts) for lm in both)
    np.testing.assert_allclose(served[1], ours[1], atol=1e-3)
    np.testing.assert_allclose(served[0], ours[0], rtol=2e-2)  # the harness' windows are one token shorter over HTTP


def test_it_writes_over_http_what_the_model_writes(both: tuple[Any, Any]) -> None:
    asked = requests(
        ("The capital of France is", {"until": ["."], "max_gen_toks": 12}),
        ("When Mary and John went to the shop, John gave a drink to", {"until": ["\n", "."], "max_gen_toks": 12}),
    )
    served, ours = (lm.generate_until(asked) for lm in both)
    assert served == ours
    assert served[0].strip()
