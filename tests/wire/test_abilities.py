"""Profiles and probes through the whole proxy: bodies, refusals at start, what is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.proxy.backends.sessions import new_session
from samplewise.proxy.build import preflight
from samplewise.proxy.config import Config, load_text
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.probes import Probes
from tests.cli.served import run
from tests.cli.served import serving as served
from tests.upstream import Digits, UpstreamProcess
from tests.wire.books import counted, reserved, rows, series, soon, spent
from tests.wire.proxy import PRICE, Proxy, backend, serve

STEPS = """
  steps: {backends: [local], verifiers: [step],
          policy: {type: python, factory: "tests.contract.policies:ParticleFilter"}}
"""
STEP = "verifiers: {step: {type: regex, pattern: '.', scope: step}}\n"
DEVELOPER = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hi"}]


@asynccontextmanager
async def serving(upstream: UpstreamProcess, folder: Path, **more: Any) -> AsyncIterator[Proxy]:
    routes = "routes: {one: {backends: [local]}}\n"
    async with serve(f"backends:\n{backend(upstream, **more)}{routes}", folder) as proxy:
        yield proxy


def vllm(upstream: UpstreamProcess, probe: str = "full", model: str = "m") -> str:
    return (
        f"  local: {{type: vllm, base_url: {upstream.base_url}, model: {model}, "
        f"price: {PRICE}, probe: {probe}}}\n"
    )


def config(backends_and_more: str, folder: Path) -> Config:
    text = f'store: "sqlite:///{folder}/ledger.db"\nbackends:\n{backends_and_more}'
    return load_text(text, "test.yaml", {})


async def sent(upstream: UpstreamProcess, folder: Path, **more: Any) -> dict[str, Any]:
    """Return the body that reaches an upstream, by its profile."""
    await upstream.script("m", "yes")
    async with serving(upstream, folder, **more) as proxy:
        body = {"model": "one", "messages": DEVELOPER, "seed": 5, "max_completion_tokens": 9}
        reply = await proxy.post("/v1/chat/completions", msgspec.json.encode(body))
        assert reply.status == 200
    found: dict[str, Any] = msgspec.json.decode((await upstream.record()).body)
    return found


async def test_without_a_profile_the_clients_words_go_out_as_they_are(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    body = await sent(upstream, tmp_path)
    assert (body["seed"], body["max_completion_tokens"]) == (5, 9)
    assert body["messages"] == DEVELOPER


async def test_a_profile_sends_what_its_server_knows(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    body = await sent(upstream, tmp_path, profile="mistral")
    assert (body["random_seed"], body["max_tokens"]) == (5, 9)
    assert not {"seed", "max_completion_tokens"} & body.keys()
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"] == "be brief"


async def test_a_setting_wins_over_its_profile(upstream: UpstreamProcess, tmp_path: Path) -> None:
    body = await sent(upstream, tmp_path, profile="groq", token_field="max_tokens")
    assert body["max_tokens"] == 9


async def test_vllm_is_told_the_distribution_and_the_client_is_heard(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "yes")
    text = f"backends:\n{vllm(upstream, 'none')}routes: {{one: {{backends: [local]}}}}\n"
    async with serve(text, tmp_path) as proxy:
        await proxy.chat("one")
        await proxy.chat("one", temperature=0.3)
    first, second = [msgspec.json.decode(record.body) for record in await upstream.records()]
    assert (first["temperature"], first["top_p"], first["top_k"]) == (1.0, 1.0, 0)
    assert (second["temperature"], second["top_p"], second["top_k"]) == (0.3, 1.0, 0)


async def test_a_policy_that_needs_what_the_upstream_ignores_is_refused_at_start(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", digits=Digits(), ignores=("continue_final_message",))
    with pytest.raises(ConfigError, match=r"routes.steps: python needs going on .* 'local' does"):
        await preflight(config(f"{vllm(upstream)}{STEP}routes:{STEPS}", tmp_path))
    # The same upstream may serve a route that does not need it; what nobody knows is allowed.
    async with serve(f"backends:\n{vllm(upstream, 'free')}{STEP}routes:{STEPS}", tmp_path) as proxy:
        assert proxy.service.upstreams["local"].abilities.continuation is None


async def test_a_profile_alone_refuses_too(upstream: UpstreamProcess, tmp_path: Path) -> None:
    local = backend(upstream, profile="groq")
    with pytest.raises(ConfigError, match="continue_final_message"):
        await preflight(config(f"{local}{STEP}routes:{STEPS}", tmp_path))
    assert await upstream.records() == []


async def test_a_probe_is_paid_for_and_its_result_is_offered_to_policies(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", digits=Digits())
    routes = "routes: {one: {backends: [local]}}\n"
    async with serve(f"backends:\n{vllm(upstream)}{routes}", tmp_path) as proxy:
        offer = proxy.service.upstreams["local"].offer()
        assert (offer.honours_n, offer.logprobs, offer.continuation) == (True, True, True)
        page = series((await proxy.get("/metrics")).body.decode())
        assert counted(page, "samplewise_cost_usd_total", route="(probe)") == spent(
            tmp_path / "ledger.db"
        )
    assert reserved(tmp_path / "ledger.db") == 0
    assert {row["purpose"] for row in rows(tmp_path / "ledger.db")} == {"probe"}


async def test_workers_do_not_probe_again(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", digits=Digits())
    file = tmp_path / "config.yaml"
    routes = "routes: {one: {backends: [local]}}\n"
    file.write_text(
        f'store: "sqlite:///{tmp_path}/ledger.db"\nserver: {{port: 0}}\n'
        f"backends:\n{vllm(upstream)}{routes}"
    )
    async with served(tmp_path, "--config", str(file), "--workers", "3") as running:
        assert sum(event["event"] == "probed" for event in running.logs) == 1
        running.process.terminate()
        await running.ended()


async def test_check_shows_what_was_found(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", digits=Digits(), ignores=("seed",))
    file = tmp_path / "config.yaml"
    routes = "routes: {one: {backends: [local]}}\n"
    file.write_text(f'store: "sqlite:///{tmp_path}/ledger.db"\nbackends:\n{vllm(upstream)}{routes}')
    quiet = await run(tmp_path, "check", str(file))
    assert (quiet.code, await upstream.records()) == (0, [])
    done = await run(tmp_path, "check", str(file), "--probe")
    assert done.code == 0, done.err
    row = next(line for line in done.out.splitlines() if "local" in line and "yes" in line)
    assert [cell.strip() for cell in row.split("│")[2:6]] == ["yes", "yes", "no", "yes"]
    assert "Not asked" not in done.out
    file.write_text(file.read_text().replace("probe: full", "probe: none"))
    done = await run(tmp_path, "check", str(file), "--probe")
    assert (done.code, "Not asked: local." in done.out) == (0, True)


async def test_a_server_with_another_version_is_asked_again(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", digits=Digits())
    await upstream.pages(version='{"version": "1.0"}')
    text = f"backends:\n{vllm(upstream)}routes: {{one: {{backends: [local]}}}}\n"
    async with serve(text, tmp_path) as proxy, new_session() as session:
        engine = proxy.service.engine
        probes = Probes(
            config=load_text(text, "test.yaml", {}),
            upstreams=proxy.service.upstreams,
            session=session,
            ledger=engine.ledger,
            metrics=engine.metrics,
            accounts=(),
        )
        assert proxy.service.upstreams["local"].abilities.version == "1.0"
        asked = len(await upstream.records())
        await probes.look_again()
        assert len(await upstream.records()) == asked
        await upstream.script("m", digits=Digits(), ignores=("seed",))
        await upstream.pages(version='{"version": "2.0"}')
        await probes.look_again()
        found = proxy.service.upstreams["local"].abilities
        assert (found.version, found.seed) == ("2.0", False)
        await soon(lambda: reserved(tmp_path / "ledger.db") == 0, "all is settled")
