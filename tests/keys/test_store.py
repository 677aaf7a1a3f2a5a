"""Keys in the ledger's file: what stands in it, and what a change does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from samplewise.proxy.errors import StoreError
from samplewise.proxy.keys.base import KeyRefused, Terms, digest
from samplewise.proxy.keys.store import KeyStore, key_store
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.base import Limit, Scope, Window
from samplewise.proxy.ledger.places import SqlitePlace
from samplewise.proxy.ledger.postgres import PostgresLedger
from samplewise.proxy.ledger.postgres_connect import connect
from samplewise.proxy.ledger.postgres_schema import MIGRATIONS
from tests.ledger.pg import Server, execute
from tests.wire.books import store_url

TERMS = Terms(
    routes=("a", "b"),
    limits=((Window.TOTAL, Limit(nano=5, samples=7)),),
    requests=((Window.MINUTE, 60),),
    max_samples=3,
    expires_at=2**42,
    tests=True,
    tags=("team:x", "ünï"),
)


@pytest.fixture
def store(where: Path | str) -> Iterator[KeyStore]:
    with closing(key_store(store_url(where))) as store:
        yield store


def test_what_is_read_again_is_what_was_made(store: KeyStore) -> None:
    key, _ = store.create("ci", TERMS)
    ring = store.load()
    assert ring.keys == (key,)
    assert key.terms == TERMS
    accounts = {(a.scope, a.name, a.window): a.limit for a in key.accounts}
    assert accounts == {
        (Scope.KEY, key.id, Window.DAY): Limit(),
        (Scope.KEY, key.id, Window.TOTAL): Limit(nano=5, samples=7),
    }


def test_the_file_holds_no_secret(tmp_path: Path) -> None:
    store = KeyStore(SqlitePlace(tmp_path / "ledger.db"))
    secrets = [store.create("a", Terms())[1], store.create("b", TERMS)[1], store.rotate("a")[1]]
    found = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"client_keys" in found
    for secret in secrets:
        assert secret.encode() not in found
        assert secret.removeprefix("sk-sw-").encode() not in found


async def test_the_database_holds_no_secret(database: str) -> None:
    with closing(key_store(database)) as store:
        secrets = [store.create("a", TERMS)[1], store.rotate("a")[1]]
    found = str(await execute(database, "SELECT * FROM samplewise.client_keys"))
    assert "team:x" in found
    for secret in secrets:
        assert secret.removeprefix("sk-sw-") not in found


def test_every_change_makes_a_new_version_and_a_refused_one_none(store: KeyStore) -> None:
    store.create("a", Terms())
    seen = [store.version()]
    store.rotate("a")
    seen.append(store.version())
    store.revoke("a")
    seen.append(store.version())
    assert len(set(seen)) == 3
    for change in (lambda: store.revoke("a"), lambda: store.rotate("b")):
        with pytest.raises(KeyRefused, match="there is no key"):
            change()
    assert store.version() == seen[-1]


def test_a_name_is_unique_until_its_key_is_revoked(store: KeyStore) -> None:
    first, _ = store.create("a", Terms())
    with pytest.raises(KeyRefused, match="there is a key 'a' already"):
        store.create("a", Terms())
    store.revoke(first.id)
    second, _ = store.create("a", Terms())
    assert second.id != first.id
    assert [key.state(0) for key in store.load().keys] == ["revoked", "active"]


def test_rotating_keeps_id_and_terms_and_changes_the_digest(store: KeyStore) -> None:
    key, secret = store.create("a", TERMS)
    rotated, other = store.rotate("a")
    assert secret != other
    assert (rotated.id, rotated.terms) == (key.id, key.terms)
    assert rotated.digest != key.digest
    assert store.load().keys == (rotated,)


def test_two_stores_keep_different_digests_of_one_key(tmp_path: Path) -> None:
    peppers = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        store = KeyStore(SqlitePlace(tmp_path / name / "ledger.db"))
        store.create("a", Terms())
        peppers.add(store.load().pepper)
    assert len(peppers) == 2
    assert {len(pepper) for pepper in peppers} == {32}


def test_keys_made_at_once_all_stay(store: KeyStore) -> None:
    store.create("first", Terms())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: store.create(f"k{i}", Terms()), range(12)))
    ring = store.load()
    assert {key.name for key in ring.keys} == {"first", *(f"k{i}" for i in range(12))}
    assert ring.version == 13


def test_a_ledger_of_the_version_before_gets_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    schema.open_file(path, create=True, migrations=schema.MIGRATIONS[:1]).close()
    store = KeyStore(SqlitePlace(path))
    with pytest.raises(StoreError, match="one of an older Samplewise"):
        store.version()
    store.check()
    assert store.load().keys == ()
    store.create("a", Terms())
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchall() == [(0,)]


def test_other_files_are_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no ledger"):
        KeyStore(SqlitePlace(tmp_path / "ledger.db")).check()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "ledger.db").write_text("not a database, " * 100)
    with pytest.raises(StoreError, match="NOTADB"):
        KeyStore(SqlitePlace(tmp_path / "ledger.db")).check()


async def test_a_database_of_the_version_before_gets_its_tables(database: str) -> None:
    db = await connect(database, create=True, migrations=MIGRATIONS[:1])
    await db.close()
    with closing(key_store(database)) as store:
        with pytest.raises(StoreError, match="older than this process"):
            store.version()
        store.check()
        assert store.load().keys == ()
    ledger = await PostgresLedger.open(database)
    await ledger.close()


def test_a_database_without_a_ledger_gets_one_only_by_a_new_key(database: str) -> None:
    with closing(key_store(database)) as store:
        for use in (store.check, store.version, store.load, lambda: store.revoke("a")):
            with pytest.raises(StoreError, match="is not there, or is gone"):
                use()
        store.create("a", Terms())
        assert store.version() == 1


def test_keys_of_a_server_that_was_restarted_are_read_again(
    postgres: Server, database: str
) -> None:
    with closing(key_store(database)) as store:
        store.create("a", Terms())
        postgres.stop()
        with pytest.raises(StoreError, match="Check that the server runs"):
            store.load()
        postgres.start()
        assert store.version() == 1
        postgres.stop()
        postgres.start()
        store.rotate("a")
        assert store.version() == 2


def _audit(store: KeyStore) -> list[tuple[str, ...]]:
    with store.place.reading() as db:
        found = db.execute("SELECT actor, action, name FROM audit ORDER BY rowid").fetchall()
    return [tuple(row) for row in found]


def test_updating_changes_terms_and_nothing_else(store: KeyStore) -> None:
    key, _ = store.create("a", TERMS)
    version = store.version()
    changed = store.update(key.id, lambda terms: replace(terms, max_samples=9))
    assert changed.terms == replace(TERMS, max_samples=9)
    assert (changed.id, changed.name, changed.digest) == (key.id, key.name, key.digest)
    assert store.load().keys == (changed,)
    assert store.version() > version


def test_an_update_that_cannot_be_leaves_all_as_it_was(store: KeyStore) -> None:
    key, _ = store.create("a", TERMS)
    before = store.load()
    with pytest.raises(KeyRefused, match="max-samples"):
        store.update("a", lambda terms: replace(terms, max_samples=0))
    with pytest.raises(KeyRefused, match="there is no key 'b'"):
        store.update("b", lambda terms: terms)
    store.revoke("a")
    with pytest.raises(KeyRefused, match="there is no key 'a' that is not revoked"):
        store.update("a", lambda terms: terms)
    assert before.keys == (key,)
    assert [line[1] for line in _audit(store)] == ["create", "revoke"]


def test_updates_made_at_once_all_count(store: KeyStore) -> None:
    store.create("a", Terms(max_samples=1))

    def one_more(terms: Terms) -> Terms:
        return replace(terms, max_samples=(terms.max_samples or 0) + 1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.update("a", one_more), range(20)))
    assert store.load().keys[0].terms.max_samples == 21


def test_the_secret_before_is_good_as_long_as_was_said(store: KeyStore) -> None:
    store = replace(store, clock=lambda: 1_000)
    key, first = store.create("a", Terms())
    rotated, second = store.rotate("a", 500)
    assert (rotated.previous, rotated.previous_until) == (key.digest, 1_500)
    pepper = store.load().pepper
    old, new = digest(pepper, first), digest(pepper, second)
    assert [rotated.has(old, now) for now in (1_000, 1_499, 1_500)] == [True, True, False]
    assert rotated.has(new, 2**60)
    again, _ = store.rotate("a")
    assert (again.previous, again.previous_until) == (None, None)
    assert not again.has(new, 0)
    assert not again.has(old, 0)
    assert not again.has(b"", 0)


def test_the_audit_says_who_did_what_and_stays(store: KeyStore) -> None:
    command, admin = replace(store, actor="command: ann"), replace(store, actor="admin")
    key, secret = command.create("a", TERMS)
    admin.update("a", lambda terms: replace(terms, tags=()))
    admin.rotate("a", 1_000)
    command.revoke(key.id)
    expected = [
        ("command: ann", "create", "a"),
        ("admin", "update", "a"),
        ("admin", "rotate", "a"),
        ("command: ann", "revoke", "a"),
    ]
    assert _audit(store) == expected
    for change in ("DELETE FROM audit", "UPDATE audit SET actor = 'nobody'"):
        with pytest.raises(StoreError, match="append-only"), store.place.changing() as db:
            db.execute(change)
    with store.place.reading() as db:
        (terms,) = db.execute("SELECT terms FROM audit WHERE action = 'create'").fetchone()
    assert secret[6:] not in terms
    assert _audit(store) == expected
