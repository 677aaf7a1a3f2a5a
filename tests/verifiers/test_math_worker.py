from __future__ import annotations

import pytest

from samplewise.verifiers.math_worker import compare


def _compare(gold: str, answer: str, *, symmetric: bool = False) -> tuple[bool, bool, bool]:
    reply = compare({"gold": gold, "answer": answer, "symmetric": symmetric})
    return reply["equal"], reply["gold"], reply["answer"]


def test_the_gold_comes_first_and_symmetry_is_asked_for() -> None:
    assert _compare("1<x<2", "(1,2)") == (True, True, True)
    assert _compare("(1,2)", "1<x<2") == (False, True, True)
    assert _compare("(1,2)", "1<x<2", symmetric=True) == (True, True, True)


@pytest.mark.parametrize(
    "text",
    ["", "8 7", r"8 \quad 7", "7}8", "{7", "$8$ $7$", r"\boxed{7}", "8=7", "1=2=7", "5 thousand"],
)
def test_what_is_not_one_expression_cannot_be_read(text: str) -> None:
    assert _compare("7", text) == (False, True, False)
    assert _compare(text, "7") == (False, False, True)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("7", "2+5=7"),
        ("1000", "1 000"),
        ("3/2", "1 1/2"),
        ("5", "5 dollars"),
        (r"2\pi", "2pi"),
        ("no solution", r"\text{no solution}"),
        ("3", r"\log_2 8"),
    ],
)
def test_common_spellings_are_read(gold: str, answer: str) -> None:
    assert _compare(gold, answer) == (True, True, True)


def test_words_are_not_products_of_letters() -> None:
    assert _compare("listen", "silent") == (False, True, True)
    assert _compare("x+listen", "x+silent") == (False, False, False)
