"""Samplewise with its policy and ledger off, which no setting can do: for the benchmark only.

The ledger grants everything and writes nothing; votes are not read, so a fan-out is drawn, waited
for and answered by its first sample. All else is as `samplewise serve` runs it: engine, limits of a
request in memory, metrics, logs. Run: python -m bench.bare CONFIG PORT
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from samplewise.policies.base import Action, Evidence, Needs, Policy
from samplewise.proxy.cli.server import ProxyServer, listen
from samplewise.proxy.config import load_config
from samplewise.proxy.job import ChosenPolicy, Route
from samplewise.proxy.ledger.base import Account, Balance, Grant, Recent, Settlement, Wave
from samplewise.proxy.service import Service


class NullLedger:
    """Grants every wave and forgets it."""

    async def reserve(self, wave: Wave) -> Grant:
        """Grant all of it."""
        return Grant(len(wave.bundles))

    async def dispatch(self, ids: Sequence[str]) -> None:
        """Do nothing."""

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[None]:
        """Do nothing."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        """Return no accounts."""
        return []

    async def recent(self, route: str, days: int) -> Recent:
        """Know nothing."""
        return Recent(0, 0)

    async def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A policy whose answers nobody reads: it draws as ever, and its votes stay uncounted."""

    policy: Policy
    needs: Needs

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Decide as the policy does."""
        return self.policy.decide(evidence)


def bare(route: Route) -> Route:
    """Return a route without voter and shared accounts."""
    policy = Unread(route.policy, replace(route.policy.needs, answers=False))
    chosen = ChosenPolicy(route.policy_name, policy)
    return replace(route, voter=None, accounts=(), make_policy=lambda name, samples: chosen)


class BareServer(ProxyServer):
    """The server that `samplewise serve` runs, with everything off that its contracts replace."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Replace ledger and voters, then begin to take requests."""
        service: Service = self._app.state.service
        service.engine = replace(service.engine, ledger=NullLedger())
        routes = {name: bare(route) for name, route in service.routes.items()}
        service.setup = replace(service.setup, routes=routes)
        await super().startup(sockets)


if __name__ == "__main__":
    server = BareServer(load_config(sys.argv[1]), ready=lambda: None)
    server.run_quietly(listen("127.0.0.1", int(sys.argv[2])))
