"""Tokenizers from their files, without transformers (which imports torch if that is installed).

The package `tokenizers` runs `tokenizer.json`; `neuroscope.engines.folder` reads the other files. Tokenizers that need a class
of transformers are loaded by transformers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from neuroscope.engines.folder import TOKENIZER_FILES, ModelFolder, text_of
from neuroscope.errors import ModelLoadError

#: The most by which a tokenizer's rules may lengthen a text; those of published models stay below 4.
_GROWTH = 1000.0


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model's folder. Raises `ModelLoadError` if none loads."""
    return _loaded(folder, of_transformers=False)


def transformers_tokenizer(folder: Path) -> Any:
    """The same as an object of transformers, using only the folder's files if they are complete.

    The class that transformers chooses by a model's type may have rules of its own.
    """
    return _loaded(folder, of_transformers=True)


def _loaded(folder: Path, *, of_transformers: bool) -> Any:
    try:
        _check_growth(folder / "tokenizer.json")
        own = FileTokenizer(folder) if (folder / "tokenizer.json").is_file() else None
        if own is not None and own.complete and not of_transformers:
            return own
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        kind = AutoTokenizer if own is None or not own.complete else PreTrainedTokenizerFast
        tokenizer = kind.from_pretrained(folder, trust_remote_code=False)
        # The engine refuses a prompt that is too long, so no warning is needed.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        return tokenizer
    # `tokenizers` raises plain `Exception` for a damaged file, and panics, which are none, for some.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelLoadError(
            f"{folder} has no tokenizer that loads: {(str(error).splitlines() or [type(error).__name__])[0][:300]}",
            remedy="Save the tokenizer in the same folder as the weights.",
        ) from error


def _check_growth(file: Path) -> None:
    """Raise `ModelLoadError` for a tokenizer that makes a text many times longer before it reads it: replacements upon replacements."""
    if not file.is_file():
        return
    found = json.loads(text_of(file, 512 << 20))
    growth = 1.0
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        stack = [found.get(part) if isinstance(found, dict) else None]
        while stack:
            rule = stack.pop()
            if isinstance(rule, list):
                stack += rule
            elif isinstance(rule, dict):
                stack += [rule.get(name) for name in ("normalizers", "pretokenizers", "decoders")]
                if isinstance(rule.get("content"), str):
                    pattern = rule.get("pattern")
                    text = pattern.get("String") if isinstance(pattern, dict) else None
                    growth *= max(1.0, (len(rule["content"]) + (not text)) / max(1, len(text or "")))
                growth *= max(1, len(rule["prepend"])) if isinstance(rule.get("prepend"), str) else 1
    if growth > _GROWTH:
        raise ModelLoadError(f"The tokenizer in {file.parent} makes texts {growth:,.0f} times as long before it reads them.")


def complete(tokenizer: Any, folder: ModelFolder) -> Any:
    """Add to a tokenizer of transformers what it did not read: special tokens and the chat template."""
    if isinstance(tokenizer, FileTokenizer):
        return tokenizer
    for name, text in folder.left_out.items():
        if getattr(tokenizer, name) is None and text in tokenizer.get_vocab():
            setattr(tokenizer, name, text)
    tokenizer.chat_template = folder.chat_template
    return tokenizer


class FileTokenizer:
    """A tokenizer with the methods of transformers' that NeuroScope uses."""

    #: As transformers calls a tokenizer that tells where its tokens stand.
    is_fast = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = ModelFolder(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._add_tokens()
        self.chat_template: str | None = self._files.chat_template
        known = {name: text for name, text in self._files.left_out.items() if self._tokenizer.token_to_id(text) is not None}
        self.special_tokens = {**self._files.special_tokens, **known}

    @property
    def complete(self) -> bool:
        """Whether the files alone define the tokenization; the Llama classes of transformers add tokens themselves."""
        config = self._files.tokenizer_config
        added = self("a")["input_ids"]
        for name, place in (("bos", 0), ("eos", -1)):
            wanted = config.get(f"add_{name}_token")
            if wanted is not None and wanted != (added[place] == self._id(f"{name}_token")):
                return False
        known = all(self._tokenizer.token_to_id(token.content) == id_ for id_, token in self._listed.items())
        return known and not config.get("clean_up_tokenization_spaces")

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer of the package `tokenizers`."""
        return self._tokenizer

    @property
    def bos_token_id(self) -> int | None:
        return self._id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        return self._id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        return self._id("pad_token")

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, text: str | list[str], add_special_tokens: bool = True, return_offsets_mapping: bool = False) -> Any:
        """`input_ids` of a text, or of each of several, with the special tokens the tokenizer adds.

        return_offsets_mapping: `offset_mapping` too, for each token the characters that it begins at and ends before.
        """
        alone = not isinstance(text, list)
        encoded = self._tokenizer.encode_batch([text] if alone else text, add_special_tokens=add_special_tokens)
        found: dict[str, list[Any]] = {"input_ids": [list(one.ids) for one in encoded]}
        if return_offsets_mapping:
            found["offset_mapping"] = [list(one.offsets) for one in encoded]
        return {name: values[0] for name, values in found.items()} if alone else found

    def decode(
        self, ids: list[int], skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str:
        """Tokens as text. Spaces are kept even if cleaning them up is asked for."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def convert_ids_to_tokens(self, id_: int) -> str | None:
        """The vocabulary's entry for an id, or None."""
        return self._tokenizer.id_to_token(id_)

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of an entry of the vocabulary, or None."""
        return self._tokenizer.token_to_id(token)

    def save_pretrained(self, folder: Path) -> None:
        """Copy the tokenizer's files into a folder."""
        for name in TOKENIZER_FILES:
            if (self._folder / name).is_file():
                shutil.copyfile(self._folder / name, Path(folder) / name)

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool = False, add_generation_prompt: bool = False
    ) -> str | list[int]:
        """Messages in the model's chat format: text, or its ids with `tokenize`."""
        from neuroscope.engines.chat_templates import chat_text

        text = chat_text(self, messages, add_generation_prompt=add_generation_prompt)
        return self(text, add_special_tokens=False)["input_ids"] if tokenize else text

    def _add_tokens(self) -> None:
        """Add the tokens that only the other files have, in the order of their ids, as transformers does."""
        self._listed = self._read_listed()
        for id_, token in sorted(self._listed.items()):
            if self._tokenizer.get_added_tokens_decoder().get(id_) != token:
                self._tokenizer.add_tokens([token])
        for text in self._files.special_tokens.values():
            if text not in {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}:
                self._tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])

    def _read_listed(self) -> dict[int, AddedToken]:
        """The added tokens of `tokenizer_config.json`, else of `added_tokens.json`, by id."""
        config = self._files.tokenizer_config.get("added_tokens_decoder")
        if config is not None:
            return {int(id_): AddedToken(**token) for id_, token in config.items()}
        file = self._folder / "added_tokens.json"
        found: dict[str, int] = json.loads(text_of(file)) if file.is_file() else {}
        known = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        special = set(self._files.special_tokens.values())
        return {
            id_: AddedToken(text, special=text in special, normalized=text not in special)
            for text, id_ in found.items()
            if text not in known
        }

    def _id(self, name: str) -> int | None:
        text = self.special_tokens.get(name)
        return None if text is None else self._tokenizer.token_to_id(text)
