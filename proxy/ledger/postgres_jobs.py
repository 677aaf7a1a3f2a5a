"""What the PostgreSQL ledger has to do, as the database is asked, and what its answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.accounts import backend_of, needs_by_backend
from samplewise.proxy.ledger.base import Grant, Settlement, State, Wave

__all__ = [
    "Batch",
    "Job",
    "encode",
    "encode_wave",
    "operations",
    "outcome",
    "repeated",
    "settle_job",
]


@dataclass(slots=True, eq=False)
class Job:
    """One operation: `body` is what the function is asked, `read` looks at what was written.

    A settlement's `body` holds its rows only, so that neighbours become one. A job that is `kept`
    is not given up when the store fails, but done again before anything else.
    """

    kind: str
    body: bytes = b""
    ids: Sequence[str] = ()
    wave: Wave | None = None
    read: Callable[[Any], Awaitable[Any]] | None = None
    kept: bool = False
    future: asyncio.Future[Any] | None = None
    result: Any = None
    error: StoreError | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one call asks: one list of jobs for each operation, settlements together."""

    number: int
    jobs: Sequence[Job]
    groups: Sequence[Sequence[Job]]


def operations(jobs: Sequence[Job]) -> tuple[list[list[Job]], str]:
    """Return the jobs of each operation, and all operations as JSON."""
    groups: list[list[Job]] = []
    for job in jobs:
        if job.kind == "read" or (job.kind == "settle" and not job.body):
            continue
        if job.kind != "settle" and (job.future is None or job.future.done()):
            continue  # nobody waits: not begun
        if groups and job.kind == groups[-1][0].kind == "settle":
            groups[-1].append(job)
        else:
            groups.append([job])
    bodies = [
        b'["settle",[%s]]' % b",".join(job.body for job in group)
        if group[0].kind == "settle"
        else group[0].body
        for group in groups
    ]
    return groups, f"[{b','.join(bodies).decode()}]"


def outcome(job: Job, answer: Any) -> tuple[StoreError | None, Any]:
    """Return the error or the result of a job that the database has answered."""
    if job.kind == "reserve":
        if isinstance(answer, str):
            return repeated(answer), None
        assert job.wave is not None
        bundles, blocked = answer
        return None, Grant(bundles, None if blocked is None else job.wave.accounts[blocked])
    if job.kind == "dispatch" and answer:
        id_, state = answer
        return StoreError(f"Row {id_!r} must not be sent: the ledger has it as {state}."), None
    return None, None


def repeated(id_: str) -> StoreError:
    """Say that a row cannot be reserved again."""
    return StoreError(
        f"Row {id_!r} is in the ledger already, or twice in one wave."
        " Nothing was reserved: a row is reserved once, under an id of its own."
    )


def encode(value: Any) -> str:
    """Write JSON as asyncpg takes it."""
    return msgspec.json.encode(value).decode()


def encode_wave(wave: Wave) -> bytes:
    """Write a wave as `samplewise.reserve` reads it; raises TypeError or UnicodeEncodeError."""
    state = State.DISPATCHED if wave.dispatched else State.HELD
    found = needs_by_backend(wave)
    group = {backend: number for number, backend in enumerate(found)}
    limits = [
        (
            *(a.scope, a.name, a.window, a.limit.nano, a.limit.tokens, a.limit.samples),
            group[backend_of(a)],
        )
        for a in wave.accounts
    ]
    rows = [
        (
            *(number, hold.id, hold.call_id, hold.index, hold.purpose, int(hold.sample)),
            *(hold.backend, hold.model, hold.nano, hold.tokens, hold.price_version),
            group.get(hold.backend, 0),
        )
        for number, bundle in enumerate(wave.bundles, 1)
        for hold in bundle
    ]
    # As text: a sum may be more than JSON's integers are read as anywhere.
    wanted = [
        [None if need is None else [str(part) for part in need] for need in needs]
        for needs in found.values()
    ]
    op = ("reserve", wave.request_id, wave.route, wave.key, state, limits, wanted, rows)
    return msgspec.json.encode(op)


def settle_job(settlements: Sequence[Settlement]) -> Job:
    """Return the job that posts these, with each as `samplewise.settle` reads it."""
    rows = [
        (
            *(end.id, end.state, end.usage.prompt, end.usage.cached, end.usage.completion),
            *(end.usage.reasoning, end.nano, end.source),
        )
        for end in settlements
    ]
    return Job(
        "settle", msgspec.json.encode(rows)[1:-1], [end.id for end in settlements], kept=True
    )
