"""A floating type may be named, or given as torch, MLX and numpy have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from neuroscope import settings
from neuroscope.errors import ArgumentError
from neuroscope.models.model import TransformerModel
from tests import tiny

GIVEN = [
    ("bfloat16", "bfloat16"),
    ("torch.float16", "float16"),
    (torch.bfloat16, "bfloat16"),
    (np.float16, "float16"),
    (np.dtype("float32"), "float32"),
]


@pytest.mark.parametrize(("given", "name"), GIVEN)
def test_a_model_is_loaded_in_the_type_that_is_given(given: Any, name: str) -> None:
    folder = str(tiny.saved("gpt2"))
    assert TransformerModel.from_hugging_face(folder, dtype=given).precision == name
    with settings.defaults(dtype=given):
        assert TransformerModel.from_pretrained(folder).precision == name
    assert settings.dtype() == "float32"


def test_mlx_types_are_named_too() -> None:
    core = pytest.importorskip("mlx.core", reason="mlx is not installed")
    assert settings.dtype(core.bfloat16) == "bfloat16"


@pytest.mark.parametrize("given", [16, torch.zeros(1), [torch.float16], object])
def test_what_is_no_type_is_refused(given: Any) -> None:
    with pytest.raises(ArgumentError, match="is no floating type") as told:
        TransformerModel.from_hugging_face(str(tiny.saved("gpt2")), dtype=given)
    assert "torch.bfloat16" in str(told.value.remedy)
    with pytest.raises(ArgumentError, match="is no floating type"), settings.defaults(dtype=given):
        pass


def test_a_type_without_fractions_is_refused_by_its_name() -> None:
    with pytest.raises(ArgumentError, match="no floating type 'int64'"):
        TransformerModel.from_hugging_face(str(tiny.saved("gpt2")), dtype=torch.int64)
