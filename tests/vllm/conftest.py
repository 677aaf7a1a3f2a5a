"""The one stack of a session, which is started by the first test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vllm.server import python
from tests.vllm.serving import Stack, stack


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not python()[0]:
        pytest.skip("needs vLLM: run `make test-vllm`, or with a GPU `make test-gpu`")
    with stack(tmp_path_factory.mktemp("vllm")) as running:
        yield running
