"""`Slots`: never more than so many at once, in order, and nothing is lost when some give up."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.sandbox.slots import Slots


@given(
    st.integers(1, 3), st.lists(st.integers(0, 5), max_size=30), st.randoms(use_true_random=False)
)
def test_at_most_so_many_are_in_and_all_places_come_back(
    count: int, turns: list[int], chance: random.Random
) -> None:
    async def law() -> None:
        slots, inside, order = Slots(count), 0, []

        async def stay(number: int, turns: int) -> None:
            nonlocal inside
            async with slots:
                order.append(number)
                inside += 1
                assert inside <= count
                try:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                finally:
                    inside -= 1

        tasks = [asyncio.create_task(stay(n, turns)) for n, turns in enumerate(turns)]
        for _ in range(20):
            await asyncio.sleep(0)
            if tasks and chance.random() < 0.5:
                chance.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == sorted(order)
        async with asyncio.timeout(10):
            for _ in range(count):  # every place can be had again
                await slots.__aenter__()

    asyncio.run(law())
