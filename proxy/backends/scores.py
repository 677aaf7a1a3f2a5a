"""Reward servers over HTTP: one JSON call to a path below the server's root, and what it offers.

Source of the paths and of `/openapi.json`: vLLM's OpenAI-compatible server, pooling models.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from samplewise.proxy.backends.base import Broken, Call, unranked

__all__ = ["Answered", "ScoresBackend", "described_fields"]

_MOST_BYTES = 16 * 2**20
_DESCRIPTION_S = 10.0
_SHORTEST_SECRET = 8


@dataclass(frozen=True, slots=True)
class Answered:
    """The server answered 200 with this object."""

    answer: dict[str, Any]


class _TooLarge(Exception):
    """The answer is larger than any list of scores."""


@dataclass(slots=True)
class ScoresBackend:
    """One server, or several alike; each call names its host. `base_urls` may end in /v1.

    `headers` hold the server's own key; nothing of the client's headers ever goes there.
    """

    session: aiohttp.ClientSession
    base_urls: tuple[str, ...]
    headers: Mapping[str, str] = field(repr=False)
    connect_timeout_s: float = 5.0

    async def post(self, path: str, call: Call) -> Answered | Broken:
        """Send a call's body to a path; return the answer or what went wrong."""
        base, rank = unranked(call.host)
        ranks = {"X-data-parallel-rank": rank} if rank else {}
        try:
            async with self.session.post(
                base.removesuffix("/v1") + path,
                data=call.body,
                headers={**self._headers(), "X-Request-Id": call.id, **ranks},
                timeout=self._timeout(call.timeout_s),
                allow_redirects=False,
                trace_request_ctx=call.sending,
            ) as response:
                body = await _read(response)
                if response.status != 200:
                    return self._refused(response.status, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Broken("connect", f"{type(error).__name__}: {error}"[:300], sent=False)
        except TimeoutError:
            return Broken("timeout", f"no answer within {call.timeout_s:g} s")
        except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as error:
            return Broken("cut", f"{type(error).__name__}: {error}"[:300])
        except _TooLarge:
            return Broken("too_large", f"answer exceeds {_MOST_BYTES} bytes")
        try:
            return Answered(msgspec.json.decode(body, type=dict[str, Any]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Broken("protocol", "answered 200 with what is no JSON object")

    async def fields(self) -> Mapping[str, frozenset[str]] | None:
        """Return the fields that each path takes by the server's own description.

        None when it has none that can be read. Asks once, without charge.
        """
        url = self.base_urls[0].removesuffix("/v1") + "/openapi.json"
        try:
            async with self.session.get(
                url,
                headers=self._headers(),
                timeout=self._timeout(_DESCRIPTION_S),
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    return None
                found = described_fields(msgspec.json.decode(await _read(response)))
        except (
            aiohttp.ClientError,
            TimeoutError,
            ConnectionError,
            ssl.SSLError,
            _TooLarge,
            msgspec.DecodeError,
            UnicodeDecodeError,
            RecursionError,
        ):
            return None
        return found or None

    def _headers(self) -> dict[str, str]:
        plain = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        return {**plain, **self.headers}

    def _timeout(self, seconds: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=seconds, sock_connect=self.connect_timeout_s)

    def _refused(self, status: int, body: bytes) -> Broken:
        text = " ".join(body[:2000].decode("utf-8", "replace").split())
        # Some servers repeat the key they were sent; what they say may reach logs.
        for value in self.headers.values():
            secret = value.removeprefix("Bearer ")
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "[secret]")
        return Broken("status", f"HTTP {status}: {text[:300]}", status=status)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for part in response.content.iter_any():
        data += part
        if len(data) > _MOST_BYTES:
            raise _TooLarge
    return bytes(data)


def described_fields(description: object) -> dict[str, frozenset[str]]:
    """Return, by path, the fields of what is posted there, from an OpenAPI description."""
    if not isinstance(description, dict):
        return {}
    found: dict[str, frozenset[str]] = {}
    for path, methods in _object(description.get("paths")).items():
        body = _object(_object(_object(methods).get("post")).get("requestBody"))
        schema = _object(_object(body.get("content")).get("application/json")).get("schema")
        names = frozenset(_properties(schema, _schemas(description), 0))
        if names:
            found[path] = names
    return found


def _schemas(description: Mapping[str, Any]) -> dict[str, Any]:
    return _object(_object(description.get("components")).get("schemas"))


def _properties(schema: object, known: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Yield the members of an object's schema, with those of all that it may be instead."""
    if depth > 8 or not isinstance(schema, dict):
        return
    yield from _object(schema.get("properties"))
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    yield from _properties(known.get(name), known, depth + 1)
    for word in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(word) or ():
            yield from _properties(inner, known, depth + 1)


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
