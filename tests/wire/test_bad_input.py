"""What a client can get wrong: every mistake is named, and none of them costs a token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from multidict import CIMultiDict

from samplewise.proxy.jsontext import members
from tests.upstream import UpstreamProcess
from tests.wire.bodies import CHAT, HI, ask, written
from tests.wire.proxy import Proxy, backend, serve

DEEP = 10_000
LIMIT = 100 * 2**10


# One proxy serves all of them: after a refusal it must be as good as new.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    upstream_process: UpstreamProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Proxy]:
    config = (
        f"server: {{max_body_mb: {LIMIT / 2**20}}}\n"
        f"backends:\n{backend(upstream_process)}"
        "routes:\n"
        "  one: {backends: [local]}\n"
        "  vote: {backends: [local], policy: 'majority_vote:8'}\n"
    )
    async with serve(config, tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(shared: Proxy, upstream: UpstreamProcess) -> Proxy:
    await upstream.script("m", "fine")
    return shared


async def _refused(
    proxy: Proxy,
    upstream: UpstreamProcess,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    status: int = 400,
) -> Any:
    """Return the error object of a request that must have cost nothing."""
    spent = await proxy.ledger_spent()
    reply = await proxy.post(CHAT, body, headers)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert list(reply.json) == ["error"]
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert await upstream.records() == []
    assert await proxy.ledger_spent() == spent
    return reply.error


NOT_AN_OBJECT = {
    "empty": b"",
    "blank": b" \r\n\t ",
    "half": b'{"model": "one", "mess',
    "open": b'{"model": "one"',
    "two": b"{}{}",
    "trailing": ask() + b"x",
    "comma": b'{"model": "one",}',
    "quotes": b"{'model': 'one'}",
    "array": b"[]",
    "string": b'"model"',
    "null": b"null",
    "byte order mark": b"\xef\xbb\xbf" + ask(),
    "utf-16": ask().decode().encode("utf-16"),
    "not utf-8": b'{"model": "one", "messages": [{"role": "user", "content": "\xff"}]}',
    "surrogate in utf-8": b'{"model": "\xed\xa0\x80", "messages": []}',
    "half of a surrogate pair": ask(user='"\\ud800"'),
    "bad escape": ask(user='"\\x41"'),
    "control character": b'{"model": "o\x01ne", "messages": []}',
    "form": b"model=one&messages=hi",
    "nan": ask(temperature="NaN"),
    "infinity": ask(temperature="-Infinity"),
    "nan that is not read": ask(top_p="NaN"),
    "leading zero": ask(top_k="01"),
    "deep": b"[" * DEEP + b"]" * DEEP,
    "deep and unclosed": b'{"a":' * DEEP,
    "deep field": ask(metadata="[" * DEEP + "]" * DEEP),
    "deep object": ask(metadata='{"a":' * DEEP + "1" + "}" * DEEP),
    "deep message": ask(messages='[{"content": ' + "[" * DEEP + "]" * DEEP + "}]"),
    "too many keys": written(
        {"model": '"one"', "messages": HI} | {f"k{i}": "1" for i in range(1000)}
    ),
    "deep option": ask(samplewise='{"item": ' + "[" * DEEP + "]" * DEEP + "}"),
}


@pytest.mark.parametrize("body", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
async def test_what_is_not_one_json_object_is_refused(
    proxy: Proxy, upstream: UpstreamProcess, body: bytes
) -> None:
    error = await _refused(proxy, upstream, body)
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("body: ")


WRONG_TYPES = {
    "model": ["1", "null", "[]", "{}", "true"],
    "messages": ["null", "1", '"hi"', "{}", "true"],
    "n": ["1.5", '"2"', "true", "[]", "1e999", "2e0", "9" * 5_000],
    "max_tokens": ["1.5", '"2"', "false", "{}", "1e999", "9" * 5_000],
    "max_completion_tokens": ["1.5", '"2"', "[1]", "-1e999"],
    "stream": ['"true"', "1", "[]"],
    "stream_options": ["true", "[]", '"usage"', "1"],
    "temperature": ['"hot"', "true", "[]", "1e999", "-1e999", "9" * 5_000],
    "seed": ["1.5", '"7"', "true", "{}", "9" * 5_000],
    "samplewise": ["1", "true", "[]", '"votes"'],
    "samplewise.policy": ["1", "[]"],
    "samplewise.samples": ["2.0", '"2"', "true", "9" * 5_000, "1e999"],
    "samplewise.max_cost_usd": ['"1"', "true", "[]", "1e999", "9" * 5_000],
    "samplewise.deadline_s": ['"1"', "{}", "1e999"],
    "samplewise.reference": ["42", "[]", "{}"],
    "samplewise.item": ["[]", '"x"', "1"],
    "samplewise.dry_run": ["1", '"true"', "null"],
    "samplewise.return": ['"votes"', "{}", "null"],
    "samplewise.return[0]": ["[1]", "[null]"],
}


def _with(path: str, text: str) -> bytes:
    field, _, option = path.partition(".")
    option = option.removesuffix("[0]")
    return ask(**{field: f'{{"{option}": {text}}}' if option else text})


@pytest.mark.parametrize("path", WRONG_TYPES)
async def test_a_wrong_type_is_refused_with_the_path_of_its_field(
    proxy: Proxy, upstream: UpstreamProcess, path: str
) -> None:
    for text in WRONG_TYPES[path]:
        error = await _refused(proxy, upstream, _with(path, text))
        assert error["param"] == path, text
        assert error["message"].startswith(f"{path}: "), text
        assert len(error["message"]) < 400


OUT_OF_RANGE = {
    "n": ["0", "-1", "129", "1000000000", "99999999999999999999999999"],
    "max_tokens": ["0", "-5", "1000000000000"],
    "max_completion_tokens": ["0", "-1", "1000000000000"],
    "best_of": ["0", "5", '"2"'],
    "samplewise.samples": ["0", "-1", "2", "1000000000", "9" * 4_000],
    "samplewise.max_cost_usd": ["0", "-0.01", "1e-999"],
    "samplewise.deadline_s": ["0", "-1"],
    "samplewise.return": ['["everything"]', '["votes", "Votes"]'],
    "samplewise.policy": ['"majority_voting"', '""', '"cascade"', '"python"'],
    "samplewise.reference": [json.dumps("x" * 100_001)],
}


@pytest.mark.parametrize("path", OUT_OF_RANGE)
async def test_a_value_out_of_range_is_refused_with_the_path_of_its_field(
    proxy: Proxy, upstream: UpstreamProcess, path: str
) -> None:
    for text in OUT_OF_RANGE[path]:
        error = await _refused(proxy, upstream, _with(path, text))
        assert error["param"] == path, text
        assert error["message"].startswith(f"{path}: "), text
        assert len(error["message"]) < 400


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("[]", "messages"),
        ("[1]", "messages.0"),
        (f'[{HI[1:-1]}, "hi"]', "messages.1"),
        (f"[{HI[1:-1]}, null]", "messages.1"),
        (f"[{HI[1:-1]}, []]", "messages.1"),
    ],
)
async def test_messages_must_be_objects(
    proxy: Proxy, upstream: UpstreamProcess, text: str, param: str
) -> None:
    error = await _refused(proxy, upstream, ask(messages=text))
    assert error["param"] == param


@pytest.mark.parametrize("field", ["model", "messages"])
async def test_a_missing_field_is_named(
    proxy: Proxy, upstream: UpstreamProcess, field: str
) -> None:
    rest = {"model": '"one"', "messages": HI}
    del rest[field]
    error = await _refused(proxy, upstream, written(rest))
    assert (error["param"], error["message"]) == (field, f"{field}: missing")


async def test_more_answers_than_samples_are_refused(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    for body in (
        ask(n="2"),
        ask("vote", n="9"),
        ask("vote", n="3", samplewise='{"samples": 2}'),
    ):
        error = await _refused(proxy, upstream, body)
        assert error["param"] == "n"


async def test_an_unknown_model_is_not_found(proxy: Proxy, upstream: UpstreamProcess) -> None:
    for model in ("two", "One", "one ", "", "m", "x" * 50_000, "\0", "{{7*7}}"):
        error = await _refused(proxy, upstream, ask(model), status=404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert len(error["message"]) < 400


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("sample", "samples"),
        ("max_cost", "max_cost_usd"),
        ("returns", "return"),
        ("Policy", "policy"),
    ],
)
async def test_an_unknown_option_is_refused_with_the_nearest_known_one(
    proxy: Proxy, upstream: UpstreamProcess, key: str, near: str
) -> None:
    error = await _refused(proxy, upstream, ask(samplewise=f'{{"{key}": 1}}'))
    assert error["param"] == f"samplewise.{key}"
    assert f"did you mean {near!r}?" in error["message"]


async def test_an_unknown_option_that_is_like_none_lists_them_all(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    for key in ("zzz", "z" * 50_000):
        error = await _refused(proxy, upstream, ask(samplewise=f'{{"{key}": 1}}'))
        assert "known: deadline_s, dry_run, item, max_cost_usd" in error["message"]
        assert len(error["message"]) + len(error["param"]) < 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Samplewise-Sample", "1"),
        ("x-samplewise-samples", "two"),
        ("x-samplewise-samples", "1_0"),
        ("x-samplewise-samples", "0"),
        ("x-samplewise-samples", "1000000000"),
        ("x-samplewise-samples", "9" * 5_000),
        ("x-samplewise-max-cost-usd", "nan"),
        ("x-samplewise-max-cost-usd", "-1"),
        ("x-samplewise-max-cost-usd", "1e999"),
        ("x-samplewise-deadline-s", "inf"),
        ("x-samplewise-dry-run", "maybe"),
        ("x-samplewise-policy", ""),
    ],
)
async def test_a_wrong_header_is_refused_and_named(
    proxy: Proxy, upstream: UpstreamProcess, name: str, value: str
) -> None:
    error = await _refused(proxy, upstream, ask(), {name: value})
    option = name.removeprefix("x-samplewise-").replace("-", "_")
    assert error["param"] in (name.lower(), f"samplewise.{option}")
    assert len(error["message"]) < 400


async def test_a_header_given_twice_is_refused(proxy: Proxy, upstream: UpstreamProcess) -> None:
    twice = CIMultiDict([("x-samplewise-samples", "1"), ("x-samplewise-samples", "8")])
    error = await _refused(proxy, upstream, ask("vote"), twice)
    assert error["param"] == "x-samplewise-samples"


DUPLICATES = {
    "n": b'{"model": "vote", "messages": %b, "n": 1, "n": 8}',
    "model": b'{"model": "one", "model": "vote", "messages": %b}',
    "messages": b'{"messages": [], "model": "one", "messages": %b}',
    "top_k": b'{"top_k": 12, "model": "one", "messages": %b, "top_k": 1}',
    "max_tokens": b'{"max_tokens"\t:\r\n 5 ,"model": "one", "messages": %b,"max\\u005ftokens" :7}',
    "": b'{"": 1, "model": "one", "messages": %b, "": 1}',
    "samplewise": b'{"samplewise": {}, "model": "one", "messages": %b, "samplewise": null}',
    "samplewise.samples": (
        b'{"model": "vote", "messages": %b, "samplewise": {"samples": 1, "s\\u0061mples": 8}}'
    ),
    "samplewise.item": b'{"samplewise": {"item": {}, "item": {}}, "model": "one", "messages": %b}',
}


@pytest.mark.parametrize("param", DUPLICATES)
async def test_a_key_given_twice_is_refused(
    proxy: Proxy, upstream: UpstreamProcess, param: str
) -> None:
    error = await _refused(proxy, upstream, DUPLICATES[param] % HI.encode())
    assert error["param"] == param
    assert "duplicate key" in error["message"]


async def test_a_body_over_the_limit_is_refused_however_it_is_sent(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    async def chunked(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 8192):
            yield body[start : start + 8192]

    large = ask(user='"' + "x" * LIMIT + '"')
    assert (await _refused(proxy, upstream, large, status=413))["code"] == "body_too_large"
    async with proxy.http.post(proxy.url + CHAT, data=chunked(large)) as reply:
        assert reply.status == 413
        assert (await reply.json())["error"]["code"] == "body_too_large"
    assert await upstream.records() == []
    # The last body that fits is read whole, chunked too.
    fits = ask(user='"' + "x" * (LIMIT - len(ask(user='""'))) + '"')
    assert len(fits) == LIMIT
    async with proxy.http.post(proxy.url + CHAT, data=chunked(fits)) as reply:
        assert reply.status == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "gzip, identity"])
async def test_a_compressed_body_is_refused(
    proxy: Proxy, upstream: UpstreamProcess, encoding: str
) -> None:
    error = await _refused(proxy, upstream, ask(), {"content-encoding": encoding})
    assert error["param"] == "content-encoding"


async def test_wrong_methods_and_paths_are_refused_in_openais_shape(proxy: Proxy) -> None:
    for method, path, status, code in (
        ("GET", CHAT, 405, "method_not_supported"),
        ("PUT", CHAT, 405, "method_not_supported"),
        ("POST", "/v1/models", 405, "method_not_supported"),
        ("POST", "/v1/chat/completion", 404, "unknown_url"),
        ("POST", CHAT + "/x", 404, "unknown_url"),
        ("GET", "/docs", 404, "unknown_url"),
        ("GET", "/v1/models/none", 404, "model_not_found"),
    ):
        async with proxy.http.request(
            method, proxy.url + path, data=ask(), allow_redirects=False
        ) as reply:
            assert reply.status == status, path
            error = (await reply.json())["error"]
            assert (error["code"], error["type"]) == (code, "invalid_request_error")


async def test_a_path_without_its_v1_is_answered_with_where_it_is(proxy: Proxy) -> None:
    async with proxy.http.post(f"{proxy.url}/chat/completions", data=ask()) as reply:
        error = (await reply.json())["error"]
    assert "it is /v1/chat/completions here" in error["message"]


async def test_what_careless_clients_send_is_taken_as_it_is_meant(proxy: Proxy) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    plain = {"content-encoding": "identity", "accept": "text/html", "authorization": "Bearer x"}
    old = aiohttp.HttpVersion10
    for path, headers, version in (
        (CHAT, form, None),
        (CHAT, plain, None),
        (CHAT, {}, old),
        ("/v1//chat/completions", {}, None),
        ("//v1/chat/completions/", {}, None),
        (CHAT + "?api-version=1", {}, None),
    ):
        async with (
            aiohttp.ClientSession(version=version or aiohttp.HttpVersion11) as http,
            http.post(proxy.url + path, data=ask(), headers=headers) as reply,
        ):
            assert reply.status == 200, (path, headers, version)
    assert (await proxy.get("/v1/models/")).status == 200


async def test_what_is_not_read_is_forwarded_byte_for_byte(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    odd = {
        "metadata": '{ "a" : "\\u00e9\\/" , "a":1.50,"b":[ ] }',
        "messages": '[ {"content":"h\\u0069" , "role" : "user","x":1.0} ]',
        "big": "1" * 5_000,
        "huge": "1e400",
        "tiny": "-0.0E-0",
        "temperature": "1.0",
        "\\u0074op_p": "0.90",
        "user": '"\U0001f600\\ud83d\\ude00"',
    }
    assert (await proxy.post(CHAT, ask(**odd))).status == 200
    sent = members((await upstream.record()).body)
    for key, text in odd.items():
        assert sent[json.loads(f'"{key}"')] == text.encode(), key
    assert set(sent) == {json.loads(f'"{key}"') for key in odd} | {"model", "max_tokens"}
