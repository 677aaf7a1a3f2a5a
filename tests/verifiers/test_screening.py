from __future__ import annotations

import pytest

from samplewise.verifiers.base import Status
from samplewise.verifiers.screening import screened
from tests.verifiers.making import sample

# All ten of the table in arXiv:2507.08794.
MASTER_KEYS = [
    " ",
    ".",
    ",",
    ":",
    "Thought process:",
    "Let's solve this problem step by step.",
    "Solution",
    "\u89e3",
    "\u304b\u3044\u305b\u3064",
    "Respuesta",
]


@pytest.mark.parametrize("text", MASTER_KEYS)
def test_no_master_key_reaches_a_judge(text: str) -> None:
    verdict = screened("j", sample(text), 1)
    assert verdict is not None
    assert verdict.status is not Status.PASS
    assert not verdict.score


@pytest.mark.parametrize(
    "text", ["", "\n\t", "\u200b\u2060", "\U000e0041\U000e0042", "<think>all of it</think>"]
)
def test_nothing_visible_fails(text: str) -> None:
    verdict = screened("j", sample(text), 0)
    assert verdict is not None
    assert verdict.status is Status.FAIL


@pytest.mark.parametrize("text", ["7", "B", "\u00e9", "\u4e09", "Solution: 7", "Answer: B"])
def test_a_short_answer_is_shown(text: str) -> None:
    assert screened("j", sample(text), 1) is None


def test_the_minimum_counts_letters_and_digits() -> None:
    assert screened("j", sample("a.b.c"), 3) is None
    verdict = screened("j", sample("!?! a.b"), 3)
    assert verdict is not None
    assert (verdict.status, verdict.reason) == (Status.NONE, "too_short")
