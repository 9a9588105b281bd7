"""Compiles RASP programs with Tracr and writes their weights beside this file, for `compiled` to build models from.

    python -m venv .venv-tracr && .venv-tracr/bin/pip install tracr-pypi jax dm-haiku
    .venv-tracr/bin/python tests/planted/compile.py

Source: Lindner et al. 2023, "Tracr: Compiled Transformers as a Laboratory for Interpretability".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tracr.compiler import compiling, lib

#: The letters that the histogram counts, and the longest prompt without its first token.
LETTERS, LENGTH = "abcdefghij", 8


def main() -> None:
    random = np.random.default_rng(0)
    letters = list(LETTERS)
    model = compiling.compile_rasp_to_model(
        lib.make_hist(), vocab=set(letters), max_seq_len=LENGTH, compiler_bos="BOS", causal=True
    )
    config = model.model_config
    assert config.layer_norm is False
    arrays: dict[str, Any] = {
        f"{module}/{name}": np.asarray(value, dtype=np.float32)
        for module, found in model.params.items()
        for name, value in found.items()
    }
    encoding = model.input_encoder.encoding_map
    arrays["vocabulary"] = np.array(sorted(encoding, key=encoding.get))
    arrays["residual"] = np.array(model.residual_labels)
    arrays["shape"] = np.array([config.num_layers, config.num_heads, config.key_size, config.mlp_hidden_size])
    prompts = [["BOS", *random.choice(letters[:4], LENGTH)] for _ in range(40)]
    arrays["prompts"] = np.array(prompts)
    arrays["outputs"] = np.array([[int(value) for value in model.apply(prompt).decoded[1:]] for prompt in prompts])
    np.savez_compressed(Path(__file__).parent / "histogram.npz", **arrays)


if __name__ == "__main__":
    main()
