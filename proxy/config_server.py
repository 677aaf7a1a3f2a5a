"""`server:` where the proxy listens, and how it behaves towards clients."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from samplewise.proxy.config_keys import AccessKey
from samplewise.proxy.config_types import Count, Many, Seconds, Settings, Text

__all__ = ["ServerSettings", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine alone; any other name is not."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(value: str) -> str:
    scheme, _, host = value.partition("://")
    bare = host and not set(host) & set("/?#@ ") and host.isprintable()
    if value != "*" and (scheme not in ("http", "https") or not bare):
        raise ValueError("must be an origin such as https://app.example.com, or *")
    return value


class ServerSettings(Settings):
    """Where the proxy listens and how it behaves towards clients."""

    host: Text = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8400
    admin_key: AccessKey | None = None
    max_body_mb: Annotated[float, Field(gt=0, le=1024)] = 32.0
    max_in_flight: Count = 1_000
    max_queue: Annotated[int, Field(ge=0, le=1_000_000)] = 1_000
    queue_s: Seconds = 3.0
    first_comment_after_s: Seconds = 4.0
    comment_every_s: Seconds = 10.0
    plain_keep_alive: bool = False
    max_file_mb: Annotated[float, Field(gt=0, le=10_000)] = 200.0
    file_days: Annotated[float, Field(gt=0, le=36_500)] = 30.0
    batch_at_once: Annotated[int, Field(ge=1, le=1_000)] = 16
    drain_s: Annotated[float, Field(ge=0, le=86_400)] = 5.0
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    cors_origins: Many[Annotated[str, AfterValidator(_origin)]] = ()

    @property
    def max_body_bytes(self) -> int:
        """The largest request body, in bytes."""
        return int(self.max_body_mb * 2**20)
