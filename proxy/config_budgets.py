"""`budget:` what may be spent in all, by a route, at a backend or under a tag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samplewise.policies.price import nano_from_usd
from samplewise.proxy.config_types import Count, PositiveAmount, Seconds, Settings, Text
from samplewise.proxy.ledger.base import Limit, Window

__all__ = ["BudgetSettings", "GlobalBudgetSettings", "RouteBudgetSettings", "TagSettings"]


class BudgetSettings(Settings):
    """What may be spent per window, in dollars, tokens and samples. Windows are those of UTC."""

    usd_per_minute: PositiveAmount | None = None
    usd_per_hour: PositiveAmount | None = None
    usd_per_day: PositiveAmount | None = None
    usd_per_month: PositiveAmount | None = None
    usd_total: PositiveAmount | None = None
    tokens_per_minute: Count | None = None
    tokens_per_hour: Count | None = None
    tokens_per_day: Count | None = None
    tokens_per_month: Count | None = None
    tokens_total: Count | None = None
    samples_per_minute: Count | None = None
    samples_per_hour: Count | None = None
    samples_per_day: Count | None = None
    samples_per_month: Count | None = None
    samples_total: Count | None = None

    def per_window(self) -> dict[Window, Limit]:
        """Return the shared limits, dollars in nano-dollars, by the window they count in."""
        found = {window: self._limit(window) for window in Window}
        return {window: limit for window, limit in found.items() if limit != Limit()}

    def _limit(self, window: Window) -> Limit:
        end = "total" if window is Window.TOTAL else f"per_{window.value}"
        usd: Any = getattr(self, f"usd_{end}")
        return Limit(
            nano=None if usd is None else nano_from_usd(str(usd)),
            tokens=getattr(self, f"tokens_{end}"),
            samples=getattr(self, f"samples_{end}"),
        )


class TagSettings(Settings):
    """A name that routes and client keys carry, such as a team, and what all of them may spend.

    A request carries it, too, when its own `metadata` has all of these entries.
    """

    budget: BudgetSettings = BudgetSettings()
    metadata: Mapping[Text, str] = {}


class GlobalBudgetSettings(BudgetSettings):
    """What all routes together may spend; `samples` and `tokens` bound one request."""

    samples: Count | None = None
    tokens: Count | None = None

    def per_request(self) -> Limit:
        """Return what one request may hold and spend."""
        return Limit(tokens=self.tokens, samples=self.samples)


class RouteBudgetSettings(GlobalBudgetSettings):
    """What a route may spend per window, and one request of it in all."""

    usd_per_request: PositiveAmount | None = None
    deadline_s: Seconds | None = None

    def per_request(self) -> Limit:
        """Return what one request may hold and spend."""
        nano = None if self.usd_per_request is None else nano_from_usd(str(self.usd_per_request))
        return Limit(nano=nano, tokens=self.tokens, samples=self.samples)
