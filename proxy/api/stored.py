"""Responses that are kept: with the records of requests, where these have their text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.callers import caller
from samplewise.proxy.api.replies import json_reply
from samplewise.proxy.errors import RequestError, StoreError, store_error
from samplewise.proxy.jsontext import encode
from samplewise.proxy.records.store import Record, delete
from samplewise.proxy.service import Service

__all__ = [
    "delete_response",
    "items_of",
    "keeps_responses",
    "no_response",
    "show_response",
    "stored",
]

_SETTING = (
    "this server keeps no responses: send the whole conversation in `input`, or let its operator "
    "set `records: {text: true}`"
)
_PREFIX = "resp_"
_MOST_NAMED = 100
_NAME = re.compile(rf"{_PREFIX}([0-9a-f]{{32}})", re.ASCII)


class _Stored(msgspec.Struct):
    input: list[msgspec.Raw]
    response: msgspec.Raw


class _Content(msgspec.Struct):
    stored: _Stored | None = None


class _Output(msgspec.Struct):
    output: list[msgspec.Raw]


class _Named(msgspec.Struct):
    id: str


def keeps_responses(service: Service) -> bool:
    """Whether what is answered now can be asked for later."""
    keeping = service.setup.records
    return service.records is not None and keeping.text and bool(keeping.days)


def stored(items: list[msgspec.Raw], response: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of a request has of its response."""
    return {"stored": {"input": items, "response": response}}


async def items_of(service: Service, response_id: str, rows: str | None) -> list[msgspec.Raw]:
    """Return the items of a kept response: what was said before it, and itself.

    `rows` is the key whose responses may be seen, None for all.

    Raises:
        RequestError: there is none that may be seen; says so of `previous_response_id`.
    """
    found = await _find(service, response_id, rows)
    if found is None:
        why = f"there is no response {response_id[:100]!r}"
        raise RequestError(
            f"previous_response_id: {why if keeps_responses(service) else _SETTING}",
            code="previous_response_not_found",
            param="previous_response_id",
        )
    _, one = found
    return [*one.input, *msgspec.json.decode(one.response, type=_Output).output]


async def items_named(
    service: Service, names: Collection[str], rows: str | None
) -> dict[str, msgspec.Raw]:
    """Return the items of kept responses that have these names, as far as they are there.

    Raises:
        RequestError: they are of more responses than will be looked for.
    """
    # An item's name has that of its response in it.
    of = {_PREFIX + name.partition("_")[2].rpartition("_")[0] for name in names}
    if len(of) > _MOST_NAMED:
        raise RequestError(
            f"input: names items of more than {_MOST_NAMED} responses", param="input"
        )
    kept = [await _find(service, response_id, rows) for response_id in sorted(of)]
    outputs = [
        msgspec.json.decode(one.response, type=_Output).output for _, one in filter(None, kept)
    ]
    items = {msgspec.json.decode(raw, type=_Named).id: raw for raw in itertools.chain(*outputs)}
    return {name: items[name] for name in names if name in items}


async def show_response(request: Request, service: Service) -> Response:
    """Return a kept response to whoever asked for it first."""
    _, one = await _asked_for(request, service)
    return json_reply(bytes(one.response))


async def delete_response(request: Request, service: Service) -> Response:
    """Delete a kept response, with the record of its request; the bill stays."""
    record, _ = await _asked_for(request, service)
    assert service.records is not None  # or it would not have been found
    try:
        await service.in_thread(delete, service.records.place, record.request_id)
    except StoreError as error:
        raise store_error(error) from error
    name = request.path_params["response_id"]
    return json_reply(encode({"id": name, "object": "response", "deleted": True}))


async def no_response(request: Request) -> Response:
    """Refuse what is done with responses that run in the background, or with their items."""
    raise RequestError(
        f"{request.url.path}: responses do not run in the background here, and their items are not "
        "listed apart; GET the response itself",
        status=404,
        code="unknown_url",
    )


async def _asked_for(request: Request, service: Service) -> tuple[Record, _Stored]:
    who = caller(request, service)
    name = request.path_params["response_id"]
    if request.query_params.get("stream") == "true":
        raise RequestError("stream: a kept response is not streamed again", param="stream")
    found = await _find(service, name, who.rows)
    if found is None:
        why = f"there is no response {name[:100]!r}"
        raise RequestError(
            why if keeps_responses(service) else f"{why}; {_SETTING}",
            status=404,
            code="response_not_found",
            param="response_id",
        )
    return found


async def _find(
    service: Service, response_id: str, rows: str | None
) -> tuple[Record, _Stored] | None:
    assert service.books is not None  # set before the first request comes
    found = _NAME.fullmatch(response_id)
    if found is None:
        return None
    name = f"req_{found[1]}"
    try:
        records = await service.in_thread(service.books.records, name)
    except StoreError as error:
        raise store_error(error) from error
    for record in records:
        if record.request_id == name and rows in (None, record.key):
            one = msgspec.json.decode(record.content, type=_Content).stored
            if one is not None:
                return record, one
    return None
