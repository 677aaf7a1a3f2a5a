"""Lists are read page by page, and what is over its time is in none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from samplewise.proxy.batches.base import Batch, Result, Status
from samplewise.proxy.batches.lists import Listed, Wanted
from samplewise.proxy.batches.store import BatchStore, batch_store
from tests.wire.books import store_url

DAY = 86_400


class Clock:
    """Time as the test says it is, in UTC seconds."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(where: Path | str, clock: Clock) -> Iterator[BatchStore]:
    store = batch_store(store_url(where))
    store.clock = clock
    store.open()
    yield store
    store.close()


def batch(id_: str, owner: str = "", created_at: int = 1_000_000) -> Batch:
    return Batch(id_, owner, created_at, created_at + DAY, "file-1", "/v1/chat/completions", {})


def all_pages(read: Callable[[Wanted], Listed[Batch] | None], wanted: Wanted) -> list[list[str]]:
    """Read every page; give up where they do not end."""
    pages: list[list[str]] = []
    for _ in range(20):
        page = read(wanted)
        assert page is not None
        pages.append([one.id for one in page.items])
        if not page.more:
            return pages
        wanted = replace(wanted, after=page.items[-1].id)
    raise AssertionError(f"the list does not end: {pages}")


def named(count: int) -> list[str]:
    return [f"batch_{number}" for number in range(count)]


def test_pages_hold_everything_once_newest_first_also_within_one_second(store: BatchStore) -> None:
    for number, id_ in enumerate(named(7)):
        store.add(batch(id_, created_at=1_000_000 + number // 3))
        store.add(batch(f"other_{number}", owner="another"))
    pages = all_pages(lambda wanted: store.all("", wanted), Wanted(2))
    whole = ["batch_6", "batch_3", "batch_4", "batch_5", "batch_0", "batch_1", "batch_2"]
    assert pages == [whole[0:2], whole[2:4], whole[4:6], whole[6:]]
    oldest = all_pages(lambda wanted: store.all("", wanted), Wanted(3, oldest_first=True))
    assert [id_ for page in oldest for id_ in page] == whole[::-1]
    assert all_pages(lambda wanted: store.all("", wanted), Wanted(7)) == [whole]


def test_a_list_goes_on_behind_what_is_in_it_alone(store: BatchStore) -> None:
    store.add(batch("mine"))
    store.add(batch("theirs", owner="another"))
    assert store.all("", Wanted(5, "theirs")) is None
    assert store.all("", Wanted(5, "mine")) == Listed([])
    file = store.end_file(store.begin_file("", "", "batch", days=1), "name", 0)
    assert store.files("", Wanted(5), "batch") == Listed([file])
    assert store.files("", Wanted(5), "batch_output") == Listed([])
    assert store.files("", Wanted(5, file.id), "batch_output") is None


def ended(store: BatchStore, id_: str, results: Sequence[Result] = ()) -> None:
    store.add(batch(id_))
    taken = store.claim(id_, 5)
    assert taken is not None
    assert store.begin(taken, id_, len(results))
    assert store.put(id_, id_, results)
    store.end(id_, id_, Status.COMPLETED, days=30)


def left(store: BatchStore) -> set[str]:
    page = store.all("", Wanted(9))
    assert page is not None
    return {one.id for one in page.items}


def test_batches_are_deleted_with_their_files_and_open_ones_never(
    store: BatchStore, clock: Clock
) -> None:
    ended(store, "empty")
    ended(store, "answered", [Result(1, ok=True, data=b"{}")])
    store.add(batch("open"))
    clock.now += 31 * DAY - 60
    store.clean_up(30)
    assert left(store) == {"empty", "answered", "open"}
    clock.now += 120
    store.clean_up(30)
    assert left(store) == {"open"}
    assert store.files("", Wanted(9)) == Listed([])
    assert list(store.results("answered", 1)) == []


def test_a_batch_stays_while_a_file_shows_its_results(store: BatchStore, clock: Clock) -> None:
    ended(store, "answered", [Result(1, ok=True, data=b"{}")])
    clock.now += 3 * DAY
    store.clean_up(1)  # set to less since
    assert left(store) == {"answered"}
    clock.now += 28 * DAY
    store.clean_up(1)
    assert left(store) == set()
