"""gpt-oss at its real shape with random weights: load, capture, one batch of EAP-IG, and peak memory against the prediction.

    python -m benchmarks.bench_scale [--layers 2] [--packed] [--pairs 3] [--tokens 16] [--folder FOLDER]

Every matrix has gpt-oss-20b's shape; only the number of layers is less. The whole model's figures come by formula from its shape, with no
array made. Memory is what the process holds (resident pages, mapped weights among them), above what its imports do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = 1 << 22


def shape(layers: int) -> Any:
    """gpt-oss-20b's configuration (transformers' default, but for the number of layers)."""
    from transformers import GptOssConfig

    return GptOssConfig(
        num_hidden_layers=layers,
        num_local_experts=32,
        num_experts_per_tok=4,
        hidden_size=2880,
        intermediate_size=2880,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=64,
        vocab_size=201_088,
        layer_types=[("sliding_attention", "full_attention")[layer % 2] for layer in range(layers)],
    )


def on_paper(layers: int) -> Any:
    """The model without arrays."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(shape(layers), dtype=torch.bfloat16)


def write(folder: Path, layers: int, packed: bool) -> None:
    """A checkpoint of random numbers, one array at a time."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    noise, bytes_ = (torch.randn(_BLOCK) * 0.02).to(torch.bfloat16), torch.randint(256, (_BLOCK,), dtype=torch.uint8)

    def filled(size: torch.Size, source: torch.Tensor) -> torch.Tensor:
        return source.repeat(-(-size.numel() // _BLOCK))[: size.numel()].reshape(size).clone()

    files: dict[str, str] = {}
    for number, (name, parameter) in enumerate(on_paper(layers).named_parameters()):
        arrays = {name: torch.ones(parameter.shape, dtype=torch.bfloat16)}
        if packed and name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            count, inside, out = parameter.shape
            groups = torch.Size((count, out, inside // 32))
            scales = torch.full(groups, 120, dtype=torch.uint8)
            arrays = {f"{name}_blocks": filled(torch.Size((*groups, 16)), bytes_), f"{name}_scales": scales}
        elif "norm" not in name:
            arrays = {name: filled(parameter.shape, noise)}
        file = f"model-{number:05}.safetensors"
        save_file(arrays, folder / file, metadata={"format": "pt"})
        files.update(dict.fromkeys(arrays, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    shape(layers).save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text()) | {"architectures": ["GptOssForCausalLM"]}
    if packed:
        plain = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
        settings["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": plain}
    (folder / "config.json").write_text(json.dumps(settings))
    words = Tokenizer(models.WordLevel({"<pad>": 0, **{f"w{n}": n for n in range(1, 1000)}}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>").save_pretrained(folder)


class Memory:
    """Resident bytes of this process, sampled, as the most since `begin` above what there was at the start."""

    def __init__(self) -> None:
        self._before, self.peak = self.now(), 0
        threading.Thread(target=self._sample, daemon=True).start()

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, self.now() - self._before)
            time.sleep(0.01)

    def begin(self) -> None:
        self.peak = 0


def measure(folder: str, packed: bool, pairs: int, tokens: int) -> dict[str, Any]:
    """The steps on a checkpoint, in this process."""
    import torch
    import transformers.models.gpt_oss.modeling_gpt_oss  # noqa: F401  # what loading imports is not the model's

    from neuroscope import TransformerModel
    from neuroscope.circuits.attribution import edge_scores
    from neuroscope.circuits.finder import CircuitFinder
    from neuroscope.circuits.needs import memory_needed
    from neuroscope.engines.protocol import TokenBatch
    from neuroscope.engines.sites import Component, Site
    from neuroscope.tasks.metrics import PromptMetric
    from neuroscope.tasks.pairs import PairBatch

    torch.set_num_threads(1)
    memory, found = Memory(), {}

    def step(name: str, work: Any) -> Any:
        memory.begin()
        began = time.monotonic()
        value = work()
        time.sleep(0.02)
        found[name] = {"seconds": time.monotonic() - began, "peak": memory.peak}
        return value

    model = step(
        "load",
        lambda: TransformerModel.from_hugging_face(folder, engine="torch", device="cpu", dtype="bfloat16", packed=packed),
    )
    # Mapped weights count when they are first read, and a few tokens read a few rows of the embedding.
    step("read all", lambda: [parameter.view(torch.uint8).max() for parameter in model.engine.model.parameters()])
    random = np.random.default_rng(0)
    clean = random.integers(1, 1000, (pairs, tokens))
    corrupt = clean.copy()
    corrupt[:, 0] = clean[:, 0] % 999 + 1
    batch = TokenBatch.of(clean.tolist())
    kinds = (Component.RESIDUAL, Component.HEAD_OUTPUT, Component.MLP_OUTPUT)
    sites = [Site(layer, kind) for layer in range(model.architecture.layers) for kind in kinds]
    step("bare pass", lambda: model.engine.bare_logits(batch))
    step("capture", lambda: model.engine.forward(batch, capture=sites))
    metric = PromptMetric("logit_difference", *random.integers(1, 1000, (2, pairs)))
    batch_of = PairBatch(batch, TokenBatch.of(corrupt.tolist()), metric)
    scores = step("EAP-IG", lambda: edge_scores(model.engine, batch_of, method="eap_ig"))
    assert np.isfinite(scores).all()
    need = CircuitFinder(model).memory_needed(pairs=pairs, tokens=tokens)
    whole = on_paper(24)
    bytes_ = sum(parameter.numel() * 2 for parameter in whole.parameters())
    from dataclasses import replace

    anatomy = replace(model.architecture, layers=24)
    all_layers = memory_needed(anatomy, bytes_, pairs=pairs, tokens=tokens, dtype="bfloat16")
    return {
        "steps": found,
        "need": need.as_dictionary() | {"peak": need.peak},
        "whole": all_layers.as_dictionary() | {"peak": all_layers.peak},
        "layers": model.architecture.layers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--packed", action="store_true", help="experts in MXFP4, left as they are stored")
    parser.add_argument("--folder", help="where the checkpoint is written (a temporary folder)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.packed, given.pairs, given.tokens)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        write(Path(folder), given.layers, given.packed)
        again = [sys.executable, "-m", "benchmarks.bench_scale", "--measure", folder]
        again += ["--pairs", str(given.pairs), "--tokens", str(given.tokens), *["--packed"] * given.packed]
        answer = subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(answer.splitlines()[-1])
    for name, one in found["steps"].items():
        print(f"{name:<10} {one['seconds']:8.1f} s   peak {one['peak'] / 2**30:6.2f} GiB")
    need = found["need"]["peak"]
    measured = found["steps"]["EAP-IG"]["peak"]
    print(f"EAP-IG predicted {need / 2**30:.2f} GiB, measured {measured / 2**30:.2f}: {measured / need - 1:+.1%}")
    print(
        f"all 24 layers, by formula: {found['whole']['peak'] / 2**30:.2f} GiB, of which weights {found['whole']['weights'] / 2**30:.2f}"
    )


if __name__ == "__main__":
    main()
