"""The FastAPI application: wiring only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from samplewise.proxy.api import admin, batches, books, files, ops
from samplewise.proxy.api.chat import chat_completions
from samplewise.proxy.api.completions import completions
from samplewise.proxy.api.count_tokens import count_message_tokens
from samplewise.proxy.api.door import Door
from samplewise.proxy.api.embeddings import embeddings
from samplewise.proxy.api.estimate import estimate_chat
from samplewise.proxy.api.messages import answer_messages
from samplewise.proxy.api.models import list_models, show_model
from samplewise.proxy.api.openapi import openapi
from samplewise.proxy.api.relay import has_run
from samplewise.proxy.api.replies import json_reply
from samplewise.proxy.api.request_ids import RequestIds
from samplewise.proxy.api.requests import show_request
from samplewise.proxy.api.responses import answer_responses
from samplewise.proxy.api.shapes import path_error
from samplewise.proxy.api.stored import delete_response, no_response, show_response
from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.batches.running import Runner, Sizes, running_batches
from samplewise.proxy.batches.store import batch_store
from samplewise.proxy.build import open_service
from samplewise.proxy.config import Config
from samplewise.proxy.errors import AnswerError, RequestError
from samplewise.proxy.keys.guard import credentials
from samplewise.proxy.logs import set_up_logs
from samplewise.proxy.peers import PEER_RUNS, Peers
from samplewise.proxy.service import Service

__all__ = ["create_app"]


def create_app(
    config: Config,
    known: Mapping[str, Abilities] | None = None,
    peers: Peers | None = None,
) -> FastAPI:
    """Return the proxy as an ASGI application. Everything is opened in its lifespan, once.

    `known` is what was found out of the upstreams before, by name; they are not asked again.
    `peers` are the other processes of this server, None if there are none.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        set_up_logs(config.server.log_format, config.server.log_level)
        async with (
            open_service(config, known=known, peers=peers) as service,
            running_batches(
                service, batch_store(config.store, service.in_thread), _sizes(config)
            ) as runner,
        ):
            app.state.service, app.state.runner = service, runner
            yield

    app = FastAPI(title="Samplewise", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    _add_routes(app)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(AnswerError, _answer_error)
    app.add_exception_handler(Exception, _crash)
    app.add_middleware(_Front)
    app.add_middleware(_PlainPaths)
    app.add_middleware(Door)
    app.add_middleware(RequestIds)
    if config.server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.server.cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    return app


def _sizes(config: Config) -> Sizes:
    server = config.server
    file_bytes = int(server.max_file_mb * 2**20)
    return Sizes(at_once=server.batch_at_once, file_bytes=file_bytes, days=server.file_days)


class _PlainPaths:
    """Takes out the slashes that a base URL with one at its end puts twice into a path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on with its path in one form."""
        if scope["type"] == "http" and ("//" in scope["path"] or scope["path"].endswith("/")):
            parts = [part for part in scope["path"].split("/") if part]
            scope = {**scope, "path": "/" + "/".join(parts)}
        await self._app(scope, receive, send)


_ANSWERS: Mapping[str, Callable[[Request, Service], Awaitable[Response]]] = {
    "/v1/chat/completions": chat_completions,
    "/v1/responses": answer_responses,
    "/v1/messages": answer_messages,
}


class _Front:
    """Takes the requests that nearly all traffic consists of to their handlers by the shortest way.

    The layers of the router stand in every profile of a lone sample. All else goes on to it: other
    methods too, so that they are refused as everywhere.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand the request on."""
        handle = _ANSWERS.get(scope["path"]) if scope["type"] == "http" else None
        if handle is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        response = await handle(request, _service(request))
        await response(scope, receive, send)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _add_routes(app: FastAPI) -> None:
    # Starlette's own routes: no parameter of a handler is parsed, checked or converted for us.
    async def chat(request: Request) -> Response:
        return await chat_completions(request, _service(request))

    async def texts(request: Request) -> Response:
        return await completions(request, _service(request))

    async def embed(request: Request) -> Response:
        return await embeddings(request, _service(request))

    async def responses(request: Request) -> Response:
        return await answer_responses(request, _service(request))

    async def response(request: Request) -> Response:
        one = delete_response if request.method == "DELETE" else show_response
        return await one(request, _service(request))

    async def messages(request: Request) -> Response:
        return await answer_messages(request, _service(request))

    async def count(request: Request) -> Response:
        return await count_message_tokens(request, _service(request))

    async def estimate(request: Request) -> Response:
        return await estimate_chat(request, _service(request))

    async def models(request: Request) -> Response:
        return list_models(_service(request), credentials(request.headers))

    async def model(request: Request) -> Response:
        authorization = credentials(request.headers)
        return show_model(_service(request), request.path_params["name"], authorization)

    async def livez(request: Request) -> Response:
        return ops.livez()

    async def readyz(request: Request) -> Response:
        return await ops.readyz(_service(request))

    async def metrics(request: Request) -> Response:
        return await ops.metrics(_service(request))

    described = openapi()

    async def description(request: Request) -> Response:
        return json_reply(described)

    async def budgets(request: Request) -> Response:
        return await books.budgets(request, _service(request))

    async def spend(request: Request) -> Response:
        return await books.spend(request, _service(request))

    async def bill(request: Request) -> Response:
        return await show_request(request, _service(request))

    async def run(request: Request) -> Response:
        return await has_run(request, _service(request))

    async def keys(request: Request) -> Response:
        return await admin.key_collection(request, _service(request))

    async def key(request: Request) -> Response:
        return await admin.one_key(request, _service(request))

    async def rotate(request: Request) -> Response:
        return await admin.rotate_key(request, _service(request))

    _add_batches(app)
    app.add_route("/v1/chat/completions", chat, methods=["POST"])
    app.add_route("/v1/completions", texts, methods=["POST"])
    app.add_route("/v1/embeddings", embed, methods=["POST"])
    app.add_route("/v1/responses", responses, methods=["POST"])
    app.add_route("/v1/responses/{response_id}", response, methods=["GET", "DELETE"])
    app.add_route("/v1/responses/{response_id}/cancel", no_response, methods=["POST"])
    app.add_route("/v1/responses/{response_id}/input_items", no_response, methods=["GET"])
    app.add_route("/v1/messages", messages, methods=["POST"])
    app.add_route("/v1/messages/count_tokens", count, methods=["POST"])
    app.add_route("/v1/samplewise/estimate", estimate, methods=["POST"])
    app.add_route("/v1/samplewise/budgets", budgets, methods=["GET"])
    app.add_route("/v1/samplewise/spend", spend, methods=["GET"])
    app.add_route("/v1/samplewise/requests/{request_id:path}", bill, methods=["GET"])
    # Any method: without an admin key there is nothing here, not even a method that is wrong.
    app.add_route("/v1/samplewise/keys", keys, methods=_METHODS)
    app.add_route("/v1/samplewise/keys/{name:path}/rotate", rotate, methods=_METHODS)
    app.add_route("/v1/samplewise/keys/{name:path}", key, methods=_METHODS)
    app.add_route("/v1/models", models, methods=["GET"])
    app.add_route("/v1/models/{name:path}", model, methods=["GET"])
    app.add_route(f"{PEER_RUNS}{{name}}", run, methods=["GET"])
    app.add_route("/livez", livez, methods=["GET"])
    app.add_route("/readyz", readyz, methods=["GET"])
    app.add_route("/metrics", metrics, methods=["GET"])
    app.add_route("/openapi.json", description, methods=["GET"])


def _add_batches(app: FastAPI) -> None:
    Handle = Callable[[Request, Service, Runner], Awaitable[Response]]

    def add(path: str, handle: Handle, *methods: str) -> None:
        async def handler(request: Request) -> Response:
            return await handle(request, _service(request), request.app.state.runner)

        app.add_route(path, handler, methods=list(methods))

    add("/v1/files", files.file_collection, "GET", "POST")
    add("/v1/files/{id}", files.one_file, "GET", "DELETE")
    add("/v1/files/{id}/content", files.file_content, "GET")
    add("/v1/batches", batches.batch_collection, "GET", "POST")
    add("/v1/batches/{id}", batches.one_batch, "GET")
    add("/v1/batches/{id}/cancel", batches.cancel_batch, "POST")


# What a page of another origin may read of an answer beside its body.
_EXPOSED = [
    "openai-processing-ms",
    "request-id",
    "retry-after",
    "x-client-request-id",
    *(
        f"x-ratelimit-{what}-{unit}"
        for what in ("limit", "remaining", "reset")
        for unit in ("requests", "tokens")
    ),
    "x-request-id",
    "x-samplewise-budget-remaining-usd",
    "x-samplewise-cost-usd",
    "x-samplewise-outcome",
    "x-samplewise-request-id",
    "x-samplewise-samples",
    "x-should-retry",
]
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_HTTP_CODES: Mapping[int, str] = {404: "unknown_url", 405: "method_not_supported"}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    known = {route.path for route in request.app.routes if isinstance(route, Route)}
    # The base URL of other servers is often given without it.
    hint = f"; it is /v1{path} here" if error.status_code == 404 and f"/v1{path}" in known else ""
    reply = RequestError(
        f"{request.method} {path}: {error.detail}{hint}",
        status=error.status_code,
        code=_HTTP_CODES.get(error.status_code),
        headers=error.headers,
    )
    return path_error(path, reply, _service(request).new_request_id())


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnswerError)
    return path_error(request.url.path, error, _service(request).new_request_id())


async def _crash(request: Request, error: Exception) -> Response:
    # Starlette raises the error again behind this reply, so the log has the whole of it.
    reply = AnswerError("an internal error; the operator's log says which", code="internal_error")
    return path_error(request.url.path, reply, _service(request).new_request_id())
