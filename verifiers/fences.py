"""Read the fenced blocks of a model's answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["fenced"]


def fenced(text: str, fence: re.Pattern[str]) -> Iterable[tuple[str, str]]:
    """Yield tag in small letters and body of each block; one never closed reaches to the end.

    `fence` finds a line that opens or closes a block: its first group is the run of marks, its
    second the tag, which only an opening line has. What counts as such a line differs: programs may
    stand in an indented list, while an indented fence inside a patch is a line of a file.
    """
    opened: tuple[str, str, int] | None = None  # marks, tag, where its body begins
    for match in fence.finditer(text):
        marks, tag = match[1], match[2].lower()
        if opened is None:
            opened = (marks, tag, match.end() + 1)
        elif not tag and marks.startswith(opened[0]):
            yield opened[1], text[opened[2] : match.start()]
            opened = None
    if opened is not None:
        yield opened[1], text[opened[2] :]
