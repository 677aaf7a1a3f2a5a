from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from samplewise.verifiers.base import VerifierError, VerifierSetupError
from samplewise.verifiers.pool import WorkerPool
from tests.verifiers.making_pools import alive, descendants, gone, pool_of

_TARGETS = "tests.verifiers.targets"


async def _reason(pool: WorkerPool, do: str, **more: object) -> str:
    with pytest.raises(VerifierError) as caught:
        await pool.call({"do": do, **more})
    return caught.value.reason


def _pid_in(path: Path) -> int | None:
    return int(path.read_text()) if path.exists() else None


async def _told(path: Path) -> int:
    """Wait for a pid that a target writes."""
    for _ in range(1000):
        pid = _pid_in(path)
        if pid is not None:
            return pid
        await asyncio.sleep(0.01)
    raise AssertionError(f"nobody wrote {path}")


async def test_a_call_returns_what_the_target_returns() -> None:
    async with pool_of(f"{_TARGETS}:echo", size=1) as pool:
        text = 'quotes " and\nlines\r\n\u2028 \U0001f600'
        assert (await pool.call({"text": text}))["got"] == {"text": text}
        raw = msgspec.Raw(b'{\n "a": [1,\r\n 2]}')
        assert (await pool.call({"raw": raw}))["got"] == {"raw": {"a": [1, 2]}}


@pytest.mark.parametrize("value", [object(), "half a character: \ud800"])
async def test_a_payload_that_is_not_json_is_an_error(value: object) -> None:
    async with pool_of(f"{_TARGETS}:echo", size=1) as pool:
        with pytest.raises(VerifierError) as caught:
            await pool.call({"value": value})
        assert caught.value.reason == "protocol"
        assert (await pool.call({}))["got"] == {}


async def test_nothing_starts_before_the_first_call_and_only_what_is_needed() -> None:
    before = descendants(os.getpid())
    async with pool_of(f"{_TARGETS}:echo", size=4) as pool:
        assert descendants(os.getpid()) == before
        pids = {(await pool.call({}))["pid"] for _ in range(3)}
        assert len(pids) == 1
        assert len(descendants(os.getpid()) - before) == 2  # one zygote and its child


async def test_open_starts_all_workers() -> None:
    before = descendants(os.getpid())
    async with pool_of(f"{_TARGETS}:echo", size=2) as pool:
        await pool.open()
        assert len(descendants(os.getpid()) - before) == 4


@pytest.mark.parametrize(
    "target", [f"{_TARGETS}:nope", "tests.verifiers.broken_target:f", "no.such.module:f"]
)
async def test_a_target_that_cannot_be_loaded_is_told(target: str) -> None:
    async with pool_of(target, size=2) as pool:
        with pytest.raises(VerifierSetupError, match="cannot load"):
            await pool.open()
        with pytest.raises(VerifierError, match="cannot load") as caught:
            await pool.call({})
        assert caught.value.reason == "unavailable"


async def test_workers_see_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with pool_of(f"{_TARGETS}:environment", size=1, env={"MODE": "test"}) as pool:
        seen = await pool.call({})
    assert "OPENAI_API_KEY" not in seen["env"]
    assert "sk-secret" not in str(seen)
    assert (seen["env"]["MODE"], seen["stdin"]) == ("test", "")


async def test_broken_targets_are_errors_and_the_next_call_works() -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, timeout_s=5.0) as pool:
        for do, reason in [
            ("raises", "crash"),
            ("exits", "crash"),
            ("exits_hard", "crash"),
            ("half_a_frame", "crash"),
            ("returns_nan", "protocol"),
            ("returns_object", "protocol"),
            ("returns_list", "protocol"),
            ("returns_much", "protocol"),
        ]:
            assert (do, await _reason(pool, do)) == (do, reason)
            assert (await pool.call({"do": "echo", "n": 1}))["got"]["n"] == 1


async def test_an_exception_is_told_with_its_text() -> None:
    async with pool_of(f"{_TARGETS}:raises", size=1) as pool:
        with pytest.raises(VerifierError, match="LookupError: no such thing"):
            await pool.call({})


@pytest.mark.parametrize("do", ["spins", "ignores_signals", "stops_itself"])
async def test_what_hangs_is_killed_and_replaced(do: str) -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, timeout_s=0.2) as pool:
        before = await pool.call({"do": "echo"})
        assert await _reason(pool, do) == "timeout"
        after = await pool.call({"do": "echo"})
        assert after["zygote"] == before["zygote"]
        assert await gone(before["pid"])


async def test_a_target_that_kills_its_zygote_harms_only_itself() -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, timeout_s=5.0) as pool:
        before = await pool.call({"do": "echo"})
        assert await _reason(pool, "kills_zygote") == "crash"
        assert await gone(before["pid"], before["zygote"])
        assert (await pool.call({"do": "echo"}))["got"]


async def test_a_target_that_stops_its_zygote_costs_one_zygote() -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, timeout_s=0.2, fork_timeout_s=0.3) as pool:
        before = await pool.call({"do": "echo"})
        assert await _reason(pool, "stops_zygote") == "timeout"
        assert await _reason(pool, "echo") == "unavailable"
        assert (await pool.call({"do": "echo"}))["zygote"] != before["zygote"]
        assert await gone(before["pid"], before["zygote"])


async def test_memory_is_bounded() -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, memory_mb=512) as pool:
        with pytest.raises(VerifierError, match="MemoryError"):
            await pool.call({"do": "eats_memory"})


@pytest.mark.parametrize("do", ["prints_forged_frames", "sprays_frames"])
async def test_forged_frames_change_nothing(do: str) -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, timeout_s=5.0) as pool:
        for _ in range(3):
            assert await pool.call({"do": do}) == {"forged": False}
        assert (await pool.call({"do": "echo"}))["got"]
    assert alive(1)


async def test_a_fork_of_the_target_does_not_answer() -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, timeout_s=5.0) as pool:
        for _ in range(5):
            forked = await pool.call({"do": "forks_and_returns"})
            assert forked["child"] > 0
            assert await gone(forked["child"])


async def test_daemons_of_a_target_die_with_its_worker(tmp_path: Path) -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, timeout_s=5.0) as pool:
        await pool.call({"do": "leaves_daemon", "tell": str(tmp_path / "one")})
        one = await _told(tmp_path / "one")
        assert await _reason(pool, "exits_hard") == "crash"
        assert await gone(one)
        await pool.call({"do": "leaves_daemon", "tell": str(tmp_path / "two")})
        two = await _told(tmp_path / "two")
        assert alive(two)
    assert await gone(two)


async def test_a_hundred_calls_share_two_workers() -> None:
    async with pool_of(f"{_TARGETS}:echo", size=2, timeout_s=30.0) as pool:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(pool.call({"n": n})) for n in range(100)]
        results = [call.result() for call in calls]
        assert [result["got"]["n"] for result in results] == list(range(100))
        assert len({result["pid"] for result in results}) == 2


async def test_a_cancelled_call_frees_its_worker(tmp_path: Path) -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, timeout_s=60.0) as pool:
        call = asyncio.create_task(pool.call({"do": "spins", "tell": str(tmp_path / "pid")}))
        spinning = await _told(tmp_path / "pid")
        waiting = asyncio.create_task(pool.call({"do": "echo", "n": 1}))
        call.cancel()
        assert (await waiting)["got"]["n"] == 1
        assert call.cancelled()
        assert await gone(spinning)


async def test_a_call_cancelled_in_the_queue_or_during_the_start_disturbs_nobody() -> None:
    async with pool_of(f"{_TARGETS}:echo", size=1) as pool:
        calls = [asyncio.create_task(pool.call({"n": n})) for n in range(6)]
        await asyncio.sleep(0)
        for call in calls[:5]:
            call.cancel()
        assert (await calls[5])["got"]["n"] == 5


async def test_a_worker_that_died_while_idle_costs_no_call() -> None:
    async with pool_of(f"{_TARGETS}:echo", size=1) as pool:
        idle = await pool.call({})
        os.kill(idle["pid"], signal.SIGKILL)
        assert await gone(idle["pid"])
        assert (await pool.call({"n": 1}))["got"]["n"] == 1
        os.kill(idle["zygote"], signal.SIGKILL)
        assert await gone(idle["zygote"])
        assert (await pool.call({"n": 2}))["got"]["n"] == 2


async def test_a_large_call_that_is_cut_off_does_not_spoil_the_next() -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, timeout_s=0.3) as pool:
        assert await _reason(pool, "stops_itself", text="x" * 3_000_000) == "timeout"
        large = await pool.call({"do": "echo", "text": "y" * 1_000_000})
        assert len(large["got"]["text"]) == 1_000_000


async def test_a_closed_pool_is_unavailable_and_closing_twice_is_fine() -> None:
    async with pool_of(f"{_TARGETS}:echo", size=1) as pool:
        await pool.call({})
        await pool.close()
        with pytest.raises(VerifierError) as caught:
            await pool.call({})
        assert caught.value.reason == "unavailable"


async def test_closing_ends_a_call_that_is_under_way(tmp_path: Path) -> None:
    async with pool_of(f"{_TARGETS}:by_name", size=1, timeout_s=60.0) as pool:
        call = asyncio.create_task(pool.call({"do": "spins", "tell": str(tmp_path / "pid")}))
        await _told(tmp_path / "pid")
        await pool.close()
        with pytest.raises(VerifierError):
            await call


async def test_a_killed_owner_leaves_no_process(tmp_path: Path) -> None:
    owner = subprocess.Popen(  # noqa: ASYNC220 - the wait for it is short
        [sys.executable, "-m", "tests.verifiers.owner", str(tmp_path / "pid")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), os.getcwd()])},
    )
    assert owner.stdout is not None
    with owner, owner.stdout:
        busy = await _told(tmp_path / "pid-busy")
        daemon = await _told(tmp_path / "pid-daemon")
        left = {busy, daemon, *map(int, owner.stdout.readline().split())}
        left |= descendants(owner.pid)
        assert all(alive(pid) for pid in left)
        owner.kill()
    assert await gone(*left)
