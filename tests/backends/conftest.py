"""Fixtures of the backend tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from samplewise.proxy.backends.litellm_process import LiteLLMProcess


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that share a process share its loop too: importing litellm takes seconds."""
    for item in items:
        if "process" in getattr(item, "fixturenames", ()) and "backends" in item.path.parts:
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process() -> AsyncIterator[LiteLLMProcess]:
    process = LiteLLMProcess()
    yield process
    await process.close()
    assert process.pid is None
