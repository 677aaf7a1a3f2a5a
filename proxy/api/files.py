"""`/v1/files`: the input and the results of batches, each for the key that they belong to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from samplewise.proxy.api.bodies import check_query
from samplewise.proxy.api.pages import not_listed, page_size
from samplewise.proxy.api.replies import json_reply
from samplewise.proxy.api.uploads import receive
from samplewise.proxy.batches.base import Stored
from samplewise.proxy.batches.lists import Listed, Wanted
from samplewise.proxy.batches.running import Runner
from samplewise.proxy.batches.store import BatchStore
from samplewise.proxy.errors import RequestError, StoreError, store_error
from samplewise.proxy.jsontext import encode
from samplewise.proxy.keys.guard import credentials
from samplewise.proxy.service import Service

__all__ = [
    "file_collection",
    "file_content",
    "listed",
    "one_file",
    "owner_of",
    "stored",
    "stored_page",
]

T = TypeVar("T")
E = TypeVar("E")


async def file_collection(request: Request, service: Service, runner: Runner) -> Response:
    """Take a file in (POST), or list those of a key (GET)."""
    owner = owner_of(request, service)
    store, sizes = runner.store, runner.sizes
    if request.method == "POST":
        try:
            await store.in_thread(store.open)
            file = await receive(request, store, owner, sizes.file_bytes, sizes.days)
        except StoreError as error:
            raise store_error(error) from error
        return json_reply(encode(file.shown()))
    query = check_query(request.query_params.multi_items(), ("limit", "after", "order", "purpose"))
    order = _order(query.get("order", "desc"))
    wanted = Wanted(page_size(query), query.get("after"), oldest_first=order == "asc")
    reading = partial(store.files, owner, wanted, query.get("purpose"))
    files = await stored_page(store, reading, wanted)
    return json_reply(listed([file.shown() for file in files.items], files.more))


async def one_file(request: Request, service: Service, runner: Runner) -> Response:
    """Show a file (GET), or delete it (DELETE)."""
    file = await _found(request, service, runner)
    if request.method != "DELETE":
        return json_reply(encode(file.shown()))
    deleted = await stored(runner.store, partial(runner.store.delete_file, file.id), True)
    if not deleted:
        raise RequestError(
            f"the file {file.id} is the input of a batch that runs: cancel that first",
            status=409,
            code="file_in_use",
        )
    return json_reply(encode({"id": file.id, "object": "file", "deleted": True}))


async def file_content(request: Request, service: Service, runner: Runner) -> Response:
    """Return the content of a file, read while it is sent."""
    file = await _found(request, service, runner)
    headers = {"content-length": str(file.bytes), "x-content-type-options": "nosniff"}
    content = _read(runner.store, file)
    return StreamingResponse(content, headers=headers, media_type="application/octet-stream")


def owner_of(request: Request, service: Service) -> str:
    """Return whose files and batches a client may see; empty for all without a key.

    Raises:
        RequestError: a key is needed and missing, or it is wrong (401).
    """
    key = service.guard.admit(credentials(request.headers))
    return "" if key is None else key.id


def listed(data: Sequence[dict[str, Any]], more: bool) -> bytes:
    """Return a page of objects as JSON text."""
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return encode({"object": "list", "data": data, "has_more": more, **ends})


async def stored(store: BatchStore, work: Callable[[], T], otherwise: E) -> T | E:
    """Return what `work` finds in a store, in a thread; `otherwise` where nothing was ever kept.

    Raises:
        AnswerError: the store cannot be used (503).
    """
    try:
        return await store.in_thread(lambda: work() if store.there() else otherwise)
    except StoreError as error:
        raise store_error(error) from error


async def stored_page(
    store: BatchStore, read: Callable[[], Listed[T] | None], wanted: Wanted
) -> Listed[T]:
    """Return the page that `read` finds in a store, see `stored`.

    Raises:
        RequestError: `wanted.after` is not in the list.
    """
    otherwise: Listed[T] | None = Listed() if wanted.after is None else None
    found = await stored(store, read, otherwise)
    if found is None:
        raise not_listed(wanted.after or "")
    return found


async def _found(request: Request, service: Service, runner: Runner) -> Stored:
    owner, id_ = owner_of(request, service), request.path_params["id"]
    file = await stored(runner.store, partial(runner.store.find_file, id_, owner), None)
    if file is None:
        raise RequestError(
            f"there is no file {id_[:60]!r}", status=404, code="file_not_found", param="file_id"
        )
    return file


def _order(text: str) -> str:
    if text not in ("asc", "desc"):
        raise RequestError(f"order: must be asc or desc, got {text[:60]!r}", param="order")
    return text


async def _read(store: BatchStore, file: Stored) -> AsyncIterator[bytes]:
    pieces = store.content(file)
    while piece := await store.in_thread(next, pieces, b""):
        yield piece
