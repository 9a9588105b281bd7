"""`from neuroscope import X` is X for type checkers and editors, and every public result prints in one line."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import neuroscope
from neuroscope.directory import EXPORTS
from neuroscope.results import Provenance, Result
from neuroscope.vocabulary import find

ROOT = Path(__file__).parents[2]

RIGHT = """
from typing import assert_type
import numpy as np
import torch
from neuroscope import ActivationCache, ActivationHook, ActivationPatcher, ActivationTensor, Circuit, CircuitFinder, Dataset, LMStudioRESTClient, PatchedSite, PatchingMap, SteeringVectors, TransformerModel, connect

model = TransformerModel.from_pretrained("gpt2", dtype=torch.bfloat16)
assert_type(model, TransformerModel)
assert_type(model.run_with_caching("x"), ActivationCache)
assert_type(model.run_with_caching("x")["pattern", 5], ActivationTensor)
assert_type(model.run_with_cache("x")[1], ActivationCache)
assert_type(model.loss_per_token("x"), ActivationTensor)
assert_type(model.loss("x"), float)
found = ActivationPatcher(model).patch(("a", "b"), ["heads"], metric=lambda logits: logits[0, -1, 5])
assert_type(found, PatchingMap)
assert_type(found.strongest(), list[PatchedSite])
assert_type(CircuitFinder(model).find_circuit("induction"), Circuit)
assert_type(Dataset.load("induction"), Dataset)
assert_type(model.logits("x") == model.logits("y"), ActivationTensor)
assert_type(model.generate("x"), str)
assert_type(model.run_with_caching("x")["5.residual"] * 2.0, ActivationTensor)
array: np.ndarray = np.asarray(model.logits("x"))
model.hook_manager.add_hook(ActivationHook(5, "residual", lambda activations, position: activations * 0.5))
SteeringVectors(model).define("polite", positive=["a"] * 8, negative=["b"] * 8)
print(model.analyze("logit_lens", "The sky is").summary(), [example.answer for example in Dataset.from_file("mine.jsonl")])
print(LMStudioRESTClient.default().load_model("gpt2", dtype=torch.float16), connect("tcp://127.0.0.1:5555").evaluate("3 + 4"))
"""
WRONG = """
from neuroscope import TransformerModle
from neuroscope import TransformerModel
TransformerModel.from_pretrained("gpt2").nonsense
reveal_type(TransformerModel)
"""


def test_the_types_are_announced_that_are_exported() -> None:
    tree = ast.parse(inspect.getsource(neuroscope))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    told = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert {name: module for name, module in told.items() if name in EXPORTS} == EXPORTS
    assert set(told) - set(EXPORTS) == {"connect", "LMStudioRESTClient"}


def test_a_type_checker_knows_them(tmp_path: Path) -> None:
    """mypy as `make check` runs it, whose cache it uses."""
    files = {name: tmp_path / f"{name}.py" for name in ("right", "wrong")}
    files["right"].write_text(RIGHT, encoding="utf-8")
    files["wrong"].write_text(WRONG, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *map(str, files.values())]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert not [line for line in said.splitlines() if "right.py" in line], said
    for complaint in ('no attribute "TransformerModle"', 'no attribute "nonsense"', "neuroscope.models.model.TransformerModel"):
        assert complaint in said, said


def test_an_editor_knows_them(tmp_path: Path) -> None:
    """pyright, which stands behind editors, in its strict mode: what is not known is an error."""
    pyright = shutil.which("pyright")
    if pyright is None or subprocess.run([pyright, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("pyright is not installed: pip install pyright")
    (tmp_path / "right.py").write_text(RIGHT, encoding="utf-8")
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    paths = [str(ROOT / package) for package in ("backend", "dsl", "bridge")]
    chosen = {"extraPaths": paths, "typeCheckingMode": "strict", "include": ["right.py", "wrong.py"]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(chosen), encoding="utf-8")
    command = [pyright, "--pythonpath", sys.executable, "--outputjson", "--project", str(tmp_path)]
    said = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout)
    complaints = [(Path(one["file"]).name, one["message"]) for one in said["generalDiagnostics"]]
    assert [message for name, message in complaints if name == "right.py"] == []
    found = "\n".join(message for name, message in complaints if name == "wrong.py")
    for complaint in ('"TransformerModle" is unknown', '"nonsense"', 'type[TransformerModel]"'):
        assert complaint in found, found


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_what_is_public_prints_in_one_line(name: str) -> None:
    cls = find(name)
    assert cls is not None
    if not hasattr(cls, "print_string"):
        assert name in {"EntanglementVisualizer"} or not issubclass(cls, Result), f"{name} has no printed form of its own"
        return
    shown = type(name, (cls,), {"print_string": lambda self: "first\nsecond"})
    assert repr(object.__new__(shown)) == "first second"


def test_a_dataclass_prints_as_it_says_of_itself() -> None:
    found = Provenance("tiny", "hash", "torch", None, 0)
    assert dataclasses.is_dataclass(found)
    assert repr(found) == found.print_string() == "a Provenance(tiny, torch, seed 0)"
