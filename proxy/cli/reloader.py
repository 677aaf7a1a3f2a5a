"""Reloads of a running server, one after another, without a request noticing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.config import Config
from samplewise.proxy.errors import ConfigError, SamplewiseError
from samplewise.proxy.reload import restart_needed
from samplewise.proxy.service import Service

__all__ = ["Reloader", "load_next", "refuse"]

_log = structlog.get_logger("samplewise.reload")


def load_next(old: Config, load: Callable[[], Config] | None) -> Config | None:
    """Read the configuration again; None where it cannot be, which is logged with its problems.

    Settings that hold until a restart are named and stay as they are.
    """
    if load is None:
        _log.warning("nothing to reload", warning="the server was started without a file")
        return None
    try:
        config, fixed = restart_needed(old, load())
    except ConfigError as error:
        refuse(error)
        return None
    for warning in config.warnings:
        _log.warning("configuration", warning=warning)
    if fixed:
        _log.warning("needs a restart", warning=f"unchanged until then: {', '.join(fixed)}")
    return config


def refuse(error: SamplewiseError) -> None:
    """Log what is wrong with a configuration that does not come into use."""
    _log.error("reload refused", error=str(error))


@dataclass(slots=True)
class Reloader:
    """Reloads when asked to. `load` reads the file, in a thread; a worker is given what was read.

    `running` are the requests that run now, `applied` is called with every configuration that came
    into use, `done` after every reload, also one that was refused.
    """

    config: Config
    load: Callable[[], Config] | None
    running: Callable[[], set[asyncio.Task[None]]]
    applied: Callable[[Config], None]
    done: Callable[[], None] = lambda: None
    _given: Config | None = None
    _known: Mapping[str, Abilities] | None = None
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(
        self, given: Config | None = None, known: Mapping[str, Abilities] | None = None
    ) -> None:
        """Ask for a reload, of the file or of the configuration given. Asked again, once is enough.

        `known` is what was found out of its upstreams. To be called in the event loop, or before it
        runs.
        """
        self._given, self._known = given, known
        self._asked.set()

    async def run(self, service: Service) -> None:
        """Reload whenever asked, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._asked.wait()
                self._asked.clear()
                config, known = self._given, self._known
                self._given = self._known = None
                if config is None:
                    config = await asyncio.to_thread(load_next, self.config, self.load)
                if config is not None:
                    await self._apply(service, config, known, group)
                self.done()

    async def _apply(
        self,
        service: Service,
        config: Config,
        known: Mapping[str, Abilities] | None,
        group: asyncio.TaskGroup,
    ) -> None:
        assert service.reload is not None
        try:
            retire = await service.reload(config, known)
        except ConfigError as error:
            refuse(error)
            return
        self.config = config
        self.applied(config)
        # Nothing waited since the switch: exactly these requests may use what was before.
        group.create_task(self._retire(retire, self.running()))
        _log.info("reloaded", routes=len(config.routes))

    async def _retire(
        self, retire: Callable[[], Awaitable[None]], running: set[asyncio.Task[None]]
    ) -> None:
        if running:
            await asyncio.wait(running)
        await retire()
