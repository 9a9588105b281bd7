"""`--dtype`: a script that writes, captures and finds a circuit computes in that type, by every command that loads models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroscope.circuits.patching import ActivationPatcher
from neuroscope.engines.protocol import TokenBatch
from neuroscope.errors import ArgumentError
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.dataset import Dataset
from neuroscope.tasks.pairs import PairBatch, make_pairs
from neuroscope_bridge.cli.run import RunOptions, run_files
from neuroscope_bridge.client import connect
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.client import LMStudioRESTClient
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.jobs import HttpOptions
from neuroscope_bridge.server import ZmqDoor
from tests import tiny
from tests.backend.circuits.pairs import pairs_with_an_effect

HALF = ("bfloat16", "float16")
SCRIPT = """
written := model generate: 'w3 w4 w5 w3' maxTokens: 1.
captured := model runWithCaching: 'w3 w4 w5 w3' sites: #('1.attention' 'logits').
norm := (captured at: '1.attention') norm.
circuit := (CircuitFinder for: model) findCircuit: 'induction' examples: (Dataset fromFile: '{file}').
other := (TransformerModel fromHuggingFace: '{model}' dtype: 'float32') precision.
"""


@pytest.fixture(scope="module", params=tiny.ENGINES)
def framework(request: pytest.FixtureRequest) -> str:
    """Each engine in turn, by name."""
    return str(request.param)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, with examples in which it prefers one answer to another because of two words."""
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny.model("gpt2")
    model.engine.save(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    parts = pairs_with_an_effect(model, 90)
    rows = [example for part in (parts.effect, parts.finding, parts.judging) for example in _examples(part)]
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def _examples(pairs: PairBatch) -> list[dict[str, str]]:
    def words(batch: TokenBatch) -> list[str]:
        return [" ".join(f"w{token}" for token in ids[real]) for ids, real in zip(batch.ids, batch.real, strict=True)]

    answers = ([f" w{token}" for token in tokens] for tokens in (pairs.metric.answers, pairs.metric.wrongs))
    fields = ("clean", "corrupt", "answer", "wrong")
    return [dict(zip(fields, row, strict=True)) for row in zip(words(pairs.clean), words(pairs.corrupt), *answers, strict=True)]


def ran(made: Path, out: Path, engine: str, dtype: str | None) -> dict[str, Any]:
    """The variables that the script leaves."""
    name = str(made / "model")
    (out / "script.st").write_text(SCRIPT.format(file=made / "examples.jsonl", model=name))
    run_files(
        RunOptions(files=[out / "script.st"], model=name, engine=engine, dtype=dtype, json_out=out / "out.json", quiet=True)
    )
    return dict(json.loads((out / "out.json").read_text())["variables"])


@pytest.mark.parametrize("dtype", HALF)
def test_a_script_writes_captures_and_finds_a_circuit(framework: str, made: Path, tmp_path: Path, dtype: str) -> None:
    single = ran(made, tmp_path, framework, None)
    half = ran(made, tmp_path, framework, dtype)
    assert [found["circuit"]["provenance"]["dtype"] for found in (single, half)] == ["float32", dtype]
    assert half["written"] == single["written"]
    assert half["other"] == "float32"  # what a script names goes before
    assert half["norm"] == pytest.approx(single["norm"], rel=0.02)
    assert half["norm"] != single["norm"]
    edges = [{tuple(edge[:2]) for edge in found["circuit"]["edges"]} for found in (single, half)]
    # Rounding, which differs between processors, moves the size at which the target is reached: the smaller circuit is compared.
    assert len(edges[0] & edges[1]) >= 0.8 * min(map(len, edges)) > 0
    assert max(map(len, edges)) <= 2 * min(map(len, edges))


def test_a_server_loads_models_in_its_type(framework: str, made: Path) -> None:
    name = str(made / "model")
    host = Host(HostOptions(name, engine=framework, dtype="bfloat16"))
    zmq, web = ZmqDoor(host, "tcp://127.0.0.1:*"), HttpDoor(host, "127.0.0.1:0", HttpOptions())
    address, url = zmq.open(), web.open()
    zmq.start()
    web.start()
    try:
        with connect(address) as client, LMStudioRESTClient(url) as rest:
            assert client.evaluate("model precision") == "bfloat16"
            assert client.evaluate(f"(TransformerModel fromHuggingFace: '{name}' dtype: 'float16') precision") == "float16"
            assert client.TransformerModel.from_hugging_face(name).precision == "bfloat16"
            assert rest.load_model(name)["precision"] == "bfloat16"
            assert rest.load_model(name, dtype="float16")["precision"] == "float16"
    finally:
        web.close()
        zmq.close()
        host.close()


def test_a_type_that_is_none_is_refused_with_those_there_are(framework: str, made: Path, tmp_path: Path) -> None:
    told = r"no floating type 'bfloat'.\n.*Did you mean 'bfloat16'\? Types: float32, bfloat16, float16"
    with pytest.raises(ArgumentError, match=told):
        ran(made, tmp_path, framework, "bfloat")
    with pytest.raises(ArgumentError, match=told):
        Host(HostOptions(dtype="bfloat"))
    with pytest.raises(ArgumentError, match=told):
        TransformerModel.from_hugging_face(str(made / "model"), engine=framework, dtype="bfloat")


def measured(model: TransformerModel, file: Path) -> dict[str, Any]:
    """What patching and three lenses say of the model."""
    examples = list(Dataset.from_file(str(file)))
    attribution = model.analyze("logit_attribution", examples)
    lens = model.analyze("logit_lens", examples[0].clean)
    return {
        "patching": ActivationPatcher(model).residual_map(make_pairs(model, examples)).values,
        "heads": attribution.heads,
        "mlps": attribution.mlps,
        "lens": lens.probability,
        "decided": lens.decided,
        "patterns": model.analyze("attention_patterns", examples[0].clean).patterns,
    }


@pytest.mark.parametrize("dtype", HALF)
def test_patching_and_lenses_agree_with_single_precision(framework: str, made: Path, dtype: str) -> None:
    single, half = (
        measured(TransformerModel.from_hugging_face(str(made / "model"), engine=framework, dtype=one), made / "examples.jsonl")
        for one in ("float32", dtype)
    )
    for name, expected in single.items():
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(half[name], expected, rtol=0, atol=0.05 * scale, err_msg=name)
