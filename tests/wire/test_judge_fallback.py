"""A judge with a fallback: who is asked when, and who is paid."""

from __future__ import annotations

from pathlib import Path

import pytest

from samplewise.policies.price import NANO, Price, Usage
from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from tests.faults.proxy import through
from tests.scores import ScoreServer
from tests.upstream import Fault, UpstreamProcess
from tests.wire.books import rows
from tests.wire.proxy import Reply, backend, serve
from tests.wire.test_judge_faults import fault
from tests.wire.test_judges import score

DEAR = "{input_usd_per_mtok: 3.7, output_usd_per_mtok: 19.3}"
JUDGE = "type: score_model, model: judge, fallback: [spare], pass_threshold: 0.5"
ROUTE = "{backends: [local], verifiers: [judge]}"


def config(upstream: UpstreamProcess, verifier: str = JUDGE, judge: str = "") -> str:
    """Return a route with a judge at `judge`, and a spare that is ten times as dear."""
    asked = backend(upstream, "judge", "j")
    if judge:
        asked = asked.replace(upstream.base_url, judge)
    spare = f"{{type: openai, base_url: '{upstream.base_url}', model: s, price: {DEAR}}}"
    return (
        f"backends:\n{backend(upstream)}{asked}  spare: {spare}\n"
        f"verifiers:\n  judge: {{{verifier}}}\nroutes:\n  r: {ROUTE}\n"
    )


async def spent(upstream: UpstreamProcess) -> int:
    """Return what the upstream's own records cost, at the price of who was asked."""
    cheap, dear = (Price.per_mtok(*pair, None) for pair in (("0.37", "1.93"), ("3.7", "19.3")))
    paid = 0
    for record in await upstream.records():
        if record.status == 200:
            price = dear if record.json["model"] == "s" else cheap
            paid += price.cost_nano(Usage(record.prompt_tokens, 0, record.total_tokens))
    return paid


def verdict_rows(where: Path) -> list[tuple[str, str]]:
    """Return backend and state of the rows of verdicts, in their order."""
    found = [row for row in rows(where / "ledger.db") if row["purpose"] == "verify"]
    return [(row["backend"], row["state"]) for row in sorted(found, key=lambda row: row["id"])]


def judged(reply: Reply) -> tuple[str, list[str]]:
    (said,) = reply.said["verifiers"]
    assert said["name"] == "judge"
    return said["status"], reply.said["degraded"]


@pytest.mark.parametrize("kind", ["status 500", "status 404", "status 429"])
async def test_the_next_backend_is_asked_and_paid_where_the_first_is_not_there_and_cost_nothing(
    upstream: UpstreamProcess, tmp_path: Path, kind: str
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", score(1), faults=(fault(kind),), cycle_faults=True)
    await upstream.script("s", score(1))
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert judged(reply) == ("pass", [])
        assert reply.said["outcome"] == "verified"
        total = round(reply.said["cost_usd"]["total"] * NANO)
        assert await proxy.ledger_spent() == total == await spent(upstream)
        assert reply.said["cost_usd"]["verification"] > 0
    first, second = verdict_rows(tmp_path)
    assert (first[0], second) == ("judge", ("spare", "settled"))


async def test_a_judge_that_refuses_connections_is_replaced_until_it_is_back(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", score(1))
    await upstream.script("s", score(1))
    async with (
        through(upstream.port) as gate,
        serve(config(upstream, judge=gate.base_url), tmp_path) as proxy,
    ):
        for text, change, spare in (
            ("one", None, 0),
            ("two", gate.stop, 1),
            ("three", gate.start, 1),
        ):
            if change is not None:
                await change()
            assert judged(await proxy.chat("r", text)) == ("pass", [])
            assert len(await upstream.records(model="s")) == spare
        assert await proxy.ledger_spent() == await spent(upstream)


@pytest.mark.parametrize("kind", ["reset", "truncated", "malformed"])
async def test_what_may_have_cost_is_not_asked_again(
    upstream: UpstreamProcess, tmp_path: Path, kind: str
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", score(1), faults=(Fault(kind=kind),))  # type: ignore[arg-type]
    await upstream.script("s", score(1))
    async with serve(config(upstream), tmp_path) as proxy:
        assert judged(await proxy.chat("r")) == ("error", ["verifier"])
        assert await upstream.records(model="s") == []


async def test_a_verdict_that_cannot_be_read_is_no_reason_to_ask_another(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", "well")
    await upstream.script("s", score(1))
    async with serve(config(upstream), tmp_path) as proxy:
        assert judged(await proxy.chat("r")) == ("error", ["verifier"])
        assert await upstream.records(model="s") == []


async def test_without_any_of_them_the_verdict_is_an_error_and_free(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    for model in ("j", "s"):
        await upstream.script(model, score(1), faults=(fault("status 500"),), cycle_faults=True)
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, judged(reply)) == ("fine", ("error", ["verifier"]))
        assert reply.said["cost_usd"]["verification"] == 0
        assert await proxy.ledger_spent() == await spent(upstream)


async def test_a_verdict_is_reserved_once_at_the_dearest_of_them(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    worst = {}
    texts = {
        "both": config(upstream),
        "dear": config(upstream, JUDGE.replace("model: judge, fallback: [spare]", "model: spare")),
        "cheap": config(upstream, JUDGE.replace("fallback: [spare], ", "")),
    }
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        async with serve(text, tmp_path / name) as proxy:
            worst[name] = (await proxy.chat("r", samplewise={"dry_run": True})).said["cost_usd"][
                "worst"
            ]
    assert worst["both"] == worst["dear"] > worst["cheap"]


async def test_reward_models_have_a_fallback_too(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "fine r=2")
    with ScoreServer() as gone:
        nobody = gone.base_url
    with ScoreServer() as there:
        text = (
            f"backends:\n{backend(upstream)}{backend(there, 'spare', 's')}"
            f"{backend(there, 'judge', 'j').replace(there.base_url, nobody)}"
            "verifiers:\n  judge: {type: reward_model, model: judge, fallback: [spare]}\n"
            f"routes:\n  r: {ROUTE}\n"
        )
        async with serve(text, tmp_path) as proxy:
            assert judged(await proxy.chat("r")) == ("none", [])
        (call,) = await there.calls()
        assert call["body"]["model"] == "s"


@pytest.mark.parametrize(
    ("verifier", "problem"),
    [
        ("type: score_model, model: judge, fallback: [spar]", "no backend 'spar'"),
        ("type: score_model, model: judge, fallback: [judge]", "named twice"),
        ("type: pairwise, model: judge, fallback: [spare]", "have no fallback"),
        (
            "type: multi, calculate_output: a, graders: "
            "{a: {type: score_model, model: judge, fallback: [spare]}}",
            "have no fallback",
        ),
    ],
)
def test_a_fallback_that_cannot_work_is_refused(
    upstream_process: UpstreamProcess, verifier: str, problem: str
) -> None:
    text = config(upstream_process, verifier).replace(ROUTE, "{backends: [local]}")
    with pytest.raises(ConfigError, match=problem):
        load_text(text, "test.yaml", {})
