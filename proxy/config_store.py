"""`store:` the URL of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from samplewise.proxy.errors import ConfigError

__all__ = ["check_store", "is_postgres", "postgres_extra", "store_path"]

_SQLITE = "sqlite:///"


def check_store(value: str) -> str:
    """Return a store URL as it is; raises ValueError with what is wrong with it."""
    if is_postgres(value):
        return _check_database(value)
    path = value.removeprefix(_SQLITE)
    if path == value or not path.strip("/") or path.endswith("/"):
        raise ValueError(
            "must be sqlite:///relative.db, sqlite:////absolute/path.db or postgresql://..."
        )
    if "?" in path or "#" in path or path == ":memory:" or not path.isprintable():
        raise ValueError("must name a plain file: budgets have to outlive the process")
    return value


def is_postgres(url: str) -> bool:
    """Tell whether a store URL names a PostgreSQL database."""
    return url.startswith(("postgresql://", "postgres://"))


@contextmanager
def postgres_extra() -> Iterator[None]:
    """Say what is missing where an import inside needs the extra.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            "store: PostgreSQL needs the extra: pip install 'samplewise[postgres]'"
        ) from error


def _check_database(url: str) -> str:
    wrong = "must be postgresql://user@host:port/database"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        raise ValueError(wrong) from None  # the error would show parts of a password
    if parts.password is not None or "password" in parts.query.lower():
        raise ValueError(
            "must not hold a password: set PGPASSWORD, or use a password file (PGPASSFILE)"
        )
    if not parts.path.strip("/") or "/" in parts.path[1:] or not url.isprintable():
        raise ValueError(wrong)
    return url


def store_path(url: str) -> Path:
    """Return the file that a checked store URL names.

    Raises:
        ConfigError: it names a PostgreSQL database, which has no file.
    """
    if is_postgres(url):
        raise ConfigError("store: this needs an SQLite ledger, and the store is PostgreSQL")
    return Path(url.removeprefix(_SQLITE))
