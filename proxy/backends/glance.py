"""What a server says of itself for nothing: its version, its models, how much it has made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import msgspec

__all__ = ["Glance", "Work", "look", "work"]

_TIMEOUT_S = 5.0
_MOST_BYTES = 4 * 2**20
_METRIC = re.compile(rb"^(vllm:[a-z_]+)(?:\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Glance:
    """One base URL. `models` is None where the server lists none; `context` is in tokens."""

    answers: bool
    version: str = ""
    models: tuple[str, ...] | None = None
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What vLLM's own metrics say.

    Samples running and waiting now; since its start, tokens made and samples preempted.
    """

    running: int
    made: int
    waiting: int = 0
    preempted: int = 0


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class _Version(msgspec.Struct):
    version: str


async def look(
    session: aiohttp.ClientSession, base: str, headers: Mapping[str, str], model: str
) -> Glance:
    """Read the models at a base URL and the version at its root, as vLLM has it."""
    listed = await _get(session, f"{base}/models", headers)
    if listed is None:
        return Glance(False)
    try:
        page = await _page(session, base, "version", headers)
        version = msgspec.json.decode(page, type=_Version).version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        version = ""
    try:
        found = msgspec.json.decode(listed, type=_Models).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Glance(True, version)
    context = next((entry.max_model_len for entry in found if entry.id == model), None)
    return Glance(True, version, tuple(entry.id for entry in found), context)


async def work(
    session: aiohttp.ClientSession, base: str, headers: Mapping[str, str]
) -> Work | None:
    """Read vLLM's counters; None for another server."""
    sums: dict[bytes, float] = {}
    for name, value in _METRIC.findall(await _page(session, base, "metrics", headers)):
        sums[name] = sums.get(name, 0.0) + float(value)
    running = sums.get(b"vllm:num_requests_running")
    made = sums.get(b"vllm:generation_tokens_total")
    if running is None or made is None:
        return None
    # Names moved between versions: what is not there counts as nothing.
    waiting = sums.get(b"vllm:num_requests_waiting", 0)
    preempted = sums.get(b"vllm:num_preemptions_total", 0)
    return Work(int(running), int(made), int(waiting), int(preempted))


async def _page(
    session: aiohttp.ClientSession, base: str, name: str, headers: Mapping[str, str]
) -> bytes:
    """Read a page beside the `/v1` of a base URL; empty when there is none."""
    return await _get(session, f"{base.removesuffix('/v1')}/{name}", headers) or b""


async def _get(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]
) -> bytes | None:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with session.get(
            url, headers=dict(headers), timeout=timeout, allow_redirects=False
        ) as response:
            body = await response.content.read(_MOST_BYTES)
            # Any answer at all is a sign of life; only a good one says something.
            return body if response.status == 200 else b""
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
