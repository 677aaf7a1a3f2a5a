"""The command `batch`: a file of requests answered into a file, which grows line by line."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import msgspec

from samplewise.proxy.batches.answering import ENDPOINTS
from samplewise.proxy.batches.base import Result
from samplewise.proxy.batches.lines import custom_id, lines, look_at
from samplewise.proxy.batches.work import Work, one_by_one
from samplewise.proxy.build import open_service
from samplewise.proxy.config import Config
from samplewise.proxy.errors import SamplewiseError
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window
from samplewise.proxy.progress import progress
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client

__all__ = ["BatchError", "Order", "Outcome", "errors_file", "read_pieces", "run_batch", "writing"]

_PIECE = 2**20
_MOST_LINES = 10_000_000
# How every line of an output begins.
_BEGINS = b'{"id":"batch_'


class BatchError(SamplewiseError):
    """A batch cannot be run as asked; the message says which file, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run. `nano` is the most that this run may spend, None for no limit of its own."""

    input: Path
    output: Path
    nano: int | None = None
    resume: bool = False
    at_once: int = 16


@dataclass(slots=True)
class Outcome:
    """What a run came to. `before` lines had their answer already, `left` have none.

    A limit had no room for all samples of `degraded` answers.
    """

    lines: int
    before: int = 0
    answered: int = 0
    failed: int = 0
    spent: int = 0
    degraded: int = 0
    out_of_budget: bool = False

    @property
    def left(self) -> int:
        """How many lines have neither answer nor error."""
        return self.lines - self.before - self.answered - self.failed


class _Answer(msgspec.Struct):
    response: msgspec.Raw


async def run_batch(config: Config, order: Order) -> Outcome:
    """Answer every line that the output does not have yet; failed ones are asked again.

    Raises:
        BatchError: a file cannot be used, or the input is ambiguous.
        StoreError: the ledger cannot be reached.
    """
    longest = config.server.max_body_bytes
    total, done = look_over(order, longest)
    outcome = Outcome(total, len(done))
    async with open_service(config) as service:
        with writing(order) as put, progress(total - len(done), "lines") as advance:
            account = limit_of(order)
            work = Work(
                service,
                tuple(ENDPOINTS),
                lambda: Client(service.new_request_id(), accounts=(account,)),
                asyncio.Semaphore(order.at_once),
                leaves_poor=True,
            )
            tally = _Tally(outcome, put, advance)
            writer = asyncio.create_task(tally.run(work.stopped))
            try:
                missing = lines(read_pieces(order.input), longest)
                await work.run(one_by_one(missing, done), tally.queue.put_nowait)
            finally:
                tally.queue.put_nowait(None)
                await asyncio.shield(writer)
            outcome.out_of_budget = work.poor
            outcome.spent = await spent(service, account)
    return outcome


def look_over(order: Order, longest: int) -> tuple[int, set[int]]:
    """Return how many lines the input has, and the numbers of those that have their answer.

    Raises:
        BatchError: a file cannot be read, two lines have one name, or the output is there already
            and not to be gone on with, or no output of a batch.
    """
    try:
        _keep_apart(order)
        total, problems = look_at(read_pieces(order.input), longest, _MOST_LINES)
        if problems:
            found = "\n".join(f"{order.input}: {problem.message}" for problem in problems)
            raise BatchError(found)
        names = _answered(order)
        done = {
            number
            for number, text in lines(read_pieces(order.input), longest)
            if text is not None and custom_id(text) in names
        }
    except OSError as error:
        raise BatchError(f"{error.filename}: {error.strerror}") from error
    return total, done


def _keep_apart(order: Order) -> None:
    """Refuse to write over the requests."""
    for file in (order.output, errors_file(order.output)):
        if file.exists() and file.samefile(order.input):
            raise BatchError(
                f"{file} has the requests, and this run would write to it: give -o another name"
            )


def _answered(order: Order) -> set[str]:
    """Return the names of the lines that the output has."""
    if not order.output.exists():
        return set()
    if not order.resume:
        raise BatchError(
            f"{order.output} is there already: go on with --resume, or name another file"
        )
    with order.output.open("rb", buffering=0) as file:
        end = _end_of_lines(file)
        file.seek(end)
        torn = file.read(len(_BEGINS))
    found = set[str]()
    for number, text in lines(read_pieces(order.output, end), 2**40):
        name = custom_id(text or b"")
        if name is None or not _is_answer(text or b""):
            raise _not_ours(order.output, number)
        found.add(name)
    if not _BEGINS.startswith(torn):
        raise _not_ours(order.output)
    return found


def _not_ours(output: Path, number: int | None = None) -> BatchError:
    where = output if number is None else f"{output}:{number}"
    return BatchError(
        f"{where}: is no answer of a batch, so nothing is written to this file: name another one "
        "with -o"
    )


def _is_answer(text: bytes) -> bool:
    try:
        return bytes(msgspec.json.decode(text, type=_Answer).response).startswith(b"{")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def read_pieces(path: Path, end: int | None = None) -> Iterator[bytes]:
    """Yield a file in pieces, no further than byte `end`."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE if end is None else min(_PIECE, end - file.tell())):
            yield piece


def errors_file(output: Path) -> Path:
    """Return the file for the errors of an output: of its last run alone."""
    return output.with_name(f"{output.stem}.errors{output.suffix}")


@contextmanager
def writing(order: Order) -> Iterator[Callable[[list[Result]], None]]:
    """Yield what writes results to where they belong; they are on disk when it returns.

    Raises:
        BatchError: a file cannot be written.
    """
    errors = errors_file(order.output)
    try:
        # Without buffers: what a full disk refused would be written again when they are closed.
        with (
            order.output.open("ab+", buffering=0) as answers,
            errors.open("wb+", buffering=0) as others,
        ):
            _cut_torn(answers)

            def put(results: list[Result]) -> None:
                for file, ok in ((answers, True), (others, False)):
                    data = b"".join(result.data + b"\n" for result in results if result.ok is ok)
                    try:
                        _append(file, data)
                    except OSError as error:
                        raise BatchError(
                            f"{file.name}: {error.strerror}; answers that are in {order.output} "
                            "stay: make room and go on with --resume"
                        ) from error

            yield put
            empty = not others.tell()
        if empty:
            errors.unlink()
    except OSError as error:
        raise BatchError(f"{error.filename or order.output}: {error.strerror}") from error


def _append(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    if data:
        os.fsync(file.fileno())


def _cut_torn(file: FileIO) -> None:
    """Cut off a last line that was being written when its process died."""
    file.truncate(_end_of_lines(file))
    file.seek(0, os.SEEK_END)


def _end_of_lines(file: FileIO) -> int:
    """Return the place behind the last line end; 0 where there is none."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _PIECE)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


@dataclass(slots=True)
class _Tally:
    """Writes results as they come, all that are there at once, and counts them."""

    outcome: Outcome
    put: Callable[[list[Result]], None]
    advance: Callable[[], None]
    queue: asyncio.Queue[Result | None] = field(default_factory=asyncio.Queue)

    async def run(self, stopped: asyncio.Event) -> None:
        """Write until the end; what cannot be written stops the work."""
        last = False
        try:
            while not last:
                results = [await self.queue.get()]
                while not self.queue.empty():
                    results.append(self.queue.get_nowait())
                last = results[-1] is None
                found = [result for result in results if result is not None]
                await asyncio.to_thread(self.put, found)
                for result in found:
                    self.advance()
                    if result.ok:
                        self.outcome.answered += 1
                        self.outcome.degraded += _short_of_money(result.data)
                    else:
                        self.outcome.failed += 1
        finally:
            stopped.set()


class _Told(msgspec.Struct):
    degraded: list[str] = []


class _Body(msgspec.Struct):
    samplewise: _Told = msgspec.field(default_factory=_Told)


class _Response(msgspec.Struct):
    body: _Body


class _Line(msgspec.Struct):
    response: _Response


def _short_of_money(line: bytes) -> bool:
    try:
        told = msgspec.json.decode(line, type=_Line).response.body.samplewise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False  # the body of embeddings is the upstream's, with any fields
    return "budget" in told.degraded


def limit_of(order: Order) -> Account:
    """Return the counter that one run must fit into, in the ledger so that it holds exactly."""
    limit = Limit(nano=order.nano)
    return Account(Scope.TAG, f"batch-{uuid.uuid4().hex}", Window.TOTAL, limit)


async def spent(service: Service, account: Account) -> int:
    """Return what a run has spent, in nano-dollars."""
    (balance,) = await service.engine.ledger.balances([account])
    return balance.spent.nano or 0
