"""An exact checker for the verifier type `python`: does an expression make 24 of four numbers?

The last line of the answer counts, as in `Answer: (10 - 6) * (5 - 4) * 4 = 24`; `item["numbers"]`
are the numbers, each to be used once.
"""

from __future__ import annotations

import ast
import re
from fractions import Fraction
from typing import Any

_LONGEST = 200


def grade(sample: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """Pass an expression of exactly these numbers whose value is exactly 24."""
    lines = sample["output_text"].strip().splitlines()
    text = lines[-1].lower().replace("answer: ", "").split("=")[0] if lines else ""
    used = sorted(int(number) for number in re.findall(r"\d+", text))
    if used != sorted(item["numbers"]):
        return {"status": "fail", "feedback": "not exactly the given numbers are used"}
    try:
        right = len(text) <= _LONGEST and _value(ast.parse(text.strip(), mode="eval").body) == 24
    except (SyntaxError, ValueError, ZeroDivisionError):
        right = False
    return {"status": "pass" if right else "fail"}


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(int() as number):
            return Fraction(number)
        case ast.UnaryOp(ast.USub(), inner):
            return -_value(inner)
        case ast.BinOp(left, ast.Add(), right):
            return _value(left) + _value(right)
        case ast.BinOp(left, ast.Sub(), right):
            return _value(left) - _value(right)
        case ast.BinOp(left, ast.Mult(), right):
            return _value(left) * _value(right)
        case ast.BinOp(left, ast.Div(), right):
            return _value(left) / _value(right)
    raise ValueError("only numbers, + - * / and parentheses")
