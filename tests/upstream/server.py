"""The upstream as an aiohttp application: the OpenAI routes, and the control routes of tests."""

from __future__ import annotations

import re
import time

import msgspec
from aiohttp import web

from tests.upstream import broken, texts, wire
from tests.upstream.job import Job
from tests.upstream.plain import plain
from tests.upstream.record import Record, State, Waited
from tests.upstream.request import Refusal, Request, parse
from tests.upstream.script import Script
from tests.upstream.stream import stream
from tests.upstream.texts import embed
from tests.upstream.world import Call, World

__all__ = ["Release", "Server"]

_MOST_BODY = 2**30
_PARSERS = {
    "/v1/chat/completions": parse,
    "/v1/completions": texts.parse_text,
    "/v1/embeddings": texts.parse_input,
}


class Release(msgspec.Struct, forbid_unknown_fields=True):
    """Opens a gate for good, or lets `count` choices through."""

    gate: str
    count: int | None = None


class Server:
    """Serves one world at a time; a reset replaces it."""

    def __init__(self) -> None:
        self._world = World()
        self._pages: dict[str, str] = {}
        self._since_ms = time.time_ns() // 1_000_000

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=_MOST_BODY)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self.complete),
                web.post("/v1/completions", self.complete),
                web.post("/v1/embeddings", self.complete),
                web.get("/v1/models", self.models),
                web.post("/tokenize", self.tokenize),
                web.get("/{page:version|metrics}", self.page),
                web.get("/v1/records/{id}", self.kept),
                web.post("/control/script", self.script),
                web.post("/control/page", self.set_page),
                web.post("/control/release", self.release),
                web.post("/control/reset", self.reset),
                web.get("/control/records", self.records),
                web.get("/control/state", self.state),
                web.get("/control/wait", self.wait),
            ]
        )
        return app

    async def complete(self, http: web.Request) -> web.StreamResponse:
        """Answer a chat completion as scripted."""
        body = await http.read()
        refusal = request = None
        try:
            request = _PARSERS[http.path](body)
        except Refusal as error:
            refusal = error
        record = _record(http, body, request)
        transport = http.transport
        if transport is None:
            raise ConnectionResetError("the client left before its call was read")
        with self._world.call(record, transport.abort) as call:
            try:
                if refusal is not None or request is None:
                    raise refusal or Refusal("no request")
                return await self._answer(http, call, request)
            except Refusal as error:
                record.status = error.status
                reply = wire.error(str(error), error.status, error.param, error.code)
                return _json(reply, status=error.status)

    async def _answer(self, http: web.Request, call: Call, request: Request) -> web.StreamResponse:
        record, model = call.record, self._world.models.get(request.model)
        if model is None:
            message = f"The model `{request.model}` does not exist"
            raise Refusal(message, "model", status=404, code="model_not_found")
        _authorize(http, model.script)
        model.refuse(record.body)
        drawn = model.draw(request, record.body)
        record.tokens = [0] * len(drawn.choices)
        record.fault = drawn.fault.kind if drawn.fault else ""
        job = Job(
            record.request_id or f"{len(self._world.records)}", call, request, model.script, drawn
        )
        if drawn.fault is not None:
            reply = await broken.instead(http, job, drawn.fault)
            if reply is not None:
                return reply
        if request.embeds:
            return await embed(job)
        return await (stream if job.streamed else plain)(http, job)

    async def models(self, http: web.Request) -> web.Response:
        """List the scripted models that the caller's key may see."""
        served = [
            {"id": name, "object": "model", "created": 0, "owned_by": "tests"}
            for name, model in self._world.models.items()
            if _key(http) == model.script.require_auth or not model.script.require_auth
        ]
        return _json({"object": "list", "data": served})

    async def tokenize(self, http: web.Request) -> web.Response:
        """Count the tokens of a prompt as vLLM does; nothing is recorded."""
        try:
            request = parse(await http.read())
        except Refusal as error:
            return _json({"error": str(error)}, status=400)
        if request.model not in self._world.models:
            return _json({"error": "no such model"}, status=404)
        count = request.prompt_tokens
        return _json({"count": count, "max_model_len": 4096, "tokens": [0] * count})

    async def page(self, http: web.Request) -> web.Response:
        """Give a page as vLLM has it, or 404 as others do."""
        found = self._pages.get(http.match_info["page"])
        return web.Response(text=found or "", status=200 if found else 404)

    async def set_page(self, http: web.Request) -> web.Response:
        """Set pages by name."""
        self._pages |= msgspec.json.decode(await http.read(), type=dict[str, str])
        return _json({})

    async def script(self, http: web.Request) -> web.Response:
        """Set models by name."""
        try:
            scripts = msgspec.json.decode(await http.read(), type=dict[str, Script])
            self._world.load(scripts)
        except (msgspec.DecodeError, re.error) as error:
            return _json({"error": str(error)}, status=400)
        return _json({})

    async def release(self, http: web.Request) -> web.Response:
        """Open a gate."""
        wanted = msgspec.json.decode(await http.read(), type=Release)
        self._world.gate(wanted.gate).release(wanted.count)
        return _json({})

    async def reset(self, http: web.Request) -> web.Response:
        """Forget everything and break off every call."""
        old, self._world = self._world, World()
        self._pages = {}
        old.abort_all()
        return _json({})

    async def records(self, http: web.Request) -> web.Response:
        """Return the calls in the order they came, all or those with these values."""
        wanted = {name: http.query[name] for name in ("model", "request_id") if name in http.query}
        kept = [
            record
            for record in self._world.records
            if all(getattr(record, name) == value for name, value in wanted.items())
        ]
        return _json(kept)

    async def kept(self, http: web.Request) -> web.Response:
        """Say what a request id has cost, as `samplewise upstream` does."""
        id_ = http.match_info["id"]
        records = [record for record in self._world.records if record.request_id == id_]
        if not records:
            said = {"request_id": id_, "state": "unknown", "complete_since": self._since_ms}
            return _json(said, status=404)
        running = any(record.phase == "running" for record in records)
        tokens = {
            "prompt_tokens": sum(record.prompt_tokens for record in records),
            "completion_tokens": sum(record.total_tokens for record in records),
        }
        return _json({"request_id": id_, "state": "running" if running else "finished", **tokens})

    async def state(self, http: web.Request) -> web.Response:
        """Return the counts."""
        return _json(self._state(http))

    async def wait(self, http: web.Request) -> web.Response:
        """Answer once a count is in the wanted range, or when the time is over."""
        state, field = self._state(http), http.query["field"]
        least = int(http.query.get("at_least", 0))
        most = int(http.query.get("at_most", 2**62))
        timeout_s = float(http.query.get("timeout_s", 5))
        ok = await self._world.until(lambda: least <= getattr(state, field) <= most, timeout_s)
        return _json(Waited(ok, state))

    def _state(self, http: web.Request) -> State:
        model = http.query.get("model")
        return self._world.total if model is None else self._world.state(model)


def _record(http: web.Request, body: bytes, request: Request | None) -> Record:
    named = (request.request_id if request else None) or ""
    return Record(
        request_id=http.headers.get("X-Request-Id", named),
        model=request.model if request else "",
        n=(request.n or 1) if request else 0,
        stream=bool(request and request.stream),
        prompt_tokens=request.prompt_tokens if request else 0,
        body=body,
        headers={name.lower(): value for name, value in http.headers.items()},
        started_s=time.monotonic(),
    )


def _key(http: web.Request) -> str:
    return http.headers.get("Authorization", "").removeprefix("Bearer ")


def _authorize(http: web.Request, script: Script) -> None:
    if script.require_auth and _key(http) != script.require_auth:
        raise Refusal("Incorrect API key provided", status=401, code="invalid_api_key")


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(
        body=wire.encode(body), status=status, headers={"content-type": "application/json"}
    )
