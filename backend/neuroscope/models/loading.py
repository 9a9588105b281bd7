"""Loading a resolved model: configuration, tokenizer and weights, with checks.

Remote code is never executed. Weights come from safetensors, or from pickles if the caller allows it. A checkpoint that lacks a
parameter is refused: a randomly initialised layer could look like a finding.
"""

from __future__ import annotations

import hashlib
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroscope import events, places
from neuroscope.engines import architectures, loader
from neuroscope.engines.checkpoint import Checkpoint, Loader, misconfigured
from neuroscope.engines.devices import Devices
from neuroscope.engines.folder import ModelFolder
from neuroscope.engines.precision import checked
from neuroscope.engines.protocol import Engine
from neuroscope.engines.tokenizers import complete
from neuroscope.engines.weight_files import INDEX, SINGLE, pickled_files, safetensors_files
from neuroscope.errors import MissingExtraError, ModelLoadError, NeuroScopeError
from neuroscope.models.cache import file_hash, stored
from neuroscope.models.memory import check_sizes, count_parameters
from neuroscope.models.resolve import ModelSource, not_found

#: Settings by which a configuration can name code to fetch, or another file of weights.
_CODE = (
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation",
    "_experts_implementation", "_experts_implementation_internal", "transformers_weights",
)  # fmt: skip


@dataclass(frozen=True)
class LoadedModel:
    """A model on its engine, its tokenizer, and what identifies its weights."""

    engine: Engine
    tokenizer: Any
    weights_hash: str


def load(
    source: ModelSource,
    loader: Loader,
    *,
    dtype: str = "float32",
    devices: Devices = Devices(),  # noqa: B008
    allow_pickle: bool = False,
    revision: str | None = None,
    packed: bool = False,
) -> LoadedModel:
    """Load a source. Raises `ModelNotFoundError`, `ModelLoadError`, `UnsupportedArchitectureError`, `MissingExtraError`."""
    checked(dtype, loader.dtypes)
    if devices.tp > 1:
        loader.join(devices.tp)
    folder = _folder(source, revision)
    files = ModelFolder(folder)
    config = _config(files, loader.name)
    weights = _weight_files(folder, allow_pickle)
    if weights[0].suffix == ".safetensors":
        check_sizes(weights, config, folder / "config.json")
    checkpoint = Checkpoint(folder, config, weights, files.has_parts, packed)
    if checkpoint.part:
        events.notice(f"{source.name} is multimodal; only its language model is loaded.")
    ends = files.end_tokens, files.stop_texts
    with (
        events.progress(f"loading {source.name}", total=3, unit="steps") as job,
        ThreadPoolExecutor(1, thread_name_prefix="hashing") as hashing,  # beside loading, which waits for the disk
    ):
        hashes = [hashing.submit(file_hash, path) for path in checkpoint.weights]
        tokenizer = complete(loader.tokenizer(folder), files)
        job.advance()
        engine = _engine(checkpoint, loader, dtype, devices)
        engine.end_tokens, engine.stop_texts = ends
        job.advance()
        digest = hashlib.sha256("".join(hash_.result() for hash_ in hashes).encode()).hexdigest()
        job.advance()
    return LoadedModel(engine, tokenizer, digest)


def _engine(checkpoint: Checkpoint, loader: Loader, dtype: str, devices: Devices) -> Engine:
    try:
        return loader.engine(checkpoint, dtype, devices)
    except NeuroScopeError:
        raise
    # Exceptions of frameworks for a configuration with values of the wrong kind or size.
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError) as error:
        raise misconfigured(checkpoint.folder, error) from error


def _folder(source: ModelSource, revision: str | None) -> Path:
    """A local folder with the model's files; a GGUF file is converted once, into the user's cache."""
    if source.kind in ("gguf", "package"):
        assert source.path is not None
        return converted(source.path)
    if source.path is not None:
        return source.path
    confinement = places.current()
    if confinement is not None and not (confinement.download or source.chosen):
        raise not_found(source, "not asked, since this server downloads nothing (--allow-download).")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

    patterns = ["*.json", "*.safetensors", "tokenizer*", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(source.target, revision=revision, allow_patterns=patterns))
    except RepositoryNotFoundError as error:
        raise not_found(source, "the hub has no such repository, or it needs a login.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise not_found(source, f"the hub could not be reached ({type(error).__name__}).") from error


def _config(files: ModelFolder, engine: str) -> dict[str, Any]:
    folder = files.path
    try:
        kind = files.text_config["model_type"]
    except KeyError as error:
        raise ModelLoadError(
            f"{folder / 'config.json'} is not a model configuration: it has no model_type.", remedy="Save the model again."
        ) from error
    if not isinstance(kind, str):
        raise ModelLoadError(
            f"{folder / 'config.json'} has the model_type {kind!r}, not a text.", remedy="Save the model again."
        )
    architectures.find(kind, engine)
    for part in (files.config, files.text_config):
        for setting in _CODE:
            value = part.get(setting)
            if value is not None and value not in ("eager", "sdpa", "grouped_mm", "batched_mm"):
                raise ModelLoadError(
                    f"{folder / 'config.json'} chooses code with {setting}: {str(value)[:100]!r}.", remedy="Remove the setting."
                )
    if (folder / "adapter_config.json").exists():
        raise ModelLoadError(
            f"{folder} holds an adapter too, which may name another model.",
            remedy="Merge it into the model, or remove its files.",
        )
    return files.text_config


def _weight_files(folder: Path, allow_pickle: bool) -> list[Path]:
    safe = safetensors_files(folder)
    if safe:
        return safe
    pickled = pickled_files(folder)
    if pickled and allow_pickle:
        return pickled
    pickled = pickled or sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickled and not allow_pickle:
        raise ModelLoadError(
            f"{folder} has its weights only as {pickled[0].name}, a pickle, which can run any code when loaded.",
            remedy="If you trust it, pass allow_pickle=True; better, convert it to safetensors.",
        )
    others = sorted([*folder.glob("*.safetensors"), *pickled])
    if others:
        raise ModelLoadError(
            f"{folder} holds {others[0].name}, but neither {SINGLE} nor an index that names its weights.",
            remedy=f"Rename the file to {SINGLE}, or add {INDEX}.",
        )
    raise ModelLoadError(f"{folder} has no weights.", remedy="A model folder holds config.json and *.safetensors.")


def load_onto(
    engine: str,
    source: ModelSource,
    *,
    devices: Devices,
    dtype: str,
    allow_pickle: bool,
    revision: str | None,
    packed: bool = False,
) -> LoadedModel:
    """Load a resolved model onto an engine. Raises `ArgumentError` for an unknown engine, device or type."""
    return load(
        source, loader(engine), dtype=dtype, devices=devices, allow_pickle=allow_pickle, revision=revision, packed=packed
    )


def converted(gguf: Path) -> Path:
    """A GGUF file as a folder of safetensors in the user's cache, converted on first use (by transformers, with torch)."""
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"Reading {gguf.name} needs the package {package}.", remedy="pip install 'neuroscope-interp[gguf]'"
            )

    count_parameters(gguf)  # refuses one whose counts do not fit its size

    def convert(folder: Path) -> None:
        from neuroscope.engines.torch.loading import convert_gguf

        convert_gguf(gguf, folder)

    return stored(f"gguf/{gguf.stem}-{file_hash(gguf)[:16]}", convert)
