"""The program that trains the shipped models: its optimizer, and training that stops and goes on."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
import torch

from neuroscope.errors import ModelLoadError
from neuroscope.models import bundled
from neuroscope.training.muon import Muon, orthogonal
from neuroscope.training.train import Trainer, learning_rate

WEIGHTS = Path(bundled.__file__).parent / "weights"


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (3, 16, 40)])
def test_a_step_has_singular_values_of_about_one_along_the_gradient(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrices)
    values = torch.linalg.svdvals(found)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    nearest = left @ right  # the polar factor
    cosine = (found * nearest).sum() / (found.norm() * nearest.norm())
    assert float(cosine) > 0.95


def test_muon_finds_the_least_squares_solution() -> None:
    random = torch.Generator().manual_seed(1)
    inputs, truth = torch.randn(200, 8, generator=random), torch.randn(8, 5, generator=random)
    weight = torch.nn.Parameter(torch.zeros(8, 5))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.0)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        ((inputs @ weight - inputs @ truth) ** 2).mean().backward()
        optimizer.step()
    assert float((weight.detach() - truth).abs().max()) < 0.02


def test_the_rate_warms_up_stays_and_decays() -> None:
    rates = [learning_rate(step, 5000, 1e-3) for step in range(5000)]
    assert rates[0] == pytest.approx(1e-3 / 200)
    assert set(rates[200:4000]) == {1e-3}
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4000:]))
    assert rates[-1] == pytest.approx(2e-5, rel=0.01)


def trainer(folder: Path, name: str, steps: int, tokens: int = 256) -> Trainer:
    if not (folder / "tokenizer").is_dir():
        shutil.copytree(WEIGHTS / name, folder / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors"))
    return Trainer(name, folder, steps=steps, tokens=tokens, peak=1e-3, device="cpu")


@pytest.mark.parametrize("name", ["gpt2-medium", "gpt-oss-20b"])
def test_training_that_stops_goes_on_with_the_same_bits(tmp_path: Path, name: str) -> None:
    whole = trainer(tmp_path / "whole", name, 4)
    before = [parameter.clone() for parameter in whole.model.parameters()]
    for _ in range(4):
        whole._one_step()
    assert not any(torch.equal(a, b) for a, b in zip(before, whole.model.parameters(), strict=True))
    half = trainer(tmp_path / "half", name, 4)
    for _ in range(2):
        half._one_step()
    half.save()
    other = trainer(tmp_path / "half", name, 4)
    assert other.step == 2
    for _ in range(2):
        other._one_step()
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), other.model.parameters(), strict=True))
    with pytest.raises(ModelLoadError, match="steps of 256 tokens"):
        trainer(tmp_path / "half", name, 4, tokens=512)
