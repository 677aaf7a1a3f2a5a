"""Fixtures that all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.ledger.fixtures import database, postgres, where
from tests.upstream.fixtures import start_upstream, upstream, upstream_process

__all__ = ["database", "postgres", "start_upstream", "upstream", "upstream_process", "where"]

# Before any test imports numpy: more threads make the embedded model slower, much so beside others.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A slow machine is no reason to fail.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
