"""Find the one final answer in a model's text, and bring answers into a form that can be compared.

Pure functions, linear in the text. A text has one final answer, the last that it marks as such; a
list of guesses is one answer that equals none of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from itertools import islice

__all__ = ["clean", "final_answer", "last_number", "normalise", "only_number", "strip_thinking"]

_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_BOX = re.compile(r"\\f?box(?:ed)?\s*(?=\{)|\\boxed\s+(?=[^\s{])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_NUMBER_LIKE = re.compile(r"[-+\u2212$\u20ac\u00a3]*[\d.,/]*\d%?")
_MARK = re.compile(
    r"\banswer[*_ \t]{0,8}(?:\bis\b[ \t]{0,8}:?|[:=])(?:[*_]{1,3}(?=\s))?"  # answer is, answer:
    r"|(?<=\bfinal )answer[*_ \t]{0,8}:?[*_ \t]{0,8}\n",  # a heading of its own
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\.(?=\s|$)|\n")
_WRAPPED = re.compile(
    r"\$\$(?P<a>[^$]*)\$\$|\$(?P<b>[^$]*)\$|\\\((?P<c>.*)\\\)|\\\[(?P<d>.*)\\\]"
    r"|\*\*(?P<e>[^*]*)\*\*|`(?P<f>[^`]*)`"
    r"|\\(?:text|textbf|textit|mathrm|mathbf)\{(?P<g>[^{}]*)\}",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?:(?<![A-Za-z0-9_)\]}])[-+\u2212])?"
    r"(?<![A-Za-z0-9_])(?<![0-9]\.)"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<!\.)\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]{1,4}(?![A-Za-z0-9_]))?(?:/[0-9]+(?![0-9/]))?(?:\s?\\?%)?"
)
_EDGES = " \t\r\n.,;:"  # not "!": 5! is a number
_TAIL = 20_000
_LAYERS = 8  # of wrapping that `clean` takes off; a bound, so that it stays linear


def strip_thinking(text: str) -> str:
    """Return the text without its thinking blocks (`<think>` or `<thinking>`).

    A block that never closes reaches to the end; a closing tag without an opening one means that
    the prompt opened the block, so all before it goes. Text without these tags comes back as it is.
    """
    parts: list[str] = []
    inside, position = False, 0
    for tag in _THINK.finditer(text):
        if tag[1]:
            if not inside:
                parts.clear()
            inside, position = False, tag.end()
        elif not inside:
            parts.append(text[position : tag.start()])
            inside = True
    if not inside:
        parts.append(text[position:])
    # A line break between the parts: joined directly, two halves could form a new tag.
    return "\n".join(part for part in parts if part)


def final_answer(text: str) -> str | None:
    r"""Return the final answer that a text marks, cleaned, or None when it marks none.

    The last `\boxed{}` (one that never closes means no answer), else a line `#### x` that ends the
    text or holds a number, else what follows the last "answer is" or "answer:", to the end of the
    sentence. Thinking blocks are not looked at.
    """
    text = strip_thinking(text)
    found = _boxed(text)
    if found is None:
        found = _hashed(text)
    if found is None:
        found = _said(text)
    return clean(found) or None if found is not None else None


def last_number(text: str) -> str | None:
    """Return the last number in the last 20,000 characters as it is written there, or None.

    Signs, thousands separators, decimals, exponents, `a/b` and a percent sign belong to it.
    """
    last = _last(_NUMBER, strip_thinking(text)[-_TAIL:])
    return None if last is None else last[0]


def only_number(text: str) -> tuple[str, str, str] | None:
    """Return what stands before the only number in a text, the number, and what stands behind.

    None without a number or with several.
    """
    found = list(islice(_NUMBER.finditer(text), 2))
    if len(found) != 1:
        return None
    start, end = found[0].span()
    return text[:start], text[start:end], text[end:]


def clean(answer: str) -> str:
    r"""Strip what surrounds an answer: spaces, end punctuation, markdown, `$`, `\(`, `\text{}`."""
    for _ in range(_LAYERS):
        answer = answer.strip()
        if answer.count("**") == 1:  # half of a bold sentence
            answer = answer.removeprefix("**").removesuffix("**")
        answer = answer.rstrip(_EDGES)
        wrapped = _WRAPPED.fullmatch(answer)
        if wrapped is None:
            break
        answer = next(group for group in wrapped.groups() if group is not None)
    return answer


def normalise(text: str, *, fold_case: bool = True) -> str:
    """Return the form in which two answers are compared as text.

    Spaces collapse, punctuation at the end goes, letters are composed (NFC) and by default lose
    their case. Applying it twice changes nothing.
    """
    previous = None
    while text != previous:  # casefold and composition can each enable the other
        previous = text
        text = unicodedata.normalize("NFC", text.casefold() if fold_case else text)
    return " ".join(text.split()).rstrip(_EDGES)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _boxed(text: str) -> str | None:
    last = _last(_BOX, text)
    if last is None:
        return None
    start = last.end()
    if text[start : start + 1] != "{":
        return re.split(r"[\s$.,]", text[start:], maxsplit=1)[0]
    end = _closing_brace(text, start)
    return "" if end is None else text[start + 1 : end]


def _closing_brace(text: str, start: int) -> int | None:
    depth = 0
    for match in _BRACE.finditer(text, start):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return None


def _hashed(text: str) -> str | None:
    text = "\n" + text
    for start in _backwards(text, "\n####"):
        start += len("\n####")
        end = text.find("\n", start)
        line = text[start:] if end < 0 else text[start:end]
        if line.startswith("#") or not line.strip():
            continue
        # "#### Conclusion" is a heading, "#### 42" is an answer.
        ends_text = end < 0 or not text[end:].strip()
        return line if ends_text or _NUMBER_LIKE.fullmatch(clean(line)) else None
    return None


def _said(text: str) -> str | None:
    lower = text.lower()
    # A few letters grow when they are lowered; then only small letters are looked for.
    for start in _backwards(lower if len(lower) == len(text) else text, "answer"):
        mark = _MARK.match(text, start)
        if mark is not None:
            rest = text[mark.end() :].lstrip()
            end = _SENTENCE_END.search(rest)
            return rest if end is None else rest[: end.start()]
    return None


def _backwards(text: str, part: str) -> Iterator[int]:
    """Yield where `part` stands in the text, last place first: the last answer is near the end."""
    start = text.rfind(part)
    while start >= 0:
        yield start
        start = text.rfind(part, 0, start)
