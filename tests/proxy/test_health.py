"""Circuits, retry budgets and pools: pure state, with a clock that stands where it is put."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.price import Price
from samplewise.proxy.backends.base import Call, SampleEvent, Started
from samplewise.proxy.health import Circuit, Phase, RetryBudget
from samplewise.proxy.pool import Host, Pool
from samplewise.proxy.upstreams import Upstream


class Silent:
    """A backend that nobody asks."""

    async def draw(self, call: Call) -> AsyncGenerator[SampleEvent, None]:
        raise AssertionError(call)
        yield Started()


class Clock:
    """The time is what it was set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pool_of(hosts: int) -> tuple[Pool, Clock]:
    clock = Clock()
    return Pool(tuple(Host(f"http://h{i}") for i in range(hosts)), clock=clock), clock


def lose(pool: Pool, host: Host, times: int = 1) -> None:
    for _ in range(times):
        pool.began(host, 1)
        pool.ended(host, 1, False)


def test_a_circuit_opens_after_failures_in_a_row_alone() -> None:
    circuit = Circuit(after=3)
    for worked in (False, False, True, False, False):
        circuit.succeeded() if worked else circuit.failed(0.0)
    assert circuit.admits(0.0)
    circuit.failed(0.0)
    assert not circuit.admits(9.9)
    assert circuit.admits(10.0)


def test_an_open_circuit_lets_one_call_try_at_a_time() -> None:
    circuit = Circuit(after=1)
    circuit.failed(0.0)
    circuit.sent(10.0)
    assert not circuit.admits(1e9)
    circuit.given_up()
    assert circuit.admits(10.0)
    circuit.sent(10.0)
    circuit.succeeded()
    assert circuit.phase is Phase.CLOSED


def test_each_failed_try_doubles_the_time_up_to_the_most() -> None:
    circuit, now, waits = Circuit(after=1, first_s=10.0, most_s=60.0), 0.0, []
    for _ in range(5):
        circuit.sent(now)
        circuit.failed(now)
        waits.append(circuit.until - now)
        now = circuit.until
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0]
    circuit.sent(now)
    circuit.succeeded()
    circuit.succeeded()
    circuit.failed(now)
    assert circuit.until - now == 10.0


def test_failures_of_calls_that_left_before_do_not_make_the_time_longer() -> None:
    circuit = Circuit(after=2)
    for _ in range(20):
        circuit.failed(0.0)
    assert circuit.until == 10.0


@given(
    st.lists(st.tuples(st.floats(0.0, 2.0), st.booleans()), max_size=400),
    st.floats(0.0, 1.0),
    st.floats(0.0, 5.0),
)
def test_repeated_calls_never_exceed_their_share_and_the_floor(
    steps: list[tuple[float, bool]], share: float, floor: float
) -> None:
    budget, now, first, repeated = RetryBudget(share, floor), 0.0, 0, 0
    for wait, repeats in steps:
        now += wait
        if repeats:
            repeated += budget.take(now)
        else:
            first += 1
            budget.earn(now)
    assert repeated <= share * first + floor * (now + budget.window_s) + 1e-3


def test_what_was_earned_is_there_at_once_and_fades() -> None:
    budget = RetryBudget(share=0.2, floor_per_s=0.0)
    for _ in range(50):
        budget.earn(0.0)
    assert budget.take(0.0, 5)
    assert not budget.take(0.0, 6)
    assert budget.left(60.0) < 0.05


def test_calls_go_to_the_least_loaded_host_and_in_turn_among_equals() -> None:
    pool, _ = pool_of(3)
    asked = []
    for _ in range(6):
        host = pool.pick()
        assert host is not None
        pool.began(host, 1)
        asked.append(host.url)
    assert sorted(asked) == sorted([host.url for host in pool.hosts] * 2)


@pytest.mark.parametrize("samples", [1, 2, 3, 8])
def test_prompts_one_after_the_other_begin_at_one_host_after_the_other(samples: int) -> None:
    pool, _ = pool_of(2)
    homes = []
    for _ in range(4):
        home = pool.pick()
        assert home is not None
        for _ in range(samples - 1):
            assert pool.pick(home) is home
        homes.append(home)
    assert homes[0] is homes[2] is not homes[1] is homes[3]


def test_a_queue_that_a_server_tells_of_counts_while_it_is_news() -> None:
    pool, clock = pool_of(2)
    pool.heard(pool.hosts[0], 7.0)
    pool.began(pool.hosts[1], 3)
    assert all(pool.pick() is pool.hosts[1] for _ in range(4))
    assert pool.waiting() == 7.0
    clock.now += 6.0
    assert all(pool.pick() is pool.hosts[0] for _ in range(4))


def test_samples_of_one_prompt_stay_together_until_their_host_is_loaded() -> None:
    pool, _ = pool_of(2)
    home = pool.hosts[1]
    for _ in range(17):
        assert pool.pick(home) is home
        pool.began(home, 1)
    assert pool.pick(home) is pool.hosts[0]
    pool.ended(home, 10, True)
    assert pool.pick(home) is home
    pool.heard(home, 1.0)
    assert pool.pick(home) is pool.hosts[0]


def test_a_host_that_is_put_aside_gets_nothing_until_it_is_tried_again() -> None:
    pool, clock = pool_of(2)
    bad, good = pool.hosts
    lose(pool, bad, 5)
    assert all(pool.pick() is good for _ in range(4))
    assert pool.phases() == {"closed": 1, "open": 1, "half_open": 0}
    clock.now += 10.0
    pool.began(good, 1)
    assert pool.pick() is bad
    pool.began(bad, 1)
    assert pool.phases()["half_open"] == 1
    assert pool.pick() is good
    pool.ended(bad, 1, True)
    assert pool.pick() is bad


def test_the_last_host_is_never_given_up() -> None:
    for hosts in (1, 3):
        pool, _ = pool_of(hosts)
        for host in pool.hosts:
            lose(pool, host, 50)
        assert not pool.available
        assert {pool.pick() for _ in range(hosts)} == set(pool.hosts)


def test_no_host_is_asked_before_the_time_that_it_named() -> None:
    pool, clock = pool_of(2)
    first, second = pool.hosts
    pool.cool(first, 30.0, 429)
    assert all(pool.pick(first) is second for _ in range(4))
    assert (pool.wait_s(), pool.available) == (0.0, True)
    pool.cool(second, 2.0, 503)
    pool.cool(second, 1.0, 429)
    assert pool.pick() is None
    assert (pool.wait_s(), pool.available) == (2.0, False)
    assert second.cool_status == 503
    clock.now += 2.0
    assert pool.pick() is second


def test_a_host_that_lost_a_sample_is_gone_round_while_there_is_another() -> None:
    pool, _ = pool_of(2)
    first, second = pool.hosts
    assert all(pool.pick(first, {first.url}) is second for _ in range(4))
    assert pool.elsewhere({first.url})
    lose(pool, second, 5)
    assert not pool.elsewhere({first.url})
    assert pool.pick(first, {first.url}) is first


def test_nothing_is_free_while_requests_wait_at_every_host() -> None:
    pool, clock = pool_of(2)
    upstream = Upstream("up", Silent(), "m", Price(0, 0, 0), max_in_flight=8, pool=pool)
    assert upstream.offer().free_slots == 8
    pool.heard(pool.hosts[0], 3.0)
    assert upstream.offer().free_slots == 8
    pool.heard(pool.hosts[1], 1.0)
    assert upstream.offer().free_slots == 0
    # What a server says of its queue is soon no longer true.
    clock.now += 60
    assert upstream.offer().free_slots == 8
    upstream.max_in_flight = None
    assert upstream.offer().free_slots is None
