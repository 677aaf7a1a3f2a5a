"""`/v1/samplewise/keys`: client keys made, listed, changed, rotated and revoked by the admin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import UNSET, Struct, UnsetType
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.bodies import check_query, read_struct
from samplewise.proxy.api.callers import check_admin
from samplewise.proxy.api.pages import page
from samplewise.proxy.api.replies import json_reply, read_body
from samplewise.proxy.config_yaml import near
from samplewise.proxy.errors import RequestError, StoreError, store_error
from samplewise.proxy.jsontext import encode
from samplewise.proxy.keys.base import ClientKey, KeyRefused, Terms
from samplewise.proxy.keys.guard import Guard, renew
from samplewise.proxy.keys.limits import with_limits
from samplewise.proxy.keys.store import KeyStore
from samplewise.proxy.keys.text import fields, parse_expiry
from samplewise.proxy.service import Service

__all__ = ["key_collection", "one_key", "rotate_key"]

T = TypeVar("T")
S = TypeVar("S", bound=Struct)

_log = structlog.get_logger("samplewise.admin")
_MOST_BODY = 100_000
_LONGEST_OVERLAP_S = 30 * 86_400


class _Create(Struct, frozen=True):
    name: str
    routes: tuple[str, ...] = ()
    limits: dict[str, Decimal] = {}
    max_samples: int | None = None
    expires: str | None = None
    tests: bool = False
    tags: tuple[str, ...] = ()


class _Change(Struct, frozen=True):
    """What is not given stays; null takes a limit away."""

    routes: tuple[str, ...] | UnsetType = UNSET
    limits: dict[str, Decimal | None] = {}
    max_samples: int | UnsetType | None = UNSET
    expires: str | UnsetType | None = UNSET
    tests: bool | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class _Rotate(Struct, frozen=True):
    overlap_s: float = 0.0


async def key_collection(request: Request, service: Service) -> Response:
    """List keys (GET), or make one (POST)."""
    check_admin(request, service)
    if request.method == "POST":
        return await _create(request, service)
    _only(request, "GET", "POST")
    query = check_query(request.query_params.multi_items(), ("limit", "after"))
    now = service.guard.clock()
    guard = await _fresh(service)
    shown, more = page(guard.keys, query, lambda key: key.id)
    data = [{"object": "samplewise.key", **fields(key, now)} for key in shown]
    return json_reply(encode({"object": "list", "data": data, "has_more": more}))


async def one_key(request: Request, service: Service) -> Response:
    """Show a key (GET), change it (PATCH), or revoke it (DELETE)."""
    check_admin(request, service)
    _only(request, "GET", "PATCH", "DELETE")
    store = _store(service)
    key = _named(await _fresh(service), request.path_params["name"])
    if request.method == "PATCH":
        change = await _read(request, _Change)
        _check_stored(key)
        changed = await _change(
            service, "update", lambda: store.update(key.id, lambda t: _changed(service, t, change))
        )
        return _shown(service, changed)
    if request.method == "DELETE":
        _check_stored(key)
        return _shown(service, await _change(service, "revoke", lambda: store.revoke(key.id)))
    return _shown(service, key)


async def rotate_key(request: Request, service: Service) -> Response:
    """Give a key another secret."""
    check_admin(request, service)
    _only(request, "POST")
    store = _store(service)
    asked = await _read(request, _Rotate)
    if not 0 <= asked.overlap_s <= _LONGEST_OVERLAP_S:
        raise RequestError(
            f"overlap_s: must be 0 to {_LONGEST_OVERLAP_S}, got {asked.overlap_s:g}",
            param="overlap_s",
        )
    key = _named(await _fresh(service), request.path_params["name"])
    _check_stored(key)
    overlap_ms = int(asked.overlap_s * 1000)
    made = await _change(service, "rotate", lambda: store.rotate(key.id, overlap_ms))
    return _shown(service, *made)


async def _create(request: Request, service: Service) -> Response:
    asked = await _read(request, _Create)
    store = _store(service)
    found = (await _fresh(service)).find(asked.name)
    if found is not None and found.revoked_at is None:
        raise RequestError(
            f"name: there is a key {asked.name[:128]!r} already: choose another name, or rotate or "
            "revoke it",
            status=409,
            code="key_exists",
            param="name",
        )
    terms = Terms(
        routes=_routes(service, asked.routes),
        max_samples=asked.max_samples,
        expires_at=_expiry(service, asked.expires),
        tests=asked.tests,
        tags=tuple(dict.fromkeys(asked.tags)),
    )
    with_all = _refusing(lambda: with_limits(terms, asked.limits))
    made = await _change(service, "create", lambda: store.create(asked.name, with_all))
    return _shown(service, *made, status=201)


def _changed(service: Service, terms: Terms, change: _Change) -> Terms:
    given: dict[str, Any] = {
        name: value
        for name, value in msgspec.structs.asdict(change).items()
        if value is not UNSET and name not in ("limits", "expires")
    }
    if change.routes is not UNSET:
        given["routes"] = _routes(service, change.routes)
    if change.tags is not UNSET:
        given["tags"] = tuple(dict.fromkeys(change.tags))
    if change.expires is not UNSET:
        given["expires_at"] = _expiry(service, change.expires)
    return with_limits(replace(terms, **given), change.limits)


def _routes(service: Service, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in service.routes:
            raise RequestError(
                f"routes: there is no route {name[:60]!r}{near(name, service.routes)}",
                param="routes",
            )
    return tuple(dict.fromkeys(names))


def _expiry(service: Service, text: str | None) -> int | None:
    if text is None:
        return None
    return _refusing(lambda: parse_expiry(text, service.guard.clock()))


async def _read(request: Request, kind: type[S]) -> S:
    return read_struct(await read_body(request, _MOST_BODY), kind)


async def _fresh(service: Service) -> Guard:
    """Return the keys as the store has them now; another worker may have changed them."""
    store = _store(service)
    try:
        await renew(service.guard, store, service.in_thread)
    except StoreError as error:
        raise store_error(error) from error
    return service.guard


async def _change(service: Service, action: str, change: Callable[[], T]) -> T:
    """Make a change in the store, take it over at once, and log it."""
    try:
        changed = await service.in_thread(_refusing, change)
    except StoreError as error:
        raise store_error(error) from error
    key = changed[0] if isinstance(changed, tuple) else changed
    assert isinstance(key, ClientKey)
    _log.info("key changed", action=action, client=key.name, key_id=key.id, actor="admin")
    await _fresh(service)
    return changed


def _refusing(make: Callable[[], T]) -> T:
    try:
        return make()
    except KeyRefused as error:
        raise RequestError(str(error)) from None


def _store(service: Service) -> KeyStore:
    assert service.keys is not None  # set before the first request comes
    return service.keys


def _named(guard: Guard, name: str) -> ClientKey:
    key = guard.find(name)
    if key is None:
        raise RequestError(f"there is no key {name[:128]!r}", status=404, code="key_not_found")
    return key


def _check_stored(key: ClientKey) -> None:
    if key.configured:
        raise RequestError(
            f"the key {key.name!r} stands in the configuration: change it there, and send SIGHUP",
            status=409,
            code="key_in_configuration",
        )
    if key.revoked_at is not None:
        raise RequestError(
            f"the key {key.name!r} is revoked, which is for good: make another one",
            status=409,
            code="key_revoked",
        )


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods and request.method != "HEAD":
        raise HTTPException(405, headers={"allow": ", ".join(methods)})


def _shown(
    service: Service, key: ClientKey, secret: str | None = None, status: int = 200
) -> Response:
    shown: Mapping[str, Any] = {"object": "samplewise.key", **fields(key, service.guard.clock())}
    if secret is not None:
        shown = {**shown, "secret": secret}
    # Whoever stands in between must not keep a secret.
    return json_reply(encode(shown), {"cache-control": "no-store"}, status)
