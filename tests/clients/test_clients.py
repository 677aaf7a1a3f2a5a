"""Real client libraries, each in its own environment, against `samplewise serve` as a process.

`make test-clients` installs the environments. What a client cannot do or does not show is said in
`CLIENTS`; all else it must do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.cli.served import Served, config, serving
from tests.clients.program import Program, missing
from tests.embedded.upstream import running
from tests.upstream import Answer, ToolCall, UpstreamProcess
from tests.wire.books import series
from tests.wire.proxy import PRICE

pytestmark = [pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

TEXT = "one two three four five six seven eight nine ten eleven"
ASK = "how many are six and seven"
SUM = {"steps": ["6 + 7"], "answer": 13}
CALLS = (
    ToolCall(name="weather", arguments='{"city": "Oslo", "unit": "C"}', id="call_1"),
    ToolCall(name="clock", arguments='{"city": "Rome"}', id="call_2"),
)
ROUTES = """
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:3', on_tools: vote}
  two: {backends: [local], policy: 'majority_vote:2'}
  poor: {backends: [local], budget: {usd_per_request: 0.000001}}
  tiny: {backends: [embedded], max_tokens: 48}
  tiny_vote: {backends: [embedded], policy: 'majority_vote:3', max_tokens: 48}
"""
CHAT = "plain stream tools tools_stream refused patient"
RESPONSES = "responses responses_stream"


@dataclass(frozen=True)
class Client:
    """What a client does, and which parts of an answer it shows; words with spaces between."""

    does: str
    shows: str


CLIENTS = {
    # A timeout of its own is an abort, after which it does not try again.
    "ai_sdk": Client(
        f"plain stream tools tools_stream refused structured {RESPONSES}",
        "tokens cost report code",
    ),
    "anthropic_node": Client(CHAT, "tokens cost report code"),
    "anthropic_python": Client(f"{CHAT} structured", "tokens cost report code"),
    "curl": Client(f"{CHAT} several responses", "tokens cost report code"),
    # Its own engine sends n requests for `n`, and no sign that a request is sent again.
    "dspy": Client("plain structured refused", "tokens code"),
    "instructor": Client(
        "structured structured_stream forced refused patient", "tokens cost report code"
    ),
    "langchain": Client(f"{CHAT} structured several {RESPONSES}", "tokens cost code"),
    "litellm": Client(f"{CHAT} structured several", "tokens"),
    "llama_index": Client(f"{CHAT} structured", "tokens cost report code"),
    "openai_node": Client(f"{CHAT} structured several {RESPONSES}", "tokens cost report code"),
    "openai_python": Client(f"{CHAT} structured several {RESPONSES}", "tokens cost report code"),
    "pydantic_ai": Client(f"{CHAT} structured", "tokens code"),
}


def doing(*cases: str) -> list[tuple[str, str]]:
    """Return every client with each of these cases that it has.

    As parameters of the module, so that pytest puts those of one client together: a client takes
    longer to start than to do what it is asked.
    """
    return [
        (name, case) for name in CLIENTS for case in cases if case in CLIENTS[name].does.split()
    ]


@dataclass(frozen=True)
class Running:
    """A client that runs, and where it is to ask."""

    name: str
    program: Program
    url: str

    async def ask(self, case: str, model: str, text: str = ASK, **more: Any) -> dict[str, Any]:
        """Return what it saw."""
        return await self.program.ask(case, url=self.url, model=model, text=text, **more)

    @property
    def parts(self) -> set[str]:
        """What of a plain answer can be seen through it."""
        return set(CLIENTS[self.name].shows.split()) - {"code"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    upstream_process: UpstreamProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    with running() as embedded:
        other = (
            f"  embedded: {{type: openai, base_url: {embedded.url}, model: tiny, price: {PRICE}}}\n"
        )
        # Samples are calls of their own, so that each can come when it likes.
        written = config(
            folder, upstream_process.base_url, ROUTES, backend=", max_n: 1", extra=other
        )
        async with serving(folder, "--config", written) as served:
            yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(
    request: pytest.FixtureRequest, server: Served, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    name = request.param
    if why := missing(name):
        pytest.skip(f"{name}: {why}")
    async with Program.run(name, tmp_path_factory.mktemp("home")) as program:
        yield Running(name, program, f"{server.url}/v1")


async def check_bill(seen: dict[str, Any], upstream: UpstreamProcess) -> None:
    """Compare what the client says of the bill with what the upstream has given."""
    records = await upstream.records()
    if "tokens" in seen:
        bought = sum(record.total_tokens for record in records)
        assert seen["tokens"] == [records[0].prompt_tokens, bought]
    if "report" in seen:
        assert seen["report"]["samples"]["drawn"] == len(records)
    if "cost" in seen:
        assert seen["cost"] > 0
        assert "report" not in seen or seen["cost"] == seen["report"]["cost_usd"]["total"]


@pytest.mark.parametrize(
    ("client", "case"),
    doing("plain", "stream", "responses", "responses_stream"),
    indirect=["client"],
    scope="module",
)
async def test_an_answer_comes_with_its_bill(
    client: Running, case: str, upstream: UpstreamProcess
) -> None:
    for route, samples in (("one", 1), ("vote", 3)):
        await upstream.reset()
        await upstream.script("m", TEXT)
        seen = await client.ask(case, route)
        assert seen["text"] == TEXT
        assert seen.get("pieces", 2) >= 2
        assert len(await upstream.records()) == samples
        assert case != "plain" or client.parts <= seen.keys()
        await check_bill(seen, upstream)


@pytest.mark.parametrize(
    ("client", "case"), doing("plain", "stream"), indirect=["client"], scope="module"
)
async def test_the_embedded_model_answers_too(client: Running, case: str) -> None:
    for route in ("tiny", "tiny_vote"):
        seen = await client.ask(case, route, text="4 7 8 8 > 24")
        assert any(letter.isdigit() for letter in seen["text"])


@pytest.mark.parametrize(
    ("client", "case"), doing("tools", "tools_stream"), indirect=["client"], scope="module"
)
async def test_parallel_tool_calls_come_whole(
    client: Running, case: str, upstream: UpstreamProcess
) -> None:
    await upstream.script("m", Answer(tool_calls=CALLS))
    for route in ("one", "vote"):
        seen = await client.ask(case, route)
        assert [(id_, name, json.loads(text)) for id_, name, text in seen["calls"]] == [
            (call.id, call.name, json.loads(call.arguments)) for call in CALLS
        ]


@pytest.mark.parametrize(
    ("client", "case"),
    doing("structured", "structured_stream", "forced"),
    indirect=["client"],
    scope="module",
)
async def test_an_object_is_an_object(
    client: Running, case: str, upstream: UpstreamProcess
) -> None:
    said = json.dumps(SUM)
    call = ToolCall(name="Sum", arguments=said)
    answer = Answer(tool_calls=(call,)) if case == "forced" else Answer(text=said)
    for route in ("one", "vote"):
        await upstream.reset()
        await upstream.script("m", answer)
        seen = await client.ask(case, route)
        assert seen["parsed"] == SUM
        await check_bill(seen, upstream)


@pytest.mark.parametrize(("client", "case"), doing("several"), indirect=["client"], scope="module")
async def test_as_many_answers_come_as_were_asked_for(
    client: Running, case: str, upstream: UpstreamProcess
) -> None:
    await upstream.script("m", "it is 4", "it is 5", "it is 4")
    assert (await client.ask(case, "vote"))["texts"] == ["it is 4", "it is 5"]


@pytest.mark.parametrize(("client", "case"), doing("refused"), indirect=["client"], scope="module")
@pytest.mark.parametrize(
    ("model", "status", "code"),
    [("none", 404, "model_not_found"), ("vote:9", 400, None), ("poor", 402, "budget_exceeded")],
)
async def test_a_refusal_is_an_error_with_its_status_and_is_not_asked_again(
    client: Running,
    case: str,
    upstream: UpstreamProcess,
    server: Served,
    model: str,
    status: int,
    code: str | None,
) -> None:
    before = await refusals(server)
    seen = await client.ask(case, model)
    assert seen["status"] == status
    # Without a code, some show the type in its place.
    assert code is None or seen.get("code", code) == code
    assert await refusals(server) == before + 1
    assert await upstream.records() == []


async def refusals(server: Served) -> float:
    found = series((await server.get("/metrics")).body.decode())
    return sum(
        value
        for (name, labels), value in found.items()
        if name == "samplewise_requests_total"
        and dict(labels)["outcome"] in ("budget_refused", "client_error")
    )


@pytest.mark.parametrize(("client", "case"), doing("patient"), indirect=["client"], scope="module")
async def test_a_client_that_tries_again_after_its_timeout_does_not_buy_twice(
    client: Running, case: str, upstream: UpstreamProcess
) -> None:
    said = Answer(text=json.dumps(SUM))
    await upstream.script("m", said, Answer(text=said.text, hold="gate"), said)
    seen = await client.ask(case, "two", timeout_s=2)
    assert (seen["parsed"] if "parsed" in seen else json.loads(seen["text"])) == SUM
    # Two of the first try and, at most, one for the one that was cut.
    assert len(await upstream.records()) <= 3
