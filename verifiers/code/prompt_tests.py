"""Tests that stand in what the user wrote: doctests, asserts, and examples of input and output.

Only what is surely meant as an example is taken: a wrong test would reject every right program.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

from samplewise.verifiers.code.suite import Case, Suite

__all__ = ["asserts_in", "may_hold_tests", "prompt_suite", "user_text"]

_MOST_TESTS = 100
_MOST_CHARS = 200_000
_MARK = ">>> "
_DOC_END = ('"""', "'''", "```")
_HEADING = re.compile(
    r"^[\s#*>\-_]*(?P<sample>(?:sample|example)s?\s*)?(?P<kind>input|output)s?"
    r"(?P<late>\s+(?:sample|example)s?)?[\s\d#]*[\s:*\-_]*$",
    re.IGNORECASE,
)
_EXAMPLES = re.compile(
    r"^[\s#*>\-_]*(?:sample|example)s?(?:\s+tests?|\s+cases?)?[\s\d#]*[\s:*\-_]*$", re.IGNORECASE
)
# As JSON may write them: every sign can be an escape.
_SIGNS = re.compile(rb">>>|\\u00|assert|input", re.IGNORECASE)
_OTHER = re.compile(r"^\s*(?:#+\s|-{3,}|\*\*|(?:explanation|notes?|constraints?)\b)", re.IGNORECASE)


def may_hold_tests(messages: bytes) -> bool:
    """Say whether messages, as JSON text, have a word that all tests in prompts have; quick."""
    return _SIGNS.search(messages) is not None


def user_text(messages: Sequence[dict[str, Any]]) -> str:
    """Return the text of the last message of the user."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            parts = content if isinstance(content, list) else []
            texts = (part.get("text") for part in parts if isinstance(part, dict))
            return "\n".join(text for text in texts if isinstance(text, str))
    return ""


def prompt_suite(text: str, language: str) -> Suite | None:
    """Return the tests in a text, or None when there are none; asserts go before examples."""
    if language == "sql":
        return None  # what stands in a prompt is no database
    lines = text[:_MOST_CHARS].splitlines()
    if language == "python":
        asserts = [*_doctests(lines), *asserts_in(lines)]
        if asserts:
            return Suite(asserts=list(dict.fromkeys(asserts))[:_MOST_TESTS])
    cases = [Case(stdin=given, stdout=wanted) for given, wanted in _examples(lines)]
    return Suite(cases=cases[:_MOST_TESTS]) if cases else None


def asserts_in(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines that are an assert."""
    for line in lines:
        code = line.strip()
        if code.startswith("assert ") and isinstance(_statement(code), ast.Assert):
            yield code


def _doctests(lines: Sequence[str]) -> Iterator[str]:
    """Yield an assert for each example with a plain value, after the statements before it."""
    setup: list[str] = []
    position = 0
    while position < len(lines):
        line = lines[position].strip()
        position += 1
        if not line.startswith(_MARK):
            if line.startswith(_DOC_END):
                setup = []  # another docstring
            continue
        source = [line.removeprefix(_MARK)]
        while position < len(lines) and lines[position].strip().startswith("..."):
            source.append(lines[position].strip().removeprefix("...").removeprefix(" "))
            position += 1
        wanted: list[str] = []
        while position < len(lines) and _belongs(lines[position].strip()):
            wanted.append(lines[position].strip())
            position += 1
        code = "\n".join(source)
        if not wanted:
            if _statement(code) is not None:
                setup.append(code)
            continue
        found = _equality(code, "\n".join(wanted))
        if found:
            yield "\n".join([*setup, found])


def _belongs(line: str) -> bool:
    return bool(line) and not line.startswith((*_DOC_END, ">>>")) and not line.endswith('"""')


def _equality(code: str, wanted: str) -> str:
    """Return an assert, or nothing where the wanted text is no plain value (printed, an error)."""
    node = _statement(code)
    if not isinstance(node, ast.Expr):
        return ""
    try:
        value = ast.literal_eval(wanted)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ""
    # As the interpreter would show them, True and 1 differ.
    operator = "is" if value is None or isinstance(value, bool) else "=="
    return f"assert (\n{code}\n) {operator} (\n{wanted}\n)"


def _statement(code: str) -> ast.stmt | None:
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return body[0] if len(body) == 1 else None


def _examples(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield input and output of each example.

    A heading alone is not enough, since "Input" also stands above descriptions: it must say sample
    or example, or stand below a line that does, or above a fenced block.
    """
    among, given, position = False, None, 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if _EXAMPLES.match(line):
            among = True
            continue
        heading = _HEADING.match(line)
        if heading is None:
            continue
        said = bool(heading["sample"] or heading["late"])
        is_input = heading["kind"].lower() == "input"
        body, fenced, position = _body(lines, position, is_input)
        if not (said or among or fenced) or body is None:
            given = None
        elif is_input:
            given = body
        elif given is not None:
            yield given, body
            given = None


def _body(lines: Sequence[str], start: int, is_input: bool) -> tuple[str | None, bool, int]:
    """Return the text below a heading, whether it was fenced, and where reading goes on."""
    while start < len(lines) and not lines[start].strip():
        start += 1
    if start < len(lines) and lines[start].strip().startswith("```"):
        end = start + 1
        while end < len(lines) and not lines[end].strip().startswith("```"):
            end += 1
        return "\n".join(lines[start + 1 : end]) + "\n", True, end + 1
    end = start
    while end < len(lines) and not (
        _HEADING.match(lines[end])
        or _EXAMPLES.match(lines[end])
        or _OTHER.match(lines[end])
        or (not is_input and not lines[end].strip())
    ):
        end += 1
    body = "\n".join(lines[start:end]).rstrip()
    return (body + "\n" if body else None), False, end
