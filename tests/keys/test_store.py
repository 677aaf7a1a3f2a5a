"""Keys in the ledger's file: what stands in it, and what a change does."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from samplewise.proxy.errors import StoreError
from samplewise.proxy.keys.base import KeyRefused, Terms, digest
from samplewise.proxy.keys.store import KeyStore
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.base import Limit, Scope, Window

TERMS = Terms(
    routes=("a", "b"),
    limits=((Window.TOTAL, Limit(nano=5, samples=7)),),
    requests=((Window.MINUTE, 60),),
    max_samples=3,
    expires_at=2**42,
    tests=True,
    tags=("team:x", "ünï"),
)


def _store(folder: Path) -> KeyStore:
    return KeyStore(folder / "ledger.db")


def _bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_what_is_read_again_is_what_was_made(tmp_path: Path) -> None:
    store = _store(tmp_path)
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
    store = _store(tmp_path)
    secrets = [store.create("a", Terms())[1], store.create("b", TERMS)[1], store.rotate("a")[1]]
    found = _bytes(tmp_path)
    assert b"client_keys" in found
    for secret in secrets:
        assert secret.encode() not in found
        assert secret.removeprefix("sk-sw-").encode() not in found


def test_every_change_makes_a_new_version_and_a_refused_one_none(tmp_path: Path) -> None:
    store = _store(tmp_path)
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


def test_a_name_is_unique_until_its_key_is_revoked(tmp_path: Path) -> None:
    store = _store(tmp_path)
    first, _ = store.create("a", Terms())
    with pytest.raises(KeyRefused, match="there is a key 'a' already"):
        store.create("a", Terms())
    store.revoke(first.id)
    second, _ = store.create("a", Terms())
    assert second.id != first.id
    assert [key.state(0) for key in store.load().keys] == ["revoked", "active"]


def test_rotating_keeps_id_and_terms_and_changes_the_digest(tmp_path: Path) -> None:
    store = _store(tmp_path)
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
        store = _store(tmp_path / name)
        store.create("a", Terms())
        peppers.add(store.load().pepper)
    assert len(peppers) == 2
    assert {len(pepper) for pepper in peppers} == {32}


def test_keys_made_at_once_all_stay(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.create("first", Terms())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: store.create(f"k{i}", Terms()), range(12)))
    ring = store.load()
    assert {key.name for key in ring.keys} == {"first", *(f"k{i}" for i in range(12))}
    assert ring.version == 13


def test_a_ledger_of_the_version_before_gets_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    schema.open_file(path, create=True, migrations=schema.MIGRATIONS[:1]).close()
    store = KeyStore(path)
    with pytest.raises(StoreError, match="one of an older Samplewise"):
        store.version()
    store.check()
    assert store.load().keys == ()
    store.create("a", Terms())
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchall() == [(0,)]


def test_other_files_are_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no ledger"):
        _store(tmp_path).check()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "ledger.db").write_text("not a database, " * 100)
    with pytest.raises(StoreError, match="NOTADB"):
        _store(tmp_path).check()


def _audit(folder: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(folder / "ledger.db")) as db:
        return db.execute("SELECT actor, action, name FROM audit ORDER BY rowid").fetchall()


def test_updating_changes_terms_and_nothing_else(tmp_path: Path) -> None:
    store = _store(tmp_path)
    key, _ = store.create("a", TERMS)
    version = store.version()
    changed = store.update(key.id, lambda terms: replace(terms, max_samples=9))
    assert changed.terms == replace(TERMS, max_samples=9)
    assert (changed.id, changed.name, changed.digest) == (key.id, key.name, key.digest)
    assert store.load().keys == (changed,)
    assert store.version() > version


def test_an_update_that_cannot_be_leaves_all_as_it_was(tmp_path: Path) -> None:
    store = _store(tmp_path)
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
    assert [line[1] for line in _audit(tmp_path)] == ["create", "revoke"]


def test_updates_made_at_once_all_count(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.create("a", Terms(max_samples=1))

    def one_more(terms: Terms) -> Terms:
        return replace(terms, max_samples=(terms.max_samples or 0) + 1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.update("a", one_more), range(20)))
    assert store.load().keys[0].terms.max_samples == 21


def test_the_secret_before_is_good_as_long_as_was_said(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "ledger.db", clock=lambda: 1_000)
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


def test_the_audit_says_who_did_what_and_stays(tmp_path: Path) -> None:
    command = KeyStore(tmp_path / "ledger.db", actor="command: ann")
    admin = KeyStore(tmp_path / "ledger.db", actor="admin")
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
    assert _audit(tmp_path) == expected
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        for change in ("DELETE FROM audit", "UPDATE audit SET actor = 'nobody'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(change)
        ((terms,),) = db.execute("SELECT terms FROM audit WHERE action = 'create'").fetchall()
    assert secret[6:] not in terms
    assert _audit(tmp_path) == expected
