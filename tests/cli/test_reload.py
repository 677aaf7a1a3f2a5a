"""SIGHUP: another configuration comes into use, and no request notices."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import termios
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from samplewise.proxy.keys.base import Terms
from samplewise.proxy.keys.store import KeyStore
from samplewise.proxy.ledger.places import SqlitePlace
from tests.cli.served import Served, command, config, serving
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.books import reserved, rows, soon, spent
from tests.wire.proxy import PRICE

HELD = Rule(contains="hold", answers=(Answer(text="a b c", hold="gate", hold_after=1),))
ONE = "  one: {backends: [local]}\n"
TWO = ONE + "  two: {backends: [local], policy: 'majority_vote:3'}\n"


def _events(served: Served, *names: str) -> list[dict[str, Any]]:
    return [event for event in served.logs if event["event"] in names]


async def _reload(served: Served, event: str = "reloaded", count: int = 1) -> None:
    """Send SIGHUP and wait until so many more events came."""
    before = len(_events(served, event))
    served.signal(signal.SIGHUP)
    await soon(lambda: len(_events(served, event)) >= before + count, f"{event!r} is logged", 30)


def _rewrite(file: str, old: str, new: str) -> None:
    path = Path(file)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


async def test_another_file_comes_into_use_and_requests_keep_what_they_began_with(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine", rules=(HELD,))
    file = config(tmp_path, upstream.base_url, ONE)
    async with serving(tmp_path, "--config", file) as served:
        assert (await served.chat("two")).status == 404
        running = [
            asyncio.create_task(served.chat("one", "hold", stream=stream))
            for stream in (False, True)
        ]
        await upstream.wait("held", equals=2)
        config(tmp_path, upstream.base_url, "  two: {backends: [local]}\n", ", max_body_mb: 0.5")
        await _reload(served)
        assert (await served.chat("one")).status == 404
        assert (await served.chat("two")).text == "fine"
        assert (await served.post(b" " * 900_000)).status == 413
        await upstream.release("gate")
        plain, streamed = await asyncio.gather(*running)
        assert (plain.text, streamed.streamed) == ("a b c", "a b c")
        models = (await served.get("/v1/models")).json["data"]
        assert [model["id"] for model in models] == ["two"]
        served.signal(signal.SIGINT)
        assert await served.ended(5) == 0
    assert {row["route"] for row in rows(tmp_path / "ledger.db")} == {"one", "two"}
    assert reserved(tmp_path / "ledger.db") == 0


async def test_a_wrong_file_is_refused_with_all_that_is_wrong_and_the_old_one_stays(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    file = config(tmp_path, upstream.base_url, ONE)
    unloadable = "verifiers:\n  mine: {type: python, function: 'not_there:grade'}\n"
    judged = "  one: {backends: [local], policy: 'first_pass:2', verifiers: [mine]}\n"
    async with serving(tmp_path, "--config", file) as served:
        config(tmp_path, upstream.base_url, "  one: {backends: [locale]}\n  b c: {}\n")
        await _reload(served, "reload refused")
        config(tmp_path, upstream.base_url, judged, extra=unloadable)
        await _reload(served, "reload refused")
        os.unlink(file)
        await _reload(served, "reload refused")
        assert (await served.chat("one")).text == "fine"
        wrong, unopened, gone = (event["error"] for event in _events(served, "reload refused"))
        assert "routes.one.backends[0]: no backend 'locale'" in wrong
        assert "routes.b c: a name must not hold spaces" in wrong
        assert "verifiers.mine: cannot load: ModuleNotFoundError" in unopened
        assert "cannot be read: No such file" in gone
        config(tmp_path, upstream.base_url, TWO)
        await _reload(served)
        assert (await served.chat("two")).text == "fine"


async def test_what_needs_a_restart_is_named_and_the_rest_comes_into_use(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    file = config(tmp_path, upstream.base_url, ONE)
    async with serving(tmp_path, "--config", file) as served:
        config(tmp_path, upstream.base_url, TWO)
        _rewrite(file, "{port: 0}", '{port: 1, host: "::1", cors_origins: ["*"]}')
        _rewrite(file, "ledger.db", "another-ledger.db")
        await _reload(served)
        assert (await served.chat("two")).text == "fine"
        (event,) = _events(served, "needs a restart")
        for name in ("server.host", "server.port", "server.cors_origins", "store"):
            assert name in event["warning"]
    assert len(rows(tmp_path / "ledger.db")) == 3
    assert not (tmp_path / "another-ledger.db").exists()


async def test_limits_keys_and_the_admin_change_and_what_was_spent_stays(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    env = {"CI": "the-key-of-ci-in-the-file", "ADMIN": "the-admin-key-of-this-test"}
    keys = 'keys: {{required: {required}, list: [{{name: ci, key: "${{CI}}", {terms}}}]}}\n'
    loose = keys.format(required="false", terms="budget: {samples_per_day: 2}")
    strict = keys.format(required="true", terms="budget: {samples_per_day: 3}")
    file = config(tmp_path, upstream.base_url, ONE, extra=loose)
    ask = b'{"model": "one", "messages": [{"role": "user", "content": "hi"}]}'
    ci = {"authorization": f"Bearer {env['CI']}"}
    async with serving(tmp_path, "--config", file, env=env) as served:
        assert (await served.post(ask)).status == 200
        assert [(await served.post(ask, **ci)).status for _ in range(3)] == [200, 200, 402]
        assert (await served.get("/v1/samplewise/keys")).status == 404
        config(tmp_path, upstream.base_url, ONE, ', admin_key: "${ADMIN}"', extra=strict)
        await _reload(served)
        assert (await served.post(ask)).status == 401
        assert [(await served.post(ask, **ci)).status for _ in range(2)] == [200, 402]
        assert (await served.get("/v1/samplewise/keys")).status == 401
        config(tmp_path, upstream.base_url, ONE)
        await _reload(served)
        assert (await served.post(ask)).status == 200
        assert (await served.get("/v1/samplewise/keys")).status == 404
    assert all(secret not in served.err.read_text() for secret in env.values())


async def test_the_parent_reads_the_file_once_for_all_workers(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    file = config(tmp_path, upstream.base_url, ONE)
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        before = served.workers()
        config(tmp_path, upstream.base_url, "  one: {backends: [locale]}\n")
        await _reload(served, "reload refused")
        config(tmp_path, upstream.base_url, TWO)
        await _reload(served, count=2)
        # To a worker alone it says nothing: all have the same configuration.
        for worker in before:
            os.kill(worker, signal.SIGHUP)
        found = Counter([(await served.chat("two")).status for _ in range(20)])
        assert found == {200: 20}
        assert served.workers() == before
        os.kill(before[0], signal.SIGKILL)
        await soon(lambda: len(set(served.workers()) - set(before)) == 1, "it is replaced", 60)
        found = Counter([(await served.chat("two")).status for _ in range(20)])
        assert found == {200: 20}, "the new one has the newest file"
        served.signal(signal.SIGINT)
        assert await served.ended() == 0
        assert len(_events(served, "reload refused")) == 1


@pytest.mark.parametrize("reloads", [5, pytest.param(100, marks=pytest.mark.slow)])
async def test_reloads_under_load_cost_no_request_and_change_no_sum(
    upstream: UpstreamProcess, tmp_path: Path, reloads: int
) -> None:
    await upstream.script("m", Answer(text="it is 4", token_delay_s=0.005))
    # Alternately: another limit, another place for calls, a verifier that is a process, none.
    judge = "verifiers:\n  boxed: {type: math, timeout_s: 5}\n"
    judged = "  vote: {backends: [local], policy: 'majority_vote:3', verifiers: [boxed]}\n"
    plain = "  vote: {backends: [local], policy: 'majority_vote:3', budget: {usd_per_day: 5}}\n"
    forms: list[dict[str, Any]] = [
        {"routes": ONE + plain},
        {"routes": ONE + judged, "extra": judge},
        {"routes": ONE + plain, "backend": ", max_in_flight: 50"},
    ]
    ledger = tmp_path / "ledger.db"
    key, secret = KeyStore(SqlitePlace(ledger)).create("ci", Terms())
    file = config(tmp_path, upstream.base_url, **forms[0])
    done = False
    statuses: Counter[int] = Counter()
    body = b'{"model": "vote", "messages": [{"role": "user", "content": "how many"}]}'

    async def client(served: Served) -> None:
        while not done:
            reply = await served.post(body, authorization=f"Bearer {secret}")
            statuses[reply.status] += 1

    def more(statuses: Counter[int], count: int) -> bool:
        return sum(statuses.values()) >= count

    async with serving(tmp_path, "--config", file) as served:
        clients = [asyncio.create_task(client(served)) for _ in range(8)]
        for number in range(reloads):
            config(tmp_path, upstream.base_url, **forms[(number + 1) % 3])
            seen = sum(statuses.values())
            await _reload(served)
            await soon(partial(more, statuses, seen + 8), "requests end", 30)
        done = True
        await asyncio.gather(*clients)
        assert set(statuses) == {200}
        assert len(_events(served, "reloaded")) == reloads
        config(tmp_path, upstream.base_url, **forms[0])
        await _reload(served)
        await soon(lambda: not served.children(), "processes of verifiers end")
        assert not _events(served, "reload refused", "internal error", "verifier could not tell")
        served.signal(signal.SIGINT)
        assert await served.ended(20) == 0
    assert reserved(ledger) == 0
    assert len(rows(ledger)) == 3 * sum(statuses.values())
    total = sum(row["nano_settled"] for row in rows(ledger))
    assert total == spent(ledger) == spent(ledger, "key") == spent(ledger, "route")
    assert {row["key"] for row in rows(ledger)} == {key.id}
    assert sum(r.total_tokens for r in await upstream.records()) == sum(
        row["completion_tokens"] for row in rows(ledger)
    )


async def test_closing_the_terminal_stops_a_server_and_sighup_alone_does_not(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    file = config(tmp_path, upstream.base_url, ONE)
    ours, its = os.openpty()
    err = tmp_path / "stderr.txt"
    with err.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *command("serve", "--config", file),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=its,
            stdout=its,
            stderr=sink,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    os.close(its)
    served = Served(process, err)
    try:
        await served.ready()
        await _reload(served)
        assert (await served.chat("one")).text == "fine"
        os.close(ours)  # as a terminal does that is closed: the system sends SIGHUP
        assert await served.ended(10) == 0
        assert "Traceback" not in err.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.slow  # the first server looks for calls of the dead every 10 seconds
async def test_calls_that_the_dead_had_at_a_backend_added_since_cost_what_its_record_says(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text=" ".join(["word"] * 30), token_delay_s=0.02))
    added = (
        f"  added: {{type: openai, base_url: {upstream.base_url}, model: m, records: true, "
        f"price: {PRICE}}}\n"
    )
    two = ONE + "  new: {backends: [added], max_tokens: 40}\n"
    other = tmp_path / "other"
    other.mkdir()
    ledger = tmp_path / "ledger.db"
    file = config(tmp_path, upstream.base_url, ONE)
    newer = config(other, upstream.base_url, two, extra=added, store=ledger)
    async with serving(tmp_path, "--config", file) as served:
        config(tmp_path, upstream.base_url, two, extra=added)
        await _reload(served)
        async with serving(other, "--config", newer) as dying:
            asked = asyncio.create_task(dying.chat("new"))
            await upstream.wait("started", equals=1)
            dying.signal(signal.SIGKILL)
            with pytest.raises(aiohttp.ClientError):
                await asked
        await soon(lambda: reserved(ledger) == 0, "the call is recovered", 60)
    (row,) = rows(ledger)
    (record,) = await upstream.records()
    assert (row["state"], row["usage_source"]) == ("recovered", "reconciled")
    assert row["completion_tokens"] == record.total_tokens
