"""Fixtures that all tests share."""

from __future__ import annotations

from tests.upstream.fixtures import start_upstream, upstream, upstream_process

__all__ = ["start_upstream", "upstream", "upstream_process"]
