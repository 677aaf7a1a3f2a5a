"""Fixtures of the backend tests."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import pytest_asyncio

from samplewise.proxy.backends.litellm import LiteLLMThread


@pytest_asyncio.fixture
async def thread() -> AsyncIterator[LiteLLMThread]:
    thread = LiteLLMThread()
    yield thread
    await thread.close()
    assert "litellm" not in [running.name for running in threading.enumerate()]
