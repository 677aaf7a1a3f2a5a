"""Keys that stand in the configuration: they work as made ones do, and their spend stays."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from samplewise.proxy.keys.base import Terms
from samplewise.proxy.ledger.base import Account, Scope, Window
from tests.keys.kit import bearer, both_routes, store_of
from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import rows
from tests.wire.proxy import serve

SAID = Answer(text="forty-two", tokens=40)
ENV = {"CI": "configured key of ci".replace(" ", "-"), "OTHER": "sk-sw-not-in-the-usual-form"}
KEYS = """
keys:
  - {name: ci, key: "${CI}", routes: [one], budget: {samples_total: 3, requests_per_day: 100}}
  - {name: other, key: "${OTHER}", max_samples: 2}
"""


def _bytes(folder: Path) -> bytes:
    return b"".join(part.read_bytes() for part in folder.iterdir())


async def test_both_kinds_of_keys_are_let_in_and_nobody_else(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    _, made = store_of(tmp_path).create("made", Terms())
    async with serve(both_routes(upstream, KEYS), tmp_path, ENV) as proxy:
        for secret in (ENV["CI"], ENV["OTHER"], made):
            assert (await proxy.chat("one", headers=bearer(secret))).status == 200
        for secret in ("", "nobody", ENV["CI"] + "x", ENV["OTHER"][:-1], "x" * 5000):
            reply = await proxy.chat("one", headers=bearer(secret))
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        reply = await proxy.chat("many", headers=bearer(ENV["CI"]))
        assert (reply.status, reply.error["code"]) == (403, "route_not_allowed")
        reply = await proxy.chat("many", headers=bearer(ENV["OTHER"]))
        assert reply.said["samples"]["drawn"] == 2


async def test_what_a_configured_key_has_spent_goes_by_its_name(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    statuses = []
    for number in range(3):
        # Another secret each time: it is the name that counts.
        env = {**ENV, "CI": f"the-secret-of-turn-{number}"}
        async with serve(both_routes(upstream, KEYS), tmp_path, env) as proxy:
            for _ in range(2):
                statuses.append((await proxy.chat("one", headers=bearer(env["CI"]))).status)
            account = Account(Scope.KEY, "config:ci", Window.TOTAL)
            (balance,) = await proxy.service.engine.ledger.balances([account])
    assert statuses == [200, 200, 200, 402, 402, 402]
    assert balance.spent.samples == 3
    ledger = tmp_path / "ledger.db"
    assert {row["key"] for row in rows(ledger)} == {"config:ci"}
    with closing(sqlite3.connect(ledger)) as db:
        assert db.execute("SELECT count(*) FROM client_keys").fetchall() == [(0,)]
    assert b"the-secret-of-turn" not in _bytes(tmp_path)


async def test_a_configured_key_that_has_expired_is_refused(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    keys = 'keys: [{name: ci, key: "${CI}", expires: "2020-01-01"}]\n'
    async with serve(both_routes(upstream, keys), tmp_path, ENV) as proxy:
        reply = await proxy.chat("one", headers=bearer(ENV["CI"]))
        assert reply.status == 401
        assert reply.error["message"].startswith("the key has expired")


async def test_where_no_key_is_needed_a_wrong_one_is_a_client_without_a_key(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    keys = 'keys: {required: false, list: [{name: ci, key: "${CI}"}]}\n'
    async with serve(both_routes(upstream, keys), tmp_path, ENV) as proxy:
        for secret in (ENV["CI"], "sk-dummy"):
            assert (await proxy.chat("one", headers=bearer(secret))).status == 200
    assert [row["key"] for row in rows(tmp_path / "ledger.db")] == ["config:ci", ""]


async def test_a_made_key_of_the_same_name_is_told_and_both_work(
    upstream: UpstreamProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await upstream.script("m", SAID)
    key, made = store_of(tmp_path).create("ci", Terms())
    async with serve(both_routes(upstream, KEYS), tmp_path, ENV) as proxy:
        for secret in (made, ENV["CI"]):
            assert (await proxy.chat("one", headers=bearer(secret))).status == 200
    assert [row["key"] for row in rows(tmp_path / "ledger.db")][-1] == "config:ci"
    lines = [line for line in capsys.readouterr().err.splitlines() if "two keys of one" in line]
    assert len(lines) == 1
    assert key.id in lines[0]


async def test_logs_have_no_secret_of_the_configuration(
    upstream: UpstreamProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await upstream.script("m", SAID)
    async with serve(both_routes(upstream, KEYS), tmp_path, ENV) as proxy:
        for secret in (ENV["CI"], ENV["CI"] + "x"):
            await proxy.chat("one", headers=bearer(secret))
        assert ENV["CI"] not in repr(proxy.service.guard)
    assert ENV["CI"] not in capsys.readouterr().err
    assert all(ENV["CI"] not in str(record) for record in await upstream.records())
