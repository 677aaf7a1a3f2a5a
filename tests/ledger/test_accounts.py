"""Windows begin where UTC calendars say, and the tightest account decides."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.proxy.ledger.accounts import (
    Counter,
    Need,
    decode_keys,
    encode_keys,
    fit,
    window_starts,
)
from samplewise.proxy.ledger.base import Account, Window
from tests.ledger.kit import account


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("now", "hour", "day", "month"),
    [
        ("2024-02-29T23:59:59.999", "2024-02-29T23:00", "2024-02-29", "2024-02-01"),
        ("2024-03-01T00:00:00.000", "2024-03-01T00:00", "2024-03-01", "2024-03-01"),
        ("2025-12-31T12:34:56.789", "2025-12-31T12:00", "2025-12-31", "2025-12-01"),
        ("2026-01-01T00:00:00.001", "2026-01-01T00:00", "2026-01-01", "2026-01-01"),
    ],
)
def test_windows_start_with_the_hour_the_day_and_the_month_in_utc(
    now: str, hour: str, day: str, month: str
) -> None:
    assert window_starts(_ms(now)) == {
        Window.MINUTE: _ms(now) // 60_000 * 60_000,
        Window.HOUR: _ms(hour),
        Window.DAY: _ms(day),
        Window.MONTH: _ms(month),
        Window.TOTAL: 0,
    }


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))
def test_a_window_is_the_same_from_its_start_to_the_next(moment: datetime) -> None:
    now = _ms(moment.isoformat())
    for window, start in window_starts(now).items():
        assert start <= now
        assert window_starts(start)[window] == start
        if window is not Window.TOTAL and start:
            assert window_starts(start - 1)[window] < start


def test_windows_do_not_follow_the_time_zone_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        start = window_starts(_ms("2024-05-31T23:00"))[Window.MONTH]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert start == _ms("2024-05-01")


@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.integers(0, 2**62)), max_size=4))
def test_the_counters_of_a_row_are_read_as_written(keys: list[tuple[str, str, str, int]]) -> None:
    assert decode_keys(encode_keys(keys)) == keys


_AMOUNT = st.integers(0, 12)
_LIMIT = st.none() | st.integers(-3, 40)


@given(
    st.lists(st.tuples(_AMOUNT, _AMOUNT, st.integers(0, 1)), max_size=6),
    st.lists(st.tuples(_LIMIT, _LIMIT, _LIMIT, _AMOUNT), max_size=4),
)
def test_the_largest_prefix_that_fits_everywhere_is_granted(
    bundles: list[Need], limits: list[tuple[int | None, int | None, int | None, int]]
) -> None:
    wanted: list[Need] = []
    total = (0, 0, 0)
    for bundle in bundles:
        total = (total[0] + bundle[0], total[1] + bundle[1], total[2] + bundle[2])
        wanted.append(total)
    claims: list[tuple[Account, Counter]] = []
    for number, (nano, tokens, samples, used) in enumerate(limits):
        one = account(str(number), nano=nano, tokens=tokens, samples=samples)
        claims.append((one, Counter("key", one.name, "day", 0, spent_nano=used)))

    def prefix(one: Account, counter: Counter) -> int:
        room = counter.room(one.limit)
        return max(
            [0]
            + [
                count
                for count, need in enumerate(wanted, 1)
                if all(part <= left for part, left in zip(need, room, strict=True))
            ]
        )

    granted, blocked = fit(len(wanted), [(*claim, wanted) for claim in claims])
    prefixes = [prefix(*claim) for claim in claims]
    assert granted == min([len(wanted), *prefixes])
    if granted == len(wanted):
        assert blocked is None
    else:
        assert blocked == claims[prefixes.index(granted)][0]


def test_the_arithmetic_of_days_is_that_of_datetime() -> None:
    start = datetime(2023, 1, 1, tzinfo=UTC)
    for days in range(800):
        moment = start + timedelta(days=days, hours=13)
        starts = window_starts(round(moment.timestamp() * 1000))
        assert datetime.fromtimestamp(starts[Window.DAY] / 1000, UTC) == moment.replace(hour=0)
