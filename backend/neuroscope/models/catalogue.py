"""The models that can be loaded here: names, targets and memory. Loads nothing."""

from __future__ import annotations

from dataclasses import dataclass

from neuroscope.errors import NeuroScopeError
from neuroscope.models import aliases
from neuroscope.models.cache import cache_folder
from neuroscope.models.memory import count_parameters
from neuroscope.models.resolve import SMOLLM2, ModelSource, cached_repositories, resolve, smollm2_file

_PARAMETERS = {  # of models that are not installed, from their cards
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
    """A name with its target, kind, number of parameters, and bytes in two types; `note` says what loading it requires."""

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
    """All aliases, SmolLM2 if its package is installed, and the models of the local Hugging Face cache."""
    names = [*aliases.table()]
    if smollm2_file() is not None:
        names.append(SMOLLM2)
    names += [name for name in cached_repositories() if name not in names]
    return [_entry(name) for name in names]


def _entry(name: str) -> CatalogueEntry:
    try:
        source = resolve(name)
        parameters = _PARAMETERS.get(source.target) if source.path is None else count_parameters(source.path)
    except NeuroScopeError as error:
        return CatalogueEntry(name, aliases.follow(name), "missing", None, None, error.message)
    path = None if source.path is None else str(source.path)
    return CatalogueEntry(name, source.target, source.kind, path, parameters, _note(source))


def _note(source: ModelSource) -> str | None:
    if source.kind == "hub":
        return "not here: needs a download"
    if source.kind in ("gguf", "package") and source.path is not None:
        converted = any((cache_folder() / "gguf").glob(f"{source.path.stem}-*"))
        return None if converted else "converted on first load"
    return None
