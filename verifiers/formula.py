"""Arithmetic over named scores, read from text by a whitelist: no attribute, no name but a score.

Source: the `calculate_output` of OpenAI's `multi` grader.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from samplewise.verifiers.base import VerifierSetupError

__all__ = ["Formula"]

_BINARY: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[float], float]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "abs": abs,
    "ceil": math.ceil,
    "exp": math.exp,
    "floor": math.floor,
    "log": math.log,
    "max": max,
    "min": min,
    "sqrt": math.sqrt,
}
_MAX_CHARS = 400  # so deep can it nest, at most


@dataclass(frozen=True, slots=True)
class Formula:
    """A checked formula; `names` are the scores it uses."""

    text: str
    names: frozenset[str]
    tree: ast.expr

    @classmethod
    def parse(cls, text: str, known: Collection[str]) -> Formula:
        """Read a formula over the `known` names.

        Numbers, + - * /, parentheses, min, max, abs, floor, ceil, exp, sqrt and log.

        Raises:
            VerifierSetupError: anything else is in it; the message shows what.
        """
        if len(text) > _MAX_CHARS:
            raise VerifierSetupError(f"formula: more than {_MAX_CHARS} characters")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError):
            raise VerifierSetupError(f"formula {text!r} cannot be read") from None
        names: set[str] = set()
        _check(tree, known, names)
        return cls(text, frozenset(names), tree)

    def evaluate(self, scores: Mapping[str, float]) -> float:
        """Return the value; raises `ArithmeticError` or `ValueError` where there is none."""
        value = _value(self.tree, scores)
        if not math.isfinite(value):
            raise ArithmeticError(f"{self.text} is not finite")
        return value


def _check(node: ast.expr, known: Collection[str], names: set[str]) -> None:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return
        case ast.Name(id=name) if name in known:
            names.add(name)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            _check(left, known, names)
            _check(right, known, names)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            _check(operand, known, names)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            if len(args) == 0 or (len(args) > 1) != (name in ("min", "max")):
                raise VerifierSetupError(f"formula: wrong number of arguments for {name}")
            for argument in args:
                _check(argument, known, names)
        case _:
            raise VerifierSetupError(
                f"formula: {ast.unparse(node)!r} is not allowed; the graders are"
                f" {', '.join(sorted(known))}"
            )


def _value(node: ast.expr, scores: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            return scores[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, scores), _value(right, scores))
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, scores))
        case ast.Call(func=ast.Name(id=name), args=args):
            return float(_FUNCTIONS[name](*(_value(argument, scores) for argument in args)))
        case _:
            raise AssertionError("unreachable: parse() checked the tree")
