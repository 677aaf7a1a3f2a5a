"""The vocabulary: one token per number and per sign, and texts that are tokens with spaces between.

The same vocabulary is written as a Hugging Face folder, so that vLLM and transformers read and
write the same texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from samplewise.models.rules import MAX_NUMBER

__all__ = ["BOS", "EOS", "VOCABULARY", "decode", "encode", "write_tokenizer"]

_SPECIAL = ("<s>", "</s>", "<unk>")
VOCABULARY: tuple[str, ...] = (
    *_SPECIAL,
    *("eval", "+", "-", "*", "/", "=", ",", ";", ">", "(", ")"),
    *(str(number) for number in range(MAX_NUMBER + 1)),
)
BOS, EOS, _UNKNOWN = range(3)

_IDS = {token: number for number, token in enumerate(VOCABULARY)}
_PATTERN = r"\d+|[a-z]+|[^\sa-z\d]"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['content'] }}{% if not loop.last %} {% endif %}"
    "{% endfor %}"
)
"""Prints the puzzle verbatim; with `continue_final_message`, the steps so far follow it."""


def encode(text: str) -> list[int]:
    """Turn a text into token ids; spaces do not matter except between digits.

    Raises:
        ValueError: the text holds something that is no token.
    """
    pieces = re.findall(_PATTERN, text)
    unknown = [piece for piece in pieces if piece not in _IDS]
    if unknown:
        raise ValueError(f"'{unknown[0][:20]}' is not a token of this model")
    return [_IDS[piece] for piece in pieces]


def decode(tokens: Iterable[int]) -> str:
    """Turn token ids into a text, without the ends of sequences."""
    return " ".join(VOCABULARY[token] for token in tokens if token not in (BOS, EOS))


def write_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as Hugging Face reads them."""
    added = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, token in enumerate(_SPECIAL)
    ]
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {
                    "type": "Split",
                    "pattern": {"Regex": _PATTERN},
                    "behavior": "Isolated",
                    "invert": False,
                },
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": _IDS, "unk_token": "<unk>"},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        # Without this, transformers would print "1 , 4" as "1, 4".
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", "utf-8")
