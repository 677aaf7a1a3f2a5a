"""Laws of a running proxy, checked on many examples."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

__all__ = ["for_all"]

T = TypeVar("T")


async def for_all(
    strategy: st.SearchStrategy[T],
    law: Callable[[T], Coroutine[Any, Any, None]],
    examples: int = 80,
) -> None:
    """Check a law on examples, from a thread, so that the proxy's loop can turn."""
    loop = asyncio.get_running_loop()

    @settings(max_examples=examples, database=None)
    @given(strategy)
    def holds(example: T) -> None:
        asyncio.run_coroutine_threadsafe(law(example), loop).result()

    await asyncio.to_thread(holds)
