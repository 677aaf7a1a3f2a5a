"""Fixtures that all tests share."""

from __future__ import annotations

import os

from tests.upstream.fixtures import start_upstream, upstream, upstream_process

__all__ = ["start_upstream", "upstream", "upstream_process"]

# Before any test imports numpy: more threads make the embedded model slower, much so beside others.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
