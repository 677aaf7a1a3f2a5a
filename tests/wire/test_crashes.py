"""Code that is not ours may raise anything: the request says so, the server goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from samplewise.policies.base import Action, Draw, Evidence, Needs
from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve


@dataclass(frozen=True, slots=True)
class Broken:
    """A policy that raises once it has drawn."""

    @property
    def needs(self) -> Needs:
        return Needs(2)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        if evidence.rounds:
            raise RuntimeError("secret of the operator")
        return [Draw("all", 2)]


@dataclass(frozen=True, slots=True)
class Idle:
    """A policy that never asks for anything."""

    @property
    def needs(self) -> Needs:
        return Needs(2)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        return []


def _config(upstream: UpstreamProcess, policy: str) -> str:
    factory = f"tests.wire.test_crashes:{policy}"
    route = f"  r: {{backends: [local], policy: {{type: python, factory: '{factory}'}}}}\n"
    return f"backends:\n{backend(upstream)}routes:\n{route}  ok: {{backends: [local]}}\n"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_policy_raises_is_for_the_operator_alone(
    upstream: UpstreamProcess, tmp_path: Path, stream: bool
) -> None:
    await upstream.script("m", "x")
    async with serve(_config(upstream, "Broken"), tmp_path) as proxy:
        reply = await proxy.chat("r", stream=stream)
        assert reply.status == 200
        assert b"secret" not in reply.body
        assert (await proxy.chat("ok")).text == "x"
        assert await proxy.ledger_spent() > 0


async def test_a_policy_that_does_nothing_is_stopped(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serve(_config(upstream, "Idle"), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.status == 502
        assert await upstream.records() == []
