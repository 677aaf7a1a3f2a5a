"""Getting to know the upstreams of a configuration: at start, and again when a server changes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
import structlog

from samplewise.policies.base import Policy
from samplewise.policies.evidence import Money
from samplewise.proxy.backends.abilities import Abilities, lacking
from samplewise.proxy.backends.glance import Glance, look, work
from samplewise.proxy.background import beside
from samplewise.proxy.config import Config
from samplewise.proxy.config_backends import HttpBackendSettings
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.job import Route
from samplewise.proxy.ledger.base import Account, Ledger, Limit
from samplewise.proxy.metrics import Metrics
from samplewise.proxy.probing import PROBE_ROUTE, Probe
from samplewise.proxy.purse import Purse
from samplewise.proxy.upstreams import Upstream

__all__ = ["Probes", "refuse_lacking"]

_LOOK_EVERY_S = 60.0
_MOST_CHOICES = 16
_log = structlog.get_logger("samplewise.probes")


def _told(money: Money) -> None:
    """Take no note: nobody decides by what a probe has spent so far."""


@dataclass(slots=True)
class Probes:
    """Looks at upstreams and probes them. `accounts` are the limits that probes count against."""

    config: Config
    upstreams: Mapping[str, Upstream]
    session: aiohttp.ClientSession
    ledger: Ledger
    metrics: Metrics
    accounts: tuple[Account, ...]
    every_s: float = _LOOK_EVERY_S

    async def run(self, known: Mapping[str, Abilities] | None = None) -> None:
        """Learn what every upstream can do, all at the same time; `known` needs no asking again."""
        async with asyncio.TaskGroup() as group:
            for name, settings in self._asked():
                if known is not None and name in known:
                    self._adopt(name, known[name])
                else:
                    group.create_task(self._meet(name, settings))

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Ask a server again inside the block whenever it has another version."""
        async with beside(self._follow(), "looking at versions of servers"):
            yield

    def _asked(self) -> Iterable[tuple[str, HttpBackendSettings]]:
        for name, settings in self.config.backends.items():
            if isinstance(settings, HttpBackendSettings) and settings.probe != "none":
                yield name, settings

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.every_s)
            await self.look_again()

    async def look_again(self) -> None:
        """Ask those again that have another version now."""
        for name, settings in self._asked():
            version = _version(await self._look(settings))
            if version and version != self.upstreams[name].abilities.version:
                await self._meet(name, settings)

    async def _look(self, settings: HttpBackendSettings) -> list[Glance]:
        headers = settings.request_headers()
        bases = settings.base_urls
        return await asyncio.gather(
            *(look(self.session, base, headers, settings.model) for base in bases)
        )

    async def _meet(self, name: str, settings: HttpBackendSettings) -> None:
        seen = await self._look(settings)
        found = Abilities(version=_version(seen))
        self._warn(name, settings, seen)
        if settings.probe == "full" and any(glance.answers for glance in seen):
            found = found.over(await self._probe(name, settings, seen))
        self._adopt(name, found)

    def _adopt(self, name: str, found: Abilities) -> None:
        upstream, settings = self.upstreams[name], self.config.backends[name]
        assert isinstance(settings, HttpBackendSettings)
        # Not over what was found before: that may have been another version.
        upstream.abilities = found.over(settings.profile_data.abilities)
        if found.n is False:
            upstream.learn_n(1)

    async def _probe(
        self, name: str, settings: HttpBackendSettings, seen: list[Glance]
    ) -> Abilities:
        upstream, headers = self.upstreams[name], settings.request_headers()
        purse = Purse(
            ledger=self.ledger,
            request_id=f"probe_{uuid.uuid4().hex}",
            route=PROBE_ROUTE,
            accounts=self.accounts,
            limit=Limit(),
            told=_told,
            posted=self.metrics.posted_to(PROBE_ROUTE),
        )
        routes = [r for r in self.config.routes.values() if name in r.backends]
        policies = [p for route in routes for p in (route.policy, *route.policies.values())]
        most = max((policy.build().needs.max_samples for policy in policies), default=1)
        probe = Probe(
            upstream,
            purse,
            most=max(2, min(most, _MOST_CHOICES, upstream.max_n or _MOST_CHOICES)),
            context=next((glance.context for glance in seen if glance.context), None),
        )
        if len(settings.base_urls) == 1:
            # With several, nobody knows which of them works on the probe.
            probe.work = partial(work, self.session, settings.base_urls[0], headers)
        return await probe.run()

    def _warn(self, name: str, settings: HttpBackendSettings, seen: list[Glance]) -> None:
        for base, glance in zip(settings.base_urls, seen, strict=True):
            if not glance.answers:
                _log.warning("upstream does not answer", backend=name, address=base)
            elif glance.models is not None and settings.model not in glance.models:
                warning = f"it does not list the model {settings.model}"
                _log.warning("unknown model", backend=name, address=base, warning=warning)
        if len({glance.version for glance in seen if glance.version}) > 1:
            _log.warning("upstreams of one backend have several versions", backend=name)


def _version(seen: Iterable[Glance]) -> str:
    return next((glance.version for glance in seen if glance.version), "")


def _policies(name: str, route: Route) -> Iterable[tuple[str, str, Policy]]:
    """Yield the policies of a route with where they stand and what they are called."""
    yield name, route.policy_name, route.policy
    for called, chosen in route.policies.items():
        yield f"{name}.policies.{called}", chosen.type, chosen.policy


def refuse_lacking(routes: Mapping[str, Route]) -> None:
    """Refuse routes of whose policies one needs what one of their upstreams is known not to do.

    Raises:
        ConfigError: names route, backend, and everything that it lacks.
    """
    found = [
        f"routes.{place}: {kind} needs {what}, which backend {upstream.name!r} does not do; take "
        "another policy or backend"
        for name, route in routes.items()
        for place, kind, policy in _policies(name, route)
        for upstream in route.upstreams.values()
        for what in lacking(
            policy.needs, upstream.name, upstream.abilities, upstream.max_top_logprobs
        )
    ]
    if found:
        raise ConfigError("\n".join(found))
