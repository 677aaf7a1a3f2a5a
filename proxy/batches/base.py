"""What a file and a batch are: values, and their JSON as OpenAI's API has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from samplewise.policies.price import usd
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window

__all__ = ["OPEN", "Batch", "Problem", "Result", "Status", "Stored"]


class Status(StrEnum):
    """How far a batch is."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


# Somebody works on these, or should.
OPEN = (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file. `batch` and `ok` name the results that it shows, where it was not uploaded."""

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None
    batch: str | None = None
    ok: int | None = None

    def shown(self) -> dict[str, Any]:
        """Return the file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a whole batch was refused. `line` counts from 1; None is the file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def shown(self) -> dict[str, Any]:
        """Return the error object."""
        return {
            "code": self.code,
            "line": self.line,
            "message": self.message,
            "param": self.param,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one line: a line of the output file if `ok`, else of the error file."""

    line: int
    ok: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch. `times` are UTC seconds by name; `total` counts its lines once they were looked at.

    `completed` and `failed` are those at its end; while it runs its results are counted.

    `max_nano` is what all of it may spend, in nano-dollars.
    """

    id: str
    owner: str
    created_at: int
    expires_at: int
    input_file: str
    endpoint: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    max_nano: int | None = None
    status: Status = Status.VALIDATING
    times: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[Problem, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file: str | None = None
    error_file: str | None = None

    @property
    def account(self) -> Account:
        """The counter in the ledger that all its lines must fit into."""
        return Account(Scope.TAG, self.id, Window.TOTAL, Limit(nano=self.max_nano))

    def shown(self, spent_nano: int) -> dict[str, Any]:
        """Return the batch object; it has cost `spent_nano` so far."""
        names = (
            "in_progress", "finalizing", "completed", "failed", "expired", "cancelling",
            "cancelled",
        )  # fmt: skip
        errors = {"object": "list", "data": [problem.shown() for problem in self.errors]}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": errors if self.errors else None,
            "input_file_id": self.input_file,
            "completion_window": "24h",
            "status": self.status.value,
            "output_file_id": self.output_file,
            "error_file_id": self.error_file,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            **{f"{name}_at": self.times.get(f"{name}_at") for name in names},
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "metadata": dict(self.metadata) or None,
            "samplewise": {
                "max_cost_usd": None if self.max_nano is None else usd(self.max_nano),
                "cost_usd": usd(spent_nano),
            },
        }
