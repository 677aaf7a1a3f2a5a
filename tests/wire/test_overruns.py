"""What an upstream bills above what was held is recorded, counted, and closes the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.upstream import UpstreamProcess
from tests.wire.books import reserved, rows, series, spent, total
from tests.wire.proxy import backend, serve

LIMIT = 1_000_000  # nano-dollars a day
ROUTES = """
  daily: {backends: [local], max_tokens: 10, budget: {usd_per_day: 0.001}}
  free: {backends: [local], max_tokens: 10}
"""


@pytest.mark.parametrize("ask", [{}, {"stream": True}], ids=["plain", "streamed"])
async def test_after_an_overrun_that_used_up_the_limit_nothing_more_is_sent(
    upstream: UpstreamProcess, tmp_path: Path, ask: dict[str, Any]
) -> None:
    await upstream.script("m", "fine", usage={"prompt_tokens": 1, "completion_tokens": 5_000})
    ledger = tmp_path / "ledger.db"
    async with serve(f"backends:\n{backend(upstream)}routes:{ROUTES}", tmp_path) as proxy:
        assert (await proxy.chat("daily", **ask)).status == 200
        cost = 370 + 5_000 * 1930
        assert spent(ledger, "route") == cost > LIMIT
        [row] = rows(ledger)
        assert row["usage_source"] == "provider"
        assert row["overrun_nano"] == cost - row["nano_held"] > 0
        for _ in range(3):
            refused = await proxy.chat("daily", **ask)
            assert (refused.status, refused.error["code"]) == (402, "budget_exceeded")
        assert len(await upstream.records()) == len(rows(ledger)) == 1
        page = series((await proxy.get("/metrics")).body.decode())
        told = total(page, "samplewise_budget_overrun_usd", scope="global") * 10**9
        assert round(told) == row["overrun_nano"]
        # Other routes have limits of their own.
        assert (await proxy.chat("free", **ask)).status == 200
    assert reserved(ledger) == 0


@pytest.mark.parametrize(
    "usage",
    [
        {"no_usage": True},
        {"usage": {"prompt_tokens": -7, "completion_tokens": -9}},
        {"usage": {"prompt_tokens": 10**15, "completion_tokens": 10**15}},
    ],
    ids=["none", "negative", "absurd"],
)
@pytest.mark.parametrize("ask", [{}, {"stream": True}], ids=["plain", "streamed"])
async def test_usage_that_cannot_be_true_costs_no_less_than_the_truth_and_no_more_than_was_held(
    upstream: UpstreamProcess, tmp_path: Path, usage: dict[str, Any], ask: dict[str, Any]
) -> None:
    await upstream.script("m", "it is 4", **usage)
    ledger = tmp_path / "ledger.db"
    async with serve(f"backends:\n{backend(upstream)}routes:{ROUTES}", tmp_path) as proxy:
        assert (await proxy.chat("free", **ask)).status == 200
        [row], [record] = rows(ledger), await upstream.records()
        truth = 370 * record.prompt_tokens + 1930 * record.total_tokens
        assert truth <= row["nano_settled"] <= row["nano_held"]
        assert (row["usage_source"], row["overrun_nano"]) in (("counted", 0), ("worst_case", 0))
        assert spent(ledger) == row["nano_settled"]
    assert reserved(ledger) == 0


RULES = "x" * 2_000  # a chat template may put fields into the prompt: a token for every byte
TEMPLATE = f"{{chat_template_kwargs: {{rules: {RULES}}}}}"
EFFORT = "policy: {{type: effort, levels: [{{params: {}}}, {{params: {}}}]}}, verifiers: [never]"
VERIFIERS = (
    "verifiers:\n  judge: {type: score_model, model: local}\n"
    "  never: {type: regex, pattern: never}\n"
)


@pytest.mark.parametrize(
    ("route", "own"),
    [
        ("policy: single", TEMPLATE),
        (f"policy: single, params: {TEMPLATE}", "{}"),
        (EFFORT.format(TEMPLATE, TEMPLATE), "{}"),
        ("policy: 'best_of_n:1', verifiers: [judge]", TEMPLATE),
    ],
    ids=["backend", "route", "policy", "judge"],
)
async def test_fields_that_configurations_add_are_held_as_part_of_the_prompt(
    upstream: UpstreamProcess, tmp_path: Path, route: str, own: str
) -> None:
    await upstream.script("m", '{"score": 1}', usage={"prompt_tokens": 2_000})
    local = backend(upstream).replace("model:", f"params: {own}, model:")
    config = f"backends:\n{local}{VERIFIERS}routes:\n  r: {{backends: [local], {route}}}\n"
    ledger = tmp_path / "ledger.db"
    async with serve(config, tmp_path) as proxy:
        assert (await proxy.chat("r", max_tokens=10)).status == 200
        assert {row["usage_source"] for row in rows(ledger)} == {"provider"}
        assert all(row["overrun_nano"] == 0 for row in rows(ledger))


async def test_what_one_prompt_had_is_not_held_for_another_that_has_more_fields(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a b")
    route = f"  r: {{backends: [local], {EFFORT.format('{user: x}', TEMPLATE)}}}\n"
    config = f"backends:\n{backend(upstream)}{VERIFIERS}routes:\n{route}"
    ledger = tmp_path / "ledger.db"
    async with serve(config, tmp_path) as proxy:
        assert (await proxy.chat("r", max_tokens=10)).status == 200
    low, high = rows(ledger)
    assert low["nano_held"] < 2_000 * 370 <= high["nano_held"]
