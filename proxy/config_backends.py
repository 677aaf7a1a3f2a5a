"""Settings of sampling sources: where they are, what they cost, how they are called.

No network: whether an upstream answers is found out by the server, not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from samplewise.proxy.backends.base import ranked
from samplewise.proxy.backends.profiles import (
    PLAIN,
    PROFILES,
    VLLM,
    Profile,
    ProfileName,
    StreamUsage,
    TokenField,
)
from samplewise.proxy.config_budgets import BudgetSettings
from samplewise.proxy.config_health import HealthSettings, HedgeSettings
from samplewise.proxy.config_prices import PriceSettings, RequiredPrice
from samplewise.proxy.config_types import (
    Count,
    Many,
    Params,
    Seconds,
    Secret,
    Settings,
    Text,
    Url,
)
from samplewise.proxy.config_yaml import Document, Path, Problem

__all__ = [
    "BackendSettings",
    "HttpBackendSettings",
    "LiteLLMBackendSettings",
    "OpenAIBackendSettings",
    "PriceSettings",
    "ReplayBackendSettings",
    "ServeSettings",
    "TinyBackendSettings",
    "VllmBackendSettings",
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


Recovery = Literal["worst_case", "checkpoint"]


class HttpBackendSettings(Settings):
    """What all upstreams have that speak the OpenAI dialect, at one or several base URLs.

    `max_n` is the largest `n` of one call (1: never more), `max_top_logprobs` the largest
    `top_logprobs` (0: it has none). `params` are body fields that are always
    sent. `headers` and `api_key` are secrets. `records` says that the server tells at `/records/ID`
    what a request id has cost, as `samplewise upstream` does. `recovery` says what a call costs
    whose process died, where there is no such record. `http_client` says which HTTP client asks:
    the lean one for plain HTTP and aiohttp for TLS, or aiohttp for both.
    """

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
    max_top_logprobs: Annotated[int, Field(ge=0, le=1000)] = 20
    stream_usage: StreamUsage | None = None
    token_field: TokenField | None = None
    max_tokens_per_image: Count | None = None
    records: bool = False
    recovery: Recovery = "worst_case"
    dispatch: Literal["auto", "calls", "n"] = "auto"
    http_client: Literal["auto", "aiohttp"] = "auto"
    probe: Literal["none", "free", "full"] = "none"
    params: Params = Field(default_factory=dict)

    @property
    def profile_data(self) -> Profile:
        """What is known of this kind of server."""
        return PLAIN

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_place()
        name = self.profile_data.key_header
        if self.api_key is not None and name.lower() in map(str.lower, self.headers):
            raise ValueError(f"api_key and the header {name}: give only one of them")
        return self

    def _check_place(self) -> None:
        if (self.one_url is None) == (not self.many_urls):
            raise ValueError("needs either base_url or base_urls")

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The base URLs, however they were given; without a slash at the end."""
        return self.many_urls if self.one_url is None else (self.one_url,)

    @property
    def hosts(self) -> tuple[str, ...]:
        """What calls are spread over: the base URLs."""
        return self.base_urls

    @property
    def max_response_bytes(self) -> int:
        """The largest decoded answer, in bytes."""
        return int(self.max_response_mb * 2**20)

    def request_headers(self) -> dict[str, str]:
        """Return the headers of every call, secrets in clear: for the connection only."""
        headers = {name: value.get_secret_value() for name, value in self.headers.items()}
        if self.api_key is not None:
            key, name = self.api_key.get_secret_value(), self.profile_data.key_header
            headers[name] = f"Bearer {key}" if name == "Authorization" else key
        return headers


class OpenAIBackendSettings(HttpBackendSettings):
    """A server or provider that is there already; `profile` says of which kind."""

    type: Literal["openai"]
    profile: ProfileName | None = None

    @property
    def profile_data(self) -> Profile:
        """What is known of this kind of server."""
        return PLAIN if self.profile is None else PROFILES[self.profile]


class ServeSettings(Settings):
    """A vLLM server that runs as long as the proxy. `model` is what it loads: a name or a folder.

    `command` starts another server than the vLLM of this environment; it gets `args` after the
    arguments for model, name, host and port. `env` is added to the proxy's own environment. Neither
    is shown: they may hold a key.
    """

    model: Text
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    args: Many[str] = Field((), repr=False)
    command: Many[Text] = ()
    env: Mapping[Text, str] = Field(default_factory=dict, repr=False)
    log_file: Text | None = None
    start_s: Seconds = 900.0
    stop_s: Seconds = 15.0


class VllmBackendSettings(HttpBackendSettings):
    """vLLM: servers that run already, or one that is started and stopped with the proxy (`serve`).

    Without `model` the server offers what it loads, under the same name. With several
    `data_parallel_ranks` behind each address, each of them is a host of its own.
    """

    type: Literal["vllm"]
    serve: ServeSettings | None = None
    data_parallel_ranks: Annotated[int, Field(ge=1, le=1024)] = 1
    follow_load: bool = True
    probe: Literal["none", "free", "full"] = "full"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The base URLs, each once for every rank behind it."""
        ranks = range(self.data_parallel_ranks)
        if len(ranks) == 1:
            return self.base_urls
        return tuple(ranked(url, rank) for url in self.base_urls for rank in ranks)

    @property
    def profile_data(self) -> Profile:
        """What is known of vLLM."""
        return VLLM

    @model_validator(mode="before")
    @classmethod
    def _named_as_loaded(cls, given: Any) -> Any:
        serve = given.get("serve") if isinstance(given, Mapping) else None
        if isinstance(serve, Mapping) and "model" in serve:
            return {"model": serve["model"], **given}
        return given

    def _check_place(self) -> None:
        if sum((self.one_url is not None, bool(self.many_urls), self.serve is not None)) != 1:
            raise ValueError("needs one of base_url, base_urls and serve")

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The base URLs; that of a managed server is on this machine."""
        if self.serve is not None:
            return (f"http://127.0.0.1:{self.serve.port}/v1",)
        return super().base_urls


class LiteLLMBackendSettings(Settings):
    """A provider that litellm translates for. Without `price`, litellm's own table is used."""

    type: Literal["litellm"]
    model: Text
    # Never streamed, so there is nothing to count while a call runs.
    recovery: Literal["worst_case"] = "worst_case"
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
    recovery: Recovery = "worst_case"
    budget: BudgetSettings = BudgetSettings()
    max_in_flight: Count | None = None
    timeout_s: Seconds = 600.0
    params: Params = Field(default_factory=dict)


class ReplayBackendSettings(Settings):
    """A file of recorded samples that is served again: see docs/replay.md for its form.

    `samples_of` picks those of one backend of the recording; `pace` times the recorded seconds pass
    before a sample is there.
    """

    type: Literal["replay"]
    file: Text
    price: RequiredPrice
    samples_of: Text | None = None
    pace: Annotated[float, Field(ge=0, le=1000)] = 0.0
    recovery: Recovery = "worst_case"
    budget: BudgetSettings = BudgetSettings()
    max_in_flight: Count | None = None
    timeout_s: Seconds = 600.0
    params: Params = Field(default_factory=dict)


BackendSettings = Annotated[
    OpenAIBackendSettings
    | VllmBackendSettings
    | LiteLLMBackendSettings
    | TinyBackendSettings
    | ReplayBackendSettings,
    Field(discriminator="type"),
]


def literal_secrets(document: Document, value: Any, path: Path) -> Iterator[Problem]:
    """Find secrets below a path that are written into the file; their values are not shown."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from literal_secrets(document, inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from literal_secrets(document, inner, (*path, index))
    elif isinstance(value, str) and path not in document.templates:
        match path:
            case ("backends", _, "api_key") | ("verifiers", _, *_, "secret"):
                secret = True
            case ("keys", *_, "key") | ("server", "admin_key"):
                secret = True
            case ("backends", _, "headers", header):
                secret = str(header).lower() in _CREDENTIAL_HEADERS
            case _:
                secret = False
        if secret:
            message = 'must come from the environment: write "${NAME}" and set the variable NAME'
            yield Problem(path, message)
