"""Models in folders: what Hugging Face keeps, and beside it the persistent hooks and the steering vectors."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from neuroscope.errors import ArgumentError

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

VECTORS = "steering.safetensors"


def save(model: TransformerModel, path: str | Path) -> Path:
    """Write a model into a new folder, whole or not at all."""
    from neuroscope.hooks import storage
    from neuroscope.steering.vectors import SteeringVectors

    target = Path(path).expanduser()
    if target.exists():
        raise ArgumentError(f"{target} is there already.", remedy="Give a folder that does not exist yet.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise ArgumentError(f"The model cannot be written to {target}: {error}", remedy="Choose another place.") from error
    try:
        model.engine.save(temporary)
        model.tokenizer.save_pretrained(temporary)
        storage.write(model, temporary)
        vectors = SteeringVectors(model)
        if len(vectors):
            vectors.save(str(temporary / VECTORS))
        temporary.chmod(0o755)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def restore(model: TransformerModel, path: str | Path, *, allow_imports: bool = False) -> None:
    """Give a model loaded from `path` what was saved beside its weights."""
    from neuroscope.hooks import storage
    from neuroscope.steering.vectors import SteeringVectors

    folder = Path(path).expanduser()
    if (folder / VECTORS).is_file():
        SteeringVectors(model).read(str(folder / VECTORS))
    storage.read(model, folder, allow_imports=allow_imports)
