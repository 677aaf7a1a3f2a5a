"""Fixtures that all tests share."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.ledger.fixtures import database, postgres, where
from tests.upstream.fixtures import start_upstream, upstream, upstream_process

__all__ = ["database", "postgres", "start_upstream", "upstream", "upstream_process", "where"]

# Before any test imports numpy: more threads make the embedded model slower, much so beside others.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# No example fails for being slow: a machine with other work to do is ten times as slow.
settings.register_profile("slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("slow")
