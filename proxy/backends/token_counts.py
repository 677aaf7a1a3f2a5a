"""How many tokens a prompt has, asked of the vLLM server that would read it. Costs nothing."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
import msgspec

from samplewise.proxy.backends.base import unranked

__all__ = ["count_tokens"]

_TIMEOUT_S = 10.0
# The answer lists every token, too.
_MOST_BYTES = 32 * 2**20


class _Count(msgspec.Struct):
    count: int


async def count_tokens(
    session: aiohttp.ClientSession, headers: Mapping[str, str], host: str, body: bytes
) -> int | None:
    """Return the tokens of a prompt; None where the server does not tell.

    `host` is a base URL, `body` a chat request without what asks for an answer.
    """
    try:
        async with session.post(
            f"{unranked(host)[0].removesuffix('/v1')}/tokenize",
            data=body,
            headers={"Content-Type": "application/json", **headers},
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            allow_redirects=False,
        ) as response:
            found = bytearray()
            async for part in response.content.iter_any():
                found += part
                if len(found) > _MOST_BYTES:
                    return None
            return msgspec.json.decode(found, type=_Count).count if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
