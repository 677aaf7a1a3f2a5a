"""Verifier `webhook`: asks the operator's own service by HTTP POST.

The address comes from the configuration alone, never from a request.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from samplewise.verifiers.addresses import Guarded, Network, NotAllowed, refused_literal
from samplewise.verifiers.base import (
    Assurance,
    Sample,
    Task,
    Verdict,
    VerifierError,
    VerifierSetupError,
)
from samplewise.verifiers.keys import full_key
from samplewise.verifiers.outcome import verdict_from

__all__ = ["SIGNATURE_HEADER", "Webhook", "signature"]

SIGNATURE_HEADER = "x-samplewise-signature"

_ATTEMPTS = 2
_HEADERS = {
    "content-type": "application/json",
    "accept": "application/json",
    "accept-encoding": "identity",  # with no compression, the size on the wire is the size
}


class _TryAgain(Exception):
    """The service was not there, or said 5xx."""


@dataclass(slots=True, kw_only=True)
class Webhook:
    """Posts {request_id, route, messages, sample, item, reference}, reads an `Outcome`.

    `timeout_s` bounds both attempts together; the second follows a failed connection or a 5xx. An
    answer above `max_response_bytes` and a redirect are errors. With `secret` each request carries
    `SIGNATURE_HEADER` (see `signature`); `clock` gives Unix time. `tool_calls` says that turns
    which end in a tool call are sent, too. `networks` bounds the addresses that are asked (see
    `addresses.allowed`).
    """

    name: str
    url: str
    timeout_s: float = 10.0
    secret: str | None = field(default=None, repr=False)
    pass_threshold: float | None = None
    assurance: Assurance = Assurance.HEURISTIC
    tool_calls: bool = False
    max_response_bytes: int = 1_000_000
    networks: Sequence[Network] = ()
    clock: Callable[[], float] = field(default=time.time, repr=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False, repr=False)

    async def open(self) -> None:
        """Make the connection pool.

        Raises:
            VerifierSetupError: the URL has an address that may not be asked.
        """
        if self._session is not None:
            return
        host = URL(self.url).host or ""
        if refused_literal(host, self.networks):
            raise VerifierSetupError(
                f"{self.name}: {host} is no address that a webhook may have; set networks to one "
                "that it lies in, if it is meant"
            )
        # No cookies: one verdict must not depend on another.
        self._session = aiohttp.ClientSession(
            # How many at once, and for how long, is said elsewhere: aiohttp has bounds of its own.
            connector=aiohttp.TCPConnector(resolver=Guarded(self.networks), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def key(self, sample: Sample) -> str:
        """Return text and tool calls: the service sees both."""
        return full_key(sample)

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Ask the service.

        Raises:
            VerifierError: `timeout`; `unavailable` when it cannot be reached, refuses, or `open`
                was not called; `protocol` when the answer has the wrong form or size.
        """
        body = _body(task, sample)
        try:
            async with asyncio.timeout(self.timeout_s):
                data = await self._ask(body)
        except TimeoutError:
            raise VerifierError(f"no answer within {self.timeout_s} s", reason="timeout") from None
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise VerifierError("the answer is not JSON", reason="protocol") from None
        return verdict_from(
            value, self.name, pass_threshold=self.pass_threshold, assurance=self.assurance
        )

    async def _ask(self, body: bytes) -> bytes:
        why = ""
        for _ in range(_ATTEMPTS):
            try:
                return await self._post(body)
            except _TryAgain as error:
                why = str(error)
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, NotAllowed):
                    raise VerifierError(str(error.os_error), reason="unavailable") from error
                why = type(error).__name__
            except aiohttp.ClientConnectionError as error:
                why = type(error).__name__
            except aiohttp.ClientError as error:
                raise VerifierError(f"bad answer: {error}", reason="protocol") from error
        raise VerifierError(f"the webhook is unavailable: {why}", reason="unavailable")

    async def _post(self, body: bytes) -> bytes:
        if self._session is None:
            raise VerifierError("the webhook is not open", reason="unavailable")
        request = self._session.post(
            self.url, data=body, headers=self._headers(body), allow_redirects=False
        )
        async with request as response:
            if response.status >= 500:
                raise _TryAgain(f"status {response.status}")
            if 300 <= response.status < 400:
                raise VerifierError("the webhook redirects", reason="protocol")
            if response.status != 200:
                raise VerifierError(
                    f"the webhook said status {response.status}", reason="unavailable"
                )
            if response.headers.get("content-encoding", "identity") != "identity":
                raise VerifierError("the answer is compressed", reason="protocol")
            return await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > self.max_response_bytes:
                raise VerifierError(
                    f"the answer has more than {self.max_response_bytes} bytes", reason="protocol"
                )
        return bytes(data)

    def _headers(self, body: bytes) -> dict[str, str]:
        if self.secret is None:
            return _HEADERS
        return {**_HEADERS, SIGNATURE_HEADER: signature(self.secret, int(self.clock()), body)}


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Return `t=TIMESTAMP,v1=HEX`: HMAC-SHA256 over the timestamp, a dot and the body.

    A receiver compares in constant time and refuses old timestamps.
    """
    signed = hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256)
    return f"t={timestamp},v1={signed.hexdigest()}"


def _body(task: Task, sample: Sample) -> bytes:
    calls: list[Any] = [
        {"id": call.id, "name": call.name, "arguments": call.arguments}
        for call in sample.tool_calls
    ]
    return msgspec.json.encode(
        {
            "request_id": task.request_id,
            "route": task.route,
            "messages": msgspec.Raw(task.messages),
            "sample": {"text": sample.path_text, "index": sample.index, "tool_calls": calls},
            "item": task.item,
            "reference": task.reference,
        }
    )
