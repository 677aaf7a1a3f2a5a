"""Take the comments out of a proof, and look for words that have no place in one.

What is checked afterwards is the text without comments, so a comment can hide nothing from the
rules, and a word in a comment breaks none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["COQ", "LEAN", "Comments", "broken_rule", "without_comments"]


@dataclass(frozen=True, slots=True)
class Comments:
    """How a language writes comments and strings.

    `opening` and `closing` nest. `line` begins a comment up to the end of the line, if there are
    such. `string` is a pattern for a whole string. With `strings_inside`, a string in a comment
    hides a closing mark.
    """

    opening: str
    closing: str
    string: str
    line: str = ""
    strings_inside: bool = False


COQ = Comments("(*", "*)", r'"(?:[^"]|"")*"', strings_inside=True)
# Beside strings, the character literal of a quotation mark, which opens none.
LEAN = Comments("/-", "-/", r'"(?:[^"\\]|\\.)*"' + r"|'\\?\"'", line="--")


def without_comments(text: str, comments: Comments) -> str | None:
    """Return the text with spaces in place of comments, line breaks kept; linear in the text.

    None when a comment does not end, or one ends that has not begun.
    """
    marks = [re.escape(comments.opening), re.escape(comments.closing), comments.string]
    if comments.line:
        marks.append(re.escape(comments.line) + r"[^\n]*")
    parts, depth, done = [], 0, 0
    for mark in _tokens(re.compile("|".join(marks), re.DOTALL), text, comments):
        found = mark[0]
        if found == comments.opening:
            if not depth:
                parts.append(text[done : mark.start()])
                done = mark.start()
            depth += 1
        elif found == comments.closing:
            if not depth:
                return None
            depth -= 1
            if not depth:
                parts.append(_blank(text[done : mark.end()]))
                done = mark.end()
        elif not depth and comments.line and found.startswith(comments.line):
            parts += [text[done : mark.start()], _blank(found)]
            done = mark.end()
    return None if depth else "".join([*parts, text[done:]])


def _tokens(pattern: re.Pattern[str], text: str, comments: Comments) -> Sequence[re.Match[str]]:
    """Return the marks of a text: inside comments, strings and line comments may mean nothing."""
    found, depth, at = [], 0, 0
    while (mark := pattern.search(text, at)) is not None:
        at = mark.end()
        if mark[0] == comments.opening:
            depth += 1
        elif mark[0] == comments.closing:
            depth -= 1
        elif depth and not (comments.strings_inside and mark[0].startswith('"')):
            at = mark.start() + 1  # what looks like more is only its first character here
            continue
        found.append(mark)
    return found


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def broken_rule(text: str, rules: re.Pattern[str]) -> str | None:
    """Return the first thing in the text that a proof must not hold, in one line, or None."""
    found = rules.search(text)
    return None if found is None else " ".join(found[0].split())
