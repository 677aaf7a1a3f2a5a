"""Fixtures of the sandbox's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from samplewise.verifiers.sandbox.pool import SandboxPool
from tests.sandbox.fixtures import opened


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxPool]:
    async with opened() as pool:
        yield pool
