"""Arithmetic: evaluate an expression step by step and give one short answer.

    prompt      eval ( 7 + 5 ) * 3 - 8
    completion  12 * 3 - 8 ; 36 - 8 ; = 28

Each step does one operation, in any order that the expression allows, and writes what is left. The
answers of several samples can be compared as they stand, so votes make sense here. Every result,
also in between, is a whole number from 0 to `MAX_NUMBER`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from samplewise.models.rules import MAX_NUMBER, Replay, is_held_out

__all__ = [
    "LARGEST_TRAINED",
    "Expression",
    "evaluate",
    "held_out_expressions",
    "parse_expression",
    "random_expression",
    "random_path",
    "replay",
    "steps_of",
]

SIZES = (3, 4, 5)
LARGEST_GIVEN = 60
"""Largest number in an expression; with `SIZES` it sets how hard the family is."""
LARGEST_TRAINED = 49
"""Largest number in a training expression. What is above it makes the test a little harder."""

Tokens = tuple[str, ...]
_Operand = Callable[[], tuple[int, bool]]

_MAX_TOKENS = 25  # five numbers with every pair of parentheses; also bounds the recursion
_TOKEN = re.compile(r"\s*(\d{1,6}|[-+*()])")
_ANSWER = re.compile(r"\s*=\s*(\d{1,6})\s*")


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression as tokens; `parse_expression` makes sure that it obeys the rules."""

    tokens: Tokens

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the expression, ascending."""
        return tuple(sorted(int(token) for token in self.tokens if token.isdigit()))

    @property
    def value(self) -> int:
        """The right answer."""
        return evaluate(self.tokens)

    @property
    def prompt(self) -> str:
        """The text that asks for this expression."""
        return f"eval {' '.join(self.tokens)}"


def parse_expression(text: str) -> Expression:
    """Read a prompt such as `eval ( 7 + 5 ) * 3 - 8`.

    Raises:
        ValueError: the text is no expression of this task; the message says why.
    """
    word, _, body = text.strip().partition(" ")
    if word != "eval":
        raise ValueError("expected an expression like 'eval ( 7 + 5 ) * 3 - 8'")
    expression = Expression(_tokens(body))
    if len(expression.numbers) not in SIZES:
        raise ValueError(f"an expression has {SIZES[0]} to {SIZES[-1]} numbers")
    if not 1 <= expression.numbers[0] <= expression.numbers[-1] <= LARGEST_GIVEN:
        raise ValueError(f"the numbers of an expression lie between 1 and {LARGEST_GIVEN}")
    evaluate(expression.tokens)
    return expression


def _tokens(text: str) -> Tokens:
    """Split a text into numbers and signs; refuse anything else."""
    tokens: list[str] = []
    at, text = 0, text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"'{text[at:].strip()[:1]}' is not part of an expression")
        token = match[1]
        tokens.append(str(int(token)) if token.isdigit() else token)
        at = match.end()
    return tuple(tokens)


class _Reader:
    """A recursive-descent reader of one expression that computes while it reads.

    `ready` collects (start, end, result) of each operation whose two operands are plain numbers:
    those are the operations that may be done next. `start` and `end` include parentheses that the
    result makes superfluous.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.at = 0
        self.ready: list[tuple[int, int, int]] = []

    def whole(self) -> int:
        value, _ = self.sum()
        if self.at != len(self.tokens):
            raise ValueError(f"'{self.tokens[self.at]}' does not fit there")
        return value

    def sum(self) -> tuple[int, bool]:
        return self._chain(("+", "-"), self.product)

    def product(self) -> tuple[int, bool]:
        return self._chain(("*",), self.atom)

    def _chain(self, signs: tuple[str, ...], operand: _Operand) -> tuple[int, bool]:
        start = self.at
        value, plain = operand()
        while self.at < len(self.tokens) and self.tokens[self.at] in signs:
            sign = self.tokens[self.at]
            self.at += 1
            right, right_plain = operand()
            value = _result(value, sign, right)
            if plain and right_plain:
                self.ready.append((start, self.at, value))
            plain = False
        return value, plain

    def atom(self) -> tuple[int, bool]:
        start = self.at
        token = self.tokens[start] if start < len(self.tokens) else "the end"
        self.at += 1
        if token.isdigit():
            if int(token) > MAX_NUMBER:
                raise ValueError(f"{token} is above {MAX_NUMBER}")
            return int(token), True
        if token != "(":
            raise ValueError(f"'{token}' does not fit there")
        value, plain = self.sum()
        if self.at == len(self.tokens) or self.tokens[self.at] != ")":
            raise ValueError("a ')' is missing")
        self.at += 1
        if plain:
            raise ValueError("a number needs no parentheses")
        if self.ready and self.ready[-1][:2] == (start + 1, self.at - 1):
            self.ready[-1] = (start, self.at, value)
        return value, False


def _result(left: int, sign: str, right: int) -> int:
    """Return the result of a legal operation."""
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    if not 0 <= result <= MAX_NUMBER:
        raise ValueError(f"{left} {sign} {right} is not between 0 and {MAX_NUMBER}")
    return result


def evaluate(tokens: Tokens) -> int:
    """Return the value of an expression.

    Raises:
        ValueError: it is malformed, or a result is not between 0 and `MAX_NUMBER`.
    """
    if len(tokens) > _MAX_TOKENS:
        raise ValueError(f"an expression has at most {_MAX_TOKENS} numbers and signs")
    return _Reader(tokens).whole()


def steps_of(tokens: Tokens) -> list[Tokens]:
    """List what the expression can look like after one more operation."""
    reader = _Reader(tokens)
    reader.whole()
    return [(*tokens[:a], str(value), *tokens[b:]) for a, b, value in reader.ready]


def random_path(expression: Expression, rng: Random) -> str:
    """Write a right completion whose operations come in a random allowed order."""
    tokens, lines = expression.tokens, []
    while len(tokens) > 1:
        tokens = rng.choice(steps_of(tokens))
        lines.append(" ".join(tokens) if len(tokens) > 1 else f"= {tokens[0]}")
    return " ; ".join(lines)


def replay(expression: Expression, text: str) -> Replay:
    """Check a completion, or a part of it that ends with a whole step.

    Like a vote, `correct` looks at the answer alone. The score looks at what is left: it is 1.0
    while the last thing written still has the right value.
    """
    pieces = [piece for piece in text.split(";") if piece.strip()]
    if pieces and (match := _ANSWER.fullmatch(pieces[-1])):
        answer = int(match[1])
        correct = answer == expression.value
        reason = "" if correct else f"the answer is not {answer}"
        return Replay(correct, float(correct), str(answer), str(answer), len(pieces), reason)
    left = " ".join(_tokens_or_none(pieces[-1]) or ()) if pieces else " ".join(expression.tokens)
    if not left:
        return Replay(
            False, 0.0, None, f"error: {pieces[-1].strip()}", len(pieces), "no expression"
        )
    try:
        score = float(evaluate(tuple(left.split())) == expression.value)
    except ValueError as error:
        return Replay(False, 0.0, None, left, len(pieces), str(error))
    return Replay(False, score, None, left, len(pieces), "there is no answer yet")


def _tokens_or_none(text: str) -> Tokens | None:
    """Split a text into tokens, or say that it is none of this language."""
    try:
        return _tokens(text)
    except ValueError:
        return None


def random_expression(
    rng: Random, size: int, *, held_out: bool, largest: int = LARGEST_GIVEN
) -> Expression:
    """Draw an expression with `size` numbers from the training or from the test split."""
    while True:
        numbers = [rng.randint(1, largest) for _ in range(size)]
        if is_held_out(numbers) != held_out:
            continue
        tokens, _ = _random_tree(rng, numbers)
        try:
            evaluate(tokens)
        except ValueError:
            continue
        return Expression(tokens)


def _random_tree(rng: Random, numbers: list[int]) -> tuple[Tokens, str]:
    """Return a random expression of the numbers in their order, and its outermost sign."""
    if len(numbers) == 1:
        return (str(numbers[0]),), ""
    cut = rng.randrange(1, len(numbers))
    left, left_sign = _random_tree(rng, numbers[:cut])
    right, right_sign = _random_tree(rng, numbers[cut:])
    sign = rng.choice("+-*")
    if sign == "*" and left_sign in ("+", "-"):
        left = ("(", *left, ")")
    # A right operand of equal rank keeps its parentheses: a - (b - c) is not a - b - c.
    if right_sign in ("+", "-") or (sign == "*" and right_sign == "*"):
        right = ("(", *right, ")")
    return (*left, sign, *right), sign


def held_out_expressions(
    count: int, *, seed: int = 0, size: int = 5, largest: int = LARGEST_GIVEN
) -> list[Expression]:
    """Return different expressions of the test split, the same ones for the same arguments."""
    rng = Random(f"{seed}/{size}")
    found: dict[Expression, None] = {}
    while len(found) < count:
        found[random_expression(rng, size, held_out=True, largest=largest)] = None
    return list(found)
