"""Find the program in a model's answer."""

from __future__ import annotations

import re
from typing import Literal

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.code.languages import Language
from samplewise.verifiers.fences import fenced

__all__ = ["find_program"]

_FENCE = re.compile(r"^[ \t]{0,3}(`{3,}|~{3,})[ \t]*([^\s`{]{0,40})[^\n`]*$", re.MULTILINE)


def find_program(
    text: str, language: Language, how: Literal["last_block", "all_blocks", "whole"], name: str = ""
) -> str | None:
    """Return the program, or None when there is none.

    `last_block`: the last fenced block of the language; where there is none, the last one without
    a language; where there is no fence at all, the whole text. With `name`, the last of these
    blocks in which that word occurs goes first: a usage example often follows. `all_blocks` joins
    all blocks of the language. `whole` takes the text as it is. Thinking blocks are not looked at.
    """
    text = strip_thinking(text)
    if how == "whole":
        return text if text.strip() else None
    blocks = list(fenced(text, _FENCE))
    if not blocks:
        return text if text.strip() else None
    own = [body for tag, body in blocks if tag in language.fences and body.strip()]
    found = own or [body for tag, body in blocks if not tag and body.strip()]
    if not found:
        return None
    if how == "all_blocks":
        return "\n".join(found)
    word = re.compile(rf"\b{re.escape(name)}\b")
    return next((body for body in reversed(found) if name and word.search(body)), found[-1])
