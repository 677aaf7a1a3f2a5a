"""What a reload may change, and what it leaves as it is."""

from __future__ import annotations

from typing import Any

import pytest

from samplewise.proxy.config import Config
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.reload import restart_needed, unchanged
from tests.config.given import given, loaded


def _with_server(**serve: Any) -> Config:
    backend = {"type": "vllm", "model": "m", "price": {"gpu_hour_usd": 1, "min_tokens_per_s": 9}}
    own = {"model": "org/m", "port": 9000, **serve}
    return loaded(given(backends={"up": {**backend, "serve": own}}))


def test_what_has_the_same_settings_is_taken_over() -> None:
    parts = {"same": 1, "changed": 2, "gone": 3}
    before = {"same": "a", "changed": "b", "gone": "c"}
    now = {"same": "a", "changed": "d", "new": "e"}
    assert unchanged(parts, before, now) == {"same": 1}


def test_settings_of_the_process_stay_and_are_named() -> None:
    old = loaded(given())
    new = loaded(given(server={"port": 1, "drain_s": 9.0}, store="sqlite:///other.db"))
    config, named = restart_needed(old, new)
    assert named == ("server.port", "store")
    assert (config.server.port, config.store) == (old.server.port, old.store)
    assert config.server.drain_s == 9.0


def test_nothing_is_named_where_nothing_changed() -> None:
    config, named = restart_needed(loaded(given()), loaded(given()))
    assert (config, named) == (loaded(given()), ())


def test_a_model_server_of_our_own_changes_only_with_a_restart() -> None:
    old = _with_server()
    assert restart_needed(old, _with_server()) == (old, ())
    for before, after in (
        (old, _with_server(port=9001)),
        (old, loaded(given())),
        (loaded(given()), old),
    ):
        with pytest.raises(ConfigError, match=r"backends\.up: a model server of Samplewise"):
            restart_needed(before, after)
