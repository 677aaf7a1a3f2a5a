"""HTTP through aiohttp: TLS, and every address that the lean client leaves alone."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from samplewise.proxy.backends.http import BrokenOff, HttpAnswer, Patience, Unreached
from samplewise.proxy.backends.sessions import Sessions

__all__ = ["AiohttpClient"]


@dataclass(frozen=True, slots=True)
class AiohttpClient:
    """Calls over the connections of `sessions`."""

    sessions: Sessions

    @asynccontextmanager
    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        patience: Patience,
        sending: Callable[[], None],
    ) -> AsyncIterator[HttpAnswer]:
        """Send a request and give its answer. Leaving early closes the connection."""
        timeout = aiohttp.ClientTimeout(
            total=patience.total_s,
            # All of it: looking up the name, every address, TLS.
            connect=patience.connect_s,
            sock_read=patience.head_s,
        )
        try:
            async with (
                self.sessions.use() as session,
                session.post(
                    url,
                    data=body,
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    trace_request_ctx=sending,
                ) as response,
            ):
                yield _Answer(response, patience.idle_s)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreached(_explain(error)) from error
        except TimeoutError:
            raise
        except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as error:
            raise BrokenOff(_explain(error)) from error


@dataclass(frozen=True, slots=True)
class _Answer:
    response: aiohttp.ClientResponse
    idle_s: float

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def content_type(self) -> str:
        return self.response.content_type

    def header(self, name: str) -> str | None:
        return self.response.headers.get(name)

    async def piece(self) -> bytes:
        async with asyncio.timeout(self.idle_s):
            return await self.response.content.readany()


def _explain(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
