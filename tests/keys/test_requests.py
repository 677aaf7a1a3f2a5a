"""Requests with client keys: who may come, for what, and for how much."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from samplewise.proxy.keys.base import Terms, new_secret
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window
from tests.keys.kit import CAP, bearer, both_routes, store_of
from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import rows
from tests.wire.faulty import PROMPT_NANO, TOKEN_NANO
from tests.wire.proxy import Proxy, Reply, serve

SAID = Answer(text="forty-two", tokens=40)
MOST_HOLD = CAP * TOKEN_NANO + 200 * PROMPT_NANO


async def _get(proxy: Proxy, path: str, headers: Mapping[str, str]) -> Reply:
    return await proxy.get(path, headers)


def _refused(reply: Reply, status: int, code: str) -> str:
    assert (reply.status, reply.error["code"]) == (status, code)
    message: str = reply.error["message"]
    return message


async def test_without_required_keys_dummies_pass_and_ours_are_checked(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    _, secret = store_of(tmp_path).create("a", Terms())
    async with serve(both_routes(upstream), tmp_path) as proxy:
        for headers in ({}, bearer("sk-dummy"), {"authorization": "Basic eDp5"}, bearer(secret)):
            assert (await proxy.chat("one", headers=headers)).status == 200
        assert (
            await proxy.chat("one", headers={"authorization": f"bearer  {secret}"})
        ).status == 200
        calls = len(await upstream.records())
        for wrong in (new_secret(), "sk-sw-", f"{secret}a", secret[:-1]):
            reply = await proxy.chat("one", headers=bearer(wrong))
            message = _refused(reply, 401, "invalid_api_key")
            assert message.startswith("the key is unknown")
        assert len(await upstream.records()) == calls


async def test_required_keys_refuse_everything_else(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    _, secret = store_of(tmp_path).create("a", Terms())
    async with serve(both_routes(upstream, "keys: {required: true}\n"), tmp_path) as proxy:
        for headers in ({}, bearer("sk-dummy"), {"authorization": secret}):
            reply = await proxy.chat("one", headers=headers)
            assert "Authorization: Bearer sk-sw-" in _refused(reply, 401, "invalid_api_key")
            assert reply.error["type"] == "invalid_request_error"
            assert reply.headers["www-authenticate"] == "Bearer"
            for path in ("/v1/models", "/v1/models/one"):
                assert (await _get(proxy, path, headers)).status == 401
        assert await upstream.records() == []
        assert (await proxy.chat("one", headers=bearer(secret))).status == 200
        assert (await _get(proxy, "/v1/models", bearer(secret))).status == 200
        for path in ("/livez", "/readyz"):
            assert (await proxy.get(path)).status == 200


async def test_estimates_ask_for_a_key_as_answers_do(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    body = b'{"model":"one","messages":[{"role":"user","content":"hi"}]}'
    async with serve(both_routes(upstream, "keys: {required: true}\n"), tmp_path) as proxy:
        reply = await proxy.post("/v1/samplewise/estimate", body)
        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")


async def test_an_expired_key_is_refused_when_its_time_has_come(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    _, secret = store_of(tmp_path).create(
        "a", Terms(expires_at=time.time_ns() // 10**6 + 3_600_000)
    )
    async with serve(both_routes(upstream), tmp_path) as proxy:
        assert (await proxy.chat("one", headers=bearer(secret))).status == 200
        proxy.service.guard.clock = lambda: time.time_ns() // 10**6 + 3_600_001
        message = _refused(await proxy.chat("one", headers=bearer(secret)), 401, "invalid_api_key")
        assert message.startswith("the key has expired")


async def test_a_running_server_notices_changes_within_about_a_second(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    store = store_of(tmp_path)

    async def turns(proxy: Proxy, secret: str, status: int) -> None:
        async with asyncio.timeout(5):
            while (await proxy.chat("one", headers=bearer(secret))).status != status:
                pass

    async with serve(both_routes(upstream), tmp_path) as proxy:
        _, first = await asyncio.to_thread(store.create, "a", Terms())
        await turns(proxy, first, 200)
        _, second = await asyncio.to_thread(store.rotate, "a")
        await turns(proxy, second, 200)
        assert (await proxy.chat("one", headers=bearer(first))).status == 401
        await asyncio.to_thread(store.revoke, "a")
        began = time.monotonic()
        await turns(proxy, second, 401)
        assert time.monotonic() - began < 3
        reply = await proxy.chat("one", headers=bearer(second))
        assert reply.error["message"].startswith("the key has been revoked")


async def test_a_key_sees_and_uses_only_its_routes(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    _, secret = store_of(tmp_path).create("a", Terms(routes=("one", "gone")))
    async with serve(both_routes(upstream), tmp_path) as proxy:
        headers = bearer(secret)
        assert (await proxy.chat("one", headers=headers)).status == 200
        for route in ("many", "nowhere"):
            reply = await proxy.chat(route, headers=headers)
            message = _refused(reply, 403, "route_not_allowed")
            assert reply.error["type"] == "permission_error"
            assert message == f"model: this key may not use {route!r}; it may use: one"
        message = _refused(await proxy.chat("gone", headers=headers), 404, "model_not_found")
        assert "many" not in message
        models = await _get(proxy, "/v1/models", headers)
        assert [model["id"] for model in models.json["data"]] == ["one"]
        assert (await _get(proxy, "/v1/models/one", headers)).status == 200
        assert (await _get(proxy, "/v1/models/many", headers)).status == 404
        assert len((await proxy.get("/v1/models")).json["data"]) == 2


async def test_the_limit_of_a_key_stops_it_and_nobody_else(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    store = store_of(tmp_path)
    limit = 3 * MOST_HOLD
    key, poor = store.create("poor", Terms(limits=((Window.DAY, Limit(nano=limit)),)))
    _, rich = store.create("rich", Terms())
    async with serve(both_routes(upstream), tmp_path) as proxy:
        asked = [proxy.chat("one", headers=bearer(poor)) for _ in range(30)]
        statuses = {reply.status for reply in await asyncio.gather(*asked)}
        assert statuses == {200, 402}
        while (reply := await proxy.chat("one", headers=bearer(poor))).status == 200:
            pass
        assert "the key limit of $" in _refused(reply, 402, "budget_exceeded")
        ledger = proxy.service.engine.ledger
        (balance,) = await ledger.balances([Account(Scope.KEY, key.id, Window.DAY)])
        assert balance.spent.nano is not None
        assert limit - MOST_HOLD < balance.spent.nano <= limit
        assert balance.reserved == Limit(0, 0, 0)
        assert balance.spent.nano == await proxy.ledger_spent()
        assert (await proxy.chat("one", headers=bearer(rich))).status == 200
        assert (await proxy.chat("one")).status == 200


@pytest.mark.parametrize("limit", [Limit(samples=10), Limit(tokens=900)])
async def test_keys_are_limited_in_samples_and_tokens_too(
    upstream: UpstreamProcess, tmp_path: Path, limit: Limit
) -> None:
    await upstream.script("m", SAID)
    _, secret = store_of(tmp_path).create("a", Terms(limits=((Window.TOTAL, limit),)))
    async with serve(both_routes(upstream), tmp_path) as proxy:
        replies = [await proxy.chat("many", headers=bearer(secret)) for _ in range(12)]
        drawn = sum(r.said["samples"]["drawn"] for r in replies if r.status == 200)
        assert drawn == len(await upstream.records())
        assert drawn <= 10 if limit.samples else drawn * 40 <= 900
        assert "the key limit of" in _refused(replies[-1], 402, "budget_exceeded")
        if limit.samples:
            assert drawn == 10


async def test_a_key_caps_the_samples_of_a_request(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    _, secret = store_of(tmp_path).create("a", Terms(max_samples=3))
    async with serve(both_routes(upstream), tmp_path) as proxy:
        for said, drawn in (({}, 3), ({"samples": 8}, 3), ({"samples": 2}, 2)):
            reply = await proxy.chat("many", headers=bearer(secret), samplewise=said)
            assert reply.said["samples"]["drawn"] == drawn
            warned = "samples 8 exceeds the key's cap; 3 used" in reply.said["warnings"]
            assert warned == (said == {"samples": 8})
        dry = await proxy.chat("many", headers=bearer(secret), samplewise={"dry_run": True})
        assert dry.said["samples_at_most"] == 3
        assert (await proxy.chat("many", n=4, headers=bearer(secret))).status == 400


async def test_only_some_keys_may_send_tests(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", SAID)
    store = store_of(tmp_path)
    _, plain = store.create("plain", Terms())
    _, tester = store.create("tester", Terms(tests=True))
    async with serve(both_routes(upstream), tmp_path) as proxy:
        said = {"tests": ["assert True"]}
        reply = await proxy.chat("one", headers=bearer(plain), samplewise=said)
        _refused(reply, 403, "tests_not_allowed")
        assert (await proxy.chat("one", headers=bearer(tester), samplewise=said)).status == 200
        reply = await proxy.chat("one", headers=bearer(plain), samplewise={"tests": None})
        assert reply.status == 200


@pytest.mark.parametrize("junk", [500, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_many_junk_keys_add_no_series_no_row_and_no_memory_of_them(
    upstream: UpstreamProcess, tmp_path: Path, junk: int
) -> None:
    store_of(tmp_path).create("a", Terms())
    keys = 'server: {admin_key: "${ADMIN}"}\nkeys: [{name: ci, key: "${CI}"}]\n'
    env = {"ADMIN": "the-admin-key-of-this-test", "CI": "the-key-of-ci-in-the-file"}

    def series(reply: Reply) -> set[bytes]:
        lines = reply.body.splitlines()
        return {line.rpartition(b" ")[0] for line in lines if not line.startswith(b"#")}

    async with serve(both_routes(upstream, keys), tmp_path, env) as proxy:
        guard = proxy.service.guard
        assert (await proxy.chat("one", headers=bearer(new_secret()))).status == 401
        before, version = series(await proxy.get("/metrics")), guard.version
        room = asyncio.Semaphore(50)
        body = msgspec.json.encode({"model": "one"})

        async def ask(number: int) -> int:
            # Of the form of made keys, and of any other.
            secret = new_secret() if number % 2 else f"junk-of-any-form-{number}"
            async with room:
                if number % 5:
                    path = "/v1/chat/completions"
                    return (await proxy.post(path, body, bearer(secret))).status
                return (await proxy.get("/v1/samplewise/keys", bearer(secret))).status

        statuses = await asyncio.gather(*(ask(number) for number in range(junk)))
        assert set(statuses) == {401}
        assert series(await proxy.get("/metrics")) == before
        assert proxy.service.rates._refused == {}
        assert (guard.version, len(guard.keys)) == (version, 2)
        assert store_of(tmp_path).version() == version
        assert await upstream.records() == []
        assert rows(tmp_path / "ledger.db") == []


async def test_a_wrong_key_is_refused_before_its_body_is_read(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    async with serve(both_routes(upstream, "server: {max_body_mb: 0.1}\n"), tmp_path) as proxy:
        body = b" " * 900_000  # with a good key a 413
        for _ in range(3):
            reply = await proxy.post("/v1/chat/completions", body, bearer(new_secret()))
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
            assert (await proxy.chat("one")).status == 200


async def test_rows_and_logs_say_the_key_and_never_its_secret(
    upstream: UpstreamProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await upstream.script("m", SAID)
    key, secret = store_of(tmp_path).create("my-name", Terms(routes=("one",)))
    async with serve(both_routes(upstream), tmp_path) as proxy:
        assert (await proxy.chat("one", headers=bearer(secret))).status == 200
        assert (await proxy.chat("many", headers=bearer(secret))).status == 403
        assert (await proxy.chat("one", headers=bearer(secret[:-2]))).status == 401
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        assert db.execute('SELECT "key" FROM reservations').fetchall() == [(key.id,)]
    events = [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]
    found = [(e["event"], e.get("client")) for e in events if e["event"] in ("answered", "refused")]
    assert found == [("answered", "my-name"), ("refused", "my-name"), ("refused", None)]
    assert secret[6:20] not in str(events)
    assert all(secret[6:20] not in str(record) for record in await upstream.records())
