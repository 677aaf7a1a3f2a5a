from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from samplewise.proxy.checks_base import Check, make_check
from samplewise.proxy.config_verifiers import VerifierSettings
from samplewise.verifiers.base import Status
from tests.verifiers.making import says

_SETTINGS: TypeAdapter[VerifierSettings] = TypeAdapter(VerifierSettings)


def _check(**settings: Any) -> Check:
    return make_check("v", _SETTINGS.validate_python(settings))


def test_a_verifier_without_a_price_is_free() -> None:
    check = _check(type="number")
    assert (check.worst_nano(), check.cost_nano(1e9)) == (0, 0)


def test_prices_become_whole_nano_dollars_rounded_up() -> None:
    check = _check(type="number", price={"usd_per_call": "0.0000000001", "cpu_hour_usd": 0.036})
    assert (check.usd_per_call_nano, check.cpu_hour_nano) == (1, 36_000_000)
    assert check.cost_nano(0.0) == 1
    assert check.cost_nano(0.01) == 1 + 10  # 36,000,000 nano-dollars an hour are 10 a millisecond
    assert check.cost_nano(100.0) == 1 + 1000


def test_the_parts_of_a_multi_are_paid() -> None:
    check = _check(
        type="multi",
        price={"usd_per_call": 1},
        graders={
            "a": {"type": "number", "price": {"usd_per_call": 2}},
            "b": {"type": "math", "price": {"cpu_hour_usd": 3}},
        },
        calculate_output="a + b",
    )
    assert (check.usd_per_call_nano, check.cpu_hour_nano) == (3 * 10**9, 3 * 10**9)


@given(
    per_call=st.integers(0, 10**12),
    cpu_hour=st.integers(0, 10**13),
    timeout_s=st.floats(0.001, 10_000),
    ms=st.floats(0, 1e9),
)
def test_no_verdict_costs_more_than_the_worst(
    per_call: int, cpu_hour: int, timeout_s: float, ms: float
) -> None:
    check = Check(
        "v",
        says(Status.PASS),
        timeout_s=timeout_s,
        usd_per_call_nano=per_call,
        cpu_hour_nano=cpu_hour,
    )
    assert per_call <= check.cost_nano(ms) <= check.worst_nano()


@pytest.mark.parametrize("ms", [0.0, 0.4, 1.0, 2.0, 2.5])
def test_costs_never_fall_with_time(ms: float) -> None:
    check = Check("v", says(Status.PASS), cpu_hour_nano=3_600_000)
    assert check.cost_nano(ms) <= check.cost_nano(ms + 0.6)
