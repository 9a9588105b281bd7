"""Train a bundled model:  python -m neuroscope.training.train gpt2-medium

Muon for the layers' matrices and AdamW for everything else, with warm-up, a constant rate and a final decay (Hu et al. 2024,
WSD). Checkpoints are written whole every few minutes and on Ctrl-C; the same command resumes from the last one. One is kept
from before the decay: to train longer, put it in the checkpoint's place and ask for more steps. Runs on a GPU if there is one.
Prints the corpus' fingerprint, and does not resume from a checkpoint of another corpus.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from neuroscope.engines import architectures
from neuroscope.engines.layout import get_module
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.errors import ModelLoadError
from neuroscope.lenses.repeats import repeat_scores
from neuroscope.models.model import TransformerModel
from neuroscope.tasks.evaluate import evaluate
from neuroscope.training.batches import batch
from neuroscope.training.configs import NAMES, config
from neuroscope.training.corpus import fingerprint
from neuroscope.training.muon import Muon
from neuroscope.training.vocabulary import build

WARM_UP = 200
DECAY_SHARE = 0.2
CHECKPOINT_SECONDS = 240.0
CHECKPOINT = "checkpoint.pt"
PROBE_STEPS = 500
#: How long each model is trained: about an hour and a quarter of one core.
STEPS = {"gpt2-medium": 2600, "gpt-oss-20b": 1500}


def decay_start(steps: int) -> int:
    """The step at which the decay of the learning rate starts."""
    return int(steps * (1 - DECAY_SHARE))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, constant, then a cosine decay to a fiftieth over the last fifth."""
    decay_from = decay_start(steps)
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    if step < decay_from:
        return peak
    done = (step - decay_from) / max(1, steps - decay_from)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def loss_of(model: Any, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted cross-entropy of each next token, plus the router's balance loss if there is one."""
    options = {"output_router_logits": True} if model.config.model_type == "gpt_oss" else {}
    out = model(input_ids=ids, use_cache=False, **options)
    wanted, share = ids[:, 1:].reshape(-1), weights[:, 1:].reshape(-1)
    each = nn.functional.cross_entropy(out.logits[:, :-1].reshape(-1, out.logits.shape[-1]).float(), wanted, reduction="none")
    loss: torch.Tensor = (each * share).sum() / share.sum()
    balance = getattr(out, "aux_loss", None)
    return loss if balance is None else loss + model.config.router_aux_loss_coef * balance


def probe(model: Any, tokenizer: Any, name: str, count: int = 60) -> dict[str, float]:
    """Accuracy on held-out items of every task, and the clearest head of each kind on repeats. Measures a copy of the model."""
    copied = copy.deepcopy(model)
    copied.config._attn_implementation = "eager"
    measured = TransformerModel(TorchEngine(copied), tokenizer, name, "in training")
    scores = evaluate(measured, n=count, seed=1).scores
    found = {score.task: score.accuracy.value for score in scores if score.accuracy is not None}
    layers = list(range(measured.architecture.layers))
    heads = repeat_scores(measured.engine, layers, seed=0)
    return found | {f"{role}_head": float(max(values.max() for values in by.values())) for role, by in heads.items()}


class Trainer:
    """One model's training, resumable from its folder."""

    def __init__(self, name: str, folder: Path, *, steps: int, tokens: int, peak: float, device: str, seed: int = 0) -> None:
        self.name, self.folder, self.steps, self.tokens, self.peak, self.device, self.seed = (
            name, folder, steps, tokens, peak, device, seed,
        )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_config(config(name)).to(device)
        if device == "cpu" and self.model.config.model_type == "gpt_oss":
            self.model.set_experts_implementation("eager")  # the fastest of transformers' own on a CPU
        if self.model.config.model_type == "gpt2":
            for block in self.model.transformer.h:
                block.mlp.act = nn.GELU(approximate="tanh")  # what gelu_new computes, in one kernel
        self.tokenizer = _tokenizer(folder / "tokenizer")
        self.optimizers = _optimizers(self.model, peak)
        self.step = 0
        self.corpus = fingerprint()
        self._log(f"corpus {self.corpus}, {steps} steps of {tokens} tokens")
        self._resume()

    def run(self) -> None:
        """Train to the last step, logging, probing and checkpointing on the way."""
        self.model.train()
        last_saved = last_logged = time.monotonic()
        try:
            while self.step < self.steps:
                if self.step == decay_start(self.steps):
                    self.save("before-decay.pt")  # a longer training can resume from here
                loss = self._one_step()
                now = time.monotonic()
                if self.step % 20 == 0:
                    speed = 20 * self.tokens / (now - last_logged)
                    last_logged = now
                    self._log(f"step {self.step} loss {loss:.3f} {speed:,.0f} tokens/s")
                if self.step % PROBE_STEPS == 0:
                    scores = probe(self.model, self.tokenizer, self.name)
                    self._log("probe " + " ".join(f"{task}={value:.2f}" for task, value in scores.items()))
                if now - last_saved > CHECKPOINT_SECONDS:
                    self.save()
                    last_saved = time.monotonic()
        finally:
            self.save()

    def _one_step(self) -> float:
        ids, weights = batch(self.tokenizer, self.step, self.tokens, self.seed)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, self.steps, self.peak)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            loss = loss_of(self.model, torch.as_tensor(ids, device=self.device), torch.as_tensor(weights, device=self.device))
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return float(loss.detach())

    def save(self, name: str = CHECKPOINT) -> None:
        """Write the checkpoint under another name first, so that an interruption cannot truncate it."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "steps": self.steps,
            "tokens": self.tokens,
            "corpus": self.corpus,
        }
        temporary = self.folder / f"{name}.part"
        torch.save(state, temporary)
        temporary.replace(self.folder / name)

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        if path.is_file():
            state = torch.load(path, map_location=self.device, weights_only=True)
            if state["corpus"] != self.corpus or state["tokens"] != self.tokens:
                raise ModelLoadError(
                    f"{path} started with the corpus {state['corpus'][:12]}… and steps of {state['tokens']} tokens.",
                    remedy="Use that corpus and the same --tokens, or start in an empty folder.",
                )
            self.model.load_state_dict(state["model"])
            for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
            self.step = int(state["step"])
            self._log(f"going on from step {self.step}")

    def _log(self, line: str) -> None:
        stamped = f"{time.strftime('%H:%M:%S')} {line}"
        print(stamped, flush=True)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(stamped + "\n")


def _optimizers(model: Any, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices inside the layers; AdamW for embeddings, and without decay for norms and biases."""
    inside = {id(parameter) for layer in _layers(model) for parameter in layer.parameters() if parameter.ndim > 1}
    matrices = [p for p in model.parameters() if id(p) in inside]
    others = [p for p in model.parameters() if id(p) not in inside]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [Muon(matrices, lr=rate, weight_decay=0.05), torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))]


def _layers(model: Any) -> Any:
    return get_module(model, architectures.find(model.config.model_type).path("layers"))


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of this training: built once, since a changed corpus would renumber its tokens."""
    if not folder.is_dir():
        build().save_pretrained(folder)
    found: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--folder", type=Path, default=None, help="folder of the checkpoints (default .training/NAME)")
    parser.add_argument("--steps", type=int, default=None, help=f"by default {STEPS}")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens per step")
    parser.add_argument("--peak", type=float, default=2e-3, help="largest learning rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="other numbers may change the last bits")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = arguments.folder or Path(".training") / arguments.name
    trainer = Trainer(
        arguments.name,
        folder,
        steps=arguments.steps or STEPS[arguments.name],
        tokens=arguments.tokens,
        peak=arguments.peak,
        device=arguments.device,
    )
    for asked_to_end in (signal.SIGINT, signal.SIGTERM):  # background jobs ignore SIGINT
        signal.signal(asked_to_end, signal.default_int_handler)
    try:
        trainer.run()
    except KeyboardInterrupt:
        print(f"stopped at step {trainer.step}; the same command resumes from there")
        return
    print(json.dumps(probe(trainer.model, trainer.tokenizer, arguments.name), indent=2))


if __name__ == "__main__":
    main()
