"""`samplewise serve` as one process: how it starts, what it refuses, how it stops."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from tests.cli.served import Served, config, run, serving
from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.books import reserved, rows, soon

ONE = "  one: {backends: [local]}\n"
HELD = Rule(contains="hold", answers=(Answer(text="a b c", hold="gate", hold_after=1),))


def traceless(served: Served) -> bool:
    return "Traceback" not in served.err.read_text() and "Error" not in served.err.read_text()


async def test_a_file_is_served_until_ctrl_c(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "hello there")
    async with serving(tmp_path, "--config", config(tmp_path, upstream.base_url, ONE)) as served:
        assert (await served.get("/readyz")).status == 200
        assert (await served.get("/livez")).status == 200
        assert (await served.chat("one")).text == "hello there"
        served.signal(signal.SIGINT)
        assert await served.ended(5) == 0
        assert [event["event"] for event in served.logs] == ["answered"]
        assert traceless(served)
        assert reserved(tmp_path / "ledger.db") == 0


async def test_an_upstream_is_served_without_a_file(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("org/m", "it is 4", "it is 5", "it is 4")
    arguments = ("--upstream", upstream.base_url, "--model", "org/m", "--port", "0")
    prices = ("--input-usd-per-mtok", "0.37", "--output-usd-per-mtok", "1.93")
    async with serving(tmp_path, *arguments, "--policy", "majority_vote:8", *prices) as served:
        reply = await served.chat("org/m", "how many")
        assert reply.text == "it is 4"
        assert reply.said["samples"]["drawn"] == 8
        assert [r["nano_settled"] for r in rows(tmp_path / "samplewise.db")] == [
            2 * 370 + 3 * 1930, *[3 * 1930] * 7,
        ]  # fmt: skip
        served.signal(signal.SIGHUP)
        await soon(lambda: "nothing to reload" in served.err.read_text(), "it says so")
        assert (await served.get("/livez")).status == 200
        served.signal(signal.SIGINT)
        assert await served.ended(5) == 0
        assert traceless(served)


async def test_sigterm_drains_before_it_stops(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "quick", rules=(HELD,))
    file = config(tmp_path, upstream.base_url, ONE, ", drain_s: 1.0, grace_s: 20")
    async with serving(tmp_path, "--config", file) as served:
        running = [
            asyncio.create_task(served.chat("one", "hold", stream=stream))
            for stream in (False, True)
        ]
        await upstream.wait("held", equals=2)
        served.signal(signal.SIGTERM)

        async def draining() -> bool:
            return (await served.get("/readyz")).status == 503

        await soon(draining, "not ready any more")
        assert (await served.get("/readyz")).body == b"draining\n"
        assert (await served.chat("one")).text == "quick"

        async def closed() -> bool:
            try:
                await served.get("/readyz")
            except aiohttp.ClientConnectorError:
                return True
            return False

        await soon(closed, "no new connections")
        assert served.process.returncode is None
        await upstream.release("gate")
        plain, streamed = await asyncio.gather(*running)
        assert (plain.text, streamed.streamed) == ("a b c", "a b c")
        assert await served.ended() == 0
        assert reserved(tmp_path / "ledger.db") == 0
        assert {event["event"] for event in served.logs} == {"answered"}
        assert traceless(served)


async def test_who_is_not_done_in_time_is_cut_told_and_settled(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", rules=(HELD,))
    routes = f"{ONE}  vote: {{backends: [local], policy: 'majority_vote:3'}}\n"
    file = config(tmp_path, upstream.base_url, routes, ", drain_s: 0, grace_s: 1")
    async with serving(tmp_path, "--config", file) as served:
        running = [
            asyncio.create_task(served.chat(route, "hold", stream=stream))
            for route in ("one", "vote")
            for stream in (False, True)
        ]
        await upstream.wait("held", equals=8)
        served.signal(signal.SIGTERM)
        plain, opened, vote, unopened = await asyncio.gather(*running)
        for reply in (plain, vote, unopened):
            assert (reply.status, reply.error["code"]) == (503, "server_stopping")
            assert reply.headers["retry-after"] == "1"
        # Its first chunks were sent, so the error is an event, and the stream ends as it should.
        assert opened.status == 200
        assert opened.events[-1]["error"]["code"] == "server_stopping"
        assert await served.ended(10) == 0
        await upstream.wait("aborted", equals=4)
        assert reserved(tmp_path / "ledger.db") == 0
        assert {row["state"] for row in rows(tmp_path / "ledger.db")} == {"settled"}
        assert traceless(served)


async def test_ctrl_c_waits_for_what_runs_and_a_second_one_does_not(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", rules=(HELD,))
    async with serving(tmp_path, "--config", config(tmp_path, upstream.base_url, ONE)) as served:
        running = asyncio.create_task(served.chat("one", "hold"))
        await upstream.wait("held", equals=1)
        served.signal(signal.SIGINT)
        await soon(lambda: "press Ctrl-C again" in served.err.read_text(), "it says what it does")
        assert served.process.returncode is None
        served.signal(signal.SIGINT)
        assert await served.ended(5) == 0
        reply = await running
        assert (reply.status, reply.error["code"]) == (503, "server_stopping")
        assert reserved(tmp_path / "ledger.db") == 0
        assert traceless(served)


async def test_a_second_sigterm_ends_the_drain(upstream: UpstreamProcess, tmp_path: Path) -> None:
    file = config(tmp_path, upstream.base_url, ONE, ", drain_s: 600")
    async with serving(tmp_path, "--config", file) as served:
        served.signal(signal.SIGTERM)

        async def draining() -> bool:
            return (await served.get("/readyz")).status == 503

        await soon(draining, "not ready any more")
        served.signal(signal.SIGTERM)
        assert await served.ended(5) == 0


async def test_a_reader_of_the_log_that_leaves_takes_no_request_with_it(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    file = config(tmp_path, upstream.base_url, ONE)
    # A shell closes its end of the pipe as soon as the first line was read.
    async with serving(tmp_path, "--config", file, piped=True) as served:
        for _ in range(3):
            assert (await served.chat("one")).status == 200
        served.signal(signal.SIGINT)
        assert await served.ended(5) == 0


@pytest.mark.slow
async def test_open_files_are_not_what_limits_samples(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="no", hold="gate"), rules=(HELD,))
    verifiers = "verifiers:\n  word: {type: regex, pattern: never}\n"
    policy = "{type: first_pass, max_samples: 8, waves: [8]}"
    routes = f"  many: {{backends: [local], policy: {policy}, verifiers: [word]}}\n"
    file = config(tmp_path, upstream.base_url, routes, extra=verifiers)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        async with serving(tmp_path, "--config", file) as served:
            running = [asyncio.create_task(served.chat("many")) for _ in range(40)]
            await upstream.wait("held", equals=320, timeout_s=30)
            await upstream.release("gate")
            assert {r.said["samples"]["ok"] for r in await asyncio.gather(*running)} == {8}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_is_wrong_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    url = "http://127.0.0.1:1/v1"
    good, typo, broken, unloadable = (tmp_path / name for name in ("a", "b", "c", "d"))
    for folder in (good, typo, broken, unloadable):
        folder.mkdir()
    file = config(good, url, ONE)
    wrong = config(typo, url, "  one: {backends: [locale]}\n")
    (broken / "config.yaml").write_text("routes: [\n")
    verifier = "verifiers:\n  mine: {type: python, function: 'not_there:grade'}\n"
    judged = "  one: {backends: [local], policy: 'first_pass:2', verifiers: [mine]}\n"
    unbuilt = config(unloadable, url, judged, extra=verifier)
    cases = {
        ("--config", file, "--port", str(port)): f"cannot listen on 127.0.0.1:{port}: Address",
        ("--config", file, "--host", "no.such.host.invalid"): "cannot listen on no.such.host",
        ("--config", f"{tmp_path}/none.yaml"): "none.yaml: cannot be read: No such file",
        ("--config", str(tmp_path)): "cannot be read: Is a directory",
        ("--config", wrong): "routes.one.backends[0]: no backend 'locale'",
        ("--config", str(broken / "config.yaml")): "config.yaml",
        ("--config", file, "--store", f"sqlite:///{tmp_path}/none/a.db"): "none/a.db",
        # A folder where nobody can write, not even root.
        ("--config", file, "--store", "sqlite:////proc/ledger.db"): "/proc/ledger.db",
        ("--config", unbuilt): "verifiers.mine: cannot load: ModuleNotFoundError",
        ("--upstream", url, "--model", "m", "--policy", "vote:3"): "policy",
        ("--upstream", "nowhere", "--model", "m"): "--upstream: must be a URL",
    }
    try:
        runs = [run(tmp_path, "serve", *arguments) for arguments in cases]
        ended = await asyncio.gather(*runs)
    finally:
        taken.close()
    for (arguments, text), done in zip(cases.items(), ended, strict=True):
        print(arguments, done.err)
        lines = [line for line in done.err.splitlines() if "warning:" not in line]
        assert (done.code, len(lines), done.out) == (1, 1, ""), (arguments, done)
        assert lines[0].startswith("samplewise: ")
        assert text in lines[0]


async def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    cases: list[tuple[str, ...]] = [
        (),
        ("--config", "a.yaml", "--upstream", "http://127.0.0.1:1/v1"),
        ("--upstream", "http://127.0.0.1:1/v1"),
        ("--config", "a.yaml", "--workers", "0"),
        ("--config", "a.yaml", "--port", "65536"),
        ("--config", "a.yaml", "--portt", "1"),
        ("--config", "a.yaml", "--policy", "single"),
        ("--config", "a.yaml", "--input-usd-per-mtok", "1", "--output-usd-per-mtok", "2"),
        ("--config", "a.yaml", "--api-key-env", "HOME"),
    ]
    for done in await asyncio.gather(*(run(tmp_path, "serve", *arguments) for arguments in cases)):
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("Usage: ")
        assert "Traceback" not in done.err


async def test_logs_tell_every_request_and_no_secret(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    quoting = {"error": {"message": "Invalid value: 'canary-prompt' for key canary-key"}}
    rules = (
        Rule(contains="crash", faults=(Fault(kind="status", status=500, body=quoting),) * 9),
        Rule(contains="refuse", faults=(Fault(kind="status", status=400, body=quoting),) * 9),
        Rule(contains="cut", faults=(Fault(kind="reset", after=2),) * 9),
    )
    await upstream.script("m", "canary-answer yes", rules=rules, require_auth="canary-key")
    routes = (
        f"{ONE}  vote: {{backends: [local], policy: 'majority_vote:3'}}\n"
        "  checked: {backends: [local], policy: 'first_pass:2', verifiers: [number]}\n"
    )
    verifiers = "verifiers:\n  number: {type: math, timeout_s: 1}\n"
    key = ', api_key: "${CANARY}"'
    file = config(tmp_path, upstream.base_url, routes, backend=key, extra=verifiers)
    async with serving(tmp_path, "--config", file, env={"CANARY": "canary-key"}) as served:
        replies = [
            await served.chat(route, f"canary-prompt {word}", stream=stream, user="canary-user")
            for route in ("one", "vote", "checked")
            for word in ("", "crash", "refuse", "cut")
            for stream in (False, True)
        ]
        replies.append(await served.chat("canary-model"))
        replies.append(await served.post(b'{"canary-field": ', authorization="canary-header"))
        pages = [(await served.get(path)).body for path in ("/metrics", "/readyz", "/v1/models")]
        served.signal(signal.SIGINT)
        assert await served.ended(5) == 0
        logs, everything = served.logs, served.err.read_text()
    assert "canary" not in everything
    # Nor do clients, metrics and the database get to know the keys of upstreams and of others.
    pages += [reply.body for reply in replies]
    stored = files(tmp_path)
    assert stored
    pages += stored
    for secret in (b"canary-key", b"canary-header"):
        assert not [page for page in pages if secret in page]
    ended = [event for event in logs if event["event"] in ("answered", "refused")]
    assert [event["request_id"] for event in ended] == [r.headers["x-request-id"] for r in replies]
    lost = [event for event in logs if event["event"] == "sample lost"]
    assert {event["status"] for event in lost} == {500, 400, None}
    assert all(event["request_id"].startswith("req_") for event in lost)


def files(folder: Path) -> list[bytes]:
    """Return what the database's files hold."""
    return [file.read_bytes() for file in folder.glob("*.db*")]
