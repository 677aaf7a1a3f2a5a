"""The other processes of this server: each listens at a socket of its own in one folder.

A request that another process works on is passed on to it there. Only processes of the same user
reach the folder, and only over such a socket does the application believe that a peer is asking.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import structlog
from starlette.requests import Request

__all__ = ["PEER_RUNS", "Peers", "peer", "peers_folder", "returned"]

PEER_RUNS = "/peers/runs/"
"""Where a peer is asked whether it has a run; there is nothing for anybody else."""

_log = structlog.get_logger("samplewise.peers")
_ANSWER_S = 2.0
# Of one connection, or made anew by the next hop; without an origin there are no CORS headers.
_NOT_PASSED = frozenset(
    (
        *("connection", "content-length", "expect", "host", "keep-alive", "origin"),
        *("proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    )
)
_NOT_RETURNED = _NOT_PASSED | {"date", "server"}


@dataclass(frozen=True, slots=True)
class Peers:
    """The sockets in `folder`, of which `own` is this process's; no folder, none."""

    folder: Path | None = None
    own: str = ""

    def listen(self) -> socket.socket | None:
        """Open the own socket; None where there is none, or it cannot be."""
        if not self.own:
            return None
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(self.own)
        except OSError as error:
            # A path that is too long, say. What follows is what several machines have: a 409.
            listener.close()
            _log.warning("no socket for other workers", path=self.own, reason=str(error))
            return None
        return listener

    def close(self) -> None:
        """Take the own socket away."""
        if self.own:
            Path(self.own).unlink(missing_ok=True)

    def asks(self, request: Request) -> bool:
        """Say whether a request comes from another process of this server."""
        server = request.scope.get("server")
        return bool(self.own) and server is not None and server[0] == self.own

    async def holder(self, name: bytes) -> str | None:
        """Return the socket of another process that has the run of a request; None if none has."""
        if self.folder is None:
            return None
        others = [str(path) for path in self.folder.glob("*.sock") if str(path) != self.own]
        found = await asyncio.gather(*(self._has(other, name) for other in others))
        return next((path for path, has in zip(others, found, strict=True) if has), None)

    async def reaches(self, address: str) -> bool:
        """Say whether there is a process at a socket, on this machine."""
        if not address:
            return False
        try:
            async with asyncio.timeout(_ANSWER_S):
                _, writer = await asyncio.open_unix_connection(address)
        except OSError:
            return False
        writer.close()
        return True

    @asynccontextmanager
    async def passed_on(
        self, address: str, request: Request, body: bytes
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request to the process at a socket and give its answer, once it begins.

        Raises:
            aiohttp.ClientError, OSError: that process is not there, or has just ended.
        """
        headers = [(k, v) for k, v in request.headers.items() if k not in _NOT_PASSED]
        async with (
            _session(address) as session,
            session.post(request.url.path, data=body, headers=headers) as reply,
        ):
            yield reply

    async def _has(self, address: str, name: bytes) -> bool:
        with suppress(aiohttp.ClientError, OSError):
            async with (
                asyncio.timeout(_ANSWER_S),
                _session(address) as session,
                session.get(PEER_RUNS + name.hex()) as reply,
            ):
                return reply.status == 200
        return False


def _session(address: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        "http://peer",
        connector=aiohttp.UnixConnector(address),
        # A run takes as long as it takes; who dies closes the connection.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_ANSWER_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("accept", "accept-encoding", "user-agent", "content-type"),
    )


def returned(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a peer's answer that its client gets."""
    return {k.lower(): v for k, v in headers.items() if k.lower() not in _NOT_RETURNED}


def peer(folder: Path, pid: int) -> Peers:
    """Return what the process `pid` knows of the processes whose sockets are in `folder`."""
    return Peers(folder, str(folder / f"{pid}.sock"))


@contextmanager
def peers_folder() -> Iterator[Path]:
    """Give a folder for the sockets of one server's processes, for its user alone."""
    folder = tempfile.mkdtemp(prefix="samplewise-peers-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
