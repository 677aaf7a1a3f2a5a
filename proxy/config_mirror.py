"""`mirror:` of a route: a share of its requests answered a second time by another route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

from pydantic import Field

from samplewise.proxy.config_budgets import RouteBudgetSettings
from samplewise.proxy.config_types import Count, Name, Settings

__all__ = ["MirrorSettings", "mirror_problem"]


class MirrorSettings(Settings):
    """Which route answers too, and how often: in the background, for comparison only.

    `share` is the part of the requests, `at_once` the most that are on their way beside each other.
    """

    route: Name
    share: Annotated[float, Field(gt=0, le=1)]
    at_once: Count = 4


class _Route(Protocol):
    @property
    def budget(self) -> RouteBudgetSettings: ...


def mirror_problem(name: str, settings: MirrorSettings, routes: Mapping[str, _Route]) -> str | None:
    """Return what is wrong with the mirror of a route; None where it can be."""
    if settings.route == name:
        return "must be another route"
    if settings.route not in routes:
        return f"there is no route {settings.route!r}; there is: {', '.join(sorted(routes))}"
    windows = routes[settings.route].budget.per_window().values()
    if all(limit.nano is None for limit in windows):
        return f"what route {settings.route!r} may spend has no limit: set its budget.usd_per_day"
    return None
