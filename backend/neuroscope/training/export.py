"""Turn a training checkpoint into a bundled model:  python -m neuroscope.training.export gpt2-medium

Writes a Hugging Face folder (config, safetensors, tokenizer with chat template), measures every task on it, writes the model
card from those figures, and then the manifest with every file's hash. The folder appears in one step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from neuroscope.files import whole_folder
from neuroscope.models.bundled import MANIFEST, WEIGHTS, check
from neuroscope.training.card import card
from neuroscope.training.configs import NAMES, config

LIMIT = 15_000_000  # largest size of a model in the package, in bytes


def export(name: str, training: Path, destination: Path = WEIGHTS, items: int = 500) -> Path:
    """Write the bundled model `name` from the checkpoint in `training`. Raises `ValueError` for one that is too large."""
    from neuroscope.models.model import TransformerModel
    from neuroscope.tasks.evaluate import evaluate

    with whole_folder(destination / name) as folder:
        facts = _write_model(name, training, folder)
        size = (folder / "model.safetensors").stat().st_size
        if size > LIMIT:
            raise ValueError(f"{name} has {size} bytes, more than the limit of {LIMIT} for a bundled model.")
        model = TransformerModel.from_hugging_face(str(folder))
        evaluation = evaluate(model, n=items)
        (folder / "README.md").write_text(card(name, facts, evaluation), encoding="utf-8")
        files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
        manifest = {"name": name, "training": dict(facts), "files": files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for file in folder.iterdir():
            file.chmod(0o644)
        shutil.rmtree(destination / name, ignore_errors=True)
    check(destination / name)
    return destination / name


def _write_model(name: str, training: Path, folder: Path) -> Mapping[str, Any]:
    from transformers import AutoModelForCausalLM

    state = torch.load(training / "checkpoint.pt", map_location="cpu", weights_only=True)
    model: Any = AutoModelForCausalLM.from_config(config(name))
    model.load_state_dict(state["model"])
    model.save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(training / "tokenizer").save_pretrained(folder)
    return {
        "steps": int(state["step"]),
        "tokensPerStep": int(state["tokens"]),
        "plannedSteps": int(state["steps"]),
        "corpus": str(state["corpus"]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--folder", type=Path, default=None, help="folder of the checkpoint (default .training/NAME)")
    parser.add_argument("--items", type=int, default=500, help="items per task for the card's figures")
    arguments = parser.parse_args()
    print(export(arguments.name, arguments.folder or Path(".training") / arguments.name, items=arguments.items))


if __name__ == "__main__":
    main()
