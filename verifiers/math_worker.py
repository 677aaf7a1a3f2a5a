"""Runs in a worker process: symbolic comparison of answers with math-verify.

Its own timeouts are off (they turn a hang into "not equal"); the pool kills what takes too long.
Every text is read as exactly one expression, so a list of guesses never equals one of them.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from latex2sympy2_extended.math_normalization import normalize_latex
from math_verify import LatexExtractionConfig, parse, verify
from sympy import And, Eq

__all__ = ["compare"]

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeouts are off
logging.getLogger("latex2sympy2_extended").setLevel(logging.ERROR)

_FUNCTIONS = "pi|sin|cos|tan|sec|csc|cot|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp|infty"
_PLAIN_FUNCTION = re.compile(rf"(?<![A-Za-z\\])(?:{_FUNCTIONS})(?![A-Za-z])")
_COMMAND = re.compile(
    r"\\(?:text|mathrm|mathbf|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+|\{[a-z]+matrix\}"
)
_WORD = re.compile(r"[A-Za-z]{3,}")
_WORDS = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z]+(?:[ '-][A-Za-z]+)*")
_SPACE = re.compile(r"\\[,;:!> ]|\\q?quad(?![A-Za-z])|~")
_MIXED = re.compile(r"(?<![\d.])(\d+)\s+(\d+)\s*/\s*(\d+)(?!\d)")
_UNIT = re.compile(r"([-+]?[\d.,/]*\d%?)\s*[A-Za-z]{3,}(?:\s[A-Za-z]+)*")
_MAGNITUDE = re.compile(r"\b(?:dozen|hundred|thousand|million|billion|trillion|percent)\b", re.I)
_GROUPED = re.compile(r"[-+]?\d{1,3}(?: \d{3})+")
_TWO_NUMBERS = re.compile(r"(?<![\d_^.])\d+(?:\.\d+)?\s+\d")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def compare(payload: dict[str, Any]) -> dict[str, Any]:
    """Compare `gold` with `answer`, both ways when `symmetric`.

    Returns `{"equal": bool, "gold": bool, "answer": bool}`; the latter two say what could be read.
    """
    gold, answer = _read(payload["gold"]), _read(payload["answer"])
    readable = {"gold": gold is not None, "answer": answer is not None}
    if gold is None or answer is None:
        return {"equal": False, **readable}
    equal = _equal(gold, answer) or (payload["symmetric"] and _equal(answer, gold))
    return {"equal": equal, **readable}


def _equal(gold: Any, answer: Any) -> bool:
    return bool(verify(gold, answer, timeout_seconds=None, raise_on_error=True))


def _read(text: str) -> Any:
    """Return the one expression that the whole text is, or None."""
    text = _prepare(text)
    if not _balanced(text) or "$" in text or "boxed" in text or _TWO_NUMBERS.search(text):
        return None
    config = LatexExtractionConfig()
    # Letters side by side are a product, so words must not get there: listen would equal silent.
    if _WORD.search(_COMMAND.sub(" ", normalize_latex(text, config.normalization_config))):
        return None
    found = parse(
        rf"\boxed{{{text}}}",
        extraction_config=[config],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return _checked(found[0]) if len(found) == 1 else None


def _prepare(text: str) -> str:
    text = _SPACE.sub(" ", text).strip()
    if _GROUPED.fullmatch(text):
        return text.replace(" ", "")
    if _WORDS.fullmatch(text):
        return rf"\text{{{text}}}"
    text = _PLAIN_FUNCTION.sub(lambda match: "\\" + match[0], text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    unit = _UNIT.fullmatch(text)
    return unit[1] if unit and not _MAGNITUDE.search(text) else text


def _balanced(text: str) -> bool:
    depth = 0
    for brace in _BRACE.findall(text):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0


def _checked(value: Any) -> Any:
    """Return the value, or the right side of true equations between numbers; false ones are none.

    math-verify takes `8 = 7` for 7.
    """
    equations = value.args if isinstance(value, And) else (value,)
    for equation in equations:
        if isinstance(equation, Eq) and not equation.free_symbols:
            if not _equal(equation.lhs, equation.rhs):
                return None
            value = equation.rhs
    return value


# The first parse builds tables for up to a second. Done at the import, every forked child has them.
compare({"gold": "x^2+2x+1", "answer": r"\frac{(x+1)^3}{x+1}", "symmetric": True})
