"""Weights on every engine and architecture: what is read is what the model computes with, what is written is what it computes with next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf, expit, softmax

from neuroscope.circuits.ablated import source_means
from neuroscope.circuits.compiled import CircuitEngine
from neuroscope.circuits.graph import Graph
from neuroscope.circuits.pair_runs import PairRuns
from neuroscope.engines.protocol import Engine, GenerationSettings, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.weights import Weight, WeightSite
from neuroscope.errors import ArgumentError, CircuitError, SiteError, WeightError
from neuroscope.models.model import TransformerModel
from neuroscope_dsl.workspace import Workspace
from tests import tiny
from tests.backend.circuits.pairs import random_pairs

PROMPT = [5, 17, 40, 8, 77, 23]
LAYER = 1
Numbers = Any


@pytest.fixture(params=tiny.ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def there(engine: Engine, layer: int = LAYER) -> Iterator[WeightSite]:
    """The weights of a layer, and those of no layer, that the model has."""
    for weight in Weight:
        site = WeightSite(layer if weight.layered else None, weight)
        try:
            engine.weights(site)
        except SiteError:
            continue
        yield site


def tied(engine: Engine) -> bool:
    return bool(engine.parameters.tied)  # type: ignore[attr-defined]


def logits(engine: Engine) -> Numbers:
    return engine.ops.to_numpy(engine.forward(TokenBatch.of([PROMPT])).logits)[0]


def write_random(engine: Engine, seed: int = 0) -> None:
    """Write other numbers into every weight of the layer and of no layer."""
    random = np.random.default_rng(seed)
    for site in there(engine):
        if not (tied(engine) and site.weight is Weight.W_U):
            view = engine.weights(site)
            view.write(view.read() * 0.7 + 0.1 * random.standard_normal(view.shape), tied=True)


# --- the model by hand -------------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable[[Numbers], Numbers]] = {
    "gpt2": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "gpt_neox": lambda x: x / 2 * (1 + erf(x / np.sqrt(2))),
    "gemma2": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "llama": lambda x: x * expit(x),
}
ACTIVATIONS["gemma3_text"] = ACTIVATIONS["gemma2"]


class ByHand:
    """A layer computed in numpy, from weights that are read and activations that are captured, in double precision."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.anatomy = engine, engine.anatomy
        self.gemma = self.anatomy.architecture.startswith("gemma")
        sites = [Site(None, Component.EMBEDDING), Site(None, Component.LOGITS)]
        sites += [Site(LAYER, c) for c in Component if c not in (Component.EMBEDDING, Component.LOGITS, Component.ROUTER)]
        sites += [Site(LAYER, Component.ROUTER)] if self.anatomy.experts else []
        run = engine.forward(TokenBatch.of([PROMPT]), capture=sites)
        self.found = {site.component: engine.ops.to_numpy(run[site])[0].astype(np.float64) for site in sites}
        self.final = engine.ops.to_numpy(run.residual)[0].astype(np.float64)

    def weight(self, name: str, absent: float | None = None) -> Numbers:
        layered = not name.startswith(("embed", "pos", "unembed", "ln_final"))
        try:
            return self.engine.weights(f"{LAYER}.{name}" if layered else name).read().astype(np.float64)
        except SiteError:
            if absent is None:
                raise
            return absent

    def norm(self, name: str, x: Numbers) -> Numbers:
        centred = self.anatomy.architecture in ("gpt2", "gpt_neox")
        x = x - x.mean(-1, keepdims=True) if centred else x
        epsilon = 1e-5 if centred or self.anatomy.architecture == "gpt_oss" else 1e-6
        scaled = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * self.weight(name)
        return scaled + self.weight(name[:-1] + "b") if centred else scaled

    def written(self, name: str, x: Numbers) -> Numbers:
        return self.norm(name, x) if self.gemma else x

    def embedding(self) -> Numbers:
        x = self.weight("embed.W_E")[PROMPT] * (np.sqrt(self.anatomy.d_model) if self.gemma else 1)
        return x + (self.weight("pos_embed.W_pos")[: len(PROMPT)] if self.anatomy.architecture == "gpt2" else 0)

    def logits(self) -> Numbers:
        found = self.norm("ln_final.w", self.final) @ self.weight("unembed.W_U")
        return 30 * np.tanh(found / 30) if self.anatomy.architecture == "gemma2" else found

    def projection(self, letter: str) -> Numbers:
        x = self.found[Component.LAYER_NORM]
        return np.einsum("pd,hde->phe", x, self.weight(f"attn.W_{letter}")) + self.weight(f"attn.b_{letter}", 0)

    def attention(self) -> Numbers:
        heads = self.found[Component.HEAD_OUTPUT]
        each = [heads[:, h] @ self.weight(f"attn.W_O[{h}]") for h in range(self.anatomy.heads)]
        return self.written("ln1_post.w", sum(each) + self.weight("attn.b_O", 0))

    def first_scores(self) -> Numbers:
        """Of the first token for itself, which no rotation changes."""
        query, key = (self.found[c][0] for c in (Component.QUERY, Component.KEY))
        if self.anatomy.architecture in ("qwen3", "gemma3_text"):
            query, key = self.norm("attn.q_norm", query), self.norm("attn.k_norm", key)
        scale = 256 if self.gemma else self.anatomy.d_head
        stretch = (0.1 * np.log(2) + 1) ** 2 if self.anatomy.attention_sinks else 1  # YaRN's, on queries and keys
        scores = stretch * (query * np.repeat(key, self.anatomy.group, axis=0)).sum(-1) / np.sqrt(scale)
        return 50 * np.tanh(scores / 50) if self.anatomy.architecture == "gemma2" else scores

    def first_pattern(self) -> Numbers:
        """How much of itself the first token sees: all, but for what goes to a sink."""
        scores = self.found[Component.ATTENTION_SCORES][:, 0, 0]
        return expit(scores - self.weight("attn.sinks")) if self.anatomy.attention_sinks else np.ones_like(scores)

    def neurons(self) -> Numbers:
        x = self.found[Component.MLP_INPUT]
        if not self.anatomy.experts:
            act = ACTIVATIONS.get(self.anatomy.architecture, ACTIVATIONS["llama"])
            inner = x @ self.weight("mlp.W_in") + self.weight("mlp.b_in", 0)
            gate = self.weight("mlp.W_gate", 0)
            return act(inner) if np.ndim(gate) == 0 else act(x @ gate) * inner
        gate = np.einsum("pd,xdm->pxm", x, self.weight("mlp.W_gate")) + self.weight("mlp.b_gate")
        up = np.einsum("pd,xdm->pxm", x, self.weight("mlp.W_in")) + self.weight("mlp.b_in")
        gate, up = gate.clip(max=7), up.clip(-7, 7)
        every = (up + 1) * gate * expit(1.702 * gate)
        return (every * (self.found[Component.ROUTER] != 0)[..., None]).reshape(len(PROMPT), -1)

    def router(self) -> Numbers:
        scores = self.found[Component.MLP_INPUT] @ self.weight("mlp.W_router") + self.weight("mlp.b_router")
        kept = np.sort(scores, axis=-1)[:, -self.anatomy.experts_per_token, None]
        return softmax(np.where(scores >= kept, scores, -np.inf), axis=-1)

    def mlp_output(self) -> Numbers:
        neurons = self.found[Component.MLP]
        if not self.anatomy.experts:
            return self.written("ln2_post.w", neurons @ self.weight("mlp.W_out") + self.weight("mlp.b_out", 0))
        shaped = neurons.reshape(len(PROMPT), self.anatomy.experts, -1)
        each = [
            (shaped[:, x] @ self.weight(f"mlp.experts[{x}].W_out") + self.weight(f"mlp.experts[{x}].b_out"))
            * self.found[Component.ROUTER][:, x, None]
            for x in range(self.anatomy.experts)
        ]
        return sum(each)

    def expected(self) -> dict[Component, Numbers]:
        """What each component must be."""
        found = self.found
        return {
            Component.EMBEDDING: self.embedding(),
            Component.LOGITS: self.logits(),
            Component.LAYER_NORM: self.norm("ln1.w", found[Component.RESIDUAL_PRE]),
            Component.QUERY: self.projection("Q"),
            Component.KEY: self.projection("K"),
            Component.VALUE: self.projection("V"),
            Component.ATTENTION: self.attention(),
            Component.MLP_INPUT: self.norm("ln2.w", found[Component.MLP_READ]),
            Component.MLP: self.neurons(),
            Component.MLP_OUTPUT: self.mlp_output(),
        } | ({Component.ROUTER: self.router()} if self.anatomy.experts else {})

    def check(self) -> None:
        for component, expected in self.expected().items():
            error = abs(self.found[component] - expected).max() / expected.std()
            assert error < 2e-5, (component, error)
        assert self.found[Component.ATTENTION_SCORES][:, 0, 0] == pytest.approx(self.first_scores(), rel=1e-4, abs=1e-5)
        assert self.found[Component.ATTENTION_PATTERN][:, 0, 0] == pytest.approx(self.first_pattern(), abs=1e-5)


# --- reading and writing -----------------------------------------------------------------------------------------------


def test_every_parameter_has_a_name_and_a_place(framework: str, architecture: str) -> None:
    engine = tiny.engine_on(framework, architecture)
    count = 0
    for layer in range(tiny.LAYERS):
        for site in there(engine, layer):
            view = engine.weights(site)
            assert view.read().shape == view.shape
            assert WeightSite.parse(str(site)) == site
            if (layer == 0 or site.weight.layered) and not (tied(engine) and site.weight is Weight.W_U):
                count += view.read().size
    assert count == sum(parameter.numel() for parameter in tiny.hf_model(architecture).parameters())


def test_what_is_read_and_written_is_what_the_model_computes_with(framework: str, architecture: str) -> None:
    """Activations follow from the weights by plain numpy, as loaded and after every weight was written."""
    engine = tiny.engine_on(framework, architecture)
    ByHand(engine).check()
    before = logits(engine)
    write_random(engine)
    assert abs(logits(engine) - before).max() > 0.1
    ByHand(engine).check()
    bare = engine.ops.to_numpy(engine.bare_logits(TokenBatch.of([PROMPT])))[0]
    assert logits(engine) == pytest.approx(bare, abs=1e-4)


def test_parts_are_parts_of_the_whole(framework: str, architecture: str) -> None:
    engine = tiny.engine_on(framework, architecture)

    def read(name: str) -> Numbers:
        return engine.weights(name).read()

    width, moe = engine.anatomy.d_mlp, engine.anatomy.experts > 0
    assert (read("1.attn.W_K[1]") == read("1.attn.W_K")[1]).all()
    assert (read("-2.attn.wo[3]") == read("1.attn.W_O")[3]).all()
    assert (read("embed.W_E[50]") == read("embed.W_E")[50]).all()
    assert (read("unembed.W_U[50]") == read("unembed.W_U")[:, 50]).all()
    if moe:
        assert (read("1.mlp.experts[2].W_in[7]") == read("1.mlp.W_in")[2][:, 7]).all()
        assert (read(f"1.mlp.W_out[{2 * width + 7}]") == read("1.mlp.W_out")[2][7]).all()
        assert read(f"1.mlp.b_in[{2 * width + 7}]") == read("1.mlp.experts[2].b_in")[7]
        assert (read("1.mlp.W_router[3]") == read("1.mlp.W_router")[:, 3]).all()
    else:
        assert (read("1.mlp.W_in[7]") == read("1.mlp.W_in")[:, 7]).all()
        assert (read("1.mlp.W_out[7]") == read("1.mlp.W_out")[7]).all()
    before = read("1.mlp.W_out").reshape(-1, engine.anatomy.d_model)
    engine.weights("1.mlp.W_out[11]").write(np.arange(engine.anatomy.d_model))
    after = read("1.mlp.W_out").reshape(-1, engine.anatomy.d_model)
    assert (after[11] == np.arange(engine.anatomy.d_model)).all()
    assert (np.delete(after, 11, axis=0) == np.delete(before, 11, axis=0)).all()


#: Name of a weight, and the same part of the bare Hugging Face module.
BARE: list[tuple[str, str, Callable[[Any], torch.Tensor]]] = [
    ("gpt2", "1.attn.W_Q[2]", lambda m: m.transformer.h[1].attn.c_attn.weight[:, 16:24]),
    ("gpt2", "1.attn.W_V[0]", lambda m: m.transformer.h[1].attn.c_attn.weight[:, 64:72]),
    ("gpt2", "1.mlp.W_out", lambda m: m.transformer.h[1].mlp.c_proj.weight),
    ("gpt_neox", "1.attn.W_K[3]", lambda m: m.gpt_neox.layers[1].attention.query_key_value.weight[80:88].T),
    ("llama", "1.attn.W_O[1]", lambda m: m.model.layers[1].self_attn.o_proj.weight[:, 8:16].T),
    ("phi3", "1.attn.W_Q[2]", lambda m: m.model.layers[1].self_attn.qkv_proj.weight[16:24].T),
    ("phi3", "1.attn.W_K[1]", lambda m: m.model.layers[1].self_attn.qkv_proj.weight[40:48].T),
    ("phi3", "1.attn.W_V[0]", lambda m: m.model.layers[1].self_attn.qkv_proj.weight[48:56].T),
    ("phi3", "1.mlp.W_gate", lambda m: m.model.layers[1].mlp.gate_up_proj.weight[:48].T),
    ("phi3", "1.mlp.W_in[5]", lambda m: m.model.layers[1].mlp.gate_up_proj.weight[53]),
    ("gemma2", "1.ln2.w", lambda m: m.model.layers[1].pre_feedforward_layernorm.weight + 1),
    ("gpt_oss", "1.mlp.experts[3].W_in", lambda m: m.model.layers[1].mlp.experts.gate_up_proj[3][:, 1::2]),
    ("gpt_oss", "1.mlp.experts[3].W_out[5]", lambda m: m.model.layers[1].mlp.experts.down_proj[3][5]),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "name", "bare"), BARE, ids=[f"{a} {n}" for a, n, _ in BARE])
def test_a_name_means_that_part_of_the_bare_module(
    framework: str, architecture: str, name: str, bare: Callable[[Any], torch.Tensor]
) -> None:
    model = tiny.hf_model(architecture)
    with torch.no_grad():
        assert (tiny.engine_on(framework, architecture).weights(name).read() == bare(model).numpy()).all()


# --- snapshots and hashes ----------------------------------------------------------------------------------------------


def test_restoring_gives_back_every_bit_and_the_hash(framework: str, architecture: str) -> None:
    model = tiny.model(architecture, on=framework)
    engine = model.engine
    before, loaded = logits(engine), model.weights_hash
    views = [engine.weights(site) for site in there(engine)]
    snapshots = [view.snapshot() for view in views]
    write_random(engine)
    assert model.weights_hash != loaded
    assert set(model.changed_weights) == {view.name for view in views} - ({"unembed.W_U"} if tied(engine) else set())
    again = TransformerModel(engine, model.tokenizer, "the same", model.loaded_hash)
    assert again.weights_hash == model.weights_hash
    for view, snapshot in zip(views, snapshots, strict=True):
        view.restore(snapshot)
        assert view.snapshot() == snapshot
    assert (logits(engine) == before).all()
    assert model.weights_hash == loaded
    assert model.changed_weights == []


@tiny.needs_mlx
def test_both_engines_tell_the_same_change_by_the_same_hash(architecture: str) -> None:
    found = []
    for name in ("torch", "mlx"):
        model = tiny.model(architecture, on=name)
        write_random(model.engine)
        found.append((model.weights_hash, logits(model.engine)))
    assert found[0][0] == found[1][0]
    assert found[1][1] == pytest.approx(found[0][1], abs=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ["gemma2", "gpt_oss"])
def test_short_types_are_rounded_as_torch_rounds_and_restored_bit_for_bit(
    framework: str, architecture: str, dtype: str
) -> None:
    model = TransformerModel.from_hugging_face(str(tiny.saved(architecture)), engine=framework, dtype=dtype)
    for name in ("1.attn.W_Q", "1.ln1.w"):
        view = model.weights(name)
        assert view.dtype == dtype or name == "1.ln1.w"  # transformers keeps gpt-oss's norms in float32 beside float16
        snapshot, values = view.snapshot(), np.random.default_rng(1).standard_normal(view.shape)
        view.write(values)
        shift = 1 if name == "1.ln1.w" and architecture == "gemma2" else 0
        rounded = torch.tensor(values - shift).to(getattr(torch, view.dtype)).float().numpy() + np.float32(shift)
        assert (view.read() == rounded).all()
        view.restore(snapshot)
        assert view.snapshot() == snapshot
    assert model.changed_weights == []


def test_what_was_computed_with_other_weights_is_not_used(framework: str) -> None:
    engine = tiny.engine_on(framework, "gpt2")
    batch = TokenBatch.of([PROMPT])
    prefix, pairs = engine.prefix(batch, 3), random_pairs()
    runs, means = PairRuns(engine, pairs), source_means(PairRuns(engine, pairs, share_prefix=False))
    compiled = CircuitEngine(engine, Graph.of(engine.anatomy).valid, means, pairs.clean)
    view = engine.weights("0.mlp.b_out")
    snapshot = view.snapshot()
    view.write(view.read() + 1)
    with pytest.raises(ArgumentError, match="changed since the prefix ran"):
        engine.forward(batch, prefix=prefix)
    with pytest.raises(CircuitError, match="changed since these pairs ran"):
        runs.again(1, residual=runs.clean.streams[0])
    with pytest.raises(CircuitError, match="changed since the circuit was compiled"):
        compiled.forward(batch)
    view.restore(snapshot)
    compiled.forward(batch)
    engine.forward(batch, prefix=prefix)
    runs.again(1, residual=runs.clean.streams[0])


def test_a_run_sees_all_of_a_write_or_nothing_of_it(framework: str) -> None:
    engine = tiny.engine_on(framework, "gpt2")
    view = engine.weights("1.mlp.W_out")
    states = [view.read(), -view.read()]
    known = []
    for state in states:
        view.write(state)
        known.append(logits(engine))
    done = threading.Event()

    def flip() -> None:
        while not done.is_set():
            for state in states:
                view.write(state)

    writer = threading.Thread(target=flip)
    writer.start()
    try:
        seen = [logits(engine) for _ in range(30)]
    finally:
        done.set()
        writer.join()
    for one in seen:
        assert any((one == state).all() for state in known)


# --- what cannot be written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "act", "error", "says"),
    [
        ("gpt2", lambda m: m.weights("1.mlp.W_out").write(np.zeros((32, 128))), ArgumentError, r"1\.mlp\.W_out has the shape \(128, 32\), not \(32, 128\)"),
        ("gpt2", lambda m: m.weights("1.mlp.b_in[3]").write([1.0]), ArgumentError, r"has the shape \(\), not \(1,\)"),
        ("gpt2", lambda m: m.weights("1.ln1.w").write([np.nan] * 32), ArgumentError, "NaN or infinite"),
        ("gpt2", lambda m: m.weights("1.ln1.w").write(["a"] * 32), ArgumentError, "holds real numbers"),
        ("gpt2", lambda m: m.weights("1.ln1.w").write([[1], [1, 2]]), ArgumentError, "are not an array"),
        ("gpt2", lambda m: m.weights("1.ln1.w").write([1e300] * 32), ArgumentError, "more than float32 can represent"),
        ("gpt2", lambda m: m.weights("embed.W_E[3]").write(np.zeros(32)), WeightError, "one matrix in this model"),
        ("gpt2", lambda m: m.weights("1.mlp.W_gate"), SiteError, "gpt2 has no mlp.W_gate"),
        ("gpt2", lambda m: m.weights("1.mlp.W_aut"), SiteError, "Did you mean 'mlp.W_out'"),
        ("gpt2", lambda m: m.weights("W_Q"), SiteError, "is not a weight"),
        ("gpt2", lambda m: m.weights("9.mlp.W_out"), SiteError, "Layers run from 0 to 2"),
        ("gpt2", lambda m: m.weights("mlp.W_out"), SiteError, "A layer must be a whole number"),
        ("gpt2", lambda m: m.weights("1.embed.W_E"), SiteError, "belongs to no layer"),
        ("gpt2", lambda m: m.weights("1.mlp.experts[0].W_out"), SiteError, "has no experts"),
        ("gpt2", lambda m: m.weights("1.attn.W_Q[4]"), SiteError, "They run from 0 to 3"),
        ("gpt2", lambda m: m.weights("1.attn.b_O[4]"), SiteError, "cannot be indexed"),
        ("llama", lambda m: m.weights("1.attn.W_K[2]"), SiteError, "They run from 0 to 1"),
        ("gpt_oss", lambda m: m.weights("1.mlp.experts[4].W_out"), SiteError, "Experts run from 0 to 3"),
        ("gpt_oss", lambda m: m.weights("1.attn.experts[1].W_Q"), SiteError, "belongs to no expert"),
        ("gpt2", lambda m: m.weights("1.ln1.w").restore(m.weights("0.ln1.w").snapshot()), ArgumentError, "cannot restore 1.ln1.w"),
        ("gpt2", lambda m: m.weights("1.ln1.w").restore(3), ArgumentError, "is not a snapshot"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    framework: str, architecture: str, act: Callable[[TransformerModel], Any], error: type[Exception], says: str
) -> None:
    model = tiny.model(architecture, on=framework)
    with pytest.raises(error, match=says):
        act(model)
    assert model.changed_weights == []


@pytest.mark.parametrize("name", ["gpt2-medium", "gpt-oss-20b"])
def test_a_tied_matrix_is_written_where_that_is_meant(framework: str, name: str, tmp_path: Path) -> None:
    """mlx-lm's gpt-oss keeps the unembedding apart even where the two are tied."""
    model = TransformerModel.from_hugging_face(f"bundled:{name}", engine=framework)
    width, prompt = model.architecture.d_model, "The capital of France is"
    model.weights("unembed.W_U[300]").write(np.full(width, 2.0), tied=True)
    assert (model.weights("embed.W_E[300]").read() == 2).all()
    assert model.changed_weights == ["embed.W_E"]
    batch = model.encode(prompt)
    found = model.logits(prompt).numpy()
    assert model.engine.ops.to_numpy(model.engine.bare_logits(batch)) == pytest.approx(found, abs=1e-3)
    again = TransformerModel.from_hugging_face(model.save(str(tmp_path / "kept")), engine=framework)
    assert (again.logits(prompt).numpy() == found).all()


def test_a_generation_under_way_goes_on_with_what_is_written(framework: str) -> None:
    engine, settings = tiny.engine_on(framework, "llama"), GenerationSettings(max_tokens=4)
    batch = TokenBatch.of([PROMPT])
    plain = [engine.ops.to_numpy(step.logits) for step in engine.generate(batch, settings)]
    steps = engine.generate(batch, settings)
    assert (engine.ops.to_numpy(next(steps).logits) == plain[0]).all()
    view = engine.weights("unembed.W_U")
    view.write(view.read() * 2)
    for step, expected in zip(steps, plain[1:], strict=True):
        assert engine.ops.to_numpy(step.logits) == pytest.approx(expected * 2, abs=1e-4)


# --- saving, and by message --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loaded_on", tiny.ENGINES)
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "gemma3", "gpt_oss"])
def test_what_was_written_is_saved(framework: str, architecture: str, loaded_on: str, tmp_path: Path) -> None:
    model = TransformerModel.from_hugging_face(str(tiny.saved(architecture)), engine=framework)
    write_random(model.engine)
    model.save(str(tmp_path / "kept"))
    again = TransformerModel.from_hugging_face(str(tmp_path / "kept"), engine=loaded_on)
    for site in there(model.engine):
        assert (again.weights(site).read() == model.weights(site).read()).all(), site
    expected = logits(model.engine)
    assert logits(again.engine) == pytest.approx(expected, abs=0 if framework == loaded_on else 1e-3)
    assert again.changed_weights == []


@tiny.needs_mlx
def test_a_model_saved_from_a_short_type_is_the_same_again(tmp_path: Path) -> None:
    model = TransformerModel.from_hugging_face(str(tiny.saved("llama")), engine="mlx", dtype="bfloat16")
    view = model.weights("1.attn.W_V[1]")
    view.write(view.read() * 3)
    model.save(str(tmp_path / "kept"))
    again = TransformerModel.from_hugging_face(str(tmp_path / "kept"), engine="mlx", dtype="bfloat16")
    assert (logits(again.engine) == logits(model.engine)).all()


def test_weights_by_message(framework: str) -> None:
    workspace, model = Workspace(), tiny.model("gpt2", on=framework)
    workspace.bind("model", model)
    before, loaded = model.weights("1.mlp.W_out[3]").read(), model.weights_hash
    text = """
        view := model weights: '1.mlp.W_out[3]'.
        before := view snapshot.
        view write: view tensor * 2.
        view shape"""
    assert list(workspace.run(text)) == [32]
    assert model.weights("1.mlp.W_out[3]").read() == pytest.approx(before * 2)
    assert list(workspace.run("model changedWeights")) == ["1.mlp.W_out"]
    assert "a WeightView(1.mlp.W_out[3], 32, float32)" in workspace.run("view printString")
    workspace.run("view restore: before")
    assert model.weights_hash == loaded
