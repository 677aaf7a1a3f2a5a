"""Fixtures for `tests/conftest.py`: one upstream for all tests of a worker, and more on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from tests.upstream.process import UpstreamProcess

__all__ = ["start_upstream", "upstream", "upstream_process"]


@pytest.fixture(scope="session")
def upstream_process() -> Iterator[UpstreamProcess]:
    """The process that `upstream` gives to one test after the other."""
    process = UpstreamProcess()
    process.start()
    yield process
    process.close()


@pytest_asyncio.fixture
async def upstream(upstream_process: UpstreamProcess) -> AsyncIterator[UpstreamProcess]:
    """A running upstream without scripts, records or calls."""
    if upstream_process.alive:
        await upstream_process.reset()
    else:
        upstream_process.start()
    yield upstream_process


@pytest.fixture
def start_upstream() -> Iterator[Callable[[], UpstreamProcess]]:
    """Start more upstreams, which end with the test."""
    started: list[UpstreamProcess] = []

    def start() -> UpstreamProcess:
        process = UpstreamProcess()
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()
