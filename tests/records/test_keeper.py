"""The keeper of records: written in batches, kept while the store is away, deleted in time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samplewise.policies.evidence import Evidence, Granted
from samplewise.policies.single import Single
from samplewise.proxy.errors import UpstreamFailed
from samplewise.proxy.job import ChosenPolicy, Job, Route
from samplewise.proxy.keys.store import key_store
from samplewise.proxy.ledger.base import Limit
from samplewise.proxy.ledger.places import Place
from samplewise.proxy.records.keeper import Keeper, Keeping
from samplewise.proxy.records.store import Record, find, write
from samplewise.proxy.wire import parse_chat
from samplewise.verifiers.base import Task
from tests.wire.books import store_url

DAY = 86_400_000
ERROR = UpstreamFailed("all were lost")
KEEP = Keeping(days=1)


def opened(where: Path | str) -> Place:
    """Return the place of a new store."""
    store = key_store(store_url(where))
    with store.place.changing(create=True):
        pass
    return store.place


def ended(name: str) -> Job:
    """Return a job that has run."""
    body = b'{"model": "one", "messages": [{"role": "user", "content": "hi"}]}'
    request, policy = parse_chat(body, {}), Single()
    route = Route("one", policy, "single", {}, lambda name, samples: ChosenPolicy("single", policy))
    task = Task(name, "one", request.messages)
    job = Job(name, route, request, policy, "single", task, Limit(), 0.0)
    job.evidence = Evidence(task)
    return job


async def test_what_is_kept_is_written_at_once_when_it_is_asked_for(where: Path | str) -> None:
    keeper = Keeper(opened(where), clock=lambda: 5)
    for number in range(250):
        keeper.keep(ended(f"req_{number}"), ERROR, KEEP)
    await keeper.flush()
    for name in ("req_0", "req_249"):
        [found] = find(where, name)
        assert (found.at, found.said["error"]["code"]) == (5, "upstream_error")
    assert find(where, "req_250") == []
    keeper.place.close()


async def test_a_record_that_cannot_be_made_is_the_only_one_that_is_lost(
    where: Path | str,
) -> None:
    keeper = Keeper(opened(where))
    odd = ended("req_odd")
    # As it is where an operator's policy has named its draw so.
    key: Any = object()
    assert odd.evidence is not None
    odd.evidence.fold(Granted(key, 1))
    for job in (ended("req_1"), odd, ended("req_2")):
        keeper.keep(job, ERROR, KEEP)
    await keeper.flush()
    assert [len(find(where, name)) for name in ("req_1", "req_odd", "req_2")] == [1, 0, 1]
    keeper.place.close()


async def test_what_is_too_old_is_deleted_and_nothing_else(where: Path | str) -> None:
    place = opened(where)
    old = [Record(f"req_{n}", "", "", "one", n, "{}") for n in range(2_500)]
    write(place, [*old, Record("req_new", "", "", "one", 5 * DAY, "{}")])
    await Keeper(place, clock=lambda: 5 * DAY).prune(KEEP)
    assert find(where, "req_0") == find(where, "req_2499") == []
    assert len(find(where, "req_new")) == 1
    place.close()


async def test_while_it_runs_records_are_written_by_themselves(where: Path | str) -> None:
    keeper, waited = Keeper(opened(where)), asyncio.Event()

    async def pause(seconds: float) -> None:
        waited.set()

    running = asyncio.create_task(keeper.run(lambda: KEEP, pause))
    keeper.keep(ended("req_1"), ERROR, KEEP)
    await waited.wait()
    await keeper.flush()
    assert len(find(where, "req_1")) == 1
    running.cancel()
    await asyncio.wait([running])
    keeper.place.close()


async def test_the_same_request_is_kept_once(where: Path | str) -> None:
    place = opened(where)
    one = Record("req_1", "", "", "one", 1, "{}")
    write(place, [one])
    write(place, [replace(one, at=2), replace(one, request_id="req_2")])
    assert [found.at for found in find(where, "req_1")] == [1]
    assert len(find(where, "req_2")) == 1
    place.close()


async def test_records_wait_while_the_store_is_away_but_not_without_end(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    keeper = Keeper(opened(path), most=3)
    away = path.rename(tmp_path / "away.db")
    for number in range(5):
        keeper.keep(ended(f"req_{number}"), ERROR, KEEP)
        await keeper.flush()
    away.rename(path)
    await keeper.flush()
    found = [bool(find(path, f"req_{number}")) for number in range(5)]
    assert found == [False, False, True, True, True]


@pytest.mark.parametrize("keeping", [Keeping(days=0)])
async def test_nothing_is_kept_where_nothing_is_wanted(tmp_path: Path, keeping: Keeping) -> None:
    keeper = Keeper(opened(tmp_path / "ledger.db"))
    keeper.keep(ended("req_1"), ERROR, keeping)
    await keeper.flush()
    assert find(tmp_path / "ledger.db", "req_1") == []


async def test_what_was_being_written_when_the_server_stops_is_written_after_all(
    where: Path | str,
) -> None:
    keeper = Keeper(opened(where))
    for number in range(300):
        keeper.keep(ended(f"req_{number}"), ERROR, KEEP)
        writing = asyncio.create_task(keeper.flush())
        # Cut at another place each time: before, while and after it works them out.
        for _ in range(number % 4):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
    await keeper.flush()
    assert all(find(where, f"req_{number}") for number in range(0, 300, 20))
    keeper.place.close()
