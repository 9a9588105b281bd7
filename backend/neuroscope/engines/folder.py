"""What a model's folder says about its tokens, for every engine.

Several files may say the same thing, and they may differ:

end tokens      `generation_config.json` and `config.json` name ids (one or a list, the latter also under `text_config`),
                tokenizer files the text of one; every one of them ends a generation
stop texts      `stop_strings` of `generation_config.json` and `config.json` (one or a list): each ends a generation too
special tokens  `tokenizer_config.json`; where that has no `added_tokens_decoder`, `special_tokens_map.json` goes before it,
                and otherwise fills what it leaves out
chat template   `chat_template.jinja`, else that in `tokenizer_config.json`, else `chat_template.json`

A model that reads images too (Gemma 3) has its language model's settings under `text_config`, and its weights under a prefix.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from neuroscope.engines import architectures
from neuroscope.errors import ModelLoadError

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

#: Files that make up a tokenizer, as far as NeuroScope reads them.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclass(frozen=True)
class ModelFolder:
    """A folder as `save_pretrained` and the hub write it. Raises `ModelLoadError` for a file that is not a JSON object."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return self._json("config.json")

    @property
    def has_parts(self) -> bool:
        """Whether the model is multimodal: the language model is one of its parts."""
        return architectures.language_model(self.config.get("model_type")) is not None

    @cached_property
    def text_config(self) -> dict[str, Any]:
        """The language model's configuration: `config.json` itself, or its `text_config`."""
        part = architectures.language_model(self.config.get("model_type"))
        if part is None:
            return self.config
        inner = self.config.get("text_config")
        if not isinstance(inner, dict):
            raise ModelLoadError(f"{self.path / 'config.json'} has no text_config.", remedy="Download or copy it again.")
        outer = ("quantization", "quantization_config", "tie_word_embeddings")
        shared = {name: self.config[name] for name in outer if name in self.config}
        return {**shared, **inner, "model_type": part.name}

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        return self._json("generation_config.json")

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        return self._json("tokenizer_config.json")

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """The text of each special token by its name: `eos_token` and so on."""
        config = self.tokenizer_config
        return _special(config) if "added_tokens_decoder" in config else {**_special(config), **self._mapped}

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Special tokens that only `special_tokens_map.json` names, where transformers does not read them."""
        return {name: text for name, text in self._mapped.items() if name not in self.special_tokens}

    @property
    def _mapped(self) -> dict[str, str]:
        return _special(self._json("special_tokens_map.json"))

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The ids that end a text, from its configurations. Raises `ModelLoadError` for what is not an id."""
        for name, configuration in self._configurations:
            for given in (configuration, configuration.get("text_config")):
                found = given.get("eos_token_id") if isinstance(given, dict) else None
                if not all(_is_id(id_) for id_ in (found if isinstance(found, list) else [] if found is None else [found])):
                    raise ModelLoadError(
                        f"{self.path / name} has eos_token_id {found!r}.",
                        remedy="Write a token's number, or a list of numbers.",
                    )
        return end_ids(self.generation_config, self.config)

    @cached_property
    def stop_texts(self) -> tuple[str, ...]:
        """The strings that end a text, from its configurations. Raises `ModelLoadError` for what is not a string, or empty."""
        return tuple(dict.fromkeys(text for name, found in self._configurations for text in self._stops(name, found)))

    @property
    def _configurations(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """The configurations that say where a text ends, each with its file's name."""
        return ("generation_config.json", self.generation_config), ("config.json", self.config)

    def _stops(self, name: str, configuration: Mapping[str, Any]) -> list[str]:
        given = configuration.get("stop_strings")
        texts = [] if given is None else [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
            raise ModelLoadError(
                f"{self.path / name} has stop_strings {given!r}.", remedy="Write a text, or a list of texts that are not empty."
            )
        return texts

    @cached_property
    def chat_template(self) -> str | None:
        """The template's source; of several, the one named "default"."""
        file = self.path / "chat_template.jinja"
        if file.is_file():
            return text_of(file)
        for source in (self.tokenizer_config, self._json("chat_template.json")):
            found = source.get("chat_template")
            if isinstance(found, list):
                named = [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
                found = {entry["name"]: entry.get("template") for entry in named}
            if isinstance(found, dict):
                found = found.get("default")
            if isinstance(found, str):
                return found
        return None

    def _json(self, name: str) -> dict[str, Any]:
        """A file's object; empty if there is no such file."""
        file = self.path / name
        if not file.is_file():
            return {}
        try:
            found = json.loads(text_of(file))
        except ModelLoadError:
            raise
        except (ValueError, RecursionError) as error:
            raise ModelLoadError(f"{file} cannot be read: {error}", remedy="Download or copy it again.") from error
        if not isinstance(found, dict):
            raise ModelLoadError(f"{file} is not a JSON object.", remedy="Download or copy it again.")
        return found


def text_of(file: Path, most: int = 64 << 20) -> str:
    """A file of a model's folder as text. Raises `ModelLoadError` for one that is larger than `most` bytes, or not UTF-8."""
    try:
        with file.open("rb") as opened:
            found = opened.read(most + 1)
        if len(found) > most:
            raise ModelLoadError(f"{file} is larger than {most >> 20} MiB.", remedy="Download or copy it again.")
        return found.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{file} cannot be read: {error}", remedy="Download or copy it again.") from error


def text_name(name: str, architecture: architectures.Architecture) -> str | None:
    """A weight's name in the language model alone, from its name in a multimodal model; None for the other parts' weights.

    >>> gemma = architectures.find("gemma3_text")
    >>> text_name("language_model.model.norm.weight", gemma), text_name("vision_tower.post_layernorm.weight", gemma)
    ('model.norm.weight', None)
    """
    for prefix, own in architecture.prefixes.items():
        if name.startswith(prefix):
            return own + name.removeprefix(prefix)
    return name if name.startswith("lm_head.") else None


def _special(source: Mapping[str, Any]) -> dict[str, str]:
    for name in SPECIAL:
        if source.get(name) and token_text(source[name]) is None:
            raise ModelLoadError(
                f"The {name} {source[name]!r} of its tokenizer is not a text.", remedy="Save the tokenizer again."
            )
    texts = ((name, token_text(source.get(name))) for name in SPECIAL)
    return {name: text for name, text in texts if text is not None}


def end_ids(*configurations: Mapping[str, Any]) -> tuple[int, ...]:
    """The distinct ids under `eos_token_id` of configurations, which may be one id, a list, or missing."""
    return tuple(dict.fromkeys(id_ for configuration in configurations for id_ in _end_ids(configuration)))


def _end_ids(configuration: Mapping[str, Any]) -> Iterator[int]:
    given = configuration.get("eos_token_id")
    for id_ in given if isinstance(given, (list, tuple)) else [given]:
        if _is_id(id_) and id_ >= 0:
            yield id_
    inner = configuration.get("text_config")
    if isinstance(inner, Mapping):
        yield from _end_ids(inner)


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def token_text(token: Any) -> str | None:
    """The text of a special token, which files write as a string or as a mapping."""
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) else None
