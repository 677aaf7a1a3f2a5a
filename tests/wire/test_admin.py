"""`/v1/samplewise/keys`: keys over HTTP, for the admin alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.proxy.keys.base import Terms
from tests.keys.kit import bearer, both_routes, store_of
from tests.upstream import Answer, UpstreamProcess
from tests.wire.proxy import Proxy, Reply, serve

ENV = {"ADMIN": "the-admin-key-of-this-test", "CI": "the-key-of-ci-in-the-file"}
ADMIN = bearer(ENV["ADMIN"])
KEYS = "/v1/samplewise/keys"
SERVER = 'server: {admin_key: "${ADMIN}"}\n'
SAID = Answer(text="forty-two", tokens=40)


async def _made(proxy: Proxy, **body: Any) -> Any:
    reply = await proxy.ask("POST", KEYS, ADMIN, body)
    assert reply.status == 201, reply.body
    return reply.json


def _refused(reply: Reply, status: int) -> str:
    assert reply.status == status, reply.body
    assert set(reply.error) == {"message", "type", "param", "code"}
    message: str = reply.error["message"]
    return message


async def test_without_an_admin_key_there_is_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serve(both_routes(upstream), tmp_path) as proxy:
        for method in ("GET", "POST", "PATCH", "DELETE", "PUT"):
            for path in (KEYS, f"{KEYS}/ci", f"{KEYS}/ci/rotate"):
                for headers in ({}, ADMIN, bearer("")):
                    reply = await proxy.ask(method, path, headers)
                    assert _refused(reply, 404) == f"{method} {path}: Not Found"
                    assert reply.error["code"] == "unknown_url"


async def test_only_the_admin_key_opens_it(upstream: UpstreamProcess, tmp_path: Path) -> None:
    _, secret = store_of(tmp_path).create("a", Terms())
    keys = 'keys: [{name: ci, key: "${CI}"}]\n'
    async with serve(both_routes(upstream, SERVER + keys), tmp_path, ENV) as proxy:
        wrong = ("", secret, ENV["CI"], ENV["ADMIN"][:-1], ENV["ADMIN"] + "x", "x" * 20_000)
        version = store_of(tmp_path).version()
        for headers in ({}, *(bearer(one) for one in wrong), {"authorization": ENV["ADMIN"]}):
            for method, path in (("GET", KEYS), ("POST", KEYS), ("DELETE", f"{KEYS}/a")):
                reply = await proxy.ask(method, path, headers, {"name": "b"})
                assert _refused(reply, 401) == "this needs the key of `server.admin_key`"
                assert reply.error["code"] == "invalid_api_key"
        assert store_of(tmp_path).version() == version
        # And it opens nothing else.
        assert (await proxy.chat("one", headers=ADMIN)).status == 401


async def test_a_key_is_made_used_changed_rotated_and_revoked(
    upstream: UpstreamProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await upstream.script("m", SAID)
    async with serve(both_routes(upstream, SERVER), tmp_path, ENV) as proxy:
        limits = {"samples_per_day": 2, "usd_per_day": 1.5, "requests_per_day": 100}
        made = await _made(proxy, name="team a/1", routes=["one"], limits=limits, expires="90d")
        secret = made.pop("secret")
        assert made["limits"] == {"usd_per_day": 1.5, "samples_per_day": 2, "requests_per_day": 100}
        assert (made["name"], made["state"], made["source"]) == ("team a/1", "active", "store")
        path = f"{KEYS}/{made['id']}"
        for shown in (path, f"{KEYS}/team%20a/1"):
            assert (await proxy.get(shown, ADMIN)).json == made
        assert (await proxy.get(KEYS, ADMIN)).json["data"] == [made]

        statuses = [(await proxy.chat("one", headers=bearer(secret))).status for _ in range(3)]
        assert statuses == [200, 200, 402]
        change = {"limits": {"samples_per_day": 3, "usd_per_day": None}, "expires": None}
        changed = (await proxy.ask("PATCH", path, ADMIN, change)).json
        assert changed["limits"] == {"samples_per_day": 3, "requests_per_day": 100}
        assert (changed["expires_at"], changed["routes"]) == (None, ["one"])
        # What was spent stays: there is room for one more.
        statuses = [(await proxy.chat("one", headers=bearer(secret))).status for _ in range(2)]
        assert statuses == [200, 402]
        await proxy.ask("PATCH", path, ADMIN, {"limits": {"samples_per_day": 100}})

        rotated = await proxy.ask("POST", f"{path}/rotate", ADMIN, {"overlap_s": 600})
        assert rotated.headers["cache-control"] == "no-store"
        second = rotated.json["secret"]
        assert rotated.json["previous_secret_until"] is not None
        for one in (secret, second):
            assert (await proxy.chat("one", headers=bearer(one))).status == 200
        third = (await proxy.ask("POST", f"{path}/rotate", ADMIN)).json["secret"]
        found = [(await proxy.chat("one", headers=bearer(s))).status for s in (second, third)]
        assert found == [401, 200]

        revoked = await proxy.ask("DELETE", path, ADMIN)
        assert (revoked.status, revoked.json["state"]) == (200, "revoked")
        assert (await proxy.chat("one", headers=bearer(third))).status == 401
        for method, again in (("DELETE", path), ("PATCH", path), ("POST", f"{path}/rotate")):
            reply = await proxy.ask(method, again, ADMIN)
            assert (_refused(reply, 409), reply.error["code"])[1] == "key_revoked"
    events = [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]
    audit = [e for e in events if e["event"] == "key changed"]
    assert {(e["client"], e["key_id"], e["actor"]) for e in audit} == {
        ("team a/1", made["id"], "admin")
    }
    assert [e["action"] for e in audit] == [
        "create", "update", "update", "rotate", "rotate", "revoke",
    ]  # fmt: skip
    everything = str(events) + str((tmp_path / "ledger.db").read_bytes())
    assert not any(one[6:30] in everything for one in (secret, second, third, ENV["ADMIN"]))
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        assert db.execute("SELECT DISTINCT actor FROM audit").fetchall() == [("admin",)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "body: Object missing required field `name`"),
        ({"name": "b", "rotues": ["one"]}, "unknown field 'rotues'; did you mean 'routes'?"),
        ({"name": "b", "limits": {"usd_per_week": 5}}, "limit 'usd_per_week': there is no such"),
        ({"name": "b", "limits": {"usd_per_day": -5}}, "limit usd_per_day: must be greater than 0"),
        ({"name": "b", "limits": {"usd_per_day": "NaN"}}, "limit usd_per_day: must be a plain"),
        ({"name": "b", "limits": {"usd_per_day": "five"}}, "limits[...]: Invalid decimal string"),
        ({"name": "b", "limits": {"samples_total": 1.5}}, "limit samples_total: must be a whole"),
        ({"name": "b", "limits": 5}, "limits: Expected `object`, got `int`"),
        ({"name": "b", "routes": ["onne"]}, "routes: there is no route 'onne'; did you mean 'one'"),
        ({"name": "b", "routes": "one"}, "routes: Expected `array`, got `str`"),
        ({"name": "b", "max_samples": 0}, "max-samples: must be 1 to 1000000, got 0"),
        ({"name": "b", "max_samples": True}, "max_samples: Expected `int | null`, got `bool`"),
        ({"name": "b", "expires": "2020-01-01"}, "expires: is in the past"),
        ({"name": "b", "expires": "soon"}, "expires: must be a date, a time or a duration"),
        ({"name": ""}, "name '': needs 1 to 128 printable characters"),
        ({"name": "config:b"}, "name: must hold no 'sk-sw-' and not begin like an id"),
        ([], "body: must be a JSON object"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_made(
    upstream: UpstreamProcess, tmp_path: Path, body: Any, reason: str
) -> None:
    async with serve(both_routes(upstream, SERVER), tmp_path, ENV) as proxy:
        assert _refused(await proxy.ask("POST", KEYS, ADMIN, body), 400).startswith(reason)
        assert store_of(tmp_path).load().keys == ()


async def test_names_that_are_taken_unknown_or_of_the_configuration_are_told(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    keys = 'keys: {required: false, list: [{name: ci, key: "${CI}"}]}\n'
    async with serve(both_routes(upstream, SERVER + keys), tmp_path, ENV) as proxy:
        await _made(proxy, name="a")
        for name in ("a", "ci"):
            reply = await proxy.ask("POST", KEYS, ADMIN, {"name": name})
            assert (reply.status, reply.error["code"]) == (409, "key_exists")
        for method, path in (("GET", "b"), ("PATCH", "b"), ("DELETE", "b"), ("POST", "b/rotate")):
            reply = await proxy.ask(method, f"{KEYS}/{path}", ADMIN)
            assert (_refused(reply, 404), reply.error["code"])[1] == "key_not_found"
        shown = (await proxy.get(f"{KEYS}/ci", ADMIN)).json
        assert (shown["id"], shown["source"], shown["created_at"]) == ("config:ci", "config", None)
        for method, path in (("PATCH", "ci"), ("DELETE", "config:ci"), ("POST", "ci/rotate")):
            reply = await proxy.ask(method, f"{KEYS}/{path}", ADMIN)
            assert (reply.status, reply.error["code"]) == (409, "key_in_configuration")
        for method, path, allowed in (
            ("PUT", KEYS, "GET, POST"),
            ("POST", f"{KEYS}/a", "GET, PATCH, DELETE"),
            ("GET", f"{KEYS}/a/rotate", "POST"),
        ):
            reply = await proxy.ask(method, path, ADMIN)
            assert (reply.status, reply.headers["allow"]) == (405, allowed)
        reply = await proxy.ask("POST", f"{KEYS}/a/rotate", ADMIN, {"overlap_s": -1})
        assert _refused(reply, 400).startswith("overlap_s: must be 0 to 2592000")
        twice = b'{"name": "b", "limits": {"usd_per_day": 1, "usd_per_day": 2}}'
        assert "duplicate key" in _refused(await proxy.post(KEYS, twice, ADMIN), 400)
        reply = await proxy.post(KEYS, b" " * 200_000, ADMIN)
        assert (reply.status, reply.error["code"]) == (413, "body_too_large")


async def test_long_lists_come_in_pages(upstream: UpstreamProcess, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    ids = [store.create(f"k{number}", Terms())[0].id for number in range(5)]
    async with serve(both_routes(upstream, SERVER), tmp_path, ENV) as proxy:
        seen: list[str] = []
        more, after = True, ""
        while more:
            found = (await proxy.get(f"{KEYS}?limit=2{after}", ADMIN)).json
            seen += [key["id"] for key in found["data"]]
            more, after = found["has_more"], f"&after={seen[-1]}"
        assert seen == ids
        for query, reason in {
            "limit=0": "limit: must be 1 to 1000, got '0'",
            "limit=x": "limit: must be 1 to 1000, got 'x'",
            "after=key_0": "after: there is no 'key_0' in this list",
            "limt=5": "unknown parameter 'limt'; did you mean 'limit'?",
            "limit=1&limit=2": "limit: is given twice",
        }.items():
            assert _refused(await proxy.get(f"{KEYS}?{query}", ADMIN), 400) == reason
