"""Names of hosts to addresses: looked up once a minute, once for all who ask at the same time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Names"]

_AGE_S = 60.0


@dataclass(slots=True)
class _Found:
    at: float
    addresses: list[str]


@dataclass(slots=True)
class Names:
    """What is known of names. An address that did not answer is left out until the next look-up."""

    look_up: Callable[[str, int], Coroutine[Any, Any, list[str]]] = field(
        default_factory=lambda: _look_up
    )
    age_s: float = _AGE_S
    _found: dict[str, _Found] = field(default_factory=dict)
    _asking: dict[str, asyncio.Task[_Found]] = field(default_factory=dict)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a name, another one first each time.

        Raises:
            OSError: the name has none.
        """
        found = self._found.get(host)
        now = asyncio.get_running_loop().time()
        if found is None or now - found.at > self.age_s or not found.addresses:
            task = self._asking.get(host)
            if task is None:
                task = self._asking[host] = asyncio.create_task(self._ask(host, port))
                task.add_done_callback(lambda _: self._asking.pop(host, None))
            # Who gives up waiting must not take the answer from the others.
            found = await asyncio.shield(task)
        addresses = list(found.addresses)
        # Several addresses share the calls.
        found.addresses.append(found.addresses.pop(0))
        return addresses

    async def _ask(self, host: str, port: int) -> _Found:
        addresses = await self.look_up(host, port)
        if not addresses:
            raise OSError("the name has no address")
        found = self._found[host] = _Found(asyncio.get_running_loop().time(), list(addresses))
        return found

    def failed(self, host: str, address: str) -> None:
        """Leave an address out."""
        found = self._found.get(host)
        if found is not None and address in found.addresses:
            found.addresses.remove(address)


async def _look_up(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))
