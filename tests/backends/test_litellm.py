from __future__ import annotations

import math
import sys
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.policies.price import Price, Usage
from samplewise.proxy.backends.litellm import check_models
from samplewise.proxy.backends.litellm_process import LiteLLMProcess
from samplewise.proxy.backends.litellm_worker import imported
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.price_tables import litellm_table
from samplewise.verifiers.base import Ended
from tests.backends.far import (
    MESSAGES,
    TOO_LONG,
    draw,
    far_upstream,
    needs_litellm,
    python,
    routes,
)
from tests.upstream import Answer, Fault, ToolCall, UpstreamProcess
from tests.wire.proxy import PRICE, Proxy, serve


def test_importing_the_whole_proxy_does_not_import_litellm() -> None:
    code = """
import importlib, pkgutil, sys
import samplewise.proxy
found = list(pkgutil.walk_packages(samplewise.proxy.__path__, "samplewise.proxy."))
for module in found:
    importlib.import_module(module.name)
assert "samplewise.proxy.backends.litellm" in sys.modules
print(len(found) > 30, "litellm" in sys.modules)
"""
    assert python(code) == "True False"


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # None makes the import fail as a missing package does.
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(ConfigError, match=r"pip install 'samplewise\[litellm\]'"):
        far_upstream(LiteLLMProcess(), "openai/m")


@needs_litellm
def test_importing_litellm_touches_no_network() -> None:
    code = """
import sys
touched = []
def hook(event, args):
    # A bind to a local port only tries whether the machine has IPv6.
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.bind"):
        touched.append((event, args[1:]))
sys.addaudithook(hook)
from samplewise.proxy.backends.litellm_worker import Calls, imported
assert Calls(imported(), print).problem("anthropic/claude-sonnet-4-5") == ""
print(touched)
"""
    assert python(code) == "[]"


@needs_litellm
@routes
async def test_an_answer_comes_whole_with_its_usage_and_unknown_fields(
    upstream: UpstreamProcess, process: LiteLLMProcess, route: str
) -> None:
    answer = Answer(
        text="it is 42",
        reasoning_content="6 * 7",
        extra={"odd": [1, {"x": None}]},
        message_extra={"strange": {"a": 1}},
        logprobs=(-0.5, -0.25),
    )
    usage = {
        "prompt_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    await upstream.script("m", answer, usage=usage, extra={"unheard_of": "top"})
    [done], totals = await draw(
        far_upstream(process, route, upstream.base_url), logprobs=True, max_tokens=50
    )
    assert (done.choice, done.text, done.ended) == (0, "it is 42", Ended.EOS)
    raw = msgspec.json.decode(done.raw)
    assert raw["odd"] == [1, {"x": None}]
    assert raw["message"]["strange"] == {"a": 1}
    assert raw["message"]["reasoning_content"] == "6 * 7"
    assert "tool_calls" not in raw["message"]
    assert done.logprobs is not None
    assert (done.logprobs.tokens, done.logprobs.lowest) == (done.tokens, -0.5)
    record = await upstream.record()
    assert totals.usage == Usage(30, 20, record.total_tokens, 2)
    assert (totals.model, totals.warnings) == ("m", ())
    assert msgspec.json.decode(totals.head)["unheard_of"] == "top"


@needs_litellm
@routes
async def test_tool_calls_are_read(
    upstream: UpstreamProcess, process: LiteLLMProcess, route: str
) -> None:
    weather = ToolCall(name="weather", arguments='{"city": "Oslo"}', id="call_1")
    await upstream.script("m", Answer(tool_calls=(weather,)))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    [done], _ = await draw(far_upstream(process, route, upstream.base_url), tools=tools)
    assert done.ended is Ended.TOOL_CALL
    [called] = done.tool_calls
    assert (called.name, called.arguments, called.id) == (
        "weather",
        '{"city": "Oslo"}',
        "call_1",
    )
    assert msgspec.json.decode(done.raw)["message"]["content"] is None
    assert (await upstream.record()).json["tools"] == tools


@needs_litellm
@routes
async def test_what_litellm_hides_of_an_end_is_found_again(
    upstream: UpstreamProcess, process: LiteLLMProcess, route: str
) -> None:
    far = far_upstream(process, route, upstream.base_url)
    looped = Answer(text="and and and", finish_reason="repetition")
    await upstream.script("m", Answer(refusal="I will not"), Answer(text="a b # c"), looped)
    [refused], _ = await draw(far)
    assert refused.ended is Ended.REFUSAL
    [stopped], _ = await draw(far, stop=["#"])
    assert (stopped.text, stopped.ended, stopped.stop) == ("a b ", Ended.STOP_STRING, "#")
    [repeated], _ = await draw(far)
    assert repeated.ended is Ended.LENGTH


@needs_litellm
async def test_a_usage_that_litellm_made_up_is_no_usage(
    upstream: UpstreamProcess, process: LiteLLMProcess
) -> None:
    await upstream.script("m", "it is 42", no_usage=True)
    _, totals = await draw(far_upstream(process, "openai/m", upstream.base_url))
    assert totals.usage is None
    assert totals.warnings == ("upstream sent no usage",)


@needs_litellm
@routes
async def test_the_request_goes_out_as_asked_with_its_id_and_our_key(
    upstream: UpstreamProcess, process: LiteLLMProcess, route: str
) -> None:
    await upstream.script("m", "fine")
    params = {"extra_headers": {"X-Team": "blue"}, "extra_body": {"pool": 3}, "priority": 1}
    far = far_upstream(process, route, upstream.base_url, params=params)
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "seed": 7,
        "max_tokens": 9,
        "top_k": 4,
        "chat_template_kwargs": {"enable_thinking": False},
        "metadata": {"ticket": "17"},
    }
    # What the operator set for litellm, a client cannot change.
    _, totals = await draw(far, **fields, pool=9, priority=9)
    record = await upstream.record()
    ours = {"pool": 3, "priority": 1}
    assert record.json == {"model": "m", "messages": MESSAGES, **fields, **ours}
    assert record.request_id == "r1-0.0"
    assert record.headers["x-team"] == "blue"
    assert record.headers["authorization"] == "Bearer our-key"
    assert totals.warnings == ()


@needs_litellm
@routes
async def test_a_client_cannot_reach_litellms_own_settings(
    upstream: UpstreamProcess, process: LiteLLMProcess, route: str
) -> None:
    await upstream.script("m", "honest")
    # Each of these redirects, fakes, repeats or prices a call where litellm gets it by name.
    evil: dict[str, Any] = {
        "api_base": "http://127.0.0.1:1/v1",
        "base_url": "http://127.0.0.1:1/v1",
        "api_key": "theirs",
        "custom_llm_provider": "anthropic",
        "default_headers": {"Authorization": "theirs"},
        "extra_headers": {"Authorization": "theirs"},
        "fallbacks": ["openai/other"],
        "mock_response": "fake",
        "num_retries": 3,
        "input_cost_per_token": 0,
        "timeout": 0.001,
    }
    far = far_upstream(process, route, upstream.base_url)
    for name, value in evil.items():
        await upstream.reset()
        await upstream.script("m", "honest")
        [done], _ = await draw(far, **{name: value})
        assert done.text == "honest", name
        record = await upstream.record()
        assert record.headers["authorization"] == "Bearer our-key", name


@needs_litellm
async def test_fields_that_a_provider_does_not_take_are_left_out_with_a_warning(
    upstream: UpstreamProcess, process: LiteLLMProcess
) -> None:
    params = {"mock_response": "mocked"}
    closed = far_upstream(process, "anthropic/claude-sonnet-4-5", params=params)
    _, totals = await draw(closed, temperature=1, logprobs=True, generationConfig={"x": 1})
    assert totals.warnings == ("litellm does not pass on logprobs, generationConfig",)
    await upstream.script("m", "fine")
    _, totals = await draw(far_upstream(process, "openai/m", upstream.base_url), user="u1")
    assert totals.warnings == ("litellm does not pass on user",)


@needs_litellm
async def test_mock_response_is_an_operators_setting(process: LiteLLMProcess) -> None:
    far = far_upstream(process, "anthropic/claude-sonnet-4-5", params={"mock_response": "mocked"})
    [done], totals = await draw(far, mock_response="theirs")
    assert (done.text, done.ended) == ("mocked", Ended.EOS)
    assert totals.usage == Usage(10, 0, 20)
    assert totals.model == "claude-sonnet-4-5"


@needs_litellm
def test_a_price_of_the_table_is_exact() -> None:
    def price(model: str) -> Price:
        return far_upstream(LiteLLMProcess(), model, price=None).price

    assert price("openai/gpt-4o") == price("gpt-4o")
    version = f"litellm-{metadata.version('litellm')}:gpt-4o:2500000/1250000/10000000"
    assert price("gpt-4o") == Price(2_500_000, 1_250_000, 10_000_000, version)
    assert price("anthropic/claude-sonnet-4-5").completion_pico == 15_000_000


@needs_litellm
def test_every_price_of_the_table_is_its_decimal_rounded_up_to_a_pico_dollar() -> None:
    library, table = imported(), litellm_table()
    priced = 0
    for model, entry in library.model_cost.items():
        try:
            price = table.price(model).price
        except ValueError:
            assert not entry.get("input_cost_per_token") or not entry.get("output_cost_per_token")
            continue
        priced += 1
        prompt, completion = entry["input_cost_per_token"], entry["output_cost_per_token"]
        cached = entry.get("cache_read_input_token_cost", prompt)
        expected = [math.ceil(Fraction(repr(p)) * 10**12) for p in (prompt, cached, completion)]
        assert [price.prompt_pico, price.cached_pico, price.completion_pico] == expected, model
    assert priced > 2_000


@needs_litellm
@pytest.mark.parametrize(
    "model",
    [
        "openai/unheard-of",
        # Known, but at another provider.
        "hosted_vllm/gpt-4o",
        # Zero in the table, which does not tell free from unknown.
        "gigachat/GigaChat-2-Lite",
    ],
)
def test_a_model_without_a_price_must_be_given_one(model: str) -> None:
    with pytest.raises(ConfigError, match=r"^backends\.far\.price: .*input_usd_per_mtok"):
        far_upstream(LiteLLMProcess(), model, price=None)
    assert far_upstream(LiteLLMProcess(), model).price == Price(0, 0, 0, "mtok:0/0/0")


@needs_litellm
async def test_a_model_that_litellm_cannot_call_or_cap_is_refused(process: LiteLLMProcess) -> None:
    await check_models({"far": far_upstream(process, "openai/unheard-of")})
    with pytest.raises(ConfigError, match=r"^backends\.far\.model: .*[Pp]rovider"):
        await check_models({"far": far_upstream(process, "unheard-of")})
    with pytest.raises(ConfigError, match=r"^backends\.far\.model: .*cannot cap the tokens"):
        await check_models({"far": far_upstream(process, "v0/v0-1.5-md")})


@needs_litellm
def test_the_key_is_not_shown() -> None:
    assert "our-key" not in repr(far_upstream(LiteLLMProcess(), "openai/m"))


def _config(upstream: UpstreamProcess, policy: str) -> str:
    return (
        f"backends:\n  far: {{type: litellm, model: openai/m, api_base: '{upstream.base_url}', "
        f"price: {PRICE}}}\nroutes:\n  r: {{backends: [far], policy: {policy}}}\n"
    )


async def _bill(upstream: UpstreamProcess, proxy: Proxy) -> int:
    """Return what the upstream's own records cost, in nano-dollars, each call rounded up."""
    price = proxy.service.upstreams["far"].price
    records = await upstream.records()
    return sum(price.cost_nano(Usage(r.prompt_tokens, 0, r.total_tokens)) for r in records)


@needs_litellm
async def test_a_vote_through_the_proxy_bills_usage_times_price(
    upstream: UpstreamProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    # Either of the two may be the first sample: calls of one draw come in any order.
    four = Answer(text="it is 4", extra={"odd": 1})
    await upstream.script("m", four, "it is five", four)
    async with serve(_config(upstream, "'majority_vote:3'"), tmp_path) as proxy:
        reply = await proxy.chat("r", "how many are there", samplewise={"return": ["candidates"]})
        assert (reply.status, reply.text) == (200, "it is 4"), reply.body
        assert reply.json["choices"][0]["odd"] == 1
        assert reply.said["samples"]["ok"] == 3
        records = await upstream.records()
        assert [record.n for record in records] == [1, 1, 1]
        assert len({record.request_id for record in records}) == 3
        assert {r.headers["authorization"] for r in records} == {"Bearer from-the-environment"}
        assert all(record.json["max_tokens"] for record in records)
        reply = await proxy.chat("r", "again", stream=True)
        assert reply.streamed == "it is 4"
        assert await proxy.ledger_spent() == await _bill(upstream, proxy)


@needs_litellm
async def test_a_refusal_of_the_provider_reaches_the_client_unbilled(
    upstream: UpstreamProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    limited = Fault(kind="status", status=429, headers={"retry-after": "7"})
    too_long = Fault(kind="status", status=400, body=TOO_LONG)
    await upstream.script("m", "x", faults=[too_long, limited])
    async with serve(_config(upstream, "single"), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.status == 400
        assert "maximum context length is 4096" in reply.error["message"]
        reply = await proxy.chat("r")
        assert (reply.status, reply.headers["retry-after"]) == (429, "7")
        assert await proxy.ledger_spent() == 0
