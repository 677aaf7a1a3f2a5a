"""Find the patch in a model's answer."""

from __future__ import annotations

import re
from typing import Literal

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.fences import fenced

__all__ = ["find_patch", "is_binary"]

# A line of a patch never begins with a fence: lines of files have a sign or a space before them.
_FENCE = re.compile(r"^(`{3,}|~{3,})[ \t]*(\w{0,40})[^\n`]*$", re.MULTILINE)
_TAGS = frozenset({"diff", "patch", "udiff"})
_PATCH = re.compile(r"^(?:diff --git |--- \S)", re.MULTILINE)
_BINARY = re.compile(r"^(?:GIT binary patch|Binary files .* differ)$", re.MULTILINE)


def find_patch(text: str, how: Literal["last_block", "all_blocks", "whole"]) -> str | None:
    """Return the patch, or None when there is none.

    `last_block`: the last fenced block marked diff or patch; without one, the last block that has
    a patch in it; without any, the text from its first line of a patch. `all_blocks` joins all that
    are marked. `whole` takes the text as it is. Thinking blocks are not looked at.
    """
    text = strip_thinking(text)
    if how == "whole":
        return _ended(text) if _PATCH.search(text) else None
    blocks = list(fenced(text, _FENCE))
    marked = [body for tag, body in blocks if tag in _TAGS and body.strip()]
    found = marked or [body for tag, body in blocks if not tag and _PATCH.search(body)]
    if found:
        return _ended("".join(found) if how == "all_blocks" else found[-1])
    first = None if blocks else _PATCH.search(text)
    return None if first is None else _ended(text[first.start() :])


def is_binary(patch: str) -> bool:
    """Say whether a patch holds contents that cannot be read as text."""
    return "\0" in patch or _BINARY.search(patch) is not None


def _ended(patch: str) -> str:
    return patch if patch.endswith("\n") else patch + "\n"
