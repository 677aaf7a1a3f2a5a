"""What a backend needs of an HTTP client: one POST at a time, its answer in pieces, three errors.

Two clients have this form: `lean` for plain HTTP, `sessions` (aiohttp) for everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

__all__ = ["BrokenOff", "HttpAnswer", "HttpClient", "Patience", "Unreached"]


class Unreached(Exception):
    """No connection came about, so nothing was sent."""


class BrokenOff(Exception):
    """The connection ended before the answer did, or what came is no HTTP."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds.

    `total_s` for everything, `connect_s` for a connection with all that belongs to it, `idle_s` for
    the next piece of a body, `head_s` for the answer's headers (None: as long as for everything).
    """

    total_s: float
    connect_s: float
    idle_s: float
    head_s: float | None = None


class HttpAnswer(Protocol):
    """An answer whose headers are in."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in small letters."""
        ...

    def header(self, name: str) -> str | None:
        """Return the first header of this name."""
        ...

    async def piece(self) -> bytes:
        """Return what has come of the decoded body, waiting for something; empty at its end.

        Raises:
            TimeoutError: nothing came in time.
            BrokenOff: the body will not come to its end.
        """
        ...


class HttpClient(Protocol):
    """Sends requests; redirects are not followed, nothing is sent a second time."""

    def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        patience: Patience,
        sending: Callable[[], None],
    ) -> AbstractAsyncContextManager[HttpAnswer]:
        """Send a request and give its answer. Leaving early closes the connection.

        `sending` is called once there is a connection, before anything leaves on it.

        Raises:
            Unreached: there is no connection.
            TimeoutError: the headers did not come in time.
            BrokenOff: they will not come.
        """
        ...
