"""Loading what a name resolved to: configuration, tokenizer and weights, checked before they are trusted.

Nothing remote is ever executed, and weights come from safetensors; pickled ones only when the caller says so. A
checkpoint that does not fill every parameter is refused: random numbers in a layer look like a finding.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroscope import events
from neuroscope.errors import ArgumentError, MissingExtraError, ModelLoadError, UnsupportedArchitectureError, did_you_mean
from neuroscope.models.cache import file_hash, stored
from neuroscope.models.resolve import ModelSource, not_found
from neuroscope.models.resolve_files import safetensors_files

_DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class LoadedModel:
    """A Hugging Face model in evaluation mode, its tokenizer, and what identifies its weights."""

    model: Any
    tokenizer: Any
    source: ModelSource
    weights_hash: str


def load(
    source: ModelSource,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    allow_pickle: bool = False,
    revision: str | None = None,
) -> LoadedModel:
    """Load a source. Raises `ModelNotFoundError`, `ModelLoadError`, `UnsupportedArchitectureError`, `MissingExtraError`."""
    if dtype not in _DTYPES:
        raise ArgumentError(f"There is no type {dtype!r}.", remedy=did_you_mean(dtype, _DTYPES, listing="Types"))
    folder = _folder(source, revision)
    _check_config(folder)
    weights = _weight_files(folder, allow_pickle)
    with events.progress(f"loading {source.name}", total=3, unit="steps") as job, _quietly():
        tokenizer = _tokenizer(folder)
        job.advance()
        model = _model(folder, dtype, device, allow_pickle)
        job.advance()
        digest = hashlib.sha256("".join(file_hash(path) for path in weights).encode()).hexdigest()
        job.advance()
    return LoadedModel(model, tokenizer, source, digest)


def _folder(source: ModelSource, revision: str | None) -> Path:
    """A local folder with the model's files; a GGUF is converted into the user's cache once."""
    if source.kind in ("gguf", "package"):
        assert source.path is not None
        return converted(source.path)
    if source.path is not None:
        return source.path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

    patterns = ["*.json", "*.safetensors", "tokenizer*", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(source.target, revision=revision, allow_patterns=patterns))
    except RepositoryNotFoundError as error:
        raise not_found(source, "the hub has no such repository, or it needs a login.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise not_found(source, f"the hub could not be reached ({type(error).__name__}).") from error


def _check_config(folder: Path) -> None:
    from neuroscope.models.engines.torch_families import FAMILIES

    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(f"{path} is no model configuration: {error}", remedy="Save the model again.") from error
    if kind not in FAMILIES:
        raise UnsupportedArchitectureError(
            f"{folder.name} is of the architecture {kind!r}, which no anatomy describes.",
            remedy=f"Supported: {', '.join(sorted(FAMILIES))}.",
        )


def _weight_files(folder: Path, allow_pickle: bool) -> list[Path]:
    safe = safetensors_files(folder)
    if safe:
        return safe
    pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickled and allow_pickle:
        return pickled
    if pickled:
        raise ModelLoadError(
            f"{folder} has its weights only as {pickled[0].name}, a pickle, which can run any code when it is loaded.",
            remedy="If you trust it, pass allow_pickle=True; better, convert it to safetensors.",
        )
    raise ModelLoadError(f"{folder} has no weights.", remedy="A model folder holds *.safetensors beside config.json.")


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelLoadError(
            f"{folder} has no tokenizer that loads: {str(error).splitlines()[0]}",
            remedy="Save the tokenizer beside the weights.",
        ) from error


def _model(folder: Path, dtype: str, device: str, allow_pickle: bool) -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            use_safetensors=None if allow_pickle else True,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise ModelLoadError(f"The weights in {folder} are damaged: {error}", remedy="Download or copy them again.") from error
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelLoadError(f"{folder} does not load: {str(error).splitlines()[0]}") from error
    unfilled = sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]]
    if unfilled:
        raise ModelLoadError(
            f"The weights in {folder} leave {len(unfilled)} parameters unfilled, the first {unfilled[0]}.",
            remedy="The checkpoint and its config.json do not belong together.",
        )
    try:
        return model.eval().to(device)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"The device {device!r} cannot be used: {str(error).splitlines()[0]}") from error


def converted(gguf: Path) -> Path:
    """A GGUF file as a folder of safetensors in the user's cache, converted on first use."""
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"Reading {gguf.name} needs the package {package}.", remedy="pip install 'neuroscope-interp[gguf]'"
            )
    return stored(f"gguf/{gguf.stem}-{file_hash(gguf)[:16]}", lambda folder: _convert(gguf, folder))


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # The reader's bar obeys no setting of transformers, so it draws into nothing.
    silent = contextlib.redirect_stderr(io.StringIO())
    with events.progress(f"converting {gguf.name}", total=2, unit="steps") as job, _quietly(), silent:
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        except (OSError, ValueError, RuntimeError, KeyError, NotImplementedError) as error:
            raise ModelLoadError(f"{gguf} cannot be read: {str(error).splitlines()[0]}") from error
        job.advance()
        # transformers takes a GGUF for a quantised model and refuses to save it, though its weights are plain by now.
        model.hf_quantizer = None
        model.is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        job.advance()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers' own bars and warnings off the terminal; its settings are as before afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
