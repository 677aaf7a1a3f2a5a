"""What a ledger says of the past, read beside the server: sums, and the bill of one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samplewise.proxy.ledger.bill import Entry, bill
from samplewise.proxy.ledger.spend import Report, spend
from samplewise.proxy.records.store import Record, find

__all__ = ["Books"]


@dataclass(frozen=True, slots=True)
class Books:
    """Reads of one ledger: a file, or the URL of a database. Never on the event loop: they block.

    All raise `StoreError` when it cannot be read.
    """

    where: Path | str

    def spend(
        self, by: Sequence[str], since_ms: int | None, until_ms: int | None, key: str | None
    ) -> Report:
        """Add up what was reserved between two times, of one key (its id) or of all."""
        return spend(self.where, by, since_ms, until_ms, key)

    def bill(self, request_id: str) -> Sequence[Entry]:
        """Return the rows of one request."""
        return bill(self.where, request_id)

    def records(self, name: str) -> Sequence[Record]:
        """Return the records of a request id, ours or one that came with it; newest first."""
        return find(self.where, name)
