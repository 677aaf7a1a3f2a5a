"""Settings of faults: when a host is put aside, what may be repeated, what is asked for twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from samplewise.proxy.config_types import Count, Seconds, Settings
from samplewise.proxy.health import Circuit, RetryBudget
from samplewise.proxy.pool import Host, Pool

__all__ = ["HealthSettings", "HedgeSettings"]


class HealthSettings(Settings):
    """When a host is put aside, and how much of what it lost may be asked again."""

    eject_after: Count = 5
    eject_s: Seconds = 10.0
    eject_most_s: Seconds = 300.0
    retry_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    retry_floor_per_s: Annotated[float, Field(ge=0, le=1000)] = 1.0

    def pool(self, urls: Iterable[str]) -> Pool:
        """Return the pool of these addresses."""
        hosts = tuple(
            Host(url, Circuit(self.eject_after, self.eject_s, self.eject_most_s)) for url in urls
        )
        return Pool(hosts, RetryBudget(self.retry_share, self.retry_floor_per_s))


class HedgeSettings(Settings):
    """Ask a second time for a sample that takes longer than most; the first answer counts."""

    after: Literal["p50", "p75", "p90", "p95", "p99"] = "p95"

    @property
    def share(self) -> float:
        """The share of samples that are faster than a late one."""
        return int(self.after[1:]) / 100
