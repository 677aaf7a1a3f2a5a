"""No program gets out of the sandbox or takes more than its share; see programs.py."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from samplewise.verifiers.sandbox import Kind, Program, RunStatus
from tests.hostile.sandbox.programs import PROGRAMS, Hostile
from tests.hostile.sandbox.with_landlock import WITH_LANDLOCK
from tests.sandbox.fixtures import MEMORY_MB, opened, processes_left


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """What a program must not reach, on the host and readable for everyone there."""
    monkeypatch.setenv("CANARY_API_KEY", "CANARY")
    abstract = f"samplewise-{secrets.token_hex(8)}"
    with TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as tcp:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "canary").write_text("CANARY")
        with socket.socket(socket.AF_UNIX) as path, socket.socket(socket.AF_UNIX) as hidden:
            path.bind(f"{folder}/socket")
            hidden.bind(f"\0{abstract}")
            path.listen()
            hidden.listen()
            yield {
                "canary": f"{folder}/canary",
                "port": str(tcp.getsockname()[1]),
                "socket": f"{folder}/socket",
                "abstract": abstract,
            }


def _source(hostile: Hostile, targets: Mapping[str, str]) -> str:
    source = hostile.source
    for name, value in targets.items():
        source = source.replace(f"{{{name}}}", value)
    return source


@pytest.mark.parametrize("cgroup", [None, "none"])
@pytest.mark.parametrize("hostile", PROGRAMS, ids=lambda hostile: hostile.name)
async def test_a_hostile_program_is_held(
    hostile: Hostile, cgroup: str | None, targets: Mapping[str, str]
) -> None:
    await _held(hostile, targets, cgroup=cgroup, spare=0)


@pytest.mark.parametrize("hostile", PROGRAMS, ids=lambda hostile: hostile.name)
async def test_a_hostile_program_is_held_by_the_fork_server(
    hostile: Hostile, targets: Mapping[str, str]
) -> None:
    await _held(hostile, targets, kind="fork_server", spare=0)


@pytest.mark.parametrize("hostile", WITH_LANDLOCK, ids=lambda hostile: hostile.name)
async def test_a_hostile_program_is_held_by_landlock(
    hostile: Hostile, targets: Mapping[str, str]
) -> None:
    await _held(hostile, targets, kind="landlock", spare=0)


@pytest.mark.parametrize("kind", ["fork_server", "landlock"])
@pytest.mark.parametrize("hostile", [p for p in PROGRAMS if "eats" in p.name], ids=lambda p: p.name)
async def test_what_eats_memory_is_held_without_a_control_group(
    hostile: Hostile, kind: Kind, targets: Mapping[str, str]
) -> None:
    await _held(hostile, targets, kind=kind, cgroup="none", spare=0)


async def _held(hostile: Hostile, targets: Mapping[str, str], **settings: Any) -> None:
    """Run the program, and one after it that must know nothing of it."""
    wall_s = 1.0 if RunStatus.TIMEOUT in hostile.ends else 60.0
    async with opened(**settings) as sandbox:
        outcome = await sandbox.run(Program(_source(hostile, targets), wall_s=wall_s))
        after = await sandbox.run(Program("print('fine')", wall_s=60))
    assert b"ESCAPED" not in outcome.stdout, outcome.stdout
    assert b"CANARY" not in outcome.stdout + outcome.stderr
    assert outcome.status in hostile.ends, (outcome.status, outcome.stderr[-500:])
    if outcome.status is RunStatus.OK:
        assert outcome.stdout == b"held\n"
    if outcome.limits.memory_by == "cgroup":
        assert outcome.memory_peak_mb is not None
        assert outcome.memory_peak_mb <= MEMORY_MB
    assert after.stdout == b"fine\n"
    assert processes_left() == []


def test_there_are_enough_of_them() -> None:
    assert len({hostile.name for hostile in PROGRAMS}) >= 25
