"""Any problem of the model: tells the two families apart and hands over to the right one."""

from __future__ import annotations

from samplewise.models import arithmetic, countdown
from samplewise.models.arithmetic import Expression
from samplewise.models.countdown import Puzzle
from samplewise.models.rules import Replay

__all__ = ["Problem", "parse_problem", "replay"]

Problem = Puzzle | Expression

_LONGEST_PROMPT = 200  # characters; the longest real one needs about half
_HELP = (
    "this model only knows Countdown puzzles like '4 7 8 8 > 24' "
    "and expressions like 'eval ( 7 + 5 ) * 3 - 8'"
)


def parse_problem(text: str) -> Problem:
    """Read a prompt of either family.

    Raises:
        ValueError: the text is outside the grammar; the message says what is wrong with it.
    """
    if len(text) > _LONGEST_PROMPT:
        raise ValueError(_HELP)
    if text.split()[:1] == ["eval"]:
        return arithmetic.parse_expression(text)
    if ">" in text:
        return countdown.parse_puzzle(text)
    raise ValueError(_HELP)


def replay(problem: Problem, text: str) -> Replay:
    """Check a completion, or a part of it that ends with a whole step, of either family."""
    if isinstance(problem, Puzzle):
        return countdown.replay(problem, text)
    return arithmetic.replay(problem, text)
