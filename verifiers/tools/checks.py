"""The commands that compile or lint a program: one entry each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from samplewise.verifiers.base import VerifierError
from samplewise.verifiers.code.languages import LANGUAGES
from samplewise.verifiers.tools.steps import Ran

__all__ = ["COMPILERS", "LINTERS", "Linter", "findings_of_mypy", "findings_of_ruff"]

_COMPILE_PYTHON = (
    "import sys\nsource = open('main.py', encoding='utf-8').read()\n"
    "try: compile(source, 'main.py', 'exec', dont_inherit=True)\n"
    "except (SyntaxError, ValueError, RecursionError, MemoryError) as error:\n"
    "    sys.exit(f'line {getattr(error, \"lineno\", None) or 1}: {str(error)[:300]}')"
)
# What each language is checked with; nothing of the program is run.
COMPILERS: Mapping[str, tuple[str, ...]] = {
    "python": ("{python}", "-I", "-S", "-B", "-c", _COMPILE_PYTHON),
    "javascript": LANGUAGES["javascript"].check,
    "c": ("/usr/bin/gcc", "-fsyntax-only", "-std=gnu17", "-w", "main.c"),
    "cpp": ("/usr/bin/g++", "-fsyntax-only", "-std=gnu++17", "-w", "main.cpp"),
    "bash": LANGUAGES["bash"].check,
}


@dataclass(frozen=True, slots=True)
class Linter:
    """How a linter is called on `main.py` by its interpreter, and how its findings are read.

    `findings` raises `VerifierError` for a run that says nothing of the program. `silencing` is
    what a program could say to the linter so that it looks away.
    """

    command: tuple[str, ...]
    findings: Callable[[Ran], list[str]]
    silencing: re.Pattern[str] | None = None


def findings_of_ruff(ran: Ran) -> list[str]:
    """Read ruff's JSON: one text for each finding, with its line."""
    if ran.exit not in (0, 1):
        raise VerifierError(f"ruff failed: {ran.said[-300:]}", reason="crash")
    try:
        return [
            f"line {found['location']['row']}: {found['code'] or 'syntax'}: {found['message']}"
            for found in json.loads(ran.stdout)
        ]
    except (ValueError, KeyError, TypeError):
        raise VerifierError(f"ruff said: {ran.said[:300]}", reason="protocol") from None


_MYPY_LINE = re.compile(r"^main\.py:(\d+): error: (.*)$", re.MULTILINE)


def findings_of_mypy(ran: Ran) -> list[str]:
    """Read mypy's lines: one text for each error. A syntax error stops it, with status 2."""
    found = [f"line {mark[1]}: {mark[2]}" for mark in _MYPY_LINE.finditer(ran.stdout)]
    if ran.exit not in (0, 1, 2) or bool(found) != bool(ran.exit):
        raise VerifierError(f"mypy failed: {ran.said[-300:]}", reason="crash")
    return found


_RUFF = ("--isolated", "--no-cache", "--ignore-noqa", "--output-format=json")
_MYPY = (
    *("--config-file=", "--cache-dir=/dev/null", "--no-error-summary", "--no-color-output"),
    *("--hide-error-context", "--check-untyped-defs"),
)
LINTERS: Mapping[str, Linter] = {
    "ruff": Linter(("-m", "ruff", "check", *_RUFF), findings_of_ruff),
    "mypy": Linter(
        ("-m", "mypy", *_MYPY),
        findings_of_mypy,
        re.compile(r"#[^\n]*\btype:\s*ignore|#[ \t]*mypy:|\bno_type_check\b"),
    ),
}
