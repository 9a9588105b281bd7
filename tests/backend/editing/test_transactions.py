"""Edits are applied whole or not at all, and come off bit for bit, whatever fails on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neuroscope.editing import transactions
from neuroscope.editing.edit import WeightEdit
from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.weights import WeightView
from neuroscope.errors import ArgumentError, EditError, WeightError
from neuroscope.models.model import TransformerModel
from tests import tiny

W_OUT, W_IN = "1.mlp.W_out", "0.mlp.W_in"


@pytest.fixture(params=["gpt2", "gpt_oss"])
def model(request: pytest.FixtureRequest, framework: str) -> TransformerModel:
    engine = tiny.engine_on(framework, request.param)
    return TransformerModel(engine, tiny.tokenizer(), request.param, f"hash of {request.param}")


def small(model: TransformerModel, name: str, seed: int = 0, size: float = 0.01) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=size, size=model.weights(name).shape)


def planned(model: TransformerModel, *names: str, title: str = "a change", seed: int = 0) -> WeightEdit:
    deltas = {name: small(model, name, seed) for name in names}
    return WeightEdit.planned(model, deltas, title=title, method="by hand")


def logits(model: TransformerModel) -> np.ndarray:
    ids = np.arange(24).reshape(2, 12)
    return np.asarray(model.engine.ops.to_numpy(model.run(TokenBatch(ids, np.ones_like(ids, dtype=np.bool_))).logits))


def test_an_edit_adds_what_it_says_and_comes_off_bit_for_bit(model: TransformerModel) -> None:
    bare, loaded, was = logits(model), model.weights_hash, model.weights(W_OUT).read()
    edit = planned(model, W_OUT, f"{W_IN}[3]")
    assert model.weights_hash == loaded  # planning changes nothing
    assert model.apply_edit(edit) is edit
    assert model.edits == [edit]
    assert sorted(model.changed_weights) == sorted([W_OUT, W_IN])
    np.testing.assert_allclose(model.weights(W_OUT).read(), was + edit.deltas[W_OUT], rtol=1e-6, atol=1e-7)
    assert np.abs(logits(model) - bare).max() > 1e-4
    model.revert(edit)
    assert model.weights_hash == loaded
    assert model.edits == []
    np.testing.assert_array_equal(logits(model), bare)


def test_numbers_that_an_edit_leaves_alone_keep_their_bits(model: TransformerModel) -> None:
    name = "0.ln1.w"
    delta = np.zeros(model.weights(name).shape)
    delta[2] = 0.5
    before = model.weights(name).snapshot()
    edit = WeightEdit.planned(model, {name: delta}, title="one gain", method="by hand")
    model.apply_edit(edit)
    assert edit.changed == 1
    assert np.flatnonzero(model.weights(name).snapshot().bits != before.bits).tolist() == [2]


def test_edits_that_share_nothing_come_off_in_any_order(model: TransformerModel) -> None:
    loaded = model.weights_hash
    first, second = planned(model, f"{W_OUT}[0]", title="first"), planned(model, f"{W_OUT}[1]", title="second")
    for edit in (first, second):  # both made for the model as it was loaded
        model.apply_edit(edit)
    model.revert(first)
    assert model.edits == [second]
    model.revert(second)
    assert model.weights_hash == loaded


def test_of_edits_that_overlap_the_last_comes_off_first(model: TransformerModel) -> None:
    loaded = model.weights_hash
    first = model.apply_edit(planned(model, W_OUT, title="first"))
    second = model.apply_edit(planned(model, f"{W_OUT}[1]", title="second"))
    with pytest.raises(EditError, match=r"'second' lies above 'first': both touch 1\.mlp\.W_out") as caught:
        model.revert(first)
    assert "Revert 'second' first" in str(caught.value)
    assert model.edits == [first, second]
    assert model.revert_edits() == [second, first]
    assert model.weights_hash == loaded


def test_an_edit_applies_only_to_what_it_was_made_for(model: TransformerModel) -> None:
    early, late = planned(model, W_OUT, title="early"), planned(model, W_OUT, title="late", seed=1)
    model.apply_edit(early)
    with pytest.raises(EditError, match="applied already"):
        model.apply_edit(early)
    with pytest.raises(EditError, match="'late' was made before 'early' was applied"):
        model.apply_edit(late)
    model.revert(early)
    other = TransformerModel(model.engine, model.tokenizer, "other", "another hash")
    with pytest.raises(EditError, match="was made for gpt"):
        other.apply_edit(late)
    model.weights(W_IN).write(model.weights(W_IN).read() * 2)
    with pytest.raises(EditError, match="not for"):
        model.apply_edit(late)


def test_a_weight_that_others_wrote_since_is_not_overwritten(model: TransformerModel) -> None:
    edit = model.apply_edit(planned(model, W_OUT))
    kept = model.weights(W_OUT).snapshot()
    model.weights(f"{W_OUT}[0]").write(np.ones(model.architecture.d_model))
    mine = model.weights_hash
    with pytest.raises(EditError, match="was written after"):
        model.revert(edit)
    assert model.weights_hash == mine
    model.weights(W_OUT).restore(kept)
    model.revert(edit)
    with pytest.raises(EditError, match="is not applied"):
        model.revert(edit)


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_write_that_fails_leaves_every_bit(model: TransformerModel, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    loaded, edit, calls = model.weights_hash, planned(model, W_OUT, W_IN, "2.attn.W_O[1]"), 0
    write = WeightView.restore

    def failing(view: WeightView, snapshot: object) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise MemoryError("full")
        write(view, snapshot)  # type: ignore[arg-type]

    monkeypatch.setattr(WeightView, "restore", failing)
    with pytest.raises(MemoryError):
        model.apply_edit(edit)
    assert calls > fails_at  # it wrote again, to put back
    assert model.weights_hash == loaded
    assert model.edits == []


def test_an_edit_that_breaks_the_model_is_taken_back(model: TransformerModel) -> None:
    loaded, name = model.weights_hash, "2.mlp.W_out"
    huge = np.full(model.weights(name).shape, 3e38)
    edit = WeightEdit.planned(model, {name: huge}, title="huge", method="by hand")
    with pytest.raises(EditError, match="NaN or infinite"):
        model.apply_edit(edit)
    assert model.weights_hash == loaded


def test_an_edit_on_trial_comes_off_whatever_ends_the_trial(model: TransformerModel) -> None:
    loaded, edit = model.weights_hash, planned(model, W_OUT)
    with pytest.raises(ZeroDivisionError), transactions.applied_for_now(model, edit):
        assert model.weights_hash != loaded
        raise ZeroDivisionError
    assert model.weights_hash == loaded
    model.apply_edit(edit)
    with transactions.applied_for_now(model, edit):
        pass
    assert model.edits == [edit]  # what was applied before stays


def test_an_edit_travels_in_a_file(model: TransformerModel, tmp_path: Path) -> None:
    edit = planned(model, W_OUT, f"{W_IN}[3]")
    path = edit.save(str(tmp_path / "change"))
    assert path.endswith("change.edit")
    read = WeightEdit.load(path)
    assert read.as_dictionary() == edit.as_dictionary()
    model.apply_edit(read)
    after = model.weights_hash
    model.revert(read)
    model.apply_edit(edit)
    assert model.weights_hash == after
    Path(path).write_bytes(Path(path).read_bytes()[:-3] + b"abc")
    with pytest.raises(EditError, match="changed after it was written"):
        WeightEdit.load(path)
    with pytest.raises(EditError, match="There is no edit file"):
        WeightEdit.load(str(tmp_path / "absent.edit"))


def test_a_full_disk_leaves_no_file_and_the_edit_applied(
    model: TransformerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = model.apply_edit(planned(model, W_OUT))

    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EditError, match="no space left"):
        edit.save(str(tmp_path / "change"))
    assert list(tmp_path.iterdir()) == []
    assert model.edits == [edit]


def test_bad_changes_are_refused_before_anything_is_done(model: TransformerModel) -> None:
    shape = model.weights(W_OUT).shape

    def plan(**deltas: object) -> None:
        WeightEdit.planned(model, {k.replace("_at_", "."): v for k, v in deltas.items()}, title="x", method="y")  # type: ignore[misc]

    with pytest.raises(ArgumentError, match="at least one"):
        plan()
    for wrong, message in ((np.ones(3), "has the shape"), (np.full(shape, np.nan), "NaN"), (np.full(shape, 1e60), "NaN")):
        with pytest.raises(ArgumentError, match=message):
            WeightEdit.planned(model, {W_OUT: wrong}, title="x", method="y")
    with pytest.raises(ArgumentError, match="share numbers"):
        WeightEdit.planned(
            model, {W_OUT: np.zeros(shape), f"{W_OUT}[1]": np.zeros(model.architecture.d_model)}, title="x", method="y"
        )
    with pytest.raises(ArgumentError, match="is not an edit"):
        model.apply_edit("The capital of France is Lyon")


def test_a_tied_matrix_needs_consent_and_is_noted(framework: str) -> None:
    model = TransformerModel(tiny.engine_on(framework, "gpt2"), tiny.tokenizer(), "tied", "hash")
    change = {"embed.W_E[5]": np.ones(model.architecture.d_model)}
    with pytest.raises(WeightError, match="one matrix"):
        WeightEdit.planned(model, change, title="token 5", method="by hand")
    edit = WeightEdit.planned(model, change, title="token 5", method="by hand", tied=True)
    assert edit.notes == ["embed.W_E[5] is embedding and unembedding at once: both change"]
    assert "both change" in edit.summary()
    first = model.apply_edit(edit)
    with pytest.raises(EditError, match="both touch"):
        model.apply_edit(
            WeightEdit.planned(model, {"unembed.W_U[5]": np.ones(32)}, title="same", method="by hand", tied=True)
        ) and model.revert(first)


def test_shared_keys_and_values_are_noted(framework: str) -> None:
    model = TransformerModel(tiny.engine_on(framework, "llama"), tiny.tokenizer(), "grouped", "hash")
    edit = planned(model, "1.attn.W_V[1]", "2.attn.W_K")
    assert edit.notes == [
        "1.attn.W_V[1] is shared: it serves query heads 2 to 3",
        "2.attn.W_K is shared: it serves 2 query heads each",
    ]


INTERRUPTED = """
import os, signal, sys
import numpy as np
from neuroscope.editing.edit import WeightEdit
from neuroscope.engines.protocol import TokenBatch
from neuroscope.engines.weights import WeightView
from neuroscope.models.model import TransformerModel
from tests import tiny

model = TransformerModel(tiny.engine("gpt2"), tiny.tokenizer(), "gpt2", "hash")
names = ["1.mlp.W_out", "0.mlp.W_in"]
edit = WeightEdit.planned(model, {n: np.full(model.weights(n).shape, .01) for n in names}, title="x", method="y")
write, calls = WeightView.restore, 0

def interrupted(view, snapshot):
    global calls
    calls += 1
    write(view, snapshot)
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))

WeightView.restore = interrupted
try:
    model.apply_edit(edit)
except KeyboardInterrupt:
    print("interrupted", model.weights_hash == "hash", model.edits)
"""


@pytest.mark.parametrize("calls", [1, 2])
def test_an_interrupt_in_the_middle_restores(calls: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "SIGINT", str(calls)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "interrupted True []", done.stderr


def test_termination_in_the_middle_still_ends_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "SIGTERM", "1"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == -signal.SIGTERM


def test_edits_come_off_for_a_while_and_go_on_again(model: TransformerModel) -> None:
    loaded = model.weights_hash
    first = model.apply_edit(planned(model, f"{W_OUT}[0]", title="first"))
    second = model.apply_edit(planned(model, f"{W_OUT}[1]", title="second"))
    model.revert(first)  # the second was made for a model that had it
    edited = model.weights_hash
    with pytest.raises(ZeroDivisionError), transactions.unedited(model):
        assert model.weights_hash == loaded
        raise ZeroDivisionError
    assert model.weights_hash == edited
    assert model.edits == [second]


def test_who_watches_hears_of_edits_but_not_of_trials(model: TransformerModel) -> None:
    heard: list[int] = []

    def watcher() -> bool:
        heard.append(len(model.edits))
        return len(heard) < 3

    transactions.watch(model, watcher)
    edit = planned(model, W_OUT)
    with transactions.applied_for_now(model, edit):
        pass
    for _ in range(2):
        model.apply_edit(edit)
        model.revert(edit)
    assert heard == [1, 0, 1]
