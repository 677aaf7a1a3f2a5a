"""Files and batches in their store. Everything blocks, so not on the event loop; any thread may."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from time import time

from samplewise.proxy.batches.base import OPEN, Batch, Problem, Result, Status, Stored
from samplewise.proxy.batches.lists import Listed, Wanted, read_page
from samplewise.proxy.batches.rows import BATCH, FILE, batch_of, values_of, write_batch
from samplewise.proxy.batches.schema import BatchPlace, FilePlace, batch_place, bring_up_to_date
from samplewise.proxy.config_store import is_postgres
from samplewise.proxy.ledger.places import Session
from samplewise.proxy.threads import InThread

__all__ = ["BatchStore", "batch_store"]

_OPEN = ", ".join(f"'{status.value}'" for status in OPEN)
_PAGE = 64
_DAY_S = 86_400
# An upload that has been going on for so long was cut off.
_LONGEST_UPLOAD_S = 6 * 3600


@dataclass(slots=True)
class BatchStore:
    """Files and batches of all keys. Every method raises `StoreError` when it cannot be used.

    `clock` gives UTC seconds. The tables are made when they are first written. `in_thread` is how
    an event loop should call them.
    """

    place: BatchPlace
    database: bool
    clock: Callable[[], float] = time
    in_thread: InThread = asyncio.to_thread
    _made: bool = False
    _making: Lock = field(default_factory=Lock)

    def open(self) -> None:
        """Make the tables, or bring them up to date."""
        with self._making:
            if not self._made:
                bring_up_to_date(self.place, database=self.database)
                self._made = True

    def there(self) -> bool:
        """Say whether there is anything to look at; brings tables up to date that there are."""
        if self.database or (isinstance(self.place, FilePlace) and self.place.path.exists()):
            self.open()
        return self._made

    def close(self) -> None:
        """Let go of what is open."""
        self.place.close()

    # Files.

    def begin_file(self, owner: str, filename: str, purpose: str, days: float) -> Stored:
        """Begin to write a file; nobody sees it before `end_file`."""
        now = int(self.clock())
        id_ = f"file-{secrets.token_hex(12)}"
        file = Stored(id_, owner, filename, purpose, 0, now, now + int(days * _DAY_S))
        with self.place.changing() as db:
            _insert_file(db, file, ready=0)
        return file

    def add_part(self, file: str, number: int, data: bytes) -> None:
        """Write the next part of a file; nothing where that was deleted meanwhile."""
        with self.place.changing() as db:
            # A client that leaves has its file deleted while a part may be on its way.
            db.execute(
                "INSERT INTO file_parts SELECT id, ?, ? FROM files WHERE id = ? AND ready = 0",
                (number, data, file),
            )

    def end_file(self, file: Stored, filename: str, size: int) -> Stored:
        """Let a file be seen whose parts are all written."""
        with self.place.changing() as db:
            db.execute(
                "UPDATE files SET ready = 1, filename = ?, bytes = ? WHERE id = ?",
                (filename, size, file.id),
            )
        return replace(file, filename=filename, bytes=size)

    def delete_file(self, file: str) -> bool:
        """Take a file away for good, with the results that it shows; False while it is needed."""
        with self.place.changing() as db:
            used = db.execute(
                f"SELECT 1 FROM batches WHERE input_file = ? AND status IN ({_OPEN})", (file,)
            ).fetchone()
            if used is None:
                _delete_file(db, file)
        return used is None

    def find_file(self, id_: str, owner: str) -> Stored | None:
        """Return a file of this owner; None where there is none."""
        with self.place.reading() as db:
            row = db.execute(
                f"SELECT {FILE} FROM files WHERE id = ? AND owner = ? AND ready = 1", (id_, owner)
            ).fetchone()
        return None if row is None else Stored(*row)

    def files(
        self, owner: str, wanted: Wanted, purpose: str | None = None
    ) -> Listed[Stored] | None:
        """Return files of an owner, of a purpose; None where `wanted.after` is none of them."""
        where: dict[str, object] = {"owner": owner, "ready": 1}
        if purpose is not None:
            where["purpose"] = purpose
        with self.place.reading() as db:
            return read_page(db, FILE, "files", where, wanted, lambda row: Stored(*row))

    def content(self, file: Stored) -> Iterator[bytes]:
        """Yield the content of a file in pieces, each read by a transaction of its own."""
        if file.batch is not None:
            for result in self.results(file.batch, file.ok or 0):
                yield result.data + b"\n"
            return
        number = 0
        while True:
            with self.place.reading() as db:
                row = db.execute(
                    "SELECT data FROM file_parts WHERE file = ? AND number = ?", (file.id, number)
                ).fetchone()
            if row is None:
                return
            yield bytes(row[0])
            number += 1

    # Batches.

    def add(self, batch: Batch) -> None:
        """Take in a batch; whoever runs batches will find it."""
        with self.place.changing() as db:
            values = (*values_of(batch), None, 0)
            marks = ", ".join("?" * len(values))
            db.execute(
                f"INSERT INTO batches ({BATCH}, runner, lease_until) VALUES ({marks})", values
            )

    def find(self, id_: str, owner: str) -> Batch | None:
        """Return a batch of this owner; None where there is none."""
        with self.place.reading() as db:
            row = db.execute(
                f"SELECT {BATCH} FROM batches WHERE id = ? AND owner = ?", (id_, owner)
            ).fetchone()
        return None if row is None else batch_of(row)

    def all(self, owner: str, wanted: Wanted) -> Listed[Batch] | None:
        """Return batches of an owner; None where `wanted.after` is none of them."""
        with self.place.reading() as db:
            return read_page(db, BATCH, "batches", {"owner": owner}, wanted, batch_of)

    def counted(self, batch: Batch) -> Batch:
        """Return a batch with how many of its lines have an answer, and how many an error."""
        if batch.status not in OPEN:
            return batch
        with self.place.reading() as db:
            rows = db.execute(
                "SELECT ok, count(*) FROM batch_results WHERE batch = ? GROUP BY ok", (batch.id,)
            ).fetchall()
        found = {int(ok): int(count) for ok, count in rows}
        return replace(batch, completed=found.get(1, 0), failed=found.get(0, 0))

    def results(self, id_: str, ok: int) -> Iterator[Result]:
        """Yield the results of one kind, in the order of the lines."""
        after = 0
        while True:
            with self.place.reading() as db:
                rows = db.execute(
                    "SELECT line, data FROM batch_results WHERE batch = ? AND ok = ? AND line > ?"
                    f" ORDER BY line LIMIT {_PAGE}",
                    (id_, ok, after),
                ).fetchall()
            for line, data in rows:
                yield Result(int(line), bool(ok), bytes(data))
            if len(rows) < _PAGE:
                return
            after = int(rows[-1][0])

    def done_lines(self, id_: str) -> set[int]:
        """Return the lines that have a result."""
        with self.place.reading() as db:
            rows = db.execute("SELECT line FROM batch_results WHERE batch = ?", (id_,)).fetchall()
        return {int(row[0]) for row in rows}

    def cancel(self, id_: str, owner: str) -> Batch | None:
        """Have a batch stopped that is not at its end; return it as it is now."""
        with self.place.changing() as db:
            row = db.execute(
                # As an update, so that nobody changes it before this transaction ends.
                f"UPDATE batches SET id = id WHERE id = ? AND owner = ? RETURNING {BATCH}",
                (id_, owner),
            ).fetchone()
            if row is None:
                return None
            batch = batch_of(row)
            if batch.status in (Status.VALIDATING, Status.IN_PROGRESS):
                batch = _at(batch, Status.CANCELLING, int(self.clock()))
                write_batch(db, batch)
        return batch

    # What only the process does that works on a batch.

    def claim(self, runner: str, lease_s: float) -> Batch | None:
        """Return an open batch that nobody works on, which is this runner's now; oldest first."""
        now = int(self.clock() * 1000)
        with self.place.changing() as db:
            row = db.execute(
                "UPDATE batches SET runner = ?, lease_until = ? WHERE id = (SELECT id FROM batches"
                f" WHERE status IN ({_OPEN}) AND lease_until < ? ORDER BY created_at, id LIMIT 1)"
                f" AND lease_until < ? RETURNING {BATCH}",
                (runner, now + int(lease_s * 1000), now, now),
            ).fetchone()
        return None if row is None else batch_of(row)

    def renew(self, id_: str, runner: str, lease_s: float) -> Status | None:
        """Keep a batch for longer; return its status, None when it is another one's by now."""
        until = int((self.clock() + lease_s) * 1000)
        with self.place.changing() as db:
            row = db.execute(
                "UPDATE batches SET lease_until = ? WHERE id = ? AND runner = ? RETURNING status",
                (until, id_, runner),
            ).fetchone()
        return None if row is None else Status(row[0])

    def let_go(self, id_: str, runner: str) -> None:
        """Let somebody else work on a batch at once."""
        with self.place.changing() as db:
            db.execute(
                "UPDATE batches SET lease_until = 0, runner = NULL WHERE id = ? AND runner = ?",
                (id_, runner),
            )

    def put(self, id_: str, runner: str, results: Sequence[Result]) -> bool:
        """Write results, all or none; False when the batch is another one's by now."""
        with self.place.changing() as db:
            if not _is_ours(db, id_, runner):
                return False
            for result in results:
                db.execute(
                    "INSERT INTO batch_results VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (id_, result.line, int(result.ok), result.data),
                )
        return True

    def begin(self, batch: Batch, runner: str, total: int) -> bool:
        """Note how many lines a batch has; False when it is another one's, or to be stopped."""
        with self.place.changing() as db:
            if not _is_ours(db, batch.id, runner):
                return False
            row = db.execute("SELECT status FROM batches WHERE id = ?", (batch.id,)).fetchone()
            if row[0] != Status.VALIDATING:
                return False
            begun = _at(replace(batch, total=total), Status.IN_PROGRESS, int(self.clock()))
            write_batch(db, begun)
        return True

    def refuse(self, batch: Batch, runner: str, problems: Sequence[Problem]) -> None:
        """End a batch of which nothing was run."""
        with self.place.changing() as db:
            if _is_ours(db, batch.id, runner):
                failed = _at(batch, Status.FAILED, int(self.clock()))
                write_batch(db, replace(failed, errors=tuple(problems)))

    def end(self, id_: str, runner: str, status: Status, days: float) -> None:
        """End a batch, with the files that show its results."""
        now = int(self.clock())
        with self.place.changing() as db:
            if not _is_ours(db, id_, runner):
                return
            row = db.execute(f"SELECT {BATCH} FROM batches WHERE id = ?", (id_,)).fetchone()
            batch = batch_of(row)
            output, completed = _show_results(db, batch, 1, now, days)
            errors, failed = _show_results(db, batch, 0, now, days)
            batch = replace(batch, output_file=output, error_file=errors)
            ended = _at(replace(batch, completed=completed, failed=failed), status, now)
            if status is Status.COMPLETED:
                ended = replace(ended, times={**ended.times, "finalizing_at": now})
            write_batch(db, ended)

    def clean_up(self, days: float) -> None:
        """Delete what is over its time, and broken uploads.

        Files, unless an open batch needs them; batches `days` after their last hour, unless a file
        still shows their results.
        """
        now = int(self.clock())
        with self.place.changing() as db:
            rows = db.execute(
                "SELECT id FROM files WHERE (ready = 0 AND created_at < ?) OR (expires_at < ? AND"
                f" id NOT IN (SELECT input_file FROM batches WHERE status IN ({_OPEN})))",
                (now - _LONGEST_UPLOAD_S, now),
            ).fetchall()
            for (id_,) in rows:
                _delete_file(db, id_)
            db.execute(
                f"DELETE FROM batches WHERE expires_at < ? AND status NOT IN ({_OPEN})"
                " AND id NOT IN (SELECT batch FROM files WHERE batch IS NOT NULL)",
                (now - int(days * _DAY_S),),
            )


def batch_store(url: str, in_thread: InThread = asyncio.to_thread) -> BatchStore:
    """Return the files and batches of the store that a checked URL names; nothing is opened yet."""
    return BatchStore(batch_place(url), is_postgres(url), in_thread=in_thread)


def _is_ours(db: Session, id_: str, runner: str) -> bool:
    """Say whether a batch is this runner's; nobody changes it before the transaction ends."""
    row = db.execute(
        "UPDATE batches SET runner = runner WHERE id = ? AND runner = ? RETURNING id",
        (id_, runner),
    ).fetchone()
    return row is not None


def _insert_file(db: Session, file: Stored, *, ready: int) -> None:
    db.execute(
        f"INSERT INTO files ({FILE}, ready) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(file.id, file.owner, file.filename, file.purpose, file.bytes, file.created_at),
            *(file.expires_at, file.batch, file.ok, ready),
        ),
    )


def _delete_file(db: Session, id_: str) -> None:
    row = db.execute("SELECT batch, ok FROM files WHERE id = ?", (id_,)).fetchone()
    if row is not None and row[0] is not None:
        db.execute("DELETE FROM batch_results WHERE batch = ? AND ok = ?", tuple(row))
    db.execute("DELETE FROM file_parts WHERE file = ?", (id_,))
    db.execute("DELETE FROM files WHERE id = ?", (id_,))


def _show_results(
    db: Session, batch: Batch, ok: int, now: int, days: float
) -> tuple[str | None, int]:
    """Make the file that shows results of one kind, where there are any; return their number."""
    count, size = db.execute(
        "SELECT count(*), coalesce(sum(length(data)), 0) FROM batch_results"
        " WHERE batch = ? AND ok = ?",
        (batch.id, ok),
    ).fetchone()
    if not count:
        return None, 0
    id_ = f"file-{secrets.token_hex(12)}"
    name = f"{batch.id}_{'output' if ok else 'error'}.jsonl"
    until = now + int(days * _DAY_S)
    bytes_ = int(size) + int(count)
    file = Stored(id_, batch.owner, name, "batch_output", bytes_, now, until, batch.id, ok)
    _insert_file(db, file, ready=1)
    return id_, int(count)


def _at(batch: Batch, status: Status, now: int) -> Batch:
    return replace(batch, status=status, times={**batch.times, f"{status.value}_at": now})
