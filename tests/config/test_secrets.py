from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from samplewise.proxy.config import Config
from samplewise.proxy.config_backends import OpenAIBackendSettings
from samplewise.proxy.config_quick import quick_config
from samplewise.proxy.errors import ConfigError
from tests.config.given import PRICE, given, loaded, only_problem, refused

SECRET = "sk-live-0123456789"


def shown(config: Config) -> str:
    return "\n".join(
        [repr(config), str(config), f"{config.backends}", repr(config.routes), *config.warnings]
    )


@pytest.mark.parametrize(
    "backend",
    [
        {"api_key": "${KEY}"},
        {"headers": {"Authorization": "Bearer ${KEY}"}},
        {"headers": {"x-anything": "${KEY}"}},
        {"params": {"token": "${KEY}", "deep": [{"a": "${KEY}"}]}},
    ],
)
def test_secrets_are_not_shown_by_settings(backend: dict[str, Any]) -> None:
    assert SECRET not in shown(loaded(given(backend=backend), KEY=SECRET))


@pytest.mark.parametrize("place", ["env", "args"])
def test_secrets_of_a_managed_server_are_not_shown(place: str) -> None:
    given_there: Any = {"HF_TOKEN": "${KEY}"} if place == "env" else ["--api-key", "${KEY}"]
    serve = {"model": "m", place: given_there}
    up = {"type": "vllm", "price": PRICE, "serve": serve}
    assert SECRET not in shown(loaded(given(backends={"up": up}), KEY=SECRET))


def test_a_secret_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    config = loaded(given(backend={"api_key": "${KEY}"}), KEY_FILE=str(file))
    backend = config.backends["up"]
    assert isinstance(backend, OpenAIBackendSettings)
    assert backend.request_headers() == {"Authorization": f"Bearer {SECRET}"}
    assert SECRET not in shown(config)


def test_the_variable_itself_wins_over_its_file(tmp_path: Path) -> None:
    text = given(backend={"model": "${NAME}"})
    config = loaded(text, NAME="mine", NAME_FILE=str(tmp_path / "none"))
    backend = config.backends["up"]
    assert isinstance(backend, OpenAIBackendSettings)
    assert backend.model == "mine"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "cannot be read: it is not UTF-8 text"),
        (b"x" * 70_000, "has more than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_without_its_content(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    problem = only_problem(given(backend={"api_key": "${KEY}"}), KEY_FILE=str(file))
    assert f"the file that KEY_FILE names {reason}" in problem


def test_keys_are_not_shown_by_settings() -> None:
    keys = [{"name": "a", "key": "${KEY}", "routes": ["r"]}]
    for section in (keys, {"required": False, "list": keys}):
        server = {"admin_key": "${ADMIN}"}
        config = loaded(given(keys=section, server=server), KEY=SECRET, ADMIN=f"{SECRET}-admin")
        assert SECRET not in f"{config!r} {config.keys} {config.server} {config.given_keys()!r}"


def test_secrets_of_litellm_are_not_shown() -> None:
    up = {"type": "litellm", "model": "m", "api_key": "${KEY}"}
    assert SECRET not in shown(loaded(given(backends={"up": up}), KEY=SECRET))


def test_secrets_are_there_when_asked_for() -> None:
    backend = loaded(given(backend={"api_key": "${KEY}"}), KEY=SECRET).backends["up"]
    assert isinstance(backend, OpenAIBackendSettings)
    assert isinstance(backend.api_key, SecretStr)
    assert backend.api_key.get_secret_value() == SECRET


def test_settings_survive_a_trip_to_another_process() -> None:
    config = loaded(given(backend={"api_key": "${KEY}"}), KEY=SECRET)
    assert pickle.loads(pickle.dumps(config)) == config


# Every place of a configuration where a secret can be put by mistake.
MISPLACED: list[dict[str, Any]] = [
    {"backend": {"type": "${KEY}"}},
    {"backend": {"base_url": "${KEY}"}},
    {"backend": {"base_url": "http://${KEY}@up/v1"}},
    {"backend": {"price": "${KEY}"}},
    {"backend": {"price": {"input_usd_per_mtok": "${KEY}", "output_usd_per_mtok": 1}}},
    {"backend": {"max_n": "${KEY}"}},
    {"backend": {"timeout_s": "${KEY}"}},
    {"backend": {"stream_usage": "${KEY}"}},
    {"backend": {"api_key": ["${KEY}"]}},
    {"backend": {"api_key": "${KEY}\n"}},
    {"backend": {"headers": "${KEY}"}},
    {"backend": {"params": "${KEY}"}},
    {"backend": {"unknown": "${KEY}"}},
    {"route": {"backends": ["${KEY}"]}},
    {"route": {"backends": "${KEY}"}},
    {"route": {"answers": "${KEY}"}},
    {"route": {"policy": "${KEY}"}},
    {"route": {"policy": "majority_vote:${KEY}"}},
    {"route": {"policy": {"type": "${KEY}"}}},
    {"route": {"policy": {"type": "python", "factory": "${KEY}"}}},
    {"route": {"policy": {"type": "python", "factory": "json:loads", "args": {"s": "${KEY}"}}}},
    {"route": {"on_tools": "${KEY}"}},
    {"route": {"seed": "${KEY}"}},
    {"store": "${KEY}"},
    {"store": "postgresql://u:${KEY}@h/db"},
    {"server": "${KEY}"},
    {"server": {"port": "${KEY}"}},
    {"server": {"cors_origins": ["${KEY}"]}},
    {"keys": "${KEY}"},
    {"keys": {"list": "${KEY}"}},
    {"keys": ["${KEY}"]},
    {"keys": [{"name": "sk-sw-${KEY}", "key": "${KEY}"}]},
    {"keys": [{"name": "a", "key": ["${KEY}"]}]},
    {"keys": [{"name": "a", "key": "${KEY}", "routes": ["${KEY}"]}]},
    {"keys": [{"name": "a", "key": "${KEY}", "tags": ["${KEY}", ""]}]},
    {"keys": [{"name": "a", "key": "${KEY}", "expires": "${KEY}"}]},
    {"keys": [{"name": "a", "key": "${KEY}", "budget": "${KEY}"}]},
    {"keys": [{"name": "a", "key": "${KEY}"}, {"name": "b", "key": "${KEY}"}]},
    {"keys": [{"name": "a", "key": "${KEY} with spaces"}]},
    {"server": {"admin_key": ["${KEY}"]}},
    {"server": {"admin_key": "${KEY}"}, "keys": [{"name": "a", "key": "${KEY}"}]},
    {"verifiers": {"v": "${KEY}"}},
    {"verifiers": {"v": {"type": "${KEY}"}}},
]


@pytest.mark.parametrize("change", MISPLACED, ids=str)
@pytest.mark.parametrize("secret", [SECRET, 'it\'s "quoted" \\ secret', "s" * 200])
def test_a_misplaced_secret_is_not_shown_by_errors(change: dict[str, Any], secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(given(**change), KEY=secret)
    everything = "".join(traceback.format_exception(caught.value))
    assert secret not in str(caught.value)
    assert secret[:60] not in everything


@pytest.mark.parametrize(
    "backend",
    [
        {"api_key": SECRET},
        {"api_key": f"{SECRET}$${{X}}"},
        {"headers": {"authorization": f"Bearer {SECRET}"}},
        {"headers": {"X-Api-Key": SECRET}},
    ],
)
def test_a_literal_secret_is_refused_and_not_shown(backend: dict[str, Any]) -> None:
    found = only_problem(given(backend=backend))
    assert 'must come from the environment: write "${NAME}"' in found
    assert SECRET not in found


@pytest.mark.parametrize(
    "sections",
    [
        {"keys": [{"name": "a", "key": SECRET}]},
        {"keys": {"list": [{"name": "a", "key": SECRET}]}},
        {"server": {"admin_key": SECRET}},
    ],
)
def test_a_literal_key_is_refused_and_not_shown(sections: dict[str, Any]) -> None:
    found = only_problem(given(**sections))
    assert 'must come from the environment: write "${NAME}"' in found
    assert SECRET not in found


def test_a_literal_secret_of_a_wrong_type_is_not_shown() -> None:
    assert not any(
        "12345678" in problem for problem in refused(given(backend={"api_key": 12345678}))
    )


def test_a_header_that_is_no_credential_may_be_literal() -> None:
    backend = loaded(given(backend={"headers": {"x-org": "acme"}})).backends["up"]
    assert isinstance(backend, OpenAIBackendSettings)
    assert backend.request_headers() == {"x-org": "acme"}


def test_the_key_of_quick_config_is_not_shown() -> None:
    config = quick_config("http://up/v1", "m", "single", api_key=SECRET)
    assert SECRET not in shown(config)
    backend = config.backends["upstream"]
    assert isinstance(backend, OpenAIBackendSettings)
    assert backend.request_headers() == {"Authorization": f"Bearer {SECRET}"}


def test_the_key_of_quick_config_is_not_shown_by_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        quick_config("http://up/v1", "m", "single", api_key=f"{SECRET}\n")
    assert SECRET not in str(caught.value)
