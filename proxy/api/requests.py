"""`GET /v1/samplewise/requests/{id}`: what a request has bought, and why that was the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.books import read_books
from samplewise.proxy.api.callers import Caller, caller
from samplewise.proxy.api.replies import json_reply
from samplewise.proxy.errors import RequestError
from samplewise.proxy.jsontext import encode
from samplewise.proxy.ledger.bill import Entry
from samplewise.proxy.records.shown import shown
from samplewise.proxy.records.store import Record
from samplewise.proxy.service import Service

__all__ = ["show_request"]


async def show_request(request: Request, service: Service) -> Response:
    """Show the record of a request and the ledger's rows of it to whoever sent it."""
    who = caller(request, service)
    name = request.path_params["request_id"]
    if service.records is not None:
        await service.records.flush()  # an answer a moment ago has its record
    found = await read_books(service, lambda books: books.records(name))
    record = next((one for one in found if _may_see(who, one.key)), None)
    id_ = name if record is None else record.request_id
    rows = await read_books(service, lambda books: books.bill(id_))
    if not _seen(who, record, rows):
        # The same for a request of another key: its ids are no business of anybody else.
        raise RequestError(
            f"there is no request {name[:60]!r}", status=404, code="request_not_found"
        )
    body: dict[str, Any] = shown(id_, record, rows)
    return json_reply(encode(body))


def _may_see(who: Caller, key: str) -> bool:
    return who.rows in (None, key)


def _seen(who: Caller, record: Record | None, rows: Sequence[Entry]) -> bool:
    if record is not None:
        return True
    return bool(rows) and _may_see(who, rows[0].key)
