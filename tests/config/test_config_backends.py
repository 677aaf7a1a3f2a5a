from __future__ import annotations

import json
import pickle
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from samplewise.policies.price import Price
from samplewise.proxy.config import Config
from samplewise.proxy.config_backends import (
    LiteLLMBackendSettings,
    OpenAIBackendSettings,
    PriceSettings,
)
from tests.config.given import PRICE, given, loaded, only_problem, refused


def backend(config: Config) -> OpenAIBackendSettings:
    found = config.backends["up"]
    assert isinstance(found, OpenAIBackendSettings)
    return found


def price(**fields: Any) -> PriceSettings:
    found = backend(loaded(given(backend={"price": fields}))).price
    return found


def test_defaults_of_an_openai_backend() -> None:
    found = backend(loaded(given()))
    assert found.base_urls == ("http://up:8000/v1",)
    assert (found.connect_timeout_s, found.idle_timeout_s, found.timeout_s) == (5.0, 120.0, 600.0)
    assert found.max_response_bytes == 64 * 2**20
    assert (found.stream_usage, found.profile_data.stream_usage) == (None, "final")
    assert (found.max_in_flight, found.max_n, found.token_field) == (None, None, None)
    assert (found.max_tokens_per_image, found.api_key) == (None, None)
    assert (dict(found.headers), dict(found.params)) == ({}, {})


def test_several_base_urls() -> None:
    urls = ["http://a:1/v1", "https://b/v1/"]
    found = backend(loaded(given(backend={"base_urls": urls}, without="base_url")))
    assert found.base_urls == ("http://a:1/v1", "https://b/v1")


@pytest.mark.parametrize("change", [{"base_urls": ["http://b/v1"]}, {"base_urls": []}])
def test_one_of_base_url_and_base_urls(change: dict[str, Any]) -> None:
    both = given(backend=change)
    neither = given(backend=change, without="base_url")
    text = both if change["base_urls"] else neither
    assert "backends.up: needs either base_url or base_urls" in only_problem(text)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("up:8000", "must be a URL such as"),
        ("ftp://up", "must be a URL such as"),
        ("http://", "must be a URL such as"),
        ("http://up:0", "must be a URL such as"),
        ("http://up:99999", "is not a URL"),
        ("http://[::1", "is not a URL"),
        ("http://up/a b", "is not a URL"),
        ("http://up/v1?key=1", "no ? and no #"),
        ("http://user:pw-7@up/v1", "no user or password"),
        ("http://up/v1/chat/completions", "must be the base"),
        ("", "must be a URL such as"),
    ],
)
def test_urls_are_checked(url: str, reason: str) -> None:
    found = only_problem(given(backend={"base_url": url}))
    assert found.startswith("backends.up.base_url: ")
    assert reason in found
    assert "pw-7" not in found


def test_prices_per_million_tokens_are_exact() -> None:
    found = price(input_usd_per_mtok=0.1, output_usd_per_mtok="0.3", cached_input_usd_per_mtok=1e-6)
    assert found.build() == Price.per_mtok("0.1", "0.3", "0.000001")
    assert found.build().prompt_pico == 100_000


def test_cached_tokens_cost_as_much_as_others_without_a_price() -> None:
    assert price(**PRICE).build() == Price.per_mtok("0.5", "1.5", None)


def test_a_rent_is_a_price() -> None:
    assert price(gpu_hour_usd=2.0, min_tokens_per_s=800).build() == Price.per_gpu_hour("2.0", "800")


def test_reasoning_and_images_may_have_a_price() -> None:
    found = price(**PRICE, reasoning_usd_per_mtok=4, usd_per_image="0.002").build()
    assert found == Price.per_mtok("0.5", "1.5", None, reasoning_usd="4", image_usd="0.002")
    assert (found.reasoning_pico, found.image_pico) == (4_000_000, 2 * 10**9)


def test_a_table_is_a_price_read_once_and_the_same_in_every_worker(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    entry = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    file.write_text(json.dumps({"acme/small": entry}))
    found = price(table=str(file), model="acme/small")
    file.unlink()
    expected = replace(
        Price.per_mtok("1", "2", None),
        version="table-prices.json:acme/small:1000000/1000000/2000000",
    )
    assert found.build() == expected
    assert pickle.loads(pickle.dumps(found)).build() == expected


def test_a_model_that_a_table_does_not_have_is_refused_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text('{"acme/small": {}}')
    given_price = {"table": str(file), "model": "acme/smal"}
    found = only_problem(given(backend={"price": given_price}))
    assert found.startswith("backends.up.price: table-prices.json has no model 'acme/smal'")
    assert "did you mean 'acme/small'?" in found


def test_what_a_table_has_and_is_not_counted_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    entry = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    long = {"input_cost_per_token_above_200k_tokens": 2e-6}
    file.write_text(json.dumps({"m": {**entry, **long}}))
    found = loaded(given(backend={"price": {"table": str(file), "model": "m"}})).warnings
    assert any("not counted: input_cost_per_token_above_200k_tokens" in line for line in found)


def test_a_price_by_litellm_needs_its_table() -> None:
    if find_spec("litellm") is not None:
        pytest.skip("litellm is installed here")
    found = only_problem(given(backend={"price": {"litellm": "deepseek/deepseek-chat"}}))
    assert found.startswith("backends.up.price: litellm is not installed: pip install")


def test_a_price_of_zero_must_be_written() -> None:
    free = price(input_usd_per_mtok=0, output_usd_per_mtok=0).build()
    assert (free.prompt_pico, free.cached_pico, free.completion_pico) == (0, 0, 0)


def test_a_missing_price_says_what_to_write() -> None:
    found = only_problem(given(without="price"))
    assert found.startswith("backends.up.price: required: write price: {input_usd_per_mtok: ")
    assert "gpu_hour_usd" in found
    assert "if it is free, write 0" in found


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"input_usd_per_mtok": 1},
        {"output_usd_per_mtok": 1},
        {"cached_input_usd_per_mtok": 1},
        {"gpu_hour_usd": 1},
        {"min_tokens_per_s": 1},
        {"table": "prices.json"},
        {"model": "m"},
        {"litellm": "m", "model": "m"},
        {"litellm": "m", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1},
        {"gpu_hour_usd": 1, "min_tokens_per_s": 1, "usd_per_image": 1},
        {**PRICE, "gpu_hour_usd": 1},
        {**PRICE, "gpu_hour_usd": 1, "min_tokens_per_s": 1},
        {"gpu_hour_usd": 1, "min_tokens_per_s": 1, "cached_input_usd_per_mtok": 1},
    ],
)
def test_a_price_has_one_complete_form(fields: dict[str, Any]) -> None:
    found = only_problem(given(backend={"price": fields}))
    assert "backends.up.price: needs either input_usd_per_mtok and output_usd_per_mtok" in found
    assert "written as 0" in found


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        (-1, "must not be negative, got -1"),
        ("-0.1", "must not be negative, got '-0.1'"),
        (True, "must be a number, got true"),
        ("1.5 USD", "must be a number, got '1.5 USD'"),
        ("nan", "must be a number, got 'nan'"),
        ("1e999999999 ", "must be a number"),
        ("inf", "must be a number, got 'inf'"),
        ("1e99", "must be at most 1,000,000,000"),
        ("", "must be a number"),
        (None, "must be a number, got nothing"),
        ([1], "must be a number"),
        ("9" * 5000, "must be a number"),
    ],
)
def test_amounts_that_are_no_prices_are_refused(amount: object, reason: str) -> None:
    fields = {"input_usd_per_mtok": amount, "output_usd_per_mtok": 1}
    if amount is None:
        # An empty field counts as a field that is not given.
        assert "needs either" in only_problem(given(backend={"price": fields}))
        return
    found = only_problem(given(backend={"price": fields}))
    assert found.startswith(f"backends.up.price.input_usd_per_mtok: {reason}")


@pytest.mark.parametrize("written", [".nan", ".inf", "-.inf"])
def test_amounts_that_are_not_finite_are_refused(written: str) -> None:
    text = given().replace("input_usd_per_mtok: 0.5", f"input_usd_per_mtok: {written}")
    assert f"must be a plain decimal number, got '{written}'" in only_problem(text)


def test_a_throughput_of_zero_is_refused() -> None:
    fields = {"gpu_hour_usd": 1, "min_tokens_per_s": 0}
    found = only_problem(given(backend={"price": fields}))
    assert "min_tokens_per_s: must be greater than 0, got 0" in found


@pytest.mark.parametrize(
    ("field", "bad", "reason"),
    [
        ("max_in_flight", 0, "must be at least 1, got 0"),
        ("max_in_flight", "8", "must be a whole number, got '8'"),
        ("max_in_flight", True, "must be a whole number, got true"),
        ("max_in_flight", 8.0, "must be a whole number, got 8.0"),
        ("max_n", 0, "must be at least 1, got 0"),
        ("timeout_s", 0, "must be greater than 0, got 0"),
        ("timeout_s", "60", "must be a number, got '60'"),
        ("timeout_s", 1e9, "must be at most 86400"),
        ("max_response_mb", 2000, "must be at most 1024, got 2000"),
        ("stream_usage", "last", "must be 'final', 'continuous' or 'none', got 'last'"),
        ("token_field", "tokens", "must be 'max_tokens' or 'max_completion_tokens'"),
        ("model", 4, "must be text, got 4"),
        ("model", " ", "must not be empty"),
        ("model", False, "must be text, got false (on, off, yes, no: put the word in quotes)"),
        ("max_tokens_per_image", 0, "must be at least 1, got 0"),
        ("params", [], "must be a mapping, got a list"),
    ],
)
def test_fields_are_strict(field: str, bad: object, reason: str) -> None:
    assert only_problem(given(backend={field: bad})).startswith(f"backends.up.{field}: {reason}")


@pytest.mark.parametrize("name", ["model", "messages", "stream", "n", "best_of", "max_tokens"])
def test_params_cannot_change_what_samplewise_sets(name: str) -> None:
    assert f"backends.up.params: {name} is" in only_problem(given(backend={"params": {name: 1}}))


def test_params_are_plain_json_values() -> None:
    params = {"top_k": 20, "extra": {"a": [1, "${X}", None]}}
    assert backend(loaded(given(backend={"params": params}), X="y")).params == {
        "top_k": 20,
        "extra": {"a": [1, "y", None]},
    }


def test_request_headers_hold_the_key_in_clear() -> None:
    fields = {"api_key": "${KEY}", "headers": {"x-org": "acme"}}
    found = backend(loaded(given(backend=fields), KEY="sk-1"))
    assert found.request_headers() == {"x-org": "acme", "Authorization": "Bearer sk-1"}


def test_a_key_and_an_authorization_header_exclude_each_other() -> None:
    fields = {"api_key": "${KEY}", "headers": {"authorization": "${KEY}"}}
    assert "give only one of them" in only_problem(given(backend=fields), KEY="sk-1")


@pytest.mark.parametrize("name", ["a b", "", "x:y", "Content-Length", "host"])
def test_header_names_are_checked(name: str) -> None:
    found = only_problem(given(backend={"headers": {name: "x"}}))
    assert "is not a header name" in found or "is set by Samplewise itself" in found


@pytest.mark.parametrize("key", ["", "a\nb", "sk-1\r\nX: y", "schlüssel"])
def test_a_secret_fits_into_a_header(key: str) -> None:
    found = only_problem(given(backend={"api_key": "${KEY}"}), KEY=key)
    assert found.startswith("backends.up.api_key: must ")
    assert not key or key not in found


def test_litellm_needs_no_price() -> None:
    other = {"type": "litellm", "model": "deepseek/deepseek-chat", "api_key": "${KEY}"}
    found = loaded(given(backends={"up": other}), KEY="k").backends["up"]
    assert isinstance(found, LiteLLMBackendSettings)
    assert found.price is None


def test_an_unknown_backend_type_has_a_near_match() -> None:
    found = only_problem(given(backend={"type": "opnai"}))
    assert found == "backends.up: unknown type 'opnai'; did you mean 'openai'? (config.yaml:2)"


def test_a_backend_without_type_says_so() -> None:
    assert "must be a mapping with a `type`" in only_problem(given(without="type"))


def test_an_unknown_price_field_has_a_near_match() -> None:
    found = refused(given(backend={"price": {**PRICE, "gpu_hour": 2}}))
    assert any("price.gpu_hour: unknown field; did you mean 'gpu_hour_usd'?" in p for p in found)


def test_what_never_streams_has_no_checkpoints() -> None:
    backend = {"type": "litellm", "model": "a/b", "recovery": "checkpoint"}
    found = only_problem(given(backends={"up": backend}))
    assert found.startswith("backends.up.recovery: must be 'worst_case'")
