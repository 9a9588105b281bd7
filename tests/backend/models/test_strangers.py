"""Attacks by a model's folder: what a stranger may put into one, none of which may run, fetch, exhaust or reach anything."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroscope import places
from neuroscope.engines import chat_templates
from neuroscope.engines.tokenizers import load_tokenizer
from neuroscope.errors import AccessError, ArgumentError, HookError, ModelLoadError, NeuroScopeError
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope_dsl.workspace import SmalltalkError, Workspace
from tests import tiny


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny.model("gpt2")
    workspace = Workspace()
    workspace.bind("model", model)
    workspace.run(
        "| factor | factor := 2. model hookManager addPersistentHook: "
        "(ActivationHook layer: 1 component: #mlp name: 'kept' action: [:a | a * factor])"
    )
    return Path(model.save(str(tmp_path_factory.mktemp("stranger") / "model")))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def hook(folder: Path, change: Callable[[dict[str, Any]], object]) -> str:
    document = json.loads((folder / "hooks.json").read_text())
    change(document["hooks"][0])
    (folder / "hooks.json").write_text(json.dumps(document))
    return str(folder)


def test_what_was_saved_comes_back(folder: Path) -> None:
    assert [each.name for each in TransformerModel.load(str(folder)).hook_manager] == ["kept"]


@pytest.mark.parametrize(
    "name", ["os:system", "os:path.join", "builtins:eval", "subprocess:run", "neuroscope.files:shutil.rmtree"]
)
@pytest.mark.parametrize("place", ["action", "condition", "captured", "nested"])
def test_no_name_in_a_folder_is_looked_up(folder: Path, name: str, place: str) -> None:
    code = {"import": name}
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "action": lambda hook: hook.update(action=code),
        "condition": lambda hook: hook.update(condition=code),
        "captured": lambda hook: hook["action"]["captured"].update(factor={"code": code}),
        "nested": lambda hook: hook["action"]["captured"].update(factor={"list": [{"list": [{"code": code}]}]}),
    }
    path = hook(folder, changes[place])
    with pytest.raises(HookError, match="which the model's folder chose"):
        TransformerModel.load(path)
    with pytest.raises(SmalltalkError, match="which the model's folder chose"):
        Workspace().run(f"TransformerModel load: '{path}'")


@pytest.mark.parametrize(
    "name", ["tests.backend.models.test_strangers:shutil.rmtree", "tests.backend.models.test_strangers:Path"]
)
def test_an_allowed_module_gives_its_own_functions_alone(folder: Path, name: str) -> None:
    path = hook(folder, lambda hook: hook.update(action={"import": name}))
    with pytest.raises(HookError, match="does not exist"):
        TransformerModel.load(path, allow_imports=[__name__, "shutil", "os"])


@pytest.mark.parametrize("consent", [True, "os"])
def test_consent_names_modules(folder: Path, consent: Any) -> None:
    with pytest.raises(ArgumentError, match="Name the modules"):
        TransformerModel.load(str(folder), allow_imports=consent)


@pytest.mark.parametrize("message", ["load: '{}' allowImports: #('os')", "fromHuggingFace: '{}' allowPickle: true"])
def test_no_script_gives_consent(folder: Path, message: str) -> None:
    with pytest.raises(SmalltalkError, match="no argument allow"):
        Workspace().run(f"TransformerModel {message.format(folder)}")


@pytest.mark.parametrize(
    "source",
    [
        "Transcript show: 'ran'. [:a | a]",
        "[:a | a]. Smalltalk at: #x put: 1. [:a | a]",
        "[:a | a] value: 3",
        "a * factor ] value: 1. Smalltalk at: #x put: 1. [:a | a",
        "3",
        "",
    ],
)
def test_a_stored_block_is_one_block_and_nothing_runs_at_loading(folder: Path, source: str) -> None:
    path = hook(folder, lambda hook: hook["action"].update(block=source))
    with pytest.raises((HookError, SmalltalkError)):
        TransformerModel.load(path)


@pytest.mark.parametrize(
    "code",
    [
        "model save: '{}/copy'",
        "(Dataset fromFile: '{}/model/config.json')",
        "(model analyze: #logit_lens) savePage: '{}/x.html'",
        "(TransformerModel fromHuggingFace: '{}/model')",
        "(LMStudioRESTClient url: 'http://127.0.0.1:9') health",
        "CircuitLibrary loadCircuit: '{}/x.circuit'",
    ],
)
def test_a_stored_block_has_no_files(folder: Path, code: str) -> None:
    block = f"[:a | {code.format(folder.parent)}. a]"
    path = hook(folder, lambda hook: hook.update(action={"block": block, "captured": {"model": {"model": True}}}))
    model = TransformerModel.load(path)
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(NeuroScopeError) as caught:
        model.logits("w5 w9")
    assert isinstance(caught.value.__cause__, AccessError) or "here" in str(caught.value)
    assert sorted(folder.parent.rglob("*")) == before


def test_a_stored_block_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroscope_dsl.workspace._STORED", Workspace()._stopper.limits.__class__(time=0.3))
    model = TransformerModel.load(hook(folder, lambda hook: hook["action"].update(block="[:a | [true] whileTrue: [3]. a]")))
    start = time.monotonic()
    with pytest.raises(NeuroScopeError, match="ran longer"):
        model.logits("w5 w9")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "content",
    [
        b"[]", b"3", b'"x"', b"{", b"\xff", b"[" * 100_000, b'{"format": 1}',
        b'{"format": 1, "hooks": 3, "taskType": null, "lost": []}',
        b'{"format": 1, "hooks": [3], "taskType": null, "lost": []}',
        b'{"format": 1, "hooks": [{"kind": "object", "name": 1, "site": 2, "action": 3}], "taskType": null, "lost": []}',
        b'{"format": 1, "hooks": [], "taskType": {}, "lost": []}',
        b'{"format": 1, "hooks": [], "taskType": null, "lost": [7]}',
    ],
)  # fmt: skip
def test_a_damaged_list_of_hooks_is_refused(folder: Path, content: bytes) -> None:
    (folder / "hooks.json").write_bytes(content)
    with pytest.raises(HookError, match="does not describe hooks"):
        TransformerModel.load(str(folder))


# --- weights and configurations ---------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import builtins; builtins.neuroscope_was_attacked = True",)


def test_a_pickle_is_refused_and_never_executed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    for consent in (False, True):
        with pytest.raises(ModelLoadError):
            TransformerModel.from_hugging_face(str(folder), allow_pickle=consent)
    assert not hasattr(sys.modules["builtins"], "neuroscope_was_attacked")


def table(**entry: Any) -> bytes:
    text = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **entry}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


@pytest.mark.parametrize("engine", ["torch", "mlx"])
@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 10**18) + b"{}", struct.pack("<Q", (1 << 64) - 1), b"", b"\0" * 7, struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 100_000) + b"[" * 100_000, table(shape=[10**18]), table(data_offsets=[0, 10**18]), table(shape=[-1]),
        table(data_offsets=[4, 0]), table(dtype=3),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(folder: Path, engine: str, content: bytes) -> None:
    if engine == "mlx":
        pytest.importorskip("mlx.core")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelLoadError):
        TransformerModel.from_hugging_face(str(folder), engine=engine)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("n_layer", 10**7, "far larger model"),
        ("n_embd", 10**6, "far larger model"),
        ("vocab_size", 10**10, "far larger model"),
        ("n_inner", 10**9, "far larger model"),
        ("n_positions", 10**9, "far larger model"),
        ("attn_implementation", "stranger/kernels", "chooses code"),
        ("_attn_implementation", "stranger/kernels", "chooses code"),
        ("experts_implementation", "stranger/kernels", "chooses code"),
        ("transformers_weights", "other.safetensors", "chooses code"),
    ],
)
def test_a_configuration_neither_exhausts_memory_nor_names_code(folder: Path, name: str, value: Any, says: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, name: value}))
    with pytest.raises(ModelLoadError, match=says):
        TransformerModel.from_hugging_face(str(folder))


def test_code_in_a_folder_is_ignored(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": "evil.Tokenizer"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("import builtins\nbuiltins.neuroscope_was_attacked = True\n")
    assert TransformerModel.from_hugging_face(str(folder)).architecture.architecture == "gpt2"
    assert not hasattr(sys.modules["builtins"], "neuroscope_was_attacked")


def test_an_adapter_beside_a_model_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(ModelLoadError, match="adapter"):
        TransformerModel.from_hugging_face(str(folder))


@pytest.mark.parametrize("name", ["../weights/gpt-oss-20b", "gpt2-medium/../gpt-oss-20b", "/tmp", "..", ""])
def test_a_bundled_name_is_a_name(name: str) -> None:
    with pytest.raises(NeuroScopeError):
        TransformerModel.from_hugging_face(f"bundled:{name}")


def test_a_pipe_for_a_file_is_not_waited_for(folder: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json", "hooks.json", "chat_template.jinja"):
        kept = (folder / name).read_bytes() if (folder / name).is_file() else None
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        with contextlib.suppress(NeuroScopeError):
            TransformerModel.load(str(folder))
        (folder / name).unlink()
        if kept is not None:
            (folder / name).write_bytes(kept)


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("<IQQ", 3, 10**18, 0), struct.pack("<IQQ", 3, 0, 10**18), struct.pack("<IQQ", 3, 1 << 63, 1 << 63),
        struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"x" + struct.pack("<IIQ", 9, 4, 1 << 62),
        struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"x" + struct.pack("<IIQ", 9, 9, 1 << 62) * 2000,
        struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 1) + b"x" + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 20, 0, 0),
        b"",
    ],
)  # fmt: skip
def test_a_gguf_file_that_lies_is_refused_at_once(tmp_path: Path, head: bytes) -> None:
    pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + head)
    start = time.monotonic()
    with pytest.raises(ModelLoadError, match="not a GGUF file, or damaged"):
        TransformerModel.from_hugging_face(str(path))
    assert time.monotonic() - start < 5


# --- tokenizers and chat templates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"model": ' * 50_000, b'{"version": "1.0", "model": {"type": "BPE"}}',
        b'{"version":"1.0","added_tokens":[{"id":18446744073709551615,"content":"x"}],"model":{"type":"WordLevel","vocab":{},"unk_token":"x"}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("engine", ["torch", "mlx"])
def test_a_damaged_tokenizer_is_refused(folder: Path, content: bytes, engine: str) -> None:
    if engine == "mlx":
        pytest.importorskip("mlx.core")
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelLoadError):
        TransformerModel.from_hugging_face(str(folder), engine=engine)


@pytest.mark.parametrize("pattern", [{"String": "a"}, {"Regex": "a"}])
def test_a_tokenizer_that_multiplies_a_text_is_refused(folder: Path, pattern: dict[str, str]) -> None:
    found = json.loads((folder / "tokenizer.json").read_text())
    found["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Replace", "pattern": pattern, "content": "a" * 10} for _ in range(9)],
    }
    (folder / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(ModelLoadError, match="times as long"):
        load_tokenizer(folder)


BOMBS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "text": "{{ 'a' * 10000000000 }}",
    "number": "{{ 10 ** (10 ** 9) }}",
    "width": "{{ 'a' | center(10000000000) }}",
    "format": "{{ '%10000000000d' % 1 }}",
    "doubling": "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "laughs": "{% set a = ['x'] * 999 %}{% set b = [a] * 9999 %}{% set c = [b] * 9999 %}{{ c }}",
    "calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "much": "{% for i in range(99999) %}" + "x" * 1000 + "{% endfor %}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attribute": "{{ raise_exception.__globals__['json'] }}",
    "file": "{% include '/etc/passwd' %}",
    "nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "template": "x" * (2 << 20),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_takes_neither_time_nor_memory_nor_objects(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_templates, "PATIENCE", 1.5)
    start = time.monotonic()
    with pytest.raises(ArgumentError):
        chat_templates.render(BOMBS[bomb], {"messages": []})
    assert time.monotonic() - start < 8
    assert chat_templates.render("{{ messages | length }}", {"messages": [1]}) == "1"


def test_a_template_of_a_folder_is_rendered_there(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{{ bos_token }}{% endfor %}")
    model = TransformerModel.from_hugging_face(str(folder))
    assert model.chat_prompt("w5").startswith("w5")
    (folder / "chat_template.jinja").write_text(BOMBS["text"])
    with pytest.raises(ArgumentError, match="chat template"):
        TransformerModel.from_hugging_face(str(folder)).chat_prompt("w5")


def test_links_in_a_folder_lead_nowhere_behind_a_server(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{{ 'secret' }}")
    (folder / "chat_template.jinja").symlink_to(tmp_path / "secret")
    with places.confined(places.Confinement(tmp_path / "own", (folder,))), pytest.raises(AccessError, match="leads outside"):
        TransformerModel.from_hugging_face(str(folder))


def test_what_is_allowed_is_restored(folder: Path) -> None:
    """The control: what is allowed is restored, so that the refusals above are not for another reason."""
    path = hook(folder, lambda hook: hook.update(action={"import": f"{__name__}:twice"}))
    (found,) = TransformerModel.load(path, allow_imports=[__name__]).hook_manager
    assert isinstance(found, ActivationHook)
    assert found.action is twice


def twice(activations: Any) -> Any:
    return activations * 2
