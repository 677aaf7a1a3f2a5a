from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samplewise.proxy.config_store import store_path
from tests.config.given import given, loaded, only_problem


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"port": "8400"}, "port: must be a whole number, got '8400'"),
        ({"port": True}, "port: must be a whole number, got true"),
        ({"port": 70000}, "port: must be at most 65535, got 70000"),
        ({"prot": 1}, "prot: unknown field; did you mean 'port'?"),
        ({"host": ""}, "host: must not be empty"),
        ({"max_body_mb": 0}, "max_body_mb: must be greater than 0, got 0"),
        ({"log_format": "xml"}, "log_format: must be 'auto', 'json' or 'console', got 'xml'"),
        ({"cors_origins": "*"}, "cors_origins: must be a list, got '*'"),
        ({"cors_origins": ["a.com"]}, "cors_origins[0]: must be an origin such as"),
        ({"cors_origins": ["https://a.com/x"]}, "cors_origins[0]: must be an origin such as"),
        ({"admin_key": "x" * 20}, 'admin_key: must come from the environment: write "${NAME}"'),
    ],
)
def test_server_fields_are_checked(section: dict[str, Any], reason: str) -> None:
    assert only_problem(given(server=section)).startswith(f"server.{reason}")


def test_cors_origins() -> None:
    origins = ["https://a.example.com", "http://localhost:3000", "*"]
    assert loaded(given(server={"cors_origins": origins})).server.cors_origins == tuple(origins)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///samplewise.db", "samplewise.db"),
        ("sqlite:///data/a.db", "data/a.db"),
        ("sqlite:////var/lib/a.db", "/var/lib/a.db"),
    ],
)
def test_store_urls_name_files(url: str, path: str) -> None:
    assert store_path(loaded(given(store=url)).store) == Path(path)


def test_a_store_may_be_a_database() -> None:
    url = "postgresql://u@h:5432/db?sslmode=require"
    assert loaded(given(store=url)).store == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://u:hunter2@h/db", "must not hold a password: set PGPASSWORD"),
        ("postgres://u@h/db?password=hunter2", "must not hold a password: set PGPASSWORD"),
        ("postgresql://u:hun/ter2@h/db", "must be postgresql://user@host:port/database"),
        ("postgresql://u@h:hunter2/db", "must be postgresql://user@host:port/database"),
        ("postgresql://u@h", "must be postgresql://user@host:port/database"),
        ("mysql://h/db", "must be sqlite:///relative.db"),
        ("samplewise.db", "must be sqlite:///relative.db"),
        ("sqlite://a.db", "must be sqlite:///relative.db"),
        ("sqlite:///", "must be sqlite:///relative.db"),
        ("sqlite:///dir/", "must be sqlite:///relative.db"),
        ("sqlite:///:memory:", "must name a plain file"),
        ("sqlite:///a.db?mode=ro", "must name a plain file"),
        (4, "must be text, got 4"),
    ],
)
def test_other_stores_are_refused(url: object, reason: str) -> None:
    found = only_problem(given(store=url))
    assert found.startswith(f"store: {reason}")
    assert "hunter2" not in found
    assert "ter2" not in found


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"require": True}, "require: unknown field; did you mean 'required'?"),
        ({"required": "sure"}, "required: must be true or false"),
    ],
)
def test_the_section_of_keys_is_checked(section: dict[str, Any], reason: str) -> None:
    assert only_problem(given(keys=section)).startswith(f"keys.{reason}")


@pytest.mark.parametrize(
    ("host", "keys", "required"),
    [
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"required": True}, True),
        ("0.0.0.0", {}, True),
        ("0.0.0.0", {"required": True}, True),
        ("gateway.internal", {}, True),
    ],
)
def test_keys_are_required_where_other_machines_can_reach_the_server(
    host: str, keys: dict[str, Any], required: bool
) -> None:
    assert loaded(given(server={"host": host}, keys=keys)).keys_required is required
