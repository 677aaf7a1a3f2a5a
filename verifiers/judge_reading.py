"""Read what a judge wrote: a number or a word. Strict about meaning, tolerant about form.

A reply that says two different things is not read: a judge may have repeated what a candidate
claims about itself. Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.base import VerifierError

__all__ = ["read_number", "read_word"]

T = TypeVar("T")

_TAIL = 20_000
_MOST_TRIES = 200
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
_BARE = re.compile(rf"[*_`\s]*({_NUMBER})[*_`\s.]*")
_LINE = re.compile(rf"[*_#`\s]*(\w+)[*_`\s]*[:=][*_`\s]*({_NUMBER})[*_`\s.]*", re.ASCII)
_WORD_LINE = re.compile(r"[*_#`\s]*(\w+)[*_`\s]*[:=]\s*(.+)")
_EDGES = " \t\r\n.!\"'`*_:"
_decoder = json.JSONDecoder()


def read_number(text: str, key: str) -> float:
    """Return the number a reply gives: `{key: 7}` anywhere, a last line `key: 7`, or 7 alone.

    Raises:
        VerifierError: `protocol` when there is no number, or more than one.
    """
    said = strip_thinking(text)[-_TAIL:].strip()
    values = {value for value in map(_number, _members(said, key)) if value is not None}
    if not values:
        bare, line = _BARE.fullmatch(said), _LINE.fullmatch(_last_line(said))
        if bare:
            values = {float(bare[1])}
        elif line and line[1].casefold() == key:
            values = {float(line[2])}
    return _only(values, text)


def read_word(text: str, key: str, words: Sequence[str]) -> str:
    """Return which of `words` a reply gives: `{key: word}`, a last line `key: word`, or it alone.

    Case does not matter. A word that is none of them does not count.

    Raises:
        VerifierError: `protocol` when there is none of the words, or more than one.
    """
    said = strip_thinking(text)[-_TAIL:].strip()
    known = {word.casefold(): word for word in words}
    given = [value for value in _members(said, key) if isinstance(value, str)]
    if not given:
        line = _WORD_LINE.fullmatch(_last_line(said))
        given = [said] + ([line[2]] if line and line[1].casefold() == key else [])
    found = (known.get(value.strip(_EDGES).casefold()) for value in given)
    return _only({word for word in found if word is not None}, text)


def _only(values: set[T], text: str) -> T:
    if len(values) == 1:
        return values.pop()
    why = "says different things" if values else "holds no verdict"
    shown = " ".join(text.split())[:120]
    raise VerifierError(f"the judge's reply {why}: {shown!r}", reason="protocol")


def _members(text: str, key: str) -> Iterator[object]:
    """Yield the member `key` of every JSON object in a text, objects inside others left out."""
    position = text.find("{")
    for _ in range(_MOST_TRIES):
        if position < 0:
            return
        try:
            value, end = _decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            if key in value:
                yield value[key]
        position = text.find("{", end)


def _number(value: object) -> float | None:
    if isinstance(value, str) and re.fullmatch(_NUMBER, value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _last_line(text: str) -> str:
    return text.rsplit("\n", 1)[-1]
