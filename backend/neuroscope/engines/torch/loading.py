"""Checkpoints on torch, by transformers."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from neuroscope import events, waiting
from neuroscope.engines.architectures import find
from neuroscope.engines.checkpoint import Checkpoint, damaged, misconfigured, unfilled
from neuroscope.engines.devices import Devices
from neuroscope.engines.layout import get_module
from neuroscope.engines.threads import governor
from neuroscope.engines.tokenizers import transformers_tokenizer
from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.engines.torch.placement import Placement, device_of, placement
from neuroscope.engines.weight_files import index_in_use
from neuroscope.errors import ArgumentError, MissingExtraError, ModelLoadError, first_line

#: The default device of torch.
_AVAILABLE = torch.get_num_threads()


class TorchLoader:
    """`Loader` for torch: Hugging Face models and tokenizers."""

    name = "torch"
    dtypes = ("float32", "bfloat16", "float16", "float64")

    def tokenizer(self, folder: Path) -> Any:
        with _quietly():
            return transformers_tokenizer(folder)

    def join(self, tp: int) -> None:
        from neuroscope.engines.torch.shared_loading import follow

        follow(tp)

    def engine(self, checkpoint: Checkpoint, dtype: str, devices: Devices) -> TorchEngine:
        if devices.tp > 1:
            from neuroscope.engines.torch.shared_loading import load

            return load(checkpoint, dtype, devices.tp)
        with _quietly():
            model, placed = _model(checkpoint, dtype), None
            if devices.split:
                layers = list(get_module(model, find(model.config.model_type).path("layers")).children())
                placed = placement(devices, layers, model)
                placed.put(model, layers)
            else:
                model = model.to(device_of(devices.device or ("cuda" if torch.cuda.is_available() else "cpu")))
            engine = _engine(checkpoint, model, placed)
        count = governor.threads(sum(parameter.numel() for parameter in engine.model.parameters()), _AVAILABLE)
        if count is not None and engine.device.type == "cpu":
            torch.set_num_threads(count)
        if engine.device.type == "cpu" and torch.get_num_threads() > 1:
            _tell_of_spinning()
        return engine


def _engine(checkpoint: Checkpoint, model: Any, placed: Placement | None) -> TorchEngine:
    """The engine, whose checks run a layer. Raises `ModelLoadError` where the kernels of quantised weights do not run on the device."""
    found = checkpoint.config.get("quantization_config")
    try:
        return TorchEngine(model, part=checkpoint.part, placed=placed)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        if not isinstance(found, dict):
            raise
        raise ModelLoadError(
            f"The weights in {checkpoint.folder}, quantised by {found.get('quant_method')}, do not run on {next(model.parameters()).device}: "
            f"{first_line(error)}",
            remedy="Load it on a GPU, or take a checkpoint that is not quantised.",
        ) from error


@functools.cache
def _tell_of_spinning() -> None:
    """Warn once that this process's threads spin, because torch was imported first."""
    if waiting.spinning:
        events.notice(
            "torch was imported before NeuroScope, so its threads spin while they wait, which is slow on a busy machine. "
            "Import neuroscope first, or set OMP_WAIT_POLICY=PASSIVE."
        )


def loaded(checkpoint: Checkpoint, dtype: str, **options: Any) -> Any:
    """`_model`, without transformers' bars and warnings."""
    with _quietly():
        return _model(checkpoint, dtype, **options)


def _model(checkpoint: Checkpoint, dtype: str, **options: Any) -> Any:
    """The model in main memory, or where transformers' options say."""
    folder = checkpoint.folder
    config = _packed(checkpoint) if checkpoint.packed else None
    try:
        with _indexed(folder) as place:
            chosen = _part(checkpoint) if checkpoint.part else {}
            if config is not None:
                from neuroscope.engines.torch import mxfp4

                chosen["config"] = mxfp4.kept(config)
            model, report = AutoModelForCausalLM.from_pretrained(
                place,
                **chosen,
                dtype=getattr(torch, dtype),
                trust_remote_code=False,
                use_safetensors=True if checkpoint.weights[0].suffix == ".safetensors" else None,
                output_loading_info=True,
                **options,
            )
    except SafetensorError as error:
        raise damaged(folder, error) from error
    except ImportError as error:  # quantised weights, which need their method's package
        raise MissingExtraError(
            f"{folder} needs a package that is not installed: {first_line(error)}",
            remedy="Install it, or use weights that are not quantised.",
        ) from error
    except StrictDataclassError as error:
        raise misconfigured(folder, error) from error
    except (OSError, ValueError, RuntimeError, KeyError, UnpicklingError) as error:
        raise ModelLoadError(f"{folder} does not load: {first_line(error)}") from error
    if config is not None:
        mxfp4.settled(model, config)
    for module in model.modules():
        # bitsandbytes lays four-bit weights out anew at the first run on some CPUs, and drops the gradient of their input from then on.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    missing = sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]]
    if missing:
        raise unfilled(folder, missing)
    return model.eval()


def _packed(checkpoint: Checkpoint) -> Any:
    """The configuration of a model in MXFP4. Raises `ArgumentError` for another."""
    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    found = getattr(config, "quantization_config", None)
    method = found.get("quant_method") if isinstance(found, dict) else None
    if method != "mxfp4":
        raise ArgumentError(
            f"{checkpoint.folder} holds no MXFP4 weights to keep packed, but {f'those of {method}' if method else 'plain ones'}.",
            remedy="Leave packed out: weights of bitsandbytes and torchao stay packed anyway.",
        )
    return config


@contextlib.contextmanager
def _indexed(folder: Path) -> Iterator[Path]:
    """The folder; if its index lacks `metadata`, which transformers requires, a folder of links with a complete index."""
    index = index_in_use(folder)
    found = {} if index is None else json.loads(index.read_text(encoding="utf-8"))
    if index is None or isinstance(found.get("metadata"), dict):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="neuroscope-") as place:
        for file in folder.iterdir():
            if file != index:
                (Path(place) / file.name).symlink_to(file.absolute(), target_is_directory=file.is_dir())
        (Path(place) / index.name).write_text(json.dumps({**found, "metadata": {}}), encoding="utf-8")
        yield Path(place)


def _part(checkpoint: Checkpoint) -> dict[str, Any]:
    """Arguments that make transformers load only the language model of a multimodal model."""
    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False).get_text_config()
    prefixes = find(checkpoint.config["model_type"]).prefixes
    renamed = {f"^{re.escape(prefix)}": own for prefix, own in prefixes.items()}
    return {"config": config, "key_mapping": renamed}


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer to a folder, as safetensors."""
    # No setting of transformers turns off the reader's progress bar, so its output is discarded.
    silent = contextlib.redirect_stderr(io.StringIO())
    with events.progress(f"converting {gguf.name}", total=2, unit="steps") as job, _quietly(), silent:
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise ModelLoadError(f"{gguf} cannot be read: {first_line(error)}") from error
        job.advance()
        # transformers considers the model quantised and refuses to save it, although its weights have been dequantised.
        model.hf_quantizer = None
        model.is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        job.advance()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence transformers' progress bars and warnings, and restore its settings afterwards."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
