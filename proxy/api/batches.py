"""`/v1/batches`: many requests in one file, run in the background by the same engine."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from samplewise.policies.price import nano_from_usd
from samplewise.proxy.api.bodies import check_query, read_struct
from samplewise.proxy.api.files import listed, owner_of, stored, stored_page
from samplewise.proxy.api.pages import page_size
from samplewise.proxy.api.replies import json_reply, read_body
from samplewise.proxy.batches.answering import ENDPOINTS
from samplewise.proxy.batches.base import Batch
from samplewise.proxy.batches.lists import Wanted
from samplewise.proxy.batches.running import Runner
from samplewise.proxy.errors import RequestError, StoreError, store_error
from samplewise.proxy.jsontext import encode
from samplewise.proxy.service import Service

__all__ = ["batch_collection", "cancel_batch", "one_batch"]

_MOST_BODY = 100_000
_WINDOW_S = 24 * 3600
_MOST_METADATA = 16


class _Money(Struct, frozen=True, forbid_unknown_fields=True):
    max_cost_usd: Annotated[float, Meta(gt=0, le=1e9)] | None = None


class _Create(Struct, frozen=True):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: (
        dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]] | None
    ) = None
    samplewise: _Money | None = None


async def batch_collection(request: Request, service: Service, runner: Runner) -> Response:
    """Take a batch in (POST), or list those of a key (GET)."""
    owner = owner_of(request, service)
    if request.method == "POST":
        asked = read_struct(await read_body(request, _MOST_BODY), _Create)
        return await _create(service, runner, owner, asked)
    query = check_query(request.query_params.multi_items(), ("limit", "after"))
    wanted = Wanted(page_size(query), query.get("after"))
    batches = await stored_page(runner.store, partial(runner.store.all, owner, wanted), wanted)
    data = [await _object(service, runner, batch) for batch in batches.items]
    return json_reply(listed(data, batches.more))


async def one_batch(request: Request, service: Service, runner: Runner) -> Response:
    """Show how far a batch is."""
    owner, id_ = owner_of(request, service), request.path_params["id"]
    batch = await stored(runner.store, partial(runner.store.find, id_, owner), None)
    return await _shown(service, runner, _there(batch, id_))


async def cancel_batch(request: Request, service: Service, runner: Runner) -> Response:
    """Have no more lines of a batch begun; those that run come to their end."""
    owner, id_ = owner_of(request, service), request.path_params["id"]
    batch = await stored(runner.store, partial(runner.store.cancel, id_, owner), None)
    return await _shown(service, runner, _there(batch, id_))


async def _create(service: Service, runner: Runner, owner: str, asked: _Create) -> Response:
    if asked.endpoint not in ENDPOINTS:
        raise RequestError(
            f"endpoint: must be one of {', '.join(ENDPOINTS)}, got {asked.endpoint[:60]!r}",
            param="endpoint",
        )
    if asked.completion_window != "24h":
        raise RequestError(
            f"completion_window: must be '24h', got {asked.completion_window[:60]!r}",
            param="completion_window",
        )
    metadata = asked.metadata or {}
    if len(metadata) > _MOST_METADATA:
        raise RequestError(f"metadata: at most {_MOST_METADATA} keys", param="metadata")
    most = None if asked.samplewise is None else asked.samplewise.max_cost_usd
    store = runner.store
    now = int(store.clock())
    batch = Batch(
        id=f"batch_{secrets.token_hex(12)}",
        owner=owner,
        created_at=now,
        expires_at=now + _WINDOW_S,
        input_file=asked.input_file_id,
        endpoint=asked.endpoint,
        metadata=metadata,
        max_nano=None if most is None else nano_from_usd(most),
    )
    found = await stored(store, partial(store.find_file, batch.input_file, owner), None)
    if found is None:
        raise RequestError(
            f"input_file_id: there is no file {batch.input_file[:60]!r}; upload it with "
            "purpose 'batch'",
            param="input_file_id",
        )
    if found.purpose != "batch":
        raise RequestError(
            f"input_file_id: {found.id} holds results, and no requests", param="input_file_id"
        )
    await stored(store, partial(store.add, batch), None)
    runner.wake.set()
    return await _shown(service, runner, batch)


def _there(batch: Batch | None, id_: str) -> Batch:
    if batch is None:
        raise RequestError(
            f"there is no batch {id_[:60]!r}", status=404, code="batch_not_found", param="batch_id"
        )
    return batch


async def _shown(service: Service, runner: Runner, batch: Batch) -> Response:
    return json_reply(encode(await _object(service, runner, batch)))


async def _object(service: Service, runner: Runner, batch: Batch) -> dict[str, Any]:
    try:
        batch = await service.in_thread(runner.store.counted, batch)
        (balance,) = await service.engine.ledger.balances([batch.account])
    except StoreError as error:
        raise store_error(error) from error
    return batch.shown(balance.spent.nano or 0)
