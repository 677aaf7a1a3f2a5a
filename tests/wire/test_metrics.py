"""The metrics page: every promised metric, bounded labels, a form that Prometheus accepts."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.books import Series, series, soon, total
from tests.wire.proxy import Proxy, backend, serve

ROUTES = """
  one: {backends: [local], budget: {usd_per_day: 5}}
  vote: {backends: [local], policy: 'majority_vote:4'}
  early: {backends: [local], policy: {type: adaptive_vote, margin: 2, max_samples: 9, window: 1}}
  checked: {backends: [local], policy: {type: first_pass, max_samples: 4, waves: [4]},
            verifiers: [is_yes], on_unverified: error}
  poor: {backends: [local], budget: {usd_per_request: 0.000001}}
"""
VERIFIERS = "  is_yes: {type: regex, pattern: '^yes$', price: {usd_per_call: 0.001}}\n"

# Name to type and label names; `le` of histograms is left out.
PROMISED: Mapping[str, tuple[str, frozenset[str]]] = {
    "samplewise_requests_total": ("counter", frozenset({"route", "endpoint", "outcome"})),
    "samplewise_request_duration_seconds": ("histogram", frozenset({"route", "stream"})),
    "samplewise_time_to_first_byte_seconds": ("histogram", frozenset({"route"})),
    "samplewise_overhead_seconds": ("histogram", frozenset({"route"})),
    "samplewise_samples_total": ("counter", frozenset({"route", "model", "outcome"})),
    "samplewise_samples_per_request": ("histogram", frozenset({"route"})),
    "samplewise_accepted_sample_index": ("histogram", frozenset({"route"})),
    "samplewise_tokens_total": ("counter", frozenset({"route", "model", "type"})),
    "samplewise_cost_usd_total": ("counter", frozenset({"route", "model", "kind"})),
    "samplewise_cost_usd_saved_total": ("counter", frozenset({"route"})),
    "samplewise_verifier_duration_seconds": ("histogram", frozenset({"verifier"})),
    "samplewise_verifier_results_total": ("counter", frozenset({"verifier", "result"})),
    "samplewise_vote_agreement_ratio": ("histogram", frozenset({"route"})),
    "samplewise_budget_limit_usd": ("gauge", frozenset({"scope", "name", "window"})),
    "samplewise_budget_used_ratio": ("gauge", frozenset({"scope", "name", "window"})),
    "samplewise_budget_reserved_usd": ("gauge", frozenset({"scope", "name", "window"})),
    "samplewise_upstream_requests_total": ("counter", frozenset({"upstream", "status"})),
    "samplewise_upstream_duration_seconds": ("histogram", frozenset({"upstream"})),
    "samplewise_upstream_inflight": ("gauge", frozenset({"upstream"})),
    "samplewise_upstream_hosts": ("gauge", frozenset({"upstream", "state"})),
    "samplewise_upstream_retry_budget": ("gauge", frozenset({"upstream"})),
    "samplewise_upstream_ejections_total": ("counter", frozenset({"upstream"})),
    "samplewise_coalesced_retries_total": ("counter", frozenset({"route"})),
    "samplewise_client_disconnects_total": ("counter", frozenset({"route"})),
}
# Every value that a label may have besides configured names.
WORDS = {
    "endpoint": {"chat"},
    "stream": {"true", "false"},
    "type": {"input", "cached_input", "output", "reasoning"},
    "kind": {"generation", "verifier"},
    "result": {"pass", "fail", "none", "error", "sent", "held_back"},
    "state": {"closed", "open", "half_open"},
    "route": {"one", "vote", "early", "checked", "poor", "other"},
    "model": {"m", ""},
    "verifier": {"is_yes", "final_answer"},
    "upstream": {"local"},
    "scope": {"route", "global"},
    "window": {"day"},
    "name": {"one", "vote", "early", "checked", "poor", "all"},
}


@asynccontextmanager
async def serving(upstream: UpstreamProcess, folder: Path) -> AsyncIterator[Proxy]:
    config = f"backends:\n{backend(upstream)}verifiers:\n{VERIFIERS}routes:{ROUTES}"
    async with serve(config, folder) as proxy:
        yield proxy


async def page(proxy: Proxy) -> str:
    reply = await proxy.get("/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    return reply.body.decode()


async def use(upstream: UpstreamProcess, proxy: Proxy) -> None:
    """Let everything happen that has a metric."""
    rules = (
        Rule(contains="hang", faults=(Fault(kind="hang"),), cycle_faults=True),
        Rule(contains="crash", faults=(Fault(kind="status", status=500),), cycle_faults=True),
        Rule(contains="limit", faults=(Fault(kind="status", status=429),), cycle_faults=True),
        Rule(contains="think", answers=(Answer(text="yes", reasoning_content="hm"),)),
    )
    await upstream.script("m", "yes", rules=rules)
    for route in ("one", "vote", "early", "checked", "poor"):
        for stream in (False, True):
            await proxy.chat(route, "think", stream=stream)
    for text in ("crash", "limit"):
        assert (await proxy.chat("one", text)).status >= 429
    leaving = asyncio.create_task(proxy.chat("vote", "hang"))
    await upstream.wait("running", equals=1)
    leaving.cancel()
    await upstream.wait("running", equals=0)

    async def noticed() -> bool:
        return total(series(await page(proxy)), "samplewise_client_disconnects_total") == 1

    await soon(noticed, "the client that left is counted")


def types(text: str) -> dict[str, str]:
    lines = (line.split() for line in text.splitlines() if line.startswith("# TYPE "))
    return {name: kind for _, _, name, kind in lines}


def base(name: str, kinds: Mapping[str, str]) -> str:
    """Return the metric that a series belongs to."""
    for suffix in ("_bucket", "_count", "_sum"):
        if kinds.get(name.removesuffix(suffix)) == "histogram":
            return name.removesuffix(suffix)
    return name


async def test_every_promised_metric_is_there_with_its_labels(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serving(upstream, tmp_path) as proxy:
        await use(upstream, proxy)
        text = await page(proxy)
    kinds = types(text)
    labels: dict[str, set[str]] = {}
    for name, given in series(text):
        labels.setdefault(base(name, kinds), set()).update(label for label, _ in given)
    for name, (kind, names) in PROMISED.items():
        assert kinds[name] == kind
        # Retries are not joined to a running request yet, so nothing counts there.
        if name != "samplewise_coalesced_retries_total":
            assert labels[name] - {"le"} == names, name
    assert all(name.startswith("samplewise_") for name in kinds)


async def test_labels_hold_configured_names_and_fixed_words_only(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serving(upstream, tmp_path) as proxy:
        await use(upstream, proxy)
        for _, labels in series(await page(proxy)):
            for label, value in labels:
                assert value in WORDS.get(label, {value}), (label, value)


async def test_junk_from_clients_adds_no_series(upstream: UpstreamProcess, tmp_path: Path) -> None:
    async with serving(upstream, tmp_path) as proxy:
        await use(upstream, proxy)
        await proxy.chat("junk")
        before = set(series(await page(proxy)))
        for number in range(50):
            reply = await proxy.chat(
                f"junk-{number}", user=f"user-{number}", headers={"x-request-id": f"id-{number}"}
            )
            assert reply.status == 404
            await proxy.get(f"/v1/junk-{number}")
            assert (await proxy.chat("one", n=2 + number)).status == 400
        after = series(await page(proxy))
        assert set(after) - before == {
            ("samplewise_requests_total", frozenset(
                {("route", "one"), ("endpoint", "chat"), ("outcome", "client_error")}
            ))
        }  # fmt: skip
        name = "samplewise_requests_total"
        assert total(after, name, route="other", outcome="client_error") == 51
        assert total(after, name, route="one", outcome="client_error") == 50


async def test_a_request_is_counted_once_by_how_it_ended(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serving(upstream, tmp_path) as proxy:
        await use(upstream, proxy)
        found = series(await page(proxy))

        def ended(**labels: str) -> float:
            return total(found, "samplewise_requests_total", **labels)

        assert ended(route="one", outcome="unverified") == 2
        assert ended(route="vote", outcome="agreed") == 2
        assert ended(route="checked", outcome="verified") == 2
        assert ended(route="poor", outcome="budget_refused") == 2
        # An upstream that limits its rate is trouble upstream, not the client's fault.
        assert ended(route="one", outcome="upstream_error") == 2
        assert ended(route="vote", outcome="cancelled") == 1
        assert ended() == 13


async def test_an_answer_that_failed_its_checks_is_no_client_error(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "no")
    async with serving(upstream, tmp_path) as proxy:
        assert (await proxy.chat("checked")).status == 422
        found = series(await page(proxy))
        assert total(found, "samplewise_requests_total", outcome="no_verified_answer") == 1


async def test_what_early_stops_saved_and_who_was_accepted_is_counted(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a", "b", "a", "a")
    async with serving(upstream, tmp_path) as proxy:
        reply = await proxy.chat("early", "how many")
        assert reply.said["samples"]["drawn"] == 4
        found = series(await page(proxy))
        # Four of nine were drawn: the other five would have cost five quarters of the bill.
        saved = total(found, "samplewise_cost_usd_saved_total", route="early")
        assert saved == pytest.approx(reply.said["cost_usd"]["generation"] / 4 * 5)
        assert _buckets(found, "samplewise_samples_per_request", route="early") == {"4.0": 1.0}
        assert _buckets(found, "samplewise_accepted_sample_index", route="early") == {"1.0": 1.0}
        assert _buckets(found, "samplewise_vote_agreement_ratio", route="early") == {"0.8": 1.0}


def _buckets(found: Series, name: str, **labels: str) -> dict[str, float]:
    """Return the buckets of a histogram where something fell into, by upper bound."""
    wanted = set(labels.items())
    bounds = sorted(
        (float(dict(given)["le"]), value)
        for (full, given), value in found.items()
        if full == f"{name}_bucket" and wanted <= given
    )
    below = [0.0, *(value for _, value in bounds)]
    parts = ((str(b), v - low) for (b, v), low in zip(bounds, below, strict=False))
    return {bound: count for bound, count in parts if count}


async def test_no_series_says_when_another_was_created(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serving(upstream, tmp_path) as proxy:
        await use(upstream, proxy)
        assert "_created" not in await page(proxy)


async def test_promtool_finds_nothing_to_complain_about(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; on Debian it comes with the package prometheus")
    async with serving(upstream, tmp_path) as proxy:
        await use(upstream, proxy)
        text = await page(proxy)
    pipe = asyncio.subprocess.PIPE
    checking = await asyncio.create_subprocess_exec(
        promtool, "check", "metrics", stdin=pipe, stdout=pipe, stderr=pipe
    )
    said = await checking.communicate(text.encode())
    assert (checking.returncode, *said) == (0, b"", b"")
