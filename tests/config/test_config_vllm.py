from __future__ import annotations

from typing import Any

import pytest

from samplewise.proxy.backends.profiles import PROFILES
from samplewise.proxy.config_backends import OpenAIBackendSettings, VllmBackendSettings
from tests.config.given import PRICE, given, loaded, only_problem, refused


def vllm(**fields: Any) -> VllmBackendSettings:
    text = given(backends={"up": {"type": "vllm", "price": PRICE, **fields}})
    found = loaded(text).backends["up"]
    assert isinstance(found, VllmBackendSettings)
    return found


def profiled(name: str, **fields: Any) -> OpenAIBackendSettings:
    found = loaded(given(backend={"profile": name, **fields}), KEY="a-long-secret").backends["up"]
    assert isinstance(found, OpenAIBackendSettings)
    return found


def test_a_managed_server_is_on_this_machine_and_called_like_its_model() -> None:
    found = vllm(serve={"model": "Qwen/Qwen3-8B", "port": 8123})
    assert found.base_urls == ("http://127.0.0.1:8123/v1",)
    assert (found.model, found.probe) == ("Qwen/Qwen3-8B", "full")
    assert vllm(model="mine", serve={"model": "Qwen/Qwen3-8B"}).model == "mine"


def test_servers_that_run_already_are_a_pool() -> None:
    urls = ["http://a:1/v1", "http://b:1/v1"]
    assert vllm(model="m", base_urls=urls).base_urls == tuple(urls)


def test_every_rank_behind_an_address_is_a_host() -> None:
    urls = ["http://a:1/v1", "http://b:1/v1"]
    assert vllm(model="m", base_urls=urls).hosts == tuple(urls)
    found = vllm(model="m", base_urls=urls, data_parallel_ranks=2)
    assert found.base_urls == tuple(urls)
    assert found.hosts == tuple(f"{url}#{rank}" for url in urls for rank in (0, 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "m"},
        {"model": "m", "base_url": "http://a:1/v1", "serve": {"model": "m"}},
        {"model": "m", "base_url": "http://a:1/v1", "base_urls": ["http://b:1/v1"]},
    ],
)
def test_exactly_one_place_is_given(fields: Any) -> None:
    text = given(backends={"up": {"type": "vllm", "price": PRICE, **fields}})
    assert "backends.up: needs one of base_url, base_urls and serve" in only_problem(text)


def test_a_typo_in_serve_is_told_with_the_nearest_name() -> None:
    serve = {"model": "m", "arg": ["--max-model-len"]}
    text = given(backends={"up": {"type": "vllm", "price": PRICE, "serve": serve}})
    assert any("serve.arg" in line and "args" in line for line in refused(text))


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_and_agrees_with_itself(name: str) -> None:
    profile = profiled(name).profile_data
    # One choice a call, if and only if it is known not to give several.
    assert (profile.max_n == 1) == (profile.abilities.n is False)
    # Usage that is asked for at the end must not be known to stay away.
    assert profile.stream_usage == "none" or profile.abilities.stream_usage is not False


def test_the_key_goes_into_the_header_of_the_profile() -> None:
    headers = profiled("azure", api_key="${KEY}").request_headers()
    assert headers == {"api-key": "a-long-secret"}
    headers = profiled("groq", api_key="${KEY}").request_headers()
    assert headers == {"Authorization": "Bearer a-long-secret"}


def test_a_key_and_the_same_header_by_hand_are_refused() -> None:
    twice = {"profile": "azure", "api_key": "${KEY}", "headers": {"Api-Key": "${KEY}"}}
    assert "api_key and the header api-key: give only one" in only_problem(
        given(backend=twice), KEY="a-long-secret"
    )


def test_an_unknown_profile_is_refused() -> None:
    assert "profile" in only_problem(given(backend={"profile": "olama"}))
