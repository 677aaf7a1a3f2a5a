"""Settings of sampling sources: where they are, what they cost, how they are called.

No network: whether an upstream answers is found out by the server, not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from samplewise.policies.price import Price
from samplewise.proxy.config_budgets import BudgetSettings
from samplewise.proxy.config_types import (
    Amount,
    Count,
    Many,
    Params,
    PositiveAmount,
    Seconds,
    Secret,
    Settings,
    Text,
    Url,
)
from samplewise.proxy.config_yaml import Document, Path, Problem
from samplewise.proxy.health import Circuit, RetryBudget
from samplewise.proxy.pool import Host, Pool

__all__ = [
    "BackendSettings",
    "HealthSettings",
    "HedgeSettings",
    "LiteLLMBackendSettings",
    "OpenAIBackendSettings",
    "PriceSettings",
    "TinyBackendSettings",
    "literal_secrets",
]

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = ("connection", "content-length", "content-type", "host", "transfer-encoding")
_CREDENTIAL_HEADERS = ("authorization", "proxy-authorization", "cookie", "api-key", "x-api-key")


def _header_name(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise ValueError("is not a header name")
    if value.lower() in _OWN_HEADERS:
        raise ValueError("is set by Samplewise itself: remove it")
    return value


class PriceSettings(Settings):
    """What tokens cost: dollars per million tokens, or a rent and the throughput it surely gives.

    Amounts are exact decimals. Without `cached_input_usd_per_mtok`, cached prompt tokens cost as
    much as others.
    """

    input_usd_per_mtok: Amount | None = None
    cached_input_usd_per_mtok: Amount | None = None
    output_usd_per_mtok: Amount | None = None
    gpu_hour_usd: Amount | None = None
    min_tokens_per_s: PositiveAmount | None = None

    @model_validator(mode="after")
    def _one_form(self) -> PriceSettings:
        rent = self.gpu_hour_usd is not None, self.min_tokens_per_s is not None
        tokens = self.input_usd_per_mtok is not None, self.output_usd_per_mtok is not None
        mixed = any(rent) and (any(tokens) or self.cached_input_usd_per_mtok is not None)
        if mixed or not (all(rent) or all(tokens)):
            raise ValueError(
                "needs either input_usd_per_mtok and output_usd_per_mtok, or gpu_hour_usd and "
                "min_tokens_per_s; what is free is written as 0"
            )
        return self

    def build(self) -> Price:
        """Return the price in whole pico-dollars per token."""
        if self.gpu_hour_usd is not None:
            return Price.per_gpu_hour(str(self.gpu_hour_usd), str(self.min_tokens_per_s))
        cached = self.cached_input_usd_per_mtok
        return Price.per_mtok(
            str(self.input_usd_per_mtok),
            str(self.output_usd_per_mtok),
            None if cached is None else str(cached),
        )


RequiredPrice = Annotated[
    PriceSettings,
    Field(
        description="write price: {input_usd_per_mtok: 0.5, output_usd_per_mtok: 1.5} or "
        "{gpu_hour_usd: 2.0, min_tokens_per_s: 800}; if it is free, write 0 for both prices"
    ),
]


class HealthSettings(Settings):
    """When a host is put aside, and how much of what it lost may be asked again."""

    eject_after: Count = 5
    eject_s: Seconds = 10.0
    eject_most_s: Seconds = 300.0
    retry_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    retry_floor_per_s: Annotated[float, Field(ge=0, le=1000)] = 1.0

    def pool(self, urls: Iterable[str]) -> Pool:
        """Return the pool of these addresses."""
        hosts = tuple(
            Host(url, Circuit(self.eject_after, self.eject_s, self.eject_most_s)) for url in urls
        )
        return Pool(hosts, RetryBudget(self.retry_share, self.retry_floor_per_s))


class HedgeSettings(Settings):
    """Ask a second time for a sample that takes longer than most; the first answer counts."""

    after: Literal["p50", "p75", "p90", "p95", "p99"] = "p95"

    @property
    def share(self) -> float:
        """The share of samples that are faster than a late one."""
        return int(self.after[1:]) / 100


class OpenAIBackendSettings(Settings):
    """An upstream that speaks the OpenAI dialect, at one or several base URLs.

    `max_n` is the largest `n` of one call (1: never more). `params` are body fields that are always
    sent. `headers` and `api_key` are secrets. `records` says that the server tells at `/records/ID`
    what a request id has cost, as `samplewise upstream` does.
    """

    type: Literal["openai"]
    one_url: Url | None = Field(None, alias="base_url", repr=False)
    many_urls: Many[Url] = Field((), alias="base_urls", repr=False)
    model: Text
    price: RequiredPrice
    api_key: Secret | None = None
    headers: Mapping[Annotated[str, AfterValidator(_header_name)], Secret] = {}
    budget: BudgetSettings = BudgetSettings()
    max_in_flight: Count | None = None
    queue_s: Seconds = 600.0
    connect_timeout_s: Seconds = 5.0
    idle_timeout_s: Seconds = 120.0
    min_bytes_per_s: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    timeout_s: Seconds = 600.0
    max_response_mb: Annotated[float, Field(gt=0, le=1024)] = 64.0
    health: HealthSettings = HealthSettings()
    hedge: HedgeSettings | None = None
    max_n: Count | None = None
    stream_usage: Literal["final", "continuous", "none"] = "final"
    token_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    max_tokens_per_image: Count | None = None
    records: bool = False
    params: Params = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> OpenAIBackendSettings:
        if (self.one_url is None) == (not self.many_urls):
            raise ValueError("needs either base_url or base_urls")
        if self.api_key is not None and "authorization" in map(str.lower, self.headers):
            raise ValueError("api_key and the header Authorization: give only one of them")
        return self

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The base URLs, however they were given; without a slash at the end."""
        return self.many_urls if self.one_url is None else (self.one_url,)

    @property
    def max_response_bytes(self) -> int:
        """The largest decoded answer, in bytes."""
        return int(self.max_response_mb * 2**20)

    def request_headers(self) -> dict[str, str]:
        """Return the headers of every call, secrets in clear: for the connection only."""
        headers = {name: value.get_secret_value() for name, value in self.headers.items()}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key.get_secret_value()}"
        return headers


class LiteLLMBackendSettings(Settings):
    """A provider that litellm translates for. Without `price`, litellm's own table is used."""

    type: Literal["litellm"]
    model: Text
    api_key: Secret | None = None
    api_base: Url | None = None
    price: PriceSettings | None = None
    budget: BudgetSettings = BudgetSettings()
    max_in_flight: Count | None = None
    timeout_s: Seconds = 600.0
    params: Params = Field(default_factory=dict)


class TinyBackendSettings(Settings):
    """The embedded model, inside the proxy. Its price is for experiments: 0 says that it is free.

    Every worker process of the proxy has a model of its own.
    """

    type: Literal["tiny"]
    price: RequiredPrice
    budget: BudgetSettings = BudgetSettings()
    max_in_flight: Count | None = None
    timeout_s: Seconds = 600.0
    params: Params = Field(default_factory=dict)


BackendSettings = Annotated[
    OpenAIBackendSettings | LiteLLMBackendSettings | TinyBackendSettings,
    Field(discriminator="type"),
]


def literal_secrets(document: Document, value: Any, path: Path) -> Iterator[Problem]:
    """Find secrets below a path that are written into the file; their values are not shown."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from literal_secrets(document, inner, (*path, name))
    elif isinstance(value, str) and path not in document.templates:
        match path:
            case ("backends", _, "api_key") | ("verifiers", _, *_, "secret"):
                secret = True
            case ("backends", _, "headers", header):
                secret = str(header).lower() in _CREDENTIAL_HEADERS
            case _:
                secret = False
        if secret:
            message = 'must come from the environment: write "${NAME}" and set the variable NAME'
            yield Problem(path, message)
