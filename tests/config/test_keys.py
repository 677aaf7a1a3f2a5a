"""`keys:` and `server.admin_key`: what may stand there, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from samplewise.proxy.config import Config, check_exposed
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.keys.base import Terms
from samplewise.proxy.ledger.base import Limit, Window
from tests.config.given import given, loaded, only_problem, refused

ENV = {"A": "a-secret-of-16-characters", "B": "another-secret-of-it", "SHORT": "fifteen-letters"}


def _key(**fields: Any) -> dict[str, Any]:
    return {"name": "ci", "key": "${A}", **fields}


def _config(keys: Any, **sections: Any) -> Config:
    return loaded(given(keys=keys, **sections), **ENV)


@pytest.mark.parametrize(
    ("keys", "host", "required"),
    [
        ([_key()], "127.0.0.1", True),
        ([], "127.0.0.1", True),
        ({"list": [_key()]}, "127.0.0.1", True),
        ({"required": False, "list": [_key()]}, "127.0.0.1", False),
        ({"required": True}, "127.0.0.1", True),
        ({}, "127.0.0.1", False),
        ({}, "0.0.0.0", True),
    ],
)
def test_a_list_of_keys_means_that_one_is_needed(keys: Any, host: str, required: bool) -> None:
    config = _config(keys, server={"host": host})
    assert config.keys_required is config.given_keys().required is required
    check_exposed(config)


def test_a_list_that_nobody_needs_is_refused_where_others_can_reach_it() -> None:
    config = _config({"required": False, "list": [_key()]}, server={"host": "0.0.0.0"})
    with pytest.raises(ConfigError, match=r"keys\.required: is false"):
        check_exposed(config)


def test_a_key_may_have_all_terms() -> None:
    budget = {
        "usd_per_day": 5,
        "tokens_per_hour": 10,
        "samples_per_day": 7,
        "requests_per_minute": 60,
        "requests_total": 1000,
    }
    full = _key(
        routes=["r"],
        budget=budget,
        max_samples=4,
        expires="2100-01-31T12:00Z",
        tests=True,
        tags=["x"],
    )
    ((name, secret, terms),) = _config([full]).given_keys().keys
    assert (name, secret) == ("ci", ENV["A"])
    assert terms == Terms(
        routes=("r",),
        limits=(
            (Window.HOUR, Limit(tokens=10)),
            (Window.DAY, Limit(nano=5_000_000_000, samples=7)),
        ),
        requests=((Window.MINUTE, 60), (Window.TOTAL, 1000)),
        max_samples=4,
        expires_at=4_105_080_000_000,
        tests=True,
        tags=("x",),
    )


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ([_key(budget={"usd_per_week": 5})], "[0].budget.usd_per_week: unknown field; did you"),
        ([_key(budget={"usd_per_day": -5})], "[0].budget.usd_per_day: must not be negative"),
        ([_key(budget={"usd_per_day": "five"})], "[0].budget.usd_per_day: must be a number"),
        ([_key(budget={"requests_per_day": 0})], "[0].budget.requests_per_day: must be at least 1"),
        ([_key(budget={"tokens_total": 1.5})], "[0].budget.tokens_total: must be a whole number"),
        ([_key(key="${SHORT}")], "[0].key: must have at least 16 characters, and no spaces"),
        ([_key(key="${A} ${B}")], "[0].key: must have at least 16 characters, and no spaces"),
        ([_key(key="${NONE}")], "[0].key: the environment variable NONE is not set"),
        ([_key(key=5)], "[0].key: must be text"),
        ([{"name": "a"}], '[0].key: required: write "${NAME}"'),
        ([{"key": "${A}"}], "[0].name: required"),
        ([_key(name="key_1")], "[0].name: must hold no 'sk-sw-' and not begin like an id"),
        ([_key(name=" ")], "[0].name: needs 1 to 128 printable characters"),
        ([_key(rotues=["r"])], "[0].rotues: unknown field; did you mean 'routes'?"),
        ([_key(routes=["q"])], "[0].routes[0]: no route 'q'; known: r"),
        ([_key(max_samples=0)], "[0].max_samples: must be at least 1"),
        ([_key(expires="90d")], "[0].expires: must be a date or time such as 2027-01-31"),
        ([_key(), _key(key="${B}")], "[1].name: is the name of entry 0 too"),
        ([_key(), _key(name="b")], "[1].key: is the same as that of entry 0"),
        ("ci", ": must be a mapping"),
        ([5], "[0]: must be a mapping"),
    ],
)
def test_what_cannot_be_is_told_at_its_place(keys: Any, problem: str) -> None:
    problems = refused(given(keys=keys), **ENV)
    assert [p for p in problems if p.startswith(f"keys{problem}")], problems
    if isinstance(keys, list):
        nested = refused(given(keys={"list": keys}), **ENV)
        assert [p for p in nested if p.startswith(f"keys.list{problem}")], nested


def test_a_key_that_is_the_admins_is_refused() -> None:
    text = given(keys=[_key()], server={"admin_key": "${A}"})
    assert only_problem(text, **ENV).startswith("keys[0].key: is the same as server.admin_key")


@pytest.mark.parametrize("value", ["${SHORT}", 5])
def test_an_admin_key_is_long(value: Any) -> None:
    assert only_problem(given(server={"admin_key": value}), **ENV).startswith("server.admin_key: ")


def test_a_key_that_has_expired_is_a_warning_because_a_server_must_start_again() -> None:
    (warning,) = [w for w in _config([_key(expires="2020-01-01")]).warnings if "keys" in w]
    assert warning.startswith("keys[0].expires: is in the past: nobody can use this key")
