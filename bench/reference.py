"""The reference: the least FastAPI and aiohttp proxy that answers by majority vote, made fast.

Raw request body, msgspec for JSON, one upstream body for all calls, answers read into structs; no
limits, no metrics, no ledger, no logs. The model name says what to do, see `plan`.
Run: python -m bench.reference UPSTREAM_PORT PORT WORKERS
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache

import aiohttp
import msgspec
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

_JSON = {"content-type": "application/json"}
_UPSTREAM = "BENCH_UPSTREAM_PORT"


class _Message(msgspec.Struct):
    content: str = ""


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: dict[str, int]


_body = msgspec.json.Decoder(dict[str, msgspec.Raw])
_choice = msgspec.json.Decoder(_Choice)
_completion = msgspec.json.Decoder(_Completion)
_encode = msgspec.json.Encoder().encode


@cache
def plan(model: str) -> tuple[int, bool]:
    """Return how many samples a model name stands for, and whether one call asks for all.

    `one`, `long`: 1; `calls-8`: eight calls; `n-8`: one call with n=8.
    """
    if model in ("one", "long"):
        return 1, False
    form, _, number = model.partition("-")
    return int(number), form == "n"


def vote(choices: Sequence[msgspec.Raw]) -> msgspec.Raw:
    """Return the first choice whose last line is the most frequent."""
    answers = [_choice.decode(raw).message.content.rpartition("\n")[2] for raw in choices]
    winner = Counter(answers).most_common(1)[0][0]
    return choices[answers.index(winner)]


class Proxy:
    """One session to the upstream, and the handler."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Keep what all requests share."""
        self._session = session
        self._url = url

    async def chat(self, request: Request) -> Response:
        """Answer one chat request."""
        fields = _body.decode(await request.body())
        model = msgspec.json.decode(fields["model"], type=str)
        samples, as_n = plan(model)
        fields["model"] = msgspec.Raw(b'"fake-long"' if model == "long" else b'"fake"')
        if as_n:
            fields["n"] = msgspec.Raw(b"%d" % samples)
        body = _encode(fields)
        if fields.get("stream") == b"true":
            return StreamingResponse(self._stream(body), 200, media_type="text/event-stream")
        if as_n or samples == 1:
            answers = [await self._call(body)]
        else:
            answers = await asyncio.gather(*(self._call(body) for _ in range(samples)))
        if samples == 1:
            return Response(answers[0], 200, _JSON)
        return Response(self._best(answers), 200, _JSON)

    def _best(self, answers: Sequence[bytes]) -> bytes:
        read = [_completion.decode(answer) for answer in answers]
        choices = [choice for completion in read for choice in completion.choices]
        usage = {name: sum(c.usage[name] for c in read) for name in read[0].usage}
        return _encode({"object": "chat.completion", "choices": [vote(choices)], "usage": usage})

    async def _call(self, body: bytes) -> bytes:
        async with self._session.post(self._url, data=body, headers=_JSON) as response:
            response.raise_for_status()
            return await response.read()

    async def _stream(self, body: bytes) -> AsyncIterator[bytes]:
        async with self._session.post(self._url, data=body, headers=_JSON) as response:
            response.raise_for_status()
            async for part in response.content.iter_any():
                yield part


def create_app() -> FastAPI:
    """Return the reference as an ASGI application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**18,
        ) as session:
            url = f"http://127.0.0.1:{os.environ[_UPSTREAM]}/v1/chat/completions"
            app.add_route("/v1/chat/completions", Proxy(session, url).chat, methods=["POST"])
            yield

    async def ready(request: Request) -> Response:
        return Response(b"ready\n")

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.add_route("/readyz", ready)
    return app


if __name__ == "__main__":
    os.environ[_UPSTREAM] = sys.argv[1]
    uvicorn.run(
        "bench.reference:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        workers=int(sys.argv[3]),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
    )
