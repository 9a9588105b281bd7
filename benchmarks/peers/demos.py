"""The numbers of TransformerLens' two demos on the bundled model, measured with TransformerLens, for tests/system/test_notebooks.py.

    make peers
    .venv-lens/bin/python benchmarks/peers/demos.py backend/neuroscope/models/bundled/weights/gpt2-medium tests/system/demos.json

Prompts go in as token ids, so that no first token is added. Value biases stay where they are (`fold_value_biases=False`): folded into the
output bias, they would leave the heads' terms.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformer_lens import FactoredMatrix
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer


class Demo:
    """A model with the demos' own functions: patching by hooks, one run a cell."""

    def __init__(self, weights: Path, *, processed: bool) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(weights)
        bare = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32, attn_implementation="eager").eval()
        self.model: Any = TransformerBridge.boot_transformers(
            str(weights), hf_model=bare, tokenizer=self.tokenizer, device="cpu"
        )
        self.model.enable_compatibility_mode(no_processing=not processed, fold_value_biases=False, disable_warnings=True)
        self.layers, self.heads = self.model.cfg.n_layers, self.model.cfg.n_heads

    def ids(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([self.tokenizer.encode(text, add_special_tokens=False) for text in texts])

    def patched(self, name: str, clean: Any, corrupt: torch.Tensor, difference: Callable[[Any], Any], axis: int) -> Any:
        """The share of the gap that comes back for each layer and each index of an axis of an activation."""
        base, best = difference(self.model(corrupt)), clean["difference"]
        size = clean["cache"][f"blocks.0.{name}"].shape[axis]
        found = np.zeros((self.layers, size))
        for layer in range(self.layers):
            site = f"blocks.{layer}.{name}"

            def put(activation: Any, hook: Any, at: int, site: str) -> Any:
                new = activation.clone()
                new.select(axis, at).copy_(clean["cache"][site].select(axis, at))
                return new

            for at in range(size):
                logits = self.model.run_with_hooks(corrupt, fwd_hooks=[(site, partial(put, at=at, site=site))])
                found[layer, at] = (difference(logits) - base) / (best - base)
        return found

    def main_demo(self) -> dict[str, Any]:
        model = self.model
        text = self.ids(["When Mary and John went to the park, John gave a drink to Mary."])

        def silenced(value: Any, hook: Any) -> Any:
            value[:, :, 1] = 0.0
            return value

        names = self.ids([" John", " Mary"]).flatten()
        clean, corrupt = (
            self.ids([f"After John and Mary went to the park,{name} gave a drink to"]) for name in (" Mary", " John")
        )

        def difference(logits: Any) -> float:
            return float(logits[0, -1, names[0]] - logits[0, -1, names[1]])

        logits, cache = model.run_with_cache(clean)
        once = np.random.default_rng(0).integers(10, model.cfg.d_vocab, (10, 50))
        repeated = torch.tensor(np.concatenate([once, once], axis=1))
        _, patterns = model.run_with_cache(repeated)
        stripes = [patterns["pattern", layer].diagonal(1 - 50, -2, -1).mean((0, 2)) for layer in range(self.layers)]
        residual = self.patched(
            "hook_resid_pre", {"cache": cache, "difference": difference(logits)}, corrupt, difference, axis=1
        )
        return {
            "loss_per_token": model(text, return_type="loss", loss_per_token=True)[0],
            "ablated": model.run_with_hooks(text, return_type="loss", fwd_hooks=[("blocks.5.attn.hook_v", silenced)]),
            "clean": difference(logits),
            "residual": residual,
            "induction": torch.stack(stripes),
        }

    def copying(self) -> dict[str, Any]:
        """Copying scores of the weights as they are; processing would change them."""
        model = self.model

        def score(values: Any) -> Any:
            return values.sum(-1).real / values.abs().sum(-1)

        circuits = FactoredMatrix(model.W_V, model.W_O)
        return {
            "copying": score(circuits.eigenvalues),
            "full_copying": score((model.W_E @ circuits @ model.W_U).eigenvalues),
        }

    def exploratory_analysis(self) -> dict[str, Any]:
        model = self.model
        formats = {
            "When John and Mary went to the park,{} gave the ball to": (" John", " Mary"),
            "When Tom and James went to the park,{} gave the ball to": (" Tom", " James"),
            "When Laura and Eric went to the park,{} gave a drink to": (" Laura", " Eric"),
            "After Martin and Amy went to the park,{} gave a drink to": (" Martin", " Amy"),
        }
        answers = [pair for names in formats.values() for pair in (names, names[::-1])]
        prompts = [text.format(wrong) for text, names in formats.items() for _, wrong in (names, names[::-1])]
        swapped = [text.format(right) for text, names in formats.items() for right, _ in (names, names[::-1])]
        tokens, corrupt = self.ids(prompts), self.ids(swapped)
        right, wrong = (self.ids([names[at] for names in answers]).flatten() for at in (0, 1))
        rows = torch.arange(len(prompts))

        def each(logits: Any) -> Any:
            return logits[rows, -1, right] - logits[rows, -1, wrong]

        def difference(logits: Any) -> float:
            return float(each(logits).mean())

        logits, cache = model.run_with_cache(tokens)
        directions = (model.W_U[:, right] - model.W_U[:, wrong]).T
        constant = float((model.b_U[right] - model.b_U[wrong]).mean())

        def projected(stack: Any, cache: Any) -> Any:
            scaled = cache.apply_ln_to_stack(stack, layer=-1, pos_slice=-1)
            return torch.einsum("...bd,bd->...", scaled, directions) / len(rows)

        def head_terms(cache: Any) -> Any:
            z = torch.stack([cache["z", layer][:, -1] for layer in range(self.layers)])  # (layers, rows, heads, d_head)
            results = torch.einsum("lbhd,lhdm->lhbm", z, model.W_O)
            return projected(results.flatten(0, 1), cache).reshape(self.layers, self.heads)

        parts = projected(cache.decompose_resid(layer=-1, pos_slice=-1), cache)[-2 * self.layers :]
        lens = projected(cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=-1), cache)[1:] + constant
        heads = head_terms(cache)
        layer, head = divmod(int(heads.flatten().argmax()), self.heads)

        def removed(z: Any, hook: Any) -> Any:
            z = z.clone()
            z[:, -1, head] = 0
            return z

        with model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_z", removed)]):
            ablated, ablated_cache = model.run_with_cache(tokens)
        clean = {"cache": cache, "difference": difference(logits)}
        maps = {
            name: self.patched(hook, clean, corrupt, difference, axis)
            for name, hook, axis in (
                ("residual", "hook_resid_pre", 1),
                ("attention", "hook_attn_out", 1),
                ("mlp", "hook_mlp_out", 1),
                ("z", "attn.hook_z", 2),
                ("v", "attn.hook_v", 2),
                ("pattern", "attn.hook_pattern", 1),
            )
        }
        sublayers = np.stack([maps.pop("attention"), maps.pop("mlp")])
        return {
            "difference": each(logits),
            "heads": heads,
            "parts": parts,
            "lens": lens,
            "ablated": difference(ablated),
            "after": head_terms(ablated_cache),
            "sublayers": sublayers,
            **maps,
        }


def plain(value: Any) -> Any:
    """Numbers for JSON."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return np.round(np.asarray(value, dtype=np.float64), 5).tolist()


def main() -> None:
    weights, target = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_grad_enabled(False)
    processed, plainly = Demo(weights, processed=True), Demo(weights, processed=False)
    found = {"main_demo": plainly.main_demo() | plainly.copying(), "exploratory_analysis": processed.exploratory_analysis()}
    target.write_text(json.dumps(plain(found), separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
