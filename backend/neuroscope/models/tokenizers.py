"""Tokenizers straight from their files, without transformers (which imports torch wherever that is installed).

`tokenizer.json` holds the whole tokenizer and the package `tokenizers` runs it; `tokenizer_config.json` names the special
tokens and may hold the chat template. What these files leave to a class of transformers is loaded by transformers.
"""

from __future__ import annotations

import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from neuroscope.errors import ModelLoadError, first_line

_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model's folder. Raises `ModelLoadError` where none loads."""
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = FileTokenizer(folder)
            if tokenizer.complete:
                return tokenizer
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        # The engine refuses a prompt that is too long; a warning beside that would only puzzle.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        return tokenizer
    # `tokenizers` raises plain `Exception` for a damaged file.
    except Exception as error:
        raise ModelLoadError(
            f"{folder} has no tokenizer that loads: {first_line(error)}",
            remedy="Save the tokenizer beside the weights.",
        ) from error


class FileTokenizer:
    """What NeuroScope asks of a tokenizer, named as transformers names it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        config = folder / "tokenizer_config.json"
        self._config: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        template = folder / "chat_template.jinja"
        self.chat_template: str | None = template.read_text(encoding="utf-8") if template.is_file() else self._own_template()
        self.special_tokens = {name: text for name in _SPECIAL if (text := _text(self._config.get(name))) is not None}

    @property
    def complete(self) -> bool:
        """Whether the files alone say how text becomes tokens; the Llama classes add tokens on their own account."""
        added = self("a")["input_ids"]
        for name, place in (("bos", 0), ("eos", -1)):
            wanted = self._config.get(f"add_{name}_token")
            if wanted is not None and wanted != (added[place] == self._id(f"{name}_token")):
                return False
        return not self._config.get("clean_up_tokenization_spaces")

    @property
    def pad_token_id(self) -> int | None:
        return self._id("pad_token")

    @property
    def eos_token_id(self) -> int | None:
        return self._id("eos_token")

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """`input_ids` of a text, with the special tokens the tokenizer adds."""
        return {"input_ids": list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def save_pretrained(self, folder: Path) -> None:
        """Copy the tokenizer's files into a folder."""
        for name in _FILES:
            if (self._folder / name).is_file():
                shutil.copyfile(self._folder / name, Path(folder) / name)

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool = False, add_generation_prompt: bool = False
    ) -> str | list[int]:
        """Messages in the model's own chat format: text, or its ids with `tokenize`."""
        text = self._template.render(
            messages=messages, add_generation_prompt=add_generation_prompt, tools=None, documents=None, **self.special_tokens
        )
        return self(text, add_special_tokens=False)["input_ids"] if tokenize else str(text)

    @cached_property
    def _template(self) -> Any:
        from datetime import datetime

        from jinja2.exceptions import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        environment.filters["tojson"] = lambda value, **settings: json.dumps(value, ensure_ascii=False, **settings)
        return environment.from_string(self.chat_template or "")

    def _own_template(self) -> str | None:
        found = self._config.get("chat_template")
        if isinstance(found, list):  # several, by name
            found = next((entry["template"] for entry in found if entry["name"] == "default"), None)
        return found

    def _id(self, name: str) -> int | None:
        text = self.special_tokens.get(name)
        return None if text is None else self._tokenizer.token_to_id(text)


def _text(token: Any) -> str | None:
    """A special token, which files write as text or as a mapping."""
    return token.get("content") if isinstance(token, dict) else token
