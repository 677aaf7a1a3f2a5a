"""Ask a Kimina Lean server to check a source: `/api/check`, or the older `/verify`.

Source: the models of kimina-lean-server. A server that is down, slow or wrong never says anything
of a proof: all of that is a `VerifierError`.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import msgspec

from samplewise.verifiers.base import VerifierError

__all__ = ["ANSWER_S", "Api", "Kimina"]

Api = Literal["auto", "check", "verify"]
_MOST_REPLY = 16 * 2**20
ANSWER_S = 5.0  # beyond the server's own time limit, so that this one strikes first
_NOT_THERE = (404, 405)
_CHECK, _VERIFY = "/api/check", "/verify"


@dataclass(slots=True, kw_only=True)
class Kimina:
    """A server at `url`; `api: auto` tries the path first that was there last, else the newer one.

    `timeout_s` is the server's limit for one source. Proofs of strangers get a REPL of their own
    (`reuse` off), since a REPL keeps what was declared in it.
    """

    url: str
    api: Api = "auto"
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    _older: bool = field(default=False, init=False, repr=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False, repr=False)

    async def open(self) -> None:
        """Make the connection pool."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Bounded by `timeout_s`: aiohttp would end every call after 5 minutes.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def check(self, name: str, source: str) -> dict[str, Any]:
        """Return the REPL's reply on one source: `messages`, `sorries`; `name` identifies it.

        Raises:
            VerifierError: `timeout`, `unavailable`, or `protocol` for a reply of another form.
        """
        try:
            async with asyncio.timeout(self.timeout_s + ANSWER_S):
                data = await self._asked(name, source)
        except TimeoutError:
            text = f"no answer within {self.timeout_s + ANSWER_S} s"
            raise VerifierError(f"the Lean server: {text}", reason="timeout") from None
        except aiohttp.ClientError as error:
            text = f"the Lean server cannot be asked: {type(error).__name__}: {error}"
            raise VerifierError(text, reason="unavailable") from error
        return _result(data, name)

    async def _asked(self, name: str, source: str) -> bytes:
        # Both, whichever was taken before: a server can be replaced by an older or a newer one.
        for path in self._paths():
            data = await self._post(path, self._body(path, name, source))
            if data is not None:
                self._older = path == _VERIFY
                return data
        text = f"the Lean server has no {' and no '.join(self._paths())}"
        raise VerifierError(text, reason="unavailable")

    def _paths(self) -> tuple[str, ...]:
        if self.api != "auto":
            return (_CHECK,) if self.api == "check" else (_VERIFY,)
        return (_VERIFY, _CHECK) if self._older else (_CHECK, _VERIFY)

    def _body(self, path: str, name: str, source: str) -> dict[str, Any]:
        seconds = math.ceil(self.timeout_s)
        if path == _CHECK:
            snippets = [{"id": name, "code": source}]
            return {"snippets": snippets, "timeout": seconds, "reuse": False, "debug": False}
        codes = [{"custom_id": name, "proof": source}]
        return {"codes": codes, "timeout": seconds, "disable_cache": True}

    async def _post(self, path: str, body: dict[str, Any]) -> bytes | None:
        """Return the reply, or None where there is no such path."""
        if self._session is None:
            raise VerifierError("the verifier is not open", reason="unavailable")
        headers = {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}
        request = self._session.post(
            self.url + path, json=body, headers=headers, allow_redirects=False
        )
        async with request as response:
            if response.status in _NOT_THERE:
                return None
            if response.status != 200:
                text = f"the Lean server said status {response.status}"
                raise VerifierError(text, reason="unavailable")
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > _MOST_REPLY:
                    raise VerifierError("the Lean server's reply is too large", reason="protocol")
            return bytes(data)


def _result(data: bytes, name: str) -> dict[str, Any]:
    try:
        [result] = msgspec.json.decode(data)["results"]
        named, error, reply = (
            result.get("id", result.get("custom_id")),
            result.get("error"),
            result.get("response"),
        )
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        text = "the Lean server's reply has no usable form"
        raise VerifierError(text, reason="protocol") from None
    if error is not None:
        reason = "timeout" if "timed out" in str(error) else "crash"
        raise VerifierError(f"the Lean server failed: {str(error)[:300]}", reason=reason)
    if named != name or not isinstance(reply, dict):
        raise VerifierError("the Lean server's reply is on something else", reason="protocol")
    return reply
