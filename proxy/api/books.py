"""Budgets and spend: all of them for the admin, its own for a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from samplewise.policies.price import usd
from samplewise.proxy.api.bodies import check_query
from samplewise.proxy.api.callers import caller
from samplewise.proxy.api.pages import page
from samplewise.proxy.api.replies import json_reply
from samplewise.proxy.errors import RequestError, StoreError, store_error
from samplewise.proxy.jsontext import encode
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.keys.text import parse_time, shown_time
from samplewise.proxy.ledger.accounts import window_end
from samplewise.proxy.ledger.base import Balance, Limit, Scope
from samplewise.proxy.ledger.books import Books
from samplewise.proxy.ledger.spend import GROUPS, Line
from samplewise.proxy.ledger.spend_csv import to_csv
from samplewise.proxy.service import Service

__all__ = ["budgets", "read_books", "spend"]

T = TypeVar("T")


async def budgets(request: Request, service: Service) -> Response:
    """Show accounts: limits, what is spent and reserved in the windows of now.

    Keys come in pages; the accounts that all share stand on the first one.
    """
    who = caller(request, service)
    known = ("limit", "after", "key") if who.admin else ()
    query = check_query(request.query_params.multi_items(), known)
    keys: Sequence[ClientKey] = () if who.key is None else (who.key,)
    more, accounts = False, []
    if who.admin and "key" in query:
        found = service.guard.find(query["key"])
        if found is None:
            wrong = f"key: there is no key {query['key'][:128]!r}"
            raise RequestError(wrong, status=404, code="key_not_found", param="key")
        keys = (found,)
    elif who.admin:
        living = [key for key in service.guard.keys if key.revoked_at is None]
        keys, more = page(living, query, lambda key: key.id)
        accounts = [] if "after" in query else service.shared_accounts()
    accounts += [account for key in keys for account in (*key.accounts, *key.rates)]
    try:
        balances = await service.engine.ledger.balances(accounts)
    except StoreError as error:
        raise store_error(error) from error
    names, now = {key.id: key.name for key in keys}, service.rates.clock()
    data = [_balance(balance, names, now) for balance in balances]
    last = keys[-1].id if more else None
    return json_reply(encode({"object": "list", "data": data, "has_more": more, "last": last}))


async def spend(request: Request, service: Service) -> Response:
    """Add up what was spent, by key, route, backend or day; as JSON, or CSV if asked for."""
    who = caller(request, service)
    query = check_query(
        request.query_params.multi_items(), ("by", "since", "until", "format", "key")
    )
    by = tuple(dict.fromkeys(filter(None, query.get("by", "").split(","))))
    for name in by:
        if name not in GROUPS:
            raise RequestError(
                f"by: must list some of {', '.join(GROUPS)}, got {name[:60]!r}", param="by"
            )
    since, until = _time(query, "since"), _time(query, "until")
    if since is not None and until is not None and since >= until:
        raise RequestError("until: must be after since", param="until")
    as_csv = _as_csv(request, query)
    key = _rows_of(service, who.rows, query.get("key"))
    report = await read_books(service, lambda books: books.spend(by, since, until, key))
    if as_csv:
        return PlainTextResponse(to_csv(by, report), media_type="text/csv")
    data = [_line(line, by) for line in report.lines]
    body = {"object": "list", "by": by, "data": data, "total": _line(report.total, ())}
    return json_reply(encode(body))


async def read_books(service: Service, read: Callable[[Books], T]) -> T:
    """Read the ledger in a thread, one reader at a time: a report can take seconds."""
    assert service.books is not None  # set before the first request comes
    try:
        async with service.reading:
            return await service.in_thread(read, service.books)
    except StoreError as error:
        raise store_error(error) from error


def _rows_of(service: Service, own: str | None, asked: str | None) -> str | None:
    if asked is None:
        return own
    found = service.guard.find(asked)
    if found is None or own not in (None, found.id):
        raise RequestError(
            f"key: there is no key {asked[:128]!r}", status=404, code="key_not_found", param="key"
        )
    return found.id


def _as_csv(request: Request, query: Mapping[str, str]) -> bool:
    kind = query.get("format", "csv" if "text/csv" in request.headers.get("accept", "") else "json")
    if kind not in ("json", "csv"):
        raise RequestError(f"format: must be json or csv, got {kind[:60]!r}", param="format")
    return kind == "csv"


def _time(query: Mapping[str, str], name: str) -> int | None:
    if name not in query:
        return None
    found = parse_time(query[name])
    if found is None:
        raise RequestError(
            f"{name}: must be a day or time such as 2026-11-01 or 2026-11-01T12:00Z, got "
            f"{query[name][:60]!r}",
            param=name,
        )
    return found


def _balance(balance: Balance, names: Mapping[str, str], now_ms: int) -> dict[str, Any]:
    account = balance.account
    ours = account.name in names and account.scope in (Scope.KEY, Scope.REQUESTS)
    shown = _requests if account.scope is Scope.REQUESTS else _amounts
    return {
        "scope": account.scope.value,
        "name": names[account.name] if ours else account.name,
        "id": account.name if ours else None,
        "window": account.window.value,
        "resets_at": shown_time(window_end(account.window, now_ms)),
        "limit": shown(account.limit),
        "spent": shown(balance.spent),
        "reserved": shown(balance.reserved),
        "overrun_usd": usd(balance.overrun_nano),
    }


def _amounts(limit: Limit) -> dict[str, float | int | None]:
    nano = limit.nano
    return {
        "usd": None if nano is None else usd(nano),
        "tokens": limit.tokens,
        "samples": limit.samples,
    }


def _requests(limit: Limit) -> dict[str, float | int | None]:
    return {"requests": limit.samples}


def _line(line: Line, by: Sequence[str]) -> dict[str, Any]:
    return {
        **dict(zip(by, line.group, strict=True)),
        "requests": line.requests,
        "samples": line.samples,
        "prompt_tokens": line.prompt_tokens,
        "cached_tokens": line.cached_tokens,
        "completion_tokens": line.completion_tokens,
        "reasoning_tokens": line.reasoning_tokens,
        "settled_usd": usd(line.settled_nano),
        "held_usd": usd(line.held_nano),
        "overrun_usd": usd(line.overrun_nano),
    }
