"""Keys in the ledger's file: what stands in it, and what a change does."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from samplewise.proxy.errors import StoreError
from samplewise.proxy.keys.base import KeyRefused, Terms
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
