"""What can be loaded here: every name, where it leads, and what it would cost in memory. Loads nothing."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from neuroscope.errors import NeuroScopeError
from neuroscope.models import aliases
from neuroscope.models.cache import cache_folder
from neuroscope.models.resolve import SMOLLM2, ModelSource, cached_repositories, resolve, smollm2_file

_PARAMETERS = {  # of models that are not here, from their cards
    "openai/gpt-oss-20b": 20_914_757_184,
    "openai/gpt-oss-120b": 116_829_156_672,
    "openai-community/gpt2": 124_439_808,
    "openai-community/gpt2-medium": 354_823_168,
    "openai-community/gpt2-large": 774_030_080,
    "openai-community/gpt2-xl": 1_557_611_200,
    SMOLLM2: 134_515_008,
}


@dataclass(frozen=True)
class CatalogueEntry:
    """A name with its target, kind, number of parameters, and bytes in two types; `note` says what stands in the way."""

    name: str
    target: str
    kind: str
    path: str | None
    parameters: int | None
    note: str | None

    @property
    def bytes_float32(self) -> int | None:
        return None if self.parameters is None else 4 * self.parameters

    @property
    def bytes_bfloat16(self) -> int | None:
        return None if self.parameters is None else 2 * self.parameters

    def as_dictionary(self) -> dict[str, object]:
        return {
            "name": self.name,
            "target": self.target,
            "kind": self.kind,
            "path": self.path,
            "parameters": self.parameters,
            "bytesFloat32": self.bytes_float32,
            "bytesBfloat16": self.bytes_bfloat16,
            "note": self.note,
        }


def catalogue() -> list[CatalogueEntry]:
    """Every alias in force, SmolLM2 where its package is installed, and the models of the local Hugging Face cache."""
    names = [*aliases.table()]
    if smollm2_file() is not None:
        names.append(SMOLLM2)
    names += [name for name in cached_repositories() if name not in names]
    return [_entry(name) for name in names]


def _entry(name: str) -> CatalogueEntry:
    try:
        source = resolve(name)
    except NeuroScopeError as error:
        return CatalogueEntry(name, aliases.follow(name), "missing", None, None, error.message)
    folder = _weights_folder(source)
    parameters = _count(folder) if folder is not None else _PARAMETERS.get(source.target)
    note = None
    if source.kind == "hub":
        note = "not here: needs a download"
    elif source.kind in ("gguf", "package") and folder is None:
        note = "converted on first load"
    return CatalogueEntry(name, source.target, source.kind, None if source.path is None else str(source.path), parameters, note)


def _weights_folder(source: ModelSource) -> Path | None:
    if source.kind in ("gguf", "package") and source.path is not None:
        return next(iter(sorted((cache_folder() / "gguf").glob(f"{source.path.stem}-*"))), None)
    return source.path


def _count(folder: Path) -> int | None:
    """Parameters from the headers of the safetensors files: eight bytes of length, then JSON with every shape."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                size = 1
                for side in entry["shape"]:
                    size *= side
                total += size
    return total or None
