"""How much a server still does when five times as much is asked as it can do.

A closed loop finds the peak, before and after; the higher one counts. In between requests come at
a steady rate whatever becomes of them, at 1, 2 and 5 times the first peak. Goodput is what is
answered with 200. The upstream takes a while for each answer, so the peak is that of the places and
not of this machine's processor. Ratios hold on a busy machine too, as far as it is evenly busy.
Run: python -m bench.overload [--seconds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import cast

import msgspec
import uvloop

from bench.load import Target, get, request_bytes, visit
from bench.targets import Fleet

RATES = (1, 2, 5)
# So many requests at once are the peak, each of which takes so long upstream; as many may wait.
PLACES = 8
ANSWER_S = 0.1
_MOST_CONNECTIONS = 2_000


@dataclass(slots=True)
class Outcome:
    """What became of the requests of one rate; latencies in seconds by HTTP status, 0 if lost."""

    offered: int = 0
    seconds: float = 0.0
    unsent: int = 0
    latencies: dict[int, list[float]] = field(default_factory=dict)

    def rate(self, status: int) -> float:
        """Return the answers a second with a status."""
        return len(self.latencies.get(status, ())) / self.seconds

    def quantile_ms(self, status: int, share: float) -> float:
        """Return the latency in milliseconds that a share of the answers stayed below."""
        found = sorted(self.latencies.get(status, ()))
        return found[min(len(found) - 1, int(share * len(found)))] * 1e3 if found else 0.0


class _Client(asyncio.Protocol):
    """One connection that sends a request when it is told to; a read answer makes it idle again."""

    def __init__(self, outcome: Outcome, idle: list[_Client]) -> None:
        self._outcome, self._idle = outcome, idle
        self._data = b""
        self._asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked:
            self._outcome.latencies.setdefault(0, []).append(perf_counter() - self._began)
        if self in self._idle:
            self._idle.remove(self)

    def close(self) -> None:
        """Leave; an answer that has not come yet counts for nothing."""
        self._asked = False
        self.transport.close()

    def send(self, request: bytes) -> None:
        """Send a request and begin to wait for its answer."""
        self._data, self._began, self._asked = b"", perf_counter(), True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) >= length:
            status = int(head.split(b" ", 2)[1])
            took = perf_counter() - self._began
            self._outcome.latencies.setdefault(status, []).append(took)
            self._asked = False
            self._idle.append(self)


async def flood(target: Target, request: bytes, rate: float, seconds: float) -> Outcome:
    """Send requests at a rate, without waiting for answers; return what became of them."""
    loop = asyncio.get_running_loop()
    outcome, idle, clients = Outcome(), list[_Client](), list[_Client]()
    began = perf_counter()
    try:
        while (passed := perf_counter() - began) < seconds:
            while outcome.offered < passed * rate:
                outcome.offered += 1
                if not idle and len(clients) < _MOST_CONNECTIONS:
                    _, client = await loop.create_connection(
                        lambda: _Client(outcome, idle), "127.0.0.1", target.port
                    )
                    clients.append(client)
                    idle.append(client)
                if idle:
                    idle.pop().send(request)
                else:
                    outcome.unsent += 1
            await asyncio.sleep(0.001)
        outcome.seconds = perf_counter() - began
    finally:
        for client in clients:
            client.close()
    return outcome


async def upstream_calls(port: int) -> int:
    """Return how many calls the fake upstream has had."""
    page = await get(port, "/counts")
    assert page is not None
    return int(msgspec.json.decode(page)["calls"])


async def run(seconds: float) -> list[str]:
    """Measure and return the lines of a table."""
    fields = {"model": "one", "messages": [{"role": "user", "content": "How many apples?"}]}
    request = request_bytes(msgspec.json.encode(fields))
    with tempfile.TemporaryDirectory(prefix="samplewise-overload-") as folder:
        async with Fleet.open(Path(folder), ANSWER_S) as fleet:
            server = f", max_in_flight: {PLACES}, max_queue: {PLACES}"
            await fleet.start("samplewise", server=server)
            target = fleet.targets["samplewise"]
            first = await peak(target, request, seconds)
            floods = []
            for times in RATES:
                before = await upstream_calls(fleet.upstream.port)
                found = await flood(target, request, times * first, seconds)
                floods.append((times, found, await upstream_calls(fleet.upstream.port) - before))
                # What the last requests of a flood have left is worked off.
                await asyncio.sleep(1.0)
            goodput = max(first, await peak(target, request, seconds))
    return [
        "offered  answered/s  of peak  shed/s  p50 ms  shed p50 / p99 ms  upstream calls",
        f"   peak  {goodput:10.0f}     1.00",
        *(_line(times, found, goodput, calls) for times, found, calls in floods),
    ]


async def peak(target: Target, request: bytes, seconds: float) -> float:
    """Return the answers a second with as many requests at once as there are places."""
    found = await visit(target, request, PLACES, seconds)
    return found.requests / found.seconds


def _line(times: int, found: Outcome, goodput: float, calls: int) -> str:
    others = Counter({s: len(v) for s, v in found.latencies.items() if s not in (200, 503)})
    notes = f"  other: {dict(others)}" if others else ""
    notes += f"  not sent: {found.unsent}" if found.unsent else ""
    shed = f"{found.quantile_ms(503, 0.5):.1f} / {found.quantile_ms(503, 0.99):.1f}"
    return (
        f"{times:6}x  {found.rate(200):10.0f}  {found.rate(200) / goodput:7.2f}"
        f"  {found.rate(503):6.0f}  {found.quantile_ms(200, 0.5):6.1f}  {shed:>17}  {calls:14}"
        f"{notes}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each rate is held")
    args = parser.parse_args()
    if not Path("/proc/self/schedstat").exists():
        sys.exit("bench: needs Linux: processor time is read from /proc")
    print("\n".join(uvloop.run(run(args.seconds))))


if __name__ == "__main__":
    main()
