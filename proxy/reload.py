"""Another configuration for a server that runs: built beside the old one, then put in its place.

Whatever its settings leave as it was is taken over: connections, places, what was learnt of an
upstream, worker processes. Requests in flight keep what they began with. Nothing here knows money:
limits are read from the configuration, what was spent is in the ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.checks_base import Check
from samplewise.proxy.config import Config
from samplewise.proxy.config_backends import VllmBackendSettings
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.service import Service, Setup
from samplewise.proxy.upstreams import Upstream
from samplewise.verifiers.lifecycle import close_all

__all__ = ["Known", "Parts", "Reload", "restart_needed", "unchanged"]

T = TypeVar("T")

Known: TypeAlias = Mapping[str, Abilities] | None
"""What upstreams can do, by name, so that they are not asked again."""

_FIXED = ("host", "port", "cors_origins")


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What one configuration says, as objects. `own` closes what no other one takes over."""

    config: Config
    upstreams: Mapping[str, Upstream]
    checks: Mapping[str, Check]
    setup: Setup
    own: AsyncExitStack = field(default_factory=AsyncExitStack)


def unchanged(
    parts: Mapping[str, T], before: Mapping[str, object], now: Mapping[str, object]
) -> dict[str, T]:
    """Return the parts whose settings are the same before and now, by name."""
    return {name: part for name, part in parts.items() if name in now and before[name] == now[name]}


def restart_needed(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """Return the new settings with those of the old that hold until a restart, and their names.

    Raises:
        ConfigError: a model server that Samplewise starts itself is another one.
    """
    for name, settings in new.backends.items():
        if old.backends.get(name) != settings and (
            _managed(settings) or _managed(old.backends.get(name))
        ):
            raise ConfigError(
                f"backends.{name}: a model server of Samplewise changes only with a restart"
            )
    changed = [f for f in _FIXED if getattr(old.server, f) != getattr(new.server, f)]
    kept = {name: getattr(old.server, name) for name in changed}
    names = [f"server.{name}" for name in changed]
    stays = {name: getattr(old, name) for name in ("store", "store_failure", "store_chunk_usd")}
    names += [name for name, value in stays.items() if getattr(new, name) != value]
    server = new.server.model_copy(update=kept)
    return new.model_copy(update={"server": server, **stays}), tuple(names)


def _managed(settings: object) -> bool:
    return isinstance(settings, VllmBackendSettings) and settings.serve is not None


@dataclass(slots=True)
class Reload:
    """Puts configurations in place, one after another. `open` makes one out of the one before."""

    open: Callable[[Config, Parts, Known], Awaitable[Parts]]
    service: Service
    parts: Parts
    _left: list[object] = field(default_factory=list)

    async def __call__(self, config: Config, known: Known = None) -> Callable[[], Awaitable[None]]:
        """Put a configuration in place; return what closes what only the one before has used.

        That is to be called when all requests have ended that ran at this moment.

        Raises:
            ConfigError: something cannot be built or opened; all stays as it was.
        """
        before = self.parts
        parts = await self.open(config, before, known)
        # From here on nothing waits, so no request sees a half of it.
        self.service.guard.configure(config.given_keys())
        self.service.setup = parts.setup
        self.parts = parts
        used = {id(check.verifier) for check in parts.checks.values()}
        left = [c.verifier for c in before.checks.values() if id(c.verifier) not in used]
        self._left += left
        await before.own.aclose()

        async def retire() -> None:
            self._left = [verifier for verifier in self._left if verifier not in left]
            await close_all(left)

        return retire

    async def close(self) -> None:
        """Close all that is still open."""
        await self.parts.own.aclose()
        await close_all([*self._left, *(check.verifier for check in self.parts.checks.values())])
