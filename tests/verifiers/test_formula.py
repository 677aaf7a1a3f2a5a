from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.base import VerifierSetupError
from samplewise.verifiers.formula import Formula

_SCORES = {"a": 0.5, "b": 0.25}


@pytest.mark.parametrize(
    ("text", "value"),
    [("a", 0.5), ("0.5 * a + 0.5 * b", 0.375), ("-(a - 1) / 2", 0.25), ("min(a, b, 1)", 0.25),
     ("max(a, b)", 0.5), ("ceil(a) + floor(b) + abs(-1)", 2.0), ("sqrt(b) + exp(0) + log(1)", 1.5)],
)  # fmt: skip
def test_arithmetic_is_evaluated(text: str, value: float) -> None:
    assert Formula.parse(text, _SCORES).evaluate(_SCORES) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    ["", "c", "a.real", "a[0]", "a if b else 1", "a < b", "a and b", "lambda: a", "'a'", "True",
     "a ** 9", "a % 2", "__import__('os')", "min", "min(a)", "abs(a, b)", "min(*a)", 
     "max(a, key=b)", "(a := 1)", "[a]", "a\nb", "1j", "a" * 401, "(" * 300, "-" * 900 + "a"],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(VerifierSetupError, match="formula"):
        Formula.parse(text, _SCORES)


def test_only_the_names_in_use_are_needed() -> None:
    formula = Formula.parse("2 * a", ["a", "b"])
    assert formula.names == {"a"}
    assert formula.evaluate({"a": 0.5}) == 1.0


@pytest.mark.parametrize(
    "text", ["1 / (a - a)", "log(a - a)", "sqrt(-a)", "exp(9000 * a)", "1e308 * 9"]
)
def test_what_has_no_value_raises(text: str) -> None:
    with pytest.raises((ArithmeticError, ValueError)):
        Formula.parse(text, _SCORES).evaluate(_SCORES)


@given(st.text(alphabet="ab+-*/().,0123456789 minax", max_size=20))
def test_what_is_accepted_is_what_python_computes(text: str) -> None:
    try:
        formula = Formula.parse(text, _SCORES)
        value = formula.evaluate(_SCORES)
    except (VerifierSetupError, ArithmeticError, ValueError):
        return
    scope = {"__builtins__": {}, "min": min, "max": max, **_SCORES}
    assert value == pytest.approx(eval(text.strip(), scope))
