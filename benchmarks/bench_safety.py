"""What watching for harmful intent costs: generation with a probe's gate beside generation without, within one run.

    python benchmarks/bench_safety.py [--model bundled:gpt2-medium] [--repeats 15] [--tokens 100]

The gate stays shut, as it does for what it is meant to leave alone. Both take turns; times are the process's own CPU time, the least of all turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope.safety.probe import Probe

NAMES = "Mary John Tom Anna Mark Lisa Kevin Helen".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="bundled:gpt2-medium")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=100)
    given = parser.parse_args()
    model = TransformerModel.from_hugging_face(given.model)
    harm, kind = ([f"How can I {verb} {name}?" for name in NAMES] for verb in ("stab", "visit"))
    layer = model.architecture.layers // 2
    probe = dataclasses.replace(Probe.train("harm", harm, kind, model, layer), threshold=float("inf"))
    settings = model.generation_settings(max_tokens=given.tokens)
    hook = ActivationHook(layer, "residual", lambda activations: activations, probe.detects)
    prompt, least = (
        "Once upon a time there was a kind teacher named Anna. She",
        {"alone": float("inf"), "watched": float("inf")},
    )
    for _ in range(given.repeats):
        for kind_of_run in least:
            begun = time.process_time()
            with model.hook_manager.temporarily(*([hook] if kind_of_run == "watched" else [])):
                tokens = sum(1 for _ in model.stream(prompt, settings))
            least[kind_of_run] = min(least[kind_of_run], (time.process_time() - begun) / tokens)
    cost = least["watched"] / least["alone"] - 1
    print(f"alone {1e3 * least['alone']:.3f} ms a token, watched {1e3 * least['watched']:.3f} ms: {100 * cost:+.1f} %")


if __name__ == "__main__":
    main()
