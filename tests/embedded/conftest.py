"""One server and one model for all tests of the embedded model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from samplewise.models.sampler import TinyModel
from samplewise.proxy.embedded import load
from tests.embedded.upstream import Upstream, running


@pytest.fixture(scope="session")
def tiny() -> Iterator[Upstream]:
    with running() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def model() -> TinyModel:
    return load()
