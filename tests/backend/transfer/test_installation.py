"""What is carried is what the circuit wrote; gates; installing, taking off, and bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from neuroscope import places
from neuroscope.circuits.circuit import Circuit
from neuroscope.circuits.finder import CircuitFinder
from neuroscope.circuits.graph import Graph
from neuroscope.engines.protocol import LogitRequest, TokenBatch
from neuroscope.errors import ArgumentError, CircuitError, SiteError
from neuroscope.models.model import TransformerModel
from neuroscope.steering.vectors import SteeringVectors
from neuroscope.tasks.statistics import Estimate
from neuroscope.transfer import installation, keeping, maps
from neuroscope.transfer.carrier import Carrier, Constant, writing
from neuroscope.transfer.circuits import AdaptedCircuit, CircuitTransfer
from neuroscope.transfer.installation import CircuitInstallation, GateTrial, layer_named
from neuroscope.views.page import figures, has_figures
from tests import tiny
from tests.backend.transfer.test_maps import halving, orthogonal, permuted, turned, words

TEXT = "w12 w7 w33 w5 w40"


def carrier(
    source: TransformerModel, target: TransformerModel, matrix: np.ndarray, layer: int = 2, mask: np.ndarray | None = None
) -> Carrier:
    """Of a circuit, by default that of all edges: what the whole source has written."""
    graph = Graph.of(source.architecture)
    means = np.zeros((graph.sources, source.architecture.d_model), dtype=np.float32)
    circuit = SimpleNamespace(model=source, means=means, pairs=SimpleNamespace(clean=source.encode([TEXT, TEXT])))
    return Carrier(cast(Circuit, circuit), graph.valid if mask is None else mask, target, layer, matrix)


def logits(model: TransformerModel, batch: str | TokenBatch = TEXT) -> np.ndarray:
    return np.asarray(model.engine.ops.to_numpy(model.run(batch).logits))


@pytest.mark.parametrize("source_engine", tiny.ENGINES)
@pytest.mark.parametrize("target_engine", tiny.ENGINES)
def test_what_is_written_while_reading_is_written_token_by_token(source_engine: str, target_engine: str) -> None:
    source, target = tiny.model("llama", seed=1, scale=0.1, on=source_engine), tiny.model(on=target_engine)
    hook = writing(carrier(source, target, 3 * orthogonal()), 1, 1.0, "carried")
    with target.hook_manager.temporarily(hook):
        batch = target.encode([TEXT, "w9 w8"], side="left")
        options = target.generation_settings(max_tokens=6)
        steps = [step.tokens for step in target.stream(batch, options)]
        for row, prompt in enumerate((TEXT, "w9 w8")):
            ids = target.encode(prompt).ids[0].tolist()
            for step in steps:
                run = target.run(TokenBatch.of([ids]), logits=LogitRequest(np.array([len(ids) - 1])))
                assert int(target.engine.ops.to_numpy(run.logits)[0].argmax()) == int(step[row])
                ids.append(int(step[row]))
    alone = [step.tokens for step in target.stream(batch, options)]
    assert any((mine != other).any() for mine, other in zip(steps, alone, strict=True))


def test_the_source_of_a_turned_stream_writes_the_turned_stream() -> None:
    turn = orthogonal()
    plain, other = turned(turn)
    ids = plain.encode(TEXT).ids[0].tolist()
    here, there = carrier(plain, other, turn).added([ids])[0], carrier(other, other, np.eye(32)).added([ids])[0]
    assert np.abs(here[1:] - there[1:]).max() < 1e-3 < np.abs(there[1:]).max()
    assert not here[0].any()  # the attention sink is left alone


def test_a_circuit_is_exact_behind_the_map_to_a_turned_model_whose_heads_and_neurons_are_permuted() -> None:
    turn = orthogonal()
    plain, same = turned(turn)
    other, renamed = permuted(same)
    assert np.abs(logits(plain) - logits(other)).max() < 1e-4
    found = maps.fit(plain, other, 2, 2, words(90), 0)
    assert np.abs(found.there.matrix - turn).max() < 1e-4

    def mask(heads: list[int]) -> np.ndarray:
        graph = Graph.of(plain.architecture)
        sources = [0, *(graph.head(layer, head) for layer in (0, 1) for head in heads), graph.mlp(1)]
        receivers = [graph.logits, *(int(one) for source in sources for one in graph.node_receivers(source))]
        chosen = np.zeros_like(graph.valid)
        chosen[np.ix_(receivers, sources)] = graph.valid[np.ix_(receivers, sources)]
        return chosen

    ids = plain.encode(TEXT).ids[0].tolist()
    carried = carrier(plain, other, found.there.matrix, mask=mask([0, 1])).added([ids])[0]
    own, wrong = (
        carrier(other, other, np.eye(32), mask=mask(heads)).added([ids])[0] for heads in ([renamed[0], renamed[1]], [0, 1])
    )
    assert np.abs(carried - own).max() < 1e-4 * np.abs(own).max()
    assert np.abs(carried - wrong).max() > 0.1 * np.abs(own).max()  # the heads of the same number are others


def test_a_target_with_finer_tokens_gets_what_is_behind_it() -> None:
    source, target = tiny.model(scale=0.1), TransformerModel(tiny.engine("gpt2", seed=5), halving(), "halves", "halves")
    ids = [int(token) for token in target.encode("w12 w7 w33").ids[0]]
    added = carrier(source, target, np.eye(32)).added([ids])[0]
    text = target.decode(ids)  # `w 12 w 7 w 33`: words of a single piece for the target, none that the source knows
    assert len(added) == len(ids)
    assert text.count(" ") == 5


def test_gate_0_and_taking_it_off_are_the_bare_model_bit_for_bit() -> None:
    source, target = tiny.model("llama", seed=1, scale=0.1), tiny.model()
    bare, written = logits(target), carrier(source, target, np.eye(32))
    for gate in (0.0, 1.0):
        hook, calls = target.hook_manager.add_hook(writing(written, 1, gate, "carried")), source.engine.block_calls
        assert (logits(target) == bare).all() == (gate == 0)
        assert (source.engine.block_calls == calls) == (gate == 0)  # a source that adds nothing need not run
        target.hook_manager.remove_hook(hook)
        assert (logits(target) == bare).all()


def test_a_model_inside_its_own_run() -> None:
    model = tiny.model(scale=0.1)
    bare = logits(model)
    with model.hook_manager.temporarily(writing(carrier(model, model, np.eye(32)), 1, 0.5, "carried")):
        changed = logits(model)
    other = tiny.model(scale=0.1)
    with model.hook_manager.temporarily(writing(carrier(other, model, np.eye(32)), 1, 0.5, "carried")):
        assert np.abs(logits(model) - changed).max() < 1e-5 < np.abs(changed - bare).max()


def test_padding_and_prefixes_make_no_difference() -> None:
    source, target = tiny.model("llama", seed=1, scale=0.1), tiny.model()
    hook = writing(carrier(source, target, np.eye(32)), 1, 1.0, "carried")
    with target.hook_manager.temporarily(hook):
        alone = logits(target, "w9 w8")
        for side in ("left", "right"):
            batch = target.encode(["w9 w8", TEXT], side=side)
            assert np.abs(logits(target, batch)[0][batch.real[0]] - alone[0]).max() < 1e-4


@pytest.mark.parametrize(
    ("named", "layer"), [("layer2", 2), ("#layer1".strip("#"), 1), (0, 0), ("transformer.h.1", 1), (-1, 2)]
)
def test_layers_by_name(named: Any, layer: int) -> None:
    assert layer_named(tiny.model(), named) == layer


@pytest.mark.parametrize(
    ("named", "said"), [("layer10", "run from 0 to 2"), ("lair1", "layer1"), ("", "Layers"), (True, "not a layer")]
)
def test_layers_that_are_not(named: Any, said: str) -> None:
    with pytest.raises(SiteError) as raised:
        layer_named(tiny.model(), named)
    assert said in str(raised.value)


# --- on a bundled model -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> TransformerModel:
    return TransformerModel.from_hugging_face("bundled:gpt2-medium")


@pytest.fixture(scope="module")
def finder(model: TransformerModel) -> CircuitFinder:
    found = CircuitFinder(model, pairs=24, random_circuits=1, minimality_sample=2)
    found.find_circuit("capital_of_country")
    return found


@pytest.fixture(scope="module")
def installed(model: TransformerModel, finder: CircuitFinder) -> CircuitInstallation:
    adapted = CircuitTransfer(model, model, items=20, gates=(1.0,), random_circuits=1).adapt_circuit(finder, model.architecture)
    return model.install_circuit(adapted, at="layer10")


def test_a_model_needs_nothing_of_its_own(installed: CircuitInstallation, model: TransformerModel) -> None:
    assert installed.installed
    assert installed.gate == 0
    assert installed.helps is False
    assert installed.after == installed.before
    assert installed.difference == Estimate(0.0, 0.0, 0.0, installed.before.n)
    assert installed.unrelated_kl.value == 0 < installed.tried_kl.value
    assert set(installed.controls) == {"random circuit", "mean vector", "without the map"}
    assert "does not help" in installed.conclusion
    assert "does not help" in installed.summary()
    assert installed.as_dictionary()["mapR2"]["raw"]["n"] > 10
    assert has_figures(installed)
    changes, quality = figures(installed)
    shown = [installed.at_tried, *installed.controls.values()]
    assert list(changes.data[0].x) == [one.value for one in shown]
    assert list(changes.data[0].y) == ["circuit", *installed.controls]
    assert quality.data[0].x[0] == installed.map_r2.raw.value
    with_it = logits(model, "The capital of France is")
    assert installed.uninstall() is model
    assert not installed.installed
    assert (logits(model, "The capital of France is") == with_it).all()
    with pytest.raises(ArgumentError):
        installed.uninstall()


@pytest.mark.parametrize("gate", [0.0, 0.5])
def test_a_saved_model_has_its_installations_when_it_is_loaded(
    gate: float, installed: CircuitInstallation, model: TransformerModel, tmp_path: Path
) -> None:
    """gate 0: as it was installed here. 0.5: as if that had been chosen, so that the source has to be loaded."""
    target, text = TransformerModel.from_hugging_face("bundled:gpt2-medium"), "The capital of France is"
    bare, circuit, quality = logits(target, text), installed.circuit, installed.map_r2
    written = Carrier(circuit, circuit.mask, target, quality.source_layer, quality.there.matrix)
    hook = target.hook_manager.add_hook(writing(written, 10, gate, "circuit for capital_of_country at layer 10"))
    one = dataclasses.replace(installed, gate=gate, _hook=hook, _target=target)
    installation.remember(one)
    wanted = logits(target, text)
    target.save(str(tmp_path / "kept"))
    loaded = TransformerModel.load(str(tmp_path / "kept"))
    (found,) = loaded.installed_circuits
    assert found.as_dictionary() == one.as_dictionary()
    assert (logits(loaded, text) == wanted).all()
    assert (wanted == bare).all() == (gate == 0)
    found.uninstall()
    assert (logits(loaded, text) == bare).all()
    assert not loaded.installed_circuits
    assert ("_found_on" in vars(found.circuit)) == (gate > 0)  # the source was loaded only where something is written
    path = tmp_path / "kept" / "installed" / "0.installation"
    path.write_bytes(path.read_bytes().replace(b'": 10', b'": 11'))
    with pytest.raises(CircuitError, match="changed after it was written"):
        TransformerModel.load(str(tmp_path / "kept"))


def test_the_source_of_a_loaded_installation_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[places.Confinement | None] = []

    class Noting:
        def __init__(self, *_: object) -> None:
            seen.append(places.current())

        def added(self, rows: object) -> list[object]:
            return []

    monkeypatch.setattr(keeping, "Carrier", Noting)
    for outer in (None, places.Confinement(Path("/own"), download=True)):
        circuit = cast(Circuit, SimpleNamespace(mask=None))
        with places.confined(outer):
            keeping._Later(circuit, cast(TransformerModel, None), 0, np.eye(2)).added([[1]])
    assert [confinement is not None and confinement.download for confinement in seen] == [False, False]
    assert seen[0] is not None
    assert seen[0].roots == [Path("/").resolve()]
    assert seen[1] is not None
    assert seen[1].folder == Path("/own")


def test_bad_input_leaves_the_model_as_it_was(model: TransformerModel, finder: CircuitFinder) -> None:
    hooks, other = len(model.hook_manager), tiny.model()
    transfer = CircuitTransfer(model, model)
    with pytest.raises(CircuitError, match="found no circuit yet"):
        transfer.adapt_circuit(CircuitFinder(model))
    with pytest.raises(CircuitError, match="was found on"):
        CircuitTransfer(other, model).adapt_circuit(finder)
    with pytest.raises(ArgumentError, match="needs a Circuit"):
        transfer.adapt_circuit(3)
    with pytest.raises(ArgumentError, match="not gpt2: 3 layers"):
        transfer.adapt_circuit(finder, other.architecture)
    adapted = transfer.adapt_circuit(finder)
    assert isinstance(adapted, AdaptedCircuit)
    assert "not installed yet" in adapted.summary()
    with pytest.raises(SiteError, match="no layer 40"):
        model.install_circuit(adapted, at="layer40")
    with pytest.raises(CircuitError, match="was adapted to"):
        other.install_circuit(adapted, at="layer1")
    with pytest.raises(ArgumentError, match="installs an adapted circuit"):
        model.install_circuit(finder, at="layer1")
    with pytest.raises(ArgumentError, match="no gates"):
        CircuitTransfer(model, model, gates=[0.0])
    with pytest.raises(ArgumentError, match="TransformerModel"):
        CircuitTransfer(model, cast(TransformerModel, "gpt2"))
    assert len(model.hook_manager) == hooks


@pytest.mark.parametrize("engine", tiny.ENGINES)
def test_a_model_is_known_again_by_weights_and_tokenizer(engine: str) -> None:
    first, second = (TransformerModel.from_hugging_face("bundled:gpt2-medium", engine=engine) for _ in range(2))
    assert installation._same(first, second)
    assert not installation._same(first, TransformerModel(first.engine, halving(), "halves", first.loaded_hash))
    assert not installation._same(first, TransformerModel(first.engine, first.tokenizer, "other", "other"))
    assert len(CircuitTransfer(first, second, texts=["a b", "c d"]).unrelated(3)) == 3


def test_a_steering_vector_of_another_component_is_refused(model: TransformerModel) -> None:
    vector = SteeringVectors(model).load("formalStyle", layer=5, component="mlp")
    with pytest.raises(ArgumentError, match="not of the residual stream"):
        CircuitTransfer(model, model).map(vector)


# --- verdicts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "tried", "control", "said"),
    [
        (0.0, (0.0, -0.1, 0.1), 0.0, "does not help"),
        (1.0, (0.1, -0.1, 0.3), 0.0, "not shown to help"),
        (1.0, (0.3, 0.2, 0.4), 0.3, "not the circuit's doing"),
        (1.0, (0.3, 0.2, 0.4), 0.1, "The circuit helps"),
    ],
)
def test_the_conclusion_follows_the_figures(gate: float, tried: tuple[float, float, float], control: float, said: str) -> None:
    best = GateTrial(1.0, Estimate(0.1, 0.0, 0.2, 20), 0.5)
    found = installation._conclusion(gate, best, Estimate(*tried, 20), {"mean vector": Estimate(control, 0.0, 1.0, 20)})
    assert said in found


def test_a_constant_says_the_same_at_every_token_but_the_first() -> None:
    (added,) = Constant(np.arange(3.0)).added([[1, 2, 3]])
    assert added.tolist() == [[0, 0, 0], [0, 1, 2], [0, 1, 2]]
