"""A batch belongs to one runner at a time, and only that one's results are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from samplewise.proxy.batches.base import Batch, Problem, Result, Status
from samplewise.proxy.batches.lists import Listed, Wanted
from samplewise.proxy.batches.schema import file_beside
from samplewise.proxy.batches.store import BatchStore, batch_store
from samplewise.proxy.errors import StoreError
from tests.wire.books import store_url


class Clock:
    """Time as the test says it is, in UTC seconds."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(where: Path | str, clock: Clock) -> Iterator[Callable[[], BatchStore]]:
    """Return what opens the store, as each process does for itself."""
    stores: list[BatchStore] = []

    def make() -> BatchStore:
        store = batch_store(store_url(where))
        store.clock = clock
        store.open()
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


def batch(id_: str = "batch_1", owner: str = "", created_at: int = 1) -> Batch:
    return Batch(id_, owner, created_at, 2_000_000, "file-1", "/v1/chat/completions", {"a": "b"}, 7)


def test_a_batch_comes_back_as_it_was_put_in(opened: Callable[[], BatchStore]) -> None:
    store = opened()
    store.add(batch())
    assert store.find("batch_1", "") == batch()
    assert store.find("batch_1", "another") is None
    assert store.all("", Wanted(9)) == Listed([batch()])


def test_only_one_of_many_runners_gets_a_batch(opened: Callable[[], BatchStore]) -> None:
    stores = [opened() for _ in range(4)]
    for number in range(6):
        stores[0].add(batch(f"batch_{number}"))
    claimed: list[str] = []
    # Who looks at the same moment as another may find nothing, and looks again.
    with ThreadPoolExecutor(4) as pool:
        for _ in range(12):
            found = pool.map(lambda store: store.claim("somebody", 5), stores)
            claimed += [one.id for one in found if one is not None]
    assert sorted(claimed) == [f"batch_{number}" for number in range(6)]


def test_the_oldest_batch_is_taken_up_first(opened: Callable[[], BatchStore]) -> None:
    store = opened()
    store.add(batch("batch_new", created_at=9))
    store.add(batch("batch_old", created_at=3))
    claimed = [store.claim("me", 5), store.claim("me", 5), store.claim("me", 5)]
    assert [one and one.id for one in claimed] == ["batch_old", "batch_new", None]


def test_a_batch_whose_runner_is_silent_goes_to_another_and_the_first_can_write_no_more(
    opened: Callable[[], BatchStore], clock: Clock
) -> None:
    first, second = opened(), opened()
    first.add(batch())
    assert first.claim("first", 5) is not None
    assert first.begin(batch(), "first", 2)
    assert first.put("batch_1", "first", [Result(1, True, b"one")])
    clock.now += 4
    assert first.renew("batch_1", "first", 5) is Status.IN_PROGRESS
    clock.now += 4
    assert second.claim("second", 5) is None
    clock.now += 2
    taken = second.claim("second", 5)
    assert taken is not None
    assert (taken.status, taken.total) == (Status.IN_PROGRESS, 2)
    assert first.renew("batch_1", "first", 5) is None
    assert not first.put("batch_1", "first", [Result(2, True, b"late")])
    first.end("batch_1", "first", Status.COMPLETED, 30)
    assert second.done_lines("batch_1") == {1}
    assert second.put("batch_1", "second", [Result(1, True, b"again"), Result(2, False, b"two")])
    second.end("batch_1", "second", Status.COMPLETED, 30)
    ended = first.find("batch_1", "")
    assert ended is not None
    assert (ended.status, ended.completed, ended.failed) == (Status.COMPLETED, 1, 1)
    # The first result of a line is the one that stays.
    assert [result.data for result in first.results("batch_1", 1)] == [b"one"]
    assert first.claim("first", 5) is None


def test_who_lets_go_leaves_a_batch_to_others_at_once(opened: Callable[[], BatchStore]) -> None:
    store = opened()
    store.add(batch())
    store.claim("first", 5)
    store.let_go("batch_1", "second")
    assert store.claim("second", 5) is None
    store.let_go("batch_1", "first")
    assert store.claim("second", 5) is not None


def test_a_batch_that_is_cancelled_before_it_begins_never_does(
    opened: Callable[[], BatchStore],
) -> None:
    store = opened()
    store.add(batch())
    store.claim("me", 5)
    cancelled = store.cancel("batch_1", "")
    assert cancelled is not None
    assert cancelled.status is Status.CANCELLING
    assert "cancelling_at" in cancelled.times
    assert not store.begin(batch(), "me", 2)
    store.end("batch_1", "me", Status.CANCELLED, 30)
    found = store.cancel("batch_1", "")
    assert found is not None
    assert (found.status, found.output_file) == (Status.CANCELLED, None)


def test_a_refused_batch_says_why(opened: Callable[[], BatchStore]) -> None:
    store = opened()
    store.add(batch())
    store.claim("me", 5)
    problem = Problem("duplicate_custom_id", "line 2: is that of line 1", 2, "custom_id")
    store.refuse(batch(), "me", (problem,))
    found = store.find("batch_1", "")
    assert found is not None
    assert (found.status, found.errors) == (Status.FAILED, (problem,))


def test_files_are_read_back_in_their_order_and_end_with_their_time(
    opened: Callable[[], BatchStore], clock: Clock
) -> None:
    store = opened()
    file = store.begin_file("me", "", "batch", days=1)
    for number in range(3):
        store.add_part(file.id, number, bytes([number]) * 3)
    assert store.find_file(file.id, "me") is None  # not before it is whole
    ended = store.end_file(file, "name", 9)
    assert store.find_file(file.id, "me") == ended
    assert b"".join(store.content(ended)) == b"\0\0\0\1\1\1\2\2\2"
    store.clean_up(30)
    assert store.find_file(file.id, "me") == ended
    clock.now += 90_000
    store.clean_up(30)
    assert store.find_file(file.id, "me") is None
    assert b"".join(store.content(ended)) == b""


def test_uploads_that_were_cut_off_are_cleaned_up(
    opened: Callable[[], BatchStore], clock: Clock
) -> None:
    store = opened()
    file = store.begin_file("me", "", "batch", days=30)
    store.add_part(file.id, 0, b"x")
    clock.now += 7 * 3600
    store.clean_up(30)
    assert list(store.content(file)) == []


def test_the_input_of_an_open_batch_outlives_its_time(
    opened: Callable[[], BatchStore], clock: Clock
) -> None:
    store = opened()
    file = store.end_file(store.begin_file("", "", "batch", days=1), "name", 0)
    store.add(replace(batch(), input_file=file.id))
    assert store.claim("me", 5)
    clock.now += 90_000
    store.clean_up(30)
    assert store.find_file(file.id, "") == file
    store.end("batch_1", "me", Status.COMPLETED, days=1)
    store.clean_up(30)
    assert store.find_file(file.id, "") is None


def test_a_part_that_comes_after_its_file_was_deleted_is_not_kept(
    opened: Callable[[], BatchStore],
) -> None:
    store = opened()
    file = store.begin_file("me", "", "batch", days=30)
    store.delete_file(file.id)
    store.add_part(file.id, 0, b"x")
    with store.place.reading() as db:
        assert db.execute("SELECT count(*) FROM file_parts").fetchone()[0] == 0


def test_texts_are_for_the_owner_of_the_server_alone(
    opened: Callable[[], BatchStore], where: Path | str
) -> None:
    opened().add(batch())
    if isinstance(where, Path):
        assert file_beside(where).stat().st_mode & 0o077 == 0


def test_a_newer_store_is_refused(opened: Callable[[], BatchStore], where: Path | str) -> None:
    store = opened()
    with store.place.changing() as db:
        db.execute("UPDATE batch_meta SET value = 99 WHERE name = 'schema'")
    newer = batch_store(store_url(where))
    with pytest.raises(StoreError, match="schema version 99"):
        newer.open()
    newer.close()
