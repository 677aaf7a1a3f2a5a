"""Samplewise with its policy and ledger off, which no setting can do: for the benchmark only.

The ledger grants everything and writes nothing; votes are not read, so a fan-out is drawn, waited
for and answered by its first sample. All else is as `samplewise serve` runs it: engine, limits of a
request in memory, metrics, logs. Run: python -m bench.bare CONFIG PORT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import uvicorn
from fastapi import FastAPI

from samplewise.proxy.app import create_app
from samplewise.proxy.config import Config, load_config
from samplewise.proxy.ledger.base import Account, Balance, Grant, Settlement, Wave
from samplewise.proxy.service import Service


class NullLedger:
    """Grants every wave and forgets it."""

    async def reserve(self, wave: Wave) -> Grant:
        """Grant all of it."""
        return Grant(len(wave.bundles))

    async def dispatch(self, ids: Sequence[str]) -> None:
        """Do nothing."""

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Do nothing."""

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        """Return no accounts."""
        return []

    async def close(self) -> None:
        """Do nothing."""


def bare_app(config: Config) -> FastAPI:
    """Return the application with everything off that its contracts let us replace."""
    app = create_app(config)
    opened = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(app):
            service: Service = app.state.service
            service.engine = replace(service.engine, ledger=NullLedger())
            service.routes = {
                name: replace(route, voter=None, accounts=())
                for name, route in service.routes.items()
            }
            yield

    app.router.lifespan_context = lifespan
    return app


if __name__ == "__main__":
    uvicorn.run(
        partial(bare_app, load_config(sys.argv[1])),
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
    )
