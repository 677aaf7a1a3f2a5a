"""What tests of keys share: a proxy with two routes, its key store, headers."""

from __future__ import annotations

from pathlib import Path

from samplewise.proxy.keys.store import KeyStore
from samplewise.proxy.ledger.base import Limit, Window
from samplewise.proxy.ledger.places import SqlitePlace
from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend

__all__ = ["CAP", "TOO_LITTLE", "bearer", "both_routes", "store_of"]

CAP = 100
"""The most tokens of a sample."""

# Too little for any sample.
TOO_LITTLE = ((Window.DAY, Limit(nano=1)),)


def both_routes(upstream: UpstreamProcess, more: str = "") -> str:
    """Return a configuration with the routes `one` and `many`."""
    routes = "".join(
        f"  {name}: {{backends: [local], max_tokens: {CAP}, policy: '{policy}'}}\n"
        for name, policy in {"one": "single", "many": "majority_vote:8"}.items()
    )
    return f"{more}backends:\n{backend(upstream, max_n=1)}routes:\n{routes}"


def store_of(folder: Path) -> KeyStore:
    """Return the keys of the ledger of a test's proxy."""
    return KeyStore(SqlitePlace(folder / "ledger.db"))


def bearer(secret: str) -> dict[str, str]:
    """Return the header that carries a secret."""
    return {"authorization": f"Bearer {secret}"}
