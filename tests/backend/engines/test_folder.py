"""What a folder says of its tokens and weights, on every engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from neuroscope.engines.folder import ModelFolder, end_ids
from neuroscope.engines.tokenizers import FileTokenizer, load_tokenizer
from neuroscope.errors import ArgumentError, ModelLoadError
from neuroscope.models.generation import continued
from neuroscope.models.model import TransformerModel
from neuroscope.models.resolve import resolve
from tests import machines, tiny

PATH = ("▁Paris", "▁and", "▁so", "<turn>", "▁on", "</s>", "▁Rome", "<other>", "▁is")
PROMPT = "The capital of France is Paris"


def token(tokenizer: Any, text: str) -> int:
    return int(tokenizer.convert_tokens_to_ids(text))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return machines.sentencepiece()


@pytest.mark.parametrize(
    ("config", "generation", "files", "written"),
    [
        ({}, None, {}, " and so on"),  # the tokenizer's own alone
        ({"eos_token_id": 3}, None, {}, " and so"),
        ({"eos_token_id": [2, 3]}, None, {}, " and so"),
        ({}, {"eos_token_id": [2, 3]}, {}, " and so"),
        ({"eos_token_id": 2}, {"eos_token_id": 3}, {}, " and so"),
        ({"eos_token_id": -1}, {"eos_token_id": 100_000}, {}, " and so on"),
        ({}, None, {"tokenizer_config.json": {}, "special_tokens_map.json": {"eos_token": "</s>"}}, " and so on"),
        ({}, None, {"tokenizer_config.json": {}, "special_tokens_map.json": {"eos_token": {"content": "<turn>"}}}, " and so"),
        (
            {},
            None,
            {
                "tokenizer_config.json": {"added_tokens_decoder": {}, "bos_token": "<s>"},
                "special_tokens_map.json": {"eos_token": "<turn>"},
            },
            " and so",
        ),
        ({}, None, {"tokenizer_config.json": {"eos_token": None}}, " and so on Rome is"),
    ],
)
def test_every_end_token_of_a_folder_ends_a_generation(
    framework: str,
    tmp_path: Path,
    tokenizer: Any,
    config: dict[str, Any],
    generation: dict[str, Any] | None,
    files: dict[str, Any],
    written: str,
) -> None:
    folder = machines.machine(
        tmp_path / "m", tokenizer, machines.chain(tokenizer, *PATH), config=config, generation=generation, files=files
    )
    model = machines.load(folder, framework)
    assert model.generate(PROMPT, max_tokens=len(PATH) - 1) == written
    assert model.continuations([PROMPT, f"The {PROMPT}"], len(PATH) - 1) == [written, written]


def test_the_text_part_of_a_configuration_names_end_tokens_too() -> None:
    assert end_ids({"eos_token_id": [1, 106]}, {"eos_token_id": None, "text_config": {"eos_token_id": 5}}) == (1, 106, 5)
    assert end_ids({}, {"eos_token_id": True}, {"eos_token_id": "7"}) == ()


def test_end_tokens_outlive_saving(framework: str, tmp_path: Path, tokenizer: Any) -> None:
    folder = machines.machine(tmp_path / "m", tokenizer, machines.chain(tokenizer, *PATH), generation={"eos_token_id": [2, 3]})
    model = machines.load(folder, framework)
    model.save(str(tmp_path / "again"))
    again = TransformerModel.load(str(tmp_path / "again"), engine=framework)
    assert again.end_tokens == model.end_tokens == (2, 3)
    assert again.generate(PROMPT, max_tokens=6) == " and so"


# --- chat templates ---------------------------------------------------------------------------------------------------

_GENERATION = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}"
    "{% generation %}{{ m.content }}<turn>{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} is{% endif %}"
)
_PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %} is"


@pytest.mark.parametrize(
    ("files", "begins"),
    [
        ({"chat_template.jinja": _GENERATION}, "<s>"),
        ({"chat_template.json": {"chat_template": _GENERATION}}, "<s>"),
        ({"chat_template.json": {"chat_template": _GENERATION}, "chat_template.jinja": _PLAIN}, ""),
        ({"chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": _GENERATION}]}, "<s>"),
        ({"chat_template": _GENERATION}, "<s>"),
    ],
)
@pytest.mark.parametrize("bos", [True, False])
def test_chat_templates_of_every_layout_are_read_and_begin_once(
    framework: str, tmp_path: Path, files: dict[str, Any], begins: str, bos: bool
) -> None:
    tokenizer = machines.sentencepiece(bos=bos)
    folder = machines.machine(tmp_path / "m", tokenizer, {}, files={k: v for k, v in files.items() if "." in k})
    if "chat_template" in files:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, **files}))
    model = machines.load(folder, framework)
    assert model.has_chat_template
    messages = [{"role": "user", "content": "The capital"}, {"role": "assistant", "content": " of"}]
    if begins:
        assert model.chat_prompt(messages) == "<s>The capital of<turn> is"
    assert model.chat_prompt("The capital of") == f"{begins}The capital of is"
    assert model.encode(model.chat_prompt("The capital of")).ids[0].tolist().count(1) == len(begins) // 3


def test_of_several_templates_none_is_taken_that_is_not_the_default(framework: str, tmp_path: Path, tokenizer: Any) -> None:
    folder = machines.machine(tmp_path / "m", tokenizer, {})
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = [{"name": "tool_use", "template": _PLAIN}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    model = machines.load(folder, framework)
    assert not model.has_chat_template
    with pytest.raises(ArgumentError, match="has no chat template"):
        model.chat_prompt("The capital of")


# --- the tokenizer's own files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [machines.sentencepiece, machines.byte_level])
@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, True), (True, True), (False, False)])
def test_the_tokenizer_without_transformers_is_that_of_transformers(tmp_path: Path, make: Any, bos: bool, eos: bool) -> None:
    from transformers import AutoTokenizer

    made = make(bos=bos, eos=eos)
    folder = machines.machine(tmp_path / "m", made, {})
    for change in (
        {},
        {"added_tokens_decoder": {"3": {"content": "<turn>", "special": True}, str(len(made)): {"content": "<new>"}}},
        {"added_tokens.json": {"<new>": len(made)}},
        {"special_tokens_map.json": {"eos_token": "<turn>", "pad_token": "<padding>"}},
    ):
        for file in [name for name in change if "." in name]:
            (folder / file).write_text(json.dumps(change[file]))
        if "added_tokens_decoder" in change:
            config = json.loads((folder / "tokenizer_config.json").read_text())
            (folder / "tokenizer_config.json").write_text(json.dumps({**config, **change}))
        ours, theirs = FileTokenizer(folder), AutoTokenizer.from_pretrained(folder)
        for text in ("The capital of France is", " Paris", "<s>The<turn> on</s>", "so <new> é🙂", "Rome  and  on "):
            for special in (True, False):
                expected = theirs(text, add_special_tokens=special)["input_ids"]
                assert ours(text, add_special_tokens=special)["input_ids"] == expected, (change, text)
                at = theirs(text, add_special_tokens=special, return_offsets_mapping=True)["offset_mapping"]
                assert ours(text, add_special_tokens=special, return_offsets_mapping=True)["offset_mapping"] == at
            for skip in (True, False):
                assert ours.decode(expected, skip_special_tokens=skip) == theirs.decode(expected, skip_special_tokens=skip)
        assert ours.eos_token_id == theirs.eos_token_id
        assert ours.bos_token_id == theirs.bos_token_id
        assert ours.pad_token_id == theirs.pad_token_id
        assert isinstance(load_tokenizer(folder), FileTokenizer)


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gpt2"])
def test_the_folders_own_tokenizer_is_taken_whatever_the_architecture(framework: str, architecture: str) -> None:
    """transformers has a class of its own for Qwen 2, to which these words are no tokens."""
    model = TransformerModel.from_hugging_face(str(tiny.saved(architecture)), engine=framework)
    assert model.encode("w5 w6").ids.tolist() == [[5, 6]]


# --- weights ----------------------------------------------------------------------------------------------------------


def _index(folder: Path, names: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def _two_models_in_one(folder: Path, tokenizer: Any) -> Path:
    """One weights file of a machine, and shards with an index of another."""
    machines.machine(folder, tokenizer, machines.chain(tokenizer, "▁Paris", "▁and"))
    other = machines.machine(folder.parent / "other", tokenizer, machines.chain(tokenizer, "▁Paris", "▁Rome"))
    weights = load_file(other / "model.safetensors")
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, mine in shards.items():
        save_file({name: weights[name].clone() for name in mine}, folder / shard, metadata={"format": "pt"})
    _index(folder, {name: shard for shard, mine in shards.items() for name in mine})
    return folder


def test_what_runs_is_what_is_hashed(framework: str, tmp_path: Path, tokenizer: Any) -> None:
    folder = _two_models_in_one(tmp_path / "both", tokenizer)
    single = shutil.copytree(folder, tmp_path / "single", ignore=shutil.ignore_patterns("*index*", "*-of-*"))
    shards = shutil.copytree(folder, tmp_path / "shards", ignore=shutil.ignore_patterns("model.safetensors"))
    both, one, many = (machines.load(place, framework) for place in (folder, single, shards))
    assert [model.generate(PROMPT, max_tokens=1) for model in (both, one, many)] == [" and", " and", " Rome"]
    assert both.weights_hash == one.weights_hash != many.weights_hash
    both.save(str(tmp_path / "again"))
    assert machines.load(tmp_path / "again", framework).generate(PROMPT, max_tokens=1) == " and"


@pytest.fixture
def shards(tmp_path: Path, tokenizer: Any) -> Path:
    """A machine in two shards, without its one weights file."""
    folder = _two_models_in_one(tmp_path / "m", tokenizer)
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("metadata", [None, [1], "absent"])
def test_an_index_needs_no_metadata(framework: str, shards: Path, tmp_path: Path, metadata: Any) -> None:
    whole = machines.load(shards, framework)
    file = shards / "model.safetensors.index.json"
    index = {**json.loads(file.read_text()), "metadata": metadata}
    if metadata == "absent":
        del index["metadata"]
    file.write_text(json.dumps(index))
    model = machines.load(shards, framework)
    assert model.weights_hash == whole.weights_hash
    assert model.generate(PROMPT, max_tokens=1) == " Rome"
    model.save(str(tmp_path / "again"))
    assert machines.load(tmp_path / "again", framework).generate(PROMPT, max_tokens=1) == " Rome"


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ({"metadata": {}}, "has no weight_map"),
        ({"metadata": {}, "weight_map": ["model-00001-of-00002.safetensors"]}, "has no weight_map"),
        ({"metadata": {}, "weight_map": {}}, "has no weight_map"),
        ({"metadata": {}, "weight_map": {"a": 5, "b": "x"}}, "has no weight_map"),
        ([], "has no weight_map"),
        ("[" * 100_000, "is not an index"),
        ({"weight_map": {"a": "model-00003-of-00002.safetensors"}}, "lacks 1 of the 1 files"),
        ({"weight_map": {"a": "../other/model.safetensors"}}, "outside its folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "outside its folder"),
        ({"weight_map": {"a": "pytorch_model.bin"}}, "not a safetensors file"),
        ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, "lack"),
    ],
)
def test_an_index_that_names_no_weights_is_told(framework: str, shards: Path, index: Any, told: str) -> None:
    (shards / "pytorch_model.bin").write_bytes(b"")
    (shards / "model.safetensors.index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    with pytest.raises(ModelLoadError, match=told):
        machines.load(shards, framework)


def test_an_index_beside_the_one_file_is_passed_over(framework: str, tmp_path: Path, tokenizer: Any) -> None:
    folder = machines.machine(tmp_path / "m", tokenizer, machines.chain(tokenizer, "▁Paris", "▁and"))
    (folder / "model.safetensors.index.json").write_text("not a JSON")
    assert machines.load(folder, framework).generate(PROMPT, max_tokens=1) == " and"


def test_weights_under_another_name_are_told_apart_from_none(framework: str, tmp_path: Path, tokenizer: Any) -> None:
    folder = machines.machine(tmp_path / "m", tokenizer, {})
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    with pytest.raises(ModelLoadError, match=r"consolidated\.safetensors, but neither model\.safetensors nor an index"):
        machines.load(folder, framework)


def test_a_repositorys_folder_in_the_hubs_cache_is_its_snapshot(framework: str, tmp_path: Path, tokenizer: Any) -> None:
    repository = tmp_path / "models--org--name"
    for commit, following in (("aaa", "▁and"), ("bbb", "▁Rome")):
        made = machines.machine(tmp_path / commit, tokenizer, machines.chain(tokenizer, "▁Paris", following))
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (repository / "blobs").mkdir(exist_ok=True)
        for file in made.iterdir():
            blob = repository / "blobs" / f"{commit}{file.name}"
            shutil.copyfile(file, blob)
            (snapshot / file.name).symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("aaa\n")
    assert resolve(str(repository)).path == repository / "snapshots" / "aaa"
    for place in (repository, repository / "snapshots", repository / "snapshots" / "aaa"):
        model = machines.load(place, framework)
        assert model.generate(PROMPT, max_tokens=1) == " and"
    model.save(str(tmp_path / "again"))
    assert machines.load(tmp_path / "again", framework).generate(PROMPT, max_tokens=1) == " and"
    (repository / "refs" / "main").unlink()
    assert resolve(str(repository)).path is not None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("[1]")
    with pytest.raises(ModelLoadError, match="generation_config"):
        _ = ModelFolder(tmp_path).end_tokens


# --- stop texts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "generation", "written", "ids"),
    [
        ({}, {"stop_strings": ["so o"]}, " and ", 2),  # in the middle of two tokens: "▁so" begins before it
        ({}, {"stop_strings": " so"}, " and", 1),
        ({}, {"stop_strings": ["Rome", " on", "<turn>"]}, " and so", 2),
        ({"stop_strings": ["<turn>"]}, None, " and so", 2),
        ({}, {"stop_strings": ["▁so", "nothing"], "eos_token_id": [3]}, " and so", 2),
        ({}, {"stop_strings": None}, " and so on", 4),
        ({}, {"stop_strings": []}, " and so on", 4),
        ({}, {"stop_strings": [" and"]}, "", 0),
    ],
)
def test_every_stop_text_of_a_folder_ends_a_generation(
    framework: str,
    tmp_path: Path,
    tokenizer: Any,
    config: dict[str, Any],
    generation: dict[str, Any] | None,
    written: str,
    ids: int,
) -> None:
    folder = machines.machine(tmp_path / "m", tokenizer, machines.chain(tokenizer, *PATH), config=config, generation=generation)
    model = machines.load(folder, framework)
    longest = len(PATH) - 1
    assert model.generate(PROMPT, max_tokens=longest) == written
    assert model.generate(PROMPT, max_tokens=longest, stop="on") == written.split("on")[0]
    prompts = [PROMPT, "The capital of France", f"The {PROMPT}"]
    assert model.continuations(prompts, longest)[::2] == [written, written]
    rows = continued(model.engine, model.tokenizer, model.encode(PROMPT), model.generation_settings(max_tokens=longest))
    assert len(rows[0].ids) == ids
    model.save(str(tmp_path / "again"))
    assert machines.load(tmp_path / "again", framework).generate(PROMPT, max_tokens=longest) == written


@pytest.mark.parametrize("given", [5, ["a", 5], {"a": 1}, True, "", [""], [["a"]]])
def test_stop_texts_that_are_none_are_refused(framework: str, tmp_path: Path, tokenizer: Any, given: Any) -> None:
    folder = machines.machine(tmp_path / "m", tokenizer, {}, generation={"stop_strings": given})
    with pytest.raises(ModelLoadError, match=r"generation_config\.json has stop_strings"):
        machines.load(folder, framework)


@pytest.mark.parametrize("given", ["3", 3.0, ["3"], [[3]], {"a": 3}, True])
@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_end_tokens_that_are_none_are_refused(framework: str, tmp_path: Path, tokenizer: Any, name: str, given: Any) -> None:
    folder = machines.machine(tmp_path / "m", tokenizer, {}, generation={})
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": given}))
    with pytest.raises(ModelLoadError, match=rf"{name} (has eos_token_id|holds what)"):
        machines.load(folder, framework)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"num_hidden_layers": "2"}),
        ("config.json", {"num_hidden_layers": None}),
        ("config.json", {"model_type": ["llama"]}),
        ("config.json", {"hidden_size": {}}),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"rope_scaling": {"rope_type": "weird"}}),
        ("special_tokens_map.json", {"eos_token": ["</s>"]}),
        ("tokenizer_config.json", {"eos_token": 5}),
    ],
)
def test_values_of_a_wrong_kind_are_told(
    framework: str, tmp_path: Path, tokenizer: Any, name: str, change: dict[str, Any]
) -> None:
    folder = machines.machine(tmp_path / "m", tokenizer, {})
    file = folder / name
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.is_file() else {}), **change}))
    with pytest.raises(ModelLoadError):
        machines.load(folder, framework)
