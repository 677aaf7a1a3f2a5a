"""What an operator's own policy does wrong never costs an answer that was paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.policies.price import NANO
from tests.upstream import UpstreamProcess
from tests.wire.own_policies import WRONG
from tests.wire.proxy import Reply, backend, serve


def _config(upstream: UpstreamProcess, policy: str, args: str = "{}") -> str:
    return (
        f"backends:\n{backend(upstream)}verifiers:\n  number: {{type: number}}\n"
        "routes:\n  r: {backends: [local], answers: number, policy: {type: python, "
        f"factory: 'tests.wire.own_policies:{policy}', args: {args}}}}}\n"
    )


async def _asked(
    upstream: UpstreamProcess, folder: Path, policy: str, args: str = "{}", **fields: Any
) -> Reply:
    """Ask once; whatever comes, the ledger has what it says and holds nothing."""
    async with serve(_config(upstream, policy, args), folder) as proxy:
        reply = await proxy.chat("r", **fields)
        if not fields:
            nano = float(reply.headers.get("x-samplewise-cost-usd", "0")) * NANO
            assert await proxy.ledger_spent() == round(nano)
        return reply


def _logged(capsys: pytest.CaptureFixture[str], event: str) -> list[dict[str, Any]]:
    lines = [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize("way", WRONG)
async def test_what_was_drawn_answers_when_the_policy_goes_wrong(
    upstream: UpstreamProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    way: str,
    after: int,
) -> None:
    await upstream.script("m", "4", "5", "5")
    reply = await _asked(upstream, tmp_path, "Wrong", f"{{way: {way}, after: {after}}}")
    # Also what was on its way then: all of it is paid for.
    assert (reply.status, reply.text, reply.said["outcome"]) == (200, "5", "agreed")
    assert reply.said["samples"]["drawn"] == 3
    assert "the route's policy failed" in reply.said["warnings"][0]
    [failed] = _logged(capsys, "policy failed")
    assert failed["request_id"] == reply.said["request_id"]


@pytest.mark.parametrize("way", WRONG)
async def test_a_policy_that_goes_wrong_before_it_has_drawn_ends_the_request(
    upstream: UpstreamProcess, tmp_path: Path, way: str
) -> None:
    await upstream.script("m", "yes")
    reply = await _asked(upstream, tmp_path, "Wrong", f"{{way: {way}, after: 0}}")
    assert reply.status == 500
    assert "policy failed" in reply.error["message"]
    assert not await upstream.records()


@pytest.mark.parametrize("fields", [{}, {"stream": True}], ids=str)
async def test_details_that_are_no_json_are_left_out(
    upstream: UpstreamProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, Any],
) -> None:
    await upstream.script("m", "yes")
    reply = await _asked(upstream, tmp_path, "Unwritable", **fields)
    assert reply.status == 200
    said = reply.events[-1]["samplewise"] if fields else reply.said
    assert said["decision"] == {"votes": 2}
    assert any("'own', 'half'" in warning for warning in said["warnings"])
    assert _logged(capsys, "policy's details left out")
