"""Who asks about money and keys: the admin, or a client about itself."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request

from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.keys.guard import credentials, unauthorized
from samplewise.proxy.service import Service

__all__ = ["Caller", "caller", "check_admin"]


@dataclass(frozen=True, slots=True)
class Caller:
    """The admin, or a client with its key; None is a client that needs none."""

    admin: bool
    key: ClientKey | None = None

    @property
    def rows(self) -> str | None:
        """The key of the ledger's rows that may be seen; None for all."""
        if self.admin:
            return None
        return "" if self.key is None else self.key.id


def caller(request: Request, service: Service) -> Caller:
    """Return who asks.

    Raises:
        RequestError: a key is needed and missing, or it is wrong (401).
    """
    authorization = credentials(request.headers)
    if service.guard.is_admin(authorization):
        return Caller(admin=True)
    return Caller(admin=False, key=service.guard.admit(authorization))


def check_admin(request: Request, service: Service) -> None:
    """Let only the admin on.

    Raises:
        HTTPException: there is no admin key, so there is nothing here (404).
        RequestError: the key is not the admin's (401).
    """
    if not service.guard.has_admin:
        raise HTTPException(404)
    if not service.guard.is_admin(credentials(request.headers)):
        raise unauthorized("this needs the key of `server.admin_key`")
