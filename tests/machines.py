"""Machines: models whose next token is known by construction, and tokenizers of every kind, made by hand.

A machine is a Llama without attention and MLP: its embedding is one-hot and its unembedding a table, so that token t is
followed by `after[t]`, whatever stands before it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from neuroscope.models.model import TransformerModel

WORDS = ("The", "capital", "of", "France", "Italy", "is", "Paris", "Rome", "and", "so", "on")
_SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2, "<turn>": 3, "<other>": 4}


def sentencepiece(*, legacy: bool = True, bos: bool = True, eos: bool = False, words: Sequence[str] = WORDS) -> Any:
    """A tokenizer that writes a space before every text: Llama 2's way (`legacy`), or Metaspace that prepends always."""
    letters = sorted({*"".join(words), "▁", "é"})
    pieces = [*letters, *(f"▁{word}" for word in words), *words]
    vocabulary = [(text, 0.0) for text in _SPECIAL] + [(f"<0x{byte:02X}>", -50.0) for byte in range(256)]
    vocabulary += [(piece, -20.0 if piece in letters else -4.0) for piece in dict.fromkeys(pieces)]
    tokens = Tokenizer(models.Unigram(vocabulary, 0, True))
    if legacy:
        tokens.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokens.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokens.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _fast(tokens, bos, eos)


def byte_level(*, bos: bool = False, eos: bool = False, words: Sequence[str] = WORDS) -> Any:
    """A tokenizer of bytes with a token for each word, with and without the space before it; as GPT-2's."""
    vocabulary = dict(_SPECIAL)
    for character in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(character, len(vocabulary))
    merges: list[tuple[str, str]] = []
    long_first = sorted(words, key=len, reverse=True)
    for word in (*(f"Ġ{word}" for word in long_first), *long_first):
        whole = word[0]
        for character in word[1:]:
            merges.append((whole, character))
            whole += character
            vocabulary.setdefault(whole, len(vocabulary))
    tokens = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges))))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    return _fast(tokens, bos, eos)


def _fast(tokens: Tokenizer, bos: bool, eos: bool) -> Any:
    tokens.add_special_tokens(list(_SPECIAL))
    if bos or eos:
        single = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
        tokens.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=bos, add_eos_token=eos
    )


def machine(
    folder: Path,
    tokenizer: Any,
    after: Mapping[int, int | Sequence[int]],
    *,
    config: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
    files: Mapping[str, Any] | None = None,
) -> Path:
    """A folder with the machine in which `after[t]` follows token t (of several, the first is the likeliest, and so on).

    What `config` and `generation` hold goes into the configurations; `files` are written last (None takes one away).
    """
    size = -(-len(tokenizer) // 8) * 8  # rotation wants heads of an even width
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=size,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.ones_like(parameter) if parameter.ndim == 1 else torch.zeros_like(parameter))
        made.model.embed_tokens.weight.copy_(torch.eye(size))
        for token, following in after.items():
            for rank, one in enumerate([following] if isinstance(following, int) else following):
                made.lm_head.weight[one, token] = (5.0 - rank) / size**0.5  # the norm makes the one √size
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, given in (("config.json", config), ("generation_config.json", generation)):
        if given is not None:
            file = folder / name
            old = json.loads(file.read_text()) if file.is_file() else {}
            file.write_text(json.dumps({**old, **given}))
    for name, content in (files or {}).items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def chain(tokenizer: Any, *texts: str) -> dict[int, int]:
    """A table in which each of these tokens, as they stand in the vocabulary, is followed by the next one."""
    ids = [tokenizer.convert_tokens_to_ids(text) for text in texts]
    assert None not in ids
    assert len(set(ids)) == len(ids)
    return dict(itertools.pairwise(ids))


def load(folder: Path, engine: str) -> TransformerModel:
    return TransformerModel.from_hugging_face(str(folder), engine=engine)
