"""The table of architectures, and one that a user adds: it passes the suite that every other passes, or is refused in words."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from neuroscope.circuits.attribution import edge_scores
from neuroscope.circuits.edge_patching import edge_effects
from neuroscope.circuits.evaluation import CircuitEvaluation, Removal
from neuroscope.engines import architectures
from neuroscope.engines.architectures import Architecture
from neuroscope.engines.protocol import GenerationSettings, TokenBatch
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.errors import ArgumentError, SiteError, UnsupportedArchitectureError
from neuroscope.models.model import TransformerModel
from neuroscope_bridge.rest.hooks import site_of
from neuroscope_bridge.rest.schemas import HookSpec
from neuroscope_dsl.workspace import Workspace
from tests import made_up, tiny
from tests.backend.circuits.pairs import random_pairs
from tests.backend.engines import test_engine as suite
from tests.backend.engines.test_weights import ByHand, write_random


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "_TABLE", dict(architectures.table()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made_up.random_model().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def loaded(folder: Path) -> TransformerModel:
    architectures.register(made_up.MADE_UP)
    return TransformerModel.from_hugging_face(str(folder), engine="torch")


# --- an architecture from a user's own code ----------------------------------------------------------------------------


def test_it_is_refused_before_it_is_added(folder: Path) -> None:
    with pytest.raises(UnsupportedArchitectureError, match=r"no architecture 'made_up'\.\n.*register adds one"):
        TransformerModel.from_hugging_face(str(folder), engine="torch")


def test_it_runs_as_it_does_bare_and_generates_the_same_text(loaded: TransformerModel) -> None:
    assert loaded.verify().passed
    engine = cast(TorchEngine, loaded.engine)
    batch = TokenBatch.of([suite.PROMPTS[0]])
    ours = [int(step.tokens[0]) for step in engine.generate(batch, GenerationSettings(max_tokens=8))]
    ids = list(suite.PROMPTS[0])
    for _ in ours:
        place = torch.arange(len(ids))[None]
        ids.append(int(engine.model(torch.tensor([ids]), position_ids=place).logits[0, -1].argmax()))
    assert ours == ids[len(suite.PROMPTS[0]) :]


def test_it_passes_the_suite_that_every_architecture_passes(loaded: TransformerModel) -> None:
    engine, batch = loaded.engine, TokenBatch.of(suite.PROMPTS)
    suite.test_captures_have_the_documented_shapes(engine, batch)
    suite.test_the_stream_is_the_sum_of_what_is_written_to_it(engine, batch)
    suite.test_every_component_can_be_edited_and_matters(engine, batch)
    suite.test_an_edit_reaches_only_its_head_position_and_rows(engine, batch)
    suite.test_positions_count_real_tokens_under_either_padding(engine, "left")
    suite.test_a_run_resumed_or_stopped_at_a_layer_calls_only_its_blocks(engine, batch)
    suite.test_a_run_behind_a_prefix_equals_the_whole_run(engine)
    suite.test_only_the_logits_asked_for_are_computed(engine, batch)
    suite.test_gradients_equal_finite_differences(engine)


def test_its_weights_are_those_that_its_activations_follow_from(loaded: TransformerModel) -> None:
    ByHand(loaded.engine).check()
    write_random(loaded.engine)
    ByHand(loaded.engine).check()
    with pytest.raises(SiteError, match=r"has no mlp\.W_gate"):
        loaded.weights("1.mlp.W_gate")


def test_its_edges_are_patched_and_attributed(loaded: TransformerModel) -> None:
    engine, pairs = loaded.engine, random_pairs()
    evaluation = CircuitEvaluation(engine, pairs)
    chosen = [(receiver, source) for receiver in (3, 7, 20) for source in (0, 1)]
    edges = [edge for edge in chosen if evaluation.graph.valid[edge]]
    assert len(edges) > 2
    removed = evaluation.removals(evaluation.graph.valid.copy(), [Removal(*edge) for edge in edges])
    assert evaluation.clean - removed == pytest.approx(edge_effects(engine, pairs, edges), abs=2e-5)
    assert edge_scores(engine, pairs).shape == evaluation.graph.valid.shape


def test_scripts_and_layer_names_over_http_know_it(loaded: TransformerModel) -> None:
    workspace = Workspace()
    workspace.bind("model", loaded)
    assert list(workspace.run("(model weights: '1.attn.W_Q') tensor shape")) == [4, 32, 8]
    assert str(site_of(HookSpec(layer_name="trunk.storeys.1", component="mlp"), loaded)) == "1.mlp"
    assert str(site_of(HookSpec(layer_name="trunk.words"), loaded)) == "embedding"
    with pytest.raises(SiteError, match="is not a layer"):
        site_of(HookSpec(layer_name="trunk.storey.1"), loaded)


def test_an_installed_package_adds_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[neuroscope.architectures]\nmade_up = tests.made_up:MADE_UP\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert TransformerModel.from_hugging_face(str(folder), engine="torch").architecture.architecture == "made_up"


@tiny.needs_mlx
def test_mlx_says_that_torch_runs_it(folder: Path) -> None:
    architectures.register(made_up.MADE_UP)
    with pytest.raises(UnsupportedArchitectureError, match="The engine mlx has no architecture 'made_up', but torch does"):
        TransformerModel.from_hugging_face(str(folder), engine="mlx")


# --- descriptions that are wrong ---------------------------------------------------------------------------------------

PATHS = [
    name
    for name in (each.name for each in fields(Architecture) if each.type in ("str", "str | None"))
    if name not in ("name", "part_of", "cache_argument")
]


def described(**changes: Any) -> TorchEngine:
    architectures.register(replace(made_up.MADE_UP, **changes))
    return TorchEngine(made_up.random_model())


def test_the_right_one_is_accepted() -> None:
    assert described().anatomy.key_value_heads == 2
    assert len(PATHS) == 20


@pytest.mark.parametrize("name", PATHS)
def test_a_path_that_leads_nowhere_is_named(name: str) -> None:
    fused = ("query", "key", "value")
    names = fused if name in fused else (name,)
    with pytest.raises(UnsupportedArchitectureError, match=r"work\.nowhere"):
        described(**dict.fromkeys(names, "work.nowhere"))


def test_a_path_that_nearly_leads_somewhere_is_put_right() -> None:
    with pytest.raises(UnsupportedArchitectureError, match=r"Mixing has no 'bakc'\.\n.*Did you mean 'back'") as caught:
        described(output_projection="work.mix.bakc")
    assert "nothing at the path 'work.mix.bakc.weight'" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"input_first": True}, r"storeys\.0\.work\.mix\.everything\.weight, where attn\.W_Q .* shape \(64, 32\); .* \(32, 8, 8\)"),
        ({"up_projection": "work.think.narrow"}, r"work\.think\.narrow\.weight, where mlp\.W_in .* \(32, 48\); .* \(48, 32\)"),
        ({"down_projection": "work.think.widen"}, r"work\.think\.widen\.weight, where mlp\.W_out .* \(48, 32\); .* \(32, 48\)"),
        ({"gate_projection": "work.think.widen"}, r"mlp\.W_gate .* \(48, 32\); it would be \(2, 48, 32\)"),
        ({"key": "work.mix.back"}, "two of three fused"),
        ({"interleaved": True}, "2 interleaved key-value heads of 4 heads"),
        ({"embedding": "roof"}, r"trunk\.roof\.weight, where embed\.W_E .* \(32,\); it would be \(97, 32\)"),
        ({"layers": "storeys.0.work"}, "trunk.storeys.0.work holds 2 layers, its configuration says 3"),
        ({"layer_norm": True}, "first is not a LayerNorm with the gain weight"),
        ({"mlp_norm": "first"}, "attention and MLP share one norm, first"),
        ({"attention_norm": "second", "mlp_norm": "first"}, "first does not read the stream behind attention"),
        ({"parallel": True}, "second does not read the stream that attention reads"),
        ({"mlp": "work.mix"}, "attention and MLP are not what a layer adds to the stream"),
        ({"cache_argument": "past"}, "has no argument 'past' for its cache .*\n.*position_embeddings, memory"),
        ({"gain_shift": 1.0}, r"first is not a RMSNorm with the gain weight \+ 1"),
    ],
)  # fmt: skip
def test_a_shape_or_norm_that_does_not_fit_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UnsupportedArchitectureError, match=says):
        described(**changes)


def test_attention_that_cannot_be_looked_into_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = made_up.ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setattr(made_up, "ALL_ATTENTION_FUNCTIONS", {"neuroscope": plain})
    with pytest.raises(UnsupportedArchitectureError, match="does not go through transformers' ALL_ATTENTION_FUNCTIONS"):
        described()


def test_values_that_heads_do_not_read_are_told_from_those_that_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused matrix in another order than the described one, which no shape shows."""

    def turned(self: made_up.Mixing, x: Any, *arguments: Any, **settings: Any) -> Any:
        handle = self.everything.register_forward_hook(lambda _, __, out: out.roll(16, -1))
        try:
            return forward(self, x, *arguments, **settings)
        finally:
            handle.remove()

    forward = made_up.Mixing.forward
    monkeypatch.setattr(made_up.Mixing, "forward", turned)
    with pytest.raises(UnsupportedArchitectureError, match=r"heads do not read the values of work\.mix\.everything"):
        described()


def test_a_configuration_that_lacks_a_size_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    architectures.register(made_up.MADE_UP)
    model = made_up.random_model()
    model.config.num_attention_heads = None
    with pytest.raises(UnsupportedArchitectureError, match=r"has no num_attention_heads\.\n.*attribute_map"):
        TorchEngine(model)
    model.config.num_attention_heads, model.config.layer_types = 4, ["linear_attention"] * 3
    with pytest.raises(UnsupportedArchitectureError, match="'linear_attention' is not known"):
        TorchEngine(model)


@pytest.mark.parametrize("name", ["llama", "gemma3", "made_up"])
def test_a_name_is_taken_once(name: str) -> None:
    architectures.register(made_up.MADE_UP)
    with pytest.raises(ArgumentError, match=f"There is already an architecture '{name}'"):
        architectures.register(replace(made_up.MADE_UP, name=name, base="other"))
    assert architectures.find("made_up").base == "trunk"


def test_only_architectures_are_added() -> None:
    with pytest.raises(ArgumentError, match="is not an Architecture"):
        architectures.register(cast(Architecture, {"name": "mine"}))


class Packed(torch.nn.Linear):
    """As packages for quantised weights have it: the matrix is bytes of another shape."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False)
        self.plain = plain.weight.detach()
        self.weight = torch.nn.Parameter(torch.zeros(self.plain.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.plain.T


def test_packed_matrices_have_no_shape_to_compare() -> None:
    plain, packed, batch = tiny.hf_model("llama"), tiny.hf_model("llama"), TokenBatch.of(suite.PROMPTS)
    for layer in packed.model.layers:
        layer.mlp.down_proj = Packed(layer.mlp.down_proj)
    ours, theirs = (TorchEngine(model).forward(batch).logits for model in (packed, plain))
    assert (ours - theirs).abs().max() < 1e-5


# --- what stands in the table ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_gated_mlp_is_one_with_a_third_matrix(architecture: str) -> None:
    engine = tiny.engine(architecture)
    names = {str(weight) for weight, _, shape in engine.parameters.stored_shapes(0) if shape is not None}
    assert architectures.find(engine.anatomy.architecture).gated == ("mlp.W_gate" in names)


@pytest.mark.parametrize("known", list(architectures.table().values()), ids=lambda one: one.name)
def test_every_architecture_gives_its_layers_a_name_over_http(known: Architecture) -> None:
    model = SimpleNamespace(architecture=tiny.engine("llama").anatomy)
    for name in (f"{known.path('layers')}.1", f"{known.layers}.1", "blocks.1", "1"):
        assert str(site_of(HookSpec(layer_name=name, component="mlp"), cast(TransformerModel, model))) == "1.mlp"
    assert str(site_of(HookSpec(layer_name=known.path("embedding")), cast(TransformerModel, model))) == "embedding"
    assert str(site_of(HookSpec(layer_name="lm_head"), cast(TransformerModel, model))) == "logits"


# --- LongRoPE ----------------------------------------------------------------------------------------------------------


def long(architecture: str) -> Any:
    factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
    sizes = {**tiny._GROUPED, "original_max_position_embeddings": 16}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes, rope_parameters=rope))


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_a_longrope_model_runs_within_its_original_context(architecture: str) -> None:
    """Beyond it every token of a text is rotated otherwise, those before too: keys that were kept would be wrong."""
    engine = TorchEngine(long(architecture))
    batch = TokenBatch.of([suite.PROMPTS[0]])
    assert (engine.forward(batch).logits - engine.bare_logits(batch)).abs().max() < 1e-5
    with pytest.raises(ArgumentError, match="17 tokens exceed the model's context of 16"):
        engine.forward(TokenBatch.of([[5] * 17]))


@tiny.needs_mlx
@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_mlx_refuses_longrope(architecture: str, tmp_path: Path) -> None:
    """mlx-lm rotates by the long factors always."""
    long(architecture).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedArchitectureError, match="'longrope'"):
        TransformerModel.from_hugging_face(str(tmp_path), engine="mlx")
