"""A ledger in a file of its own, with a clock and a disk that obey the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from samplewise.proxy.ledger.sqlite import SqliteLedger
from tests.ledger.kit import Clock, Disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest_asyncio.fixture
async def ledger(path: Path, clock: Clock, disk: Disk) -> AsyncIterator[SqliteLedger]:
    ledger = await SqliteLedger.open(path, clock=clock, connect=disk)
    yield ledger
    clock.go()
    await ledger.close()
