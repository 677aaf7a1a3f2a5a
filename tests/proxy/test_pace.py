from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from samplewise.proxy.backends.glance import Work
from samplewise.proxy.pace import Pace, following_load
from tests.wire.books import soon


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def load(running: int, waiting: int = 0, preempted: int = 0) -> Work:
    return Work(running, 0, waiting, preempted)


def test_it_grows_by_an_eighth_while_it_is_used_and_nothing_waits() -> None:
    pace = Pace(limit=32)
    pace.hear(load(16))
    assert pace.limit == 36
    pace.hear(load(15))
    assert (pace.limit, pace.free) == (36, 21)


def test_it_never_stays_at_one() -> None:
    pace = Pace(limit=1)
    pace.hear(load(1))
    assert pace.limit == 2


def test_samples_that_wait_halve_it_once_until_they_had_time_to_drain() -> None:
    clock = Clock()
    pace = Pace(limit=32, clock=clock)
    pace.hear(load(20, waiting=4))
    assert (pace.limit, pace.free) == (12, 0)
    clock.now = 1.9
    pace.hear(load(20, waiting=4))
    assert pace.limit == 12
    clock.now = 2.0
    pace.hear(load(12, waiting=1))
    assert pace.limit == 6


def test_new_preemptions_halve_it_and_old_ones_do_not() -> None:
    pace = Pace(limit=32, settle_s=0)
    pace.hear(load(8, preempted=7))
    assert pace.limit == 32
    pace.hear(load(8, preempted=7))
    assert pace.limit == 32
    pace.hear(load(8, preempted=8))
    assert pace.limit == 4


def test_a_refusal_halves_it() -> None:
    pace = Pace(limit=32)
    pace.refused()
    pace.refused()
    assert pace.limit == 16


@given(
    st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 500), st.integers(0, 50), st.booleans()),
        max_size=60,
    )
)
def test_whatever_is_said_there_is_a_bounded_limit_and_no_negative_room(
    said: list[tuple[int, int, int, bool]],
) -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    for running, waiting, preempted, refused in said:
        clock.now += 0.5
        pace.hear(load(running, waiting, preempted))
        if refused:
            pace.refused()
        assert 1 <= pace.limit <= pace.most
        assert 0 <= pace.free <= pace.limit


def test_a_server_with_a_fixed_capacity_is_found_and_kept_busy() -> None:
    # A server that runs 48 samples at once; whatever is offered is sent.
    clock = Clock()
    pace = Pace(clock=clock)
    seen = []
    for _ in range(400):
        clock.now += 0.5
        sent = pace.limit
        pace.hear(load(min(sent, 48), waiting=max(0, sent - 48)))
        seen.append(sent)
    settled = seen[100:]
    assert max(settled) <= 48 + 48 // 8 + 1
    assert sum(min(sent, 48) for sent in settled) / len(settled) > 0.7 * 48


async def test_several_servers_are_added_up_and_silent_ones_left_out() -> None:
    pace = Pace(limit=32)

    async def one() -> Work:
        return load(8)

    async def other() -> Work:
        return load(10)

    async def silent() -> None:
        return None

    async with following_load(pace, lambda: 1, [silent, one, other]):
        await soon(lambda: pace.free < 32, "the pace has heard of it")
    assert (pace.limit, pace.free) == (36, 18)
