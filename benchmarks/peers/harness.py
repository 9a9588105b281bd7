"""What every contestant shares: reading the work, timing a job, and saying what it cost.

A contestant is a script `python NAME.py WORK JOB OUT ROUNDS`, run by its own Python. It loads the model from the folder WORK/weights,
does JOB some rounds, writes the values to OUT (npz) and prints seconds and peak memory as JSON. Needs only numpy and torch, since it runs in
the peers' environments too.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: A job answers its values by name; the harness times the call.
Job = Callable[[], Mapping[str, Any]]


class Work:
    """Tokens and answers, the same for every contestant.

    sweep_clean, sweep_corrupt (1, 14); sweep_answers (1, 2) right and wrong token. pairs_* the same for 32 prompts.
    capture (16, 20). cells: which (layer, position, head) cells of the second sweep are timed.
    """

    def __init__(self, folder: Path) -> None:
        self.weights = folder / "weights"
        for name, array in np.load(folder / "work.npz").items():
            setattr(self, name, torch.as_tensor(array))

    sweep_clean: torch.Tensor
    sweep_corrupt: torch.Tensor
    sweep_answers: torch.Tensor
    pairs_clean: torch.Tensor
    pairs_corrupt: torch.Tensor
    pairs_answers: torch.Tensor
    capture: torch.Tensor
    cells: torch.Tensor


def difference(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Mean logit difference at the last position."""
    picked = logits[:, -1].gather(1, answers)
    return (picked[:, 0] - picked[:, 1]).mean()


def transformers_model(work: Work, **options: Any) -> Any:
    """The model as plain transformers loads it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(work.weights, dtype=torch.float32, **options).eval()


def main(prepare: Callable[[Work], Mapping[str, Mapping[str, Job]]]) -> None:
    """Run a job: `prepare` loads the model and answers, per job, its parts; parts are timed by turns, the rounds over."""
    folder, name, out, rounds = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    parts = prepare(Work(folder))[name]
    seconds: dict[str, list[float]] = {part: [] for part in parts}
    peaks: dict[str, float] = dict.fromkeys(parts, 0.0)
    values: dict[str, Any] = {}
    for _ in range(rounds):
        for part, job in parts.items():
            forget_peak()
            begun = time.perf_counter()
            found = job()
            seconds[part].append(time.perf_counter() - begun)
            peaks[part] = max(peaks[part], peak())
            values.update({f"{part}.{key}": np.asarray(value) for key, value in found.items()})
    np.savez(out, **values)
    print(json.dumps({"seconds": seconds, "peak": peaks}))


def forget_peak() -> None:
    """Begin the kernel's record of this process's peak memory anew (Linux); elsewhere the peak includes loading."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Peak resident memory in MB since it was last forgotten."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1000
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
