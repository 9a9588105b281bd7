"""The bundled models' tokenizer: whole words of the corpus, digits one by one, bytes for everything else.

A unigram model (Kudo 2018) over byte-level text. Every word of the corpus is a piece, with and without its leading
space as it occurs, and scored above any way of splitting it, so that names, places and answers are single tokens. Frequent
letter groups fill the vocabulary up, for text the corpus does not know.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from neuroscope.tasks.dataset import Example
from neuroscope.tasks.registry import TASKS
from neuroscope.training.corpus import ASSISTANT, END, PAD, USER, sample
from neuroscope.training.segments import VOCABULARY

SIZE = VOCABULARY
_SPECIAL = (PAD, END, USER, ASSISTANT)
_WORD_SCORE, _GROUP_SCORE, _BYTE_SCORE = -8.0, -9.0, -12.0

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'assistant' %}<|assistant|> {{ message.content | trim }}<|end|>"
    "{% else %}<|user|>{{ message.content | trim }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build(documents: int = 20_000) -> PreTrainedTokenizerFast:
    """Make the tokenizer from the corpus and the tasks' own words; the same each time."""
    before = _pre_tokenizer()
    words = Counter(
        piece for text in (*sample(documents), *_task_texts()) for piece, _ in before.pre_tokenize_str(_plain(text))
    )
    groups: Counter[str] = Counter()
    for word, count in words.items():
        for size in (2, 3, 4):
            for first in range(len(word) - size + 1):
                groups[word[first : first + size]] += count
    pieces: dict[str, float] = dict.fromkeys(_SPECIAL, 0.0)
    pieces.update(dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet()), _BYTE_SCORE))
    pieces.update({word: _WORD_SCORE for word, _ in words.most_common() if len(word) > 1})
    if len(pieces) > SIZE:
        raise ValueError(f"The corpus has {len(pieces)} different words, more than the vocabulary of {SIZE}.")
    for group, _ in groups.most_common():
        if len(pieces) == SIZE:
            break
        pieces.setdefault(group, _GROUP_SCORE)
    tokenizer = Tokenizer(models.Unigram(list(pieces.items()), unk_id=None))
    tokenizer.pre_tokenizer = before
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save(folder: Path) -> None:
    build().save_pretrained(folder)


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def _plain(text: str) -> str:
    for token in _SPECIAL:
        text = text.replace(token, "\n")
    return text


def _task_texts() -> list[str]:
    """Words that only test items would bring in must be pieces too."""
    items: list[Example] = [example for task in TASKS for example in task.dataset(400)]
    return [f"{item.clean}{item.answer}" for item in items] + [str(item.wrong) for item in items if item.wrong]
