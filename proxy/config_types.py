"""The small checked types that every section of the configuration shares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

__all__ = [
    "Amount",
    "Count",
    "Many",
    "Name",
    "Params",
    "PositiveAmount",
    "Seconds",
    "Secret",
    "Settings",
    "Text",
    "Url",
    "check_name",
]

T = TypeVar("T")

_LONGEST_NAME = 128
_LARGEST_AMOUNT = 1_000_000_000
_AMOUNT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,2})?", re.ASCII)
_OWN_PARAMS = ("messages", "model", "n", "best_of", "samplewise", "stream", "stream_options")
_TOKEN_CAPS = ("max_tokens", "max_completion_tokens")


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown fields, no silent conversions."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


def check_name(value: str) -> str:
    """Check a configured name: it is shown in logs, metrics, headers and URLs."""
    if not value or len(value) > _LONGEST_NAME:
        raise ValueError(f"a name must have 1 to {_LONGEST_NAME} characters")
    if not value.isprintable() or " " in value or ":" in value:
        raise ValueError("a name must not hold spaces, colons or control characters")
    return value


def _amount(value: object) -> object:
    # Through text, so that 0.1 is exactly one tenth.
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("must be a number")
    text = str(value)
    if len(text) > 40 or not _AMOUNT.fullmatch(text):
        raise ValueError("must be a number")
    amount = Decimal(text)
    if amount < 0:
        raise ValueError("must not be negative")
    if amount > _LARGEST_AMOUNT:
        raise ValueError(f"must be at most {_LARGEST_AMOUNT:,}")
    return amount


def _positive(value: Decimal) -> Decimal:
    if value <= 0:
        raise ValueError("must be greater than 0")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("must be a URL such as http://127.0.0.1:8000/v1")
    if not value.isprintable() or " " in value or len(value) > 2000:
        raise ValueError("is not a URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user or password: use api_key or headers")
    if parts.query or parts.fragment:
        raise ValueError("must end with its path: no ? and no #")
    if parts.path.rstrip("/").endswith("/completions"):
        raise ValueError("must be the base, such as http://127.0.0.1:8000/v1, not an endpoint")
    return value.rstrip("/")


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        raise ValueError("must not be empty")
    if not text.isascii() or not text.isprintable():
        raise ValueError("must hold printable ASCII characters only, and no line end")
    return value


def _params(value: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in value:
        if name in _OWN_PARAMS:
            raise ValueError(f"{name} is set by Samplewise itself: remove it")
        if name in _TOKEN_CAPS:
            raise ValueError(f"{name} is the worst case of a call: set max_tokens of the route")
    return value


Name = Annotated[str, AfterValidator(check_name)]
Text = Annotated[str, AfterValidator(_text)]
Url = Annotated[str, AfterValidator(_url)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
Amount = Annotated[Decimal, BeforeValidator(_amount)]
PositiveAmount = Annotated[Amount, AfterValidator(_positive)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
# A list in YAML; only the list itself is converted, its items stay strict.
Many = Annotated[tuple[T, ...], Field(strict=False)]
# Never shown: an operator may have put a token into them.
Params = Annotated[Mapping[str, Any], AfterValidator(_params), Field(repr=False)]
