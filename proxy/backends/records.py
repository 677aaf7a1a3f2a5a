"""What an upstream itself says that a request id has cost: the only exact truth after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import msgspec

from samplewise.policies.price import Usage

__all__ = ["Records", "Unknown"]

_TIMEOUT_S = 5.0
# An upstream needs a moment to see that a client is gone, and to write that down.
_TRIES = 20
_PAUSE_S = 0.5


class Unknown(Exception):
    """The upstream cannot tell; the message says why."""


class _Said(msgspec.Struct):
    """A record: `state` is running, finished, aborted or unknown, the time is UTC milliseconds."""

    state: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    complete_since: int | None = None


_decode = msgspec.json.Decoder(_Said).decode


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one backend, at `/records/ID` below its base URLs.

    A server that has no record of an id answers 404 and since when its records are complete.
    """

    session: aiohttp.ClientSession
    base_urls: tuple[str, ...]
    headers: Mapping[str, str]
    pause_s: float = _PAUSE_S

    async def usage(self, request_id: str, sent_ms: int) -> Usage | None:
        """Return what a call has used that was sent at `sent_ms`; None when it never came.

        Raises:
            Unknown: nobody can be reached, the call runs on, or the records begin too late.
        """
        missing = 0
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(self.pause_s)
            said = [await self._ask(base, request_id) for base in self.base_urls]
            known = [record for record in said if record.state != "unknown"]
            if any(record.state == "running" for record in known):
                continue
            if known:
                return _usage(known)
            if any(r.complete_since is None or r.complete_since > sent_ms for r in said):
                raise Unknown("its records begin after the call")
            missing += 1
            # Twice: what was on its way when its sender died may have come in between.
            if missing > 1:
                return None
        raise Unknown("the call still runs there")

    async def _ask(self, base: str, request_id: str) -> _Said:
        try:
            async with self.session.get(
                f"{base}/records/{request_id}",
                headers=dict(self.headers),
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                allow_redirects=False,
            ) as response:
                if response.status not in (200, 404):
                    raise Unknown(f"it answered HTTP {response.status}")
                return _decode(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unknown(f"it cannot be reached: {type(error).__name__}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Unknown("it answered with no record") from None


def _usage(records: list[_Said]) -> Usage:
    prompt = sum(record.prompt_tokens for record in records)
    completion = sum(record.completion_tokens for record in records)
    if min(prompt, completion) < 0:
        raise Unknown("it answered with a record that cannot be true")
    return Usage(prompt, 0, completion)
