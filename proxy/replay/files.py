"""Files of recorded samples: JSON lines, the header first, then one problem a line.

What the lines hold stands in `policies/replay/records.py` and docs/replay.md.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from samplewise.policies.price import Price
from samplewise.policies.replay.records import Header, Problem
from samplewise.proxy.errors import SamplewiseError

__all__ = ["Recording", "RecordingError", "Writer", "load", "read"]

_header = msgspec.json.Decoder(Header)
_problem = msgspec.json.Decoder(Problem)


class RecordingError(SamplewiseError):
    """A file of samples cannot be read or written; the message names file, line and reason."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file that was read as a whole."""

    header: Header
    problems: tuple[Problem, ...]

    def prices(self, price: Price | None = None) -> dict[str, Price]:
        """Return a price for every backend in use; `price` stands before those of the file.

        Raises:
            RecordingError: one has no price.
        """
        found = {}
        for backend in {s.backend for p in self.problems for s in p.samples}:
            recorded = self.header.prices.get(backend)
            if price is None and recorded is None:
                named = f"backend {backend!r}" if backend else "its samples"
                raise RecordingError(
                    f"no price for {named}: write it into the header's `prices`, or give "
                    "--input-usd-per-mtok and --output-usd-per-mtok"
                )
            found[backend] = price or recorded.build()  # type: ignore[union-attr]
        return found


def load(path: Path) -> Recording:
    """Read a whole file.

    Raises:
        RecordingError: it cannot be read, or a line is wrong.
    """
    header, problems = read(path)
    return Recording(header, tuple(problems))


def read(path: Path) -> tuple[Header, Iterator[Problem]]:
    """Read the header; the problems are read line by line as they are asked for.

    Raises:
        RecordingError: the file cannot be read or its first line is no header; later, from the
            iterator, a line is wrong or an id comes twice.
    """
    lines = _lines(path)
    number, first = next(lines, (1, b""))
    try:
        header = _header.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordingError(
            f"{path}:{number}: the first line must be a header such as "
            f'{{"samplewise":"samples","version":1}}: {error}'
        ) from None
    return header, _problems(path, lines)


def _problems(path: Path, lines: Iterator[tuple[int, bytes]]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for number, line in lines:
        try:
            problem = _problem.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RecordingError(f"{path}:{number}: {error}") from None
        if problem.id in seen:
            raise RecordingError(
                f"{path}:{number}: problem {problem.id!r} was given on line {seen[problem.id]}: "
                "one line must hold all its samples"
            )
        seen[problem.id] = number
        yield problem


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    raise RecordingError(
                        f"{path}:{number}: the last line is cut off: remove it, or run the same "
                        "`samplewise record` again"
                    )
                yield number, line
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RecordingError(f"{path}: cannot be read: {reason}") from None


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


@dataclass(slots=True)
class Writer:
    """Appends problems to a file, each line whole and on disk before the next.

    `done` holds the ids that the file has, each with its number of samples. Use it as a context.
    """

    path: Path
    header: Header
    done: dict[str, int] = field(default_factory=dict)
    _file: FileIO | None = None

    def __enter__(self) -> Writer:
        """Open the file; one that was left in the middle of a line loses that line.

        Raises:
            RecordingError: it cannot be written, or is not such a file.
        """
        try:
            kept = self._kept() if self.path.exists() and self.path.stat().st_size else 0
            # Without a buffer: what a full disk refused would be written again by `close`.
            self._file = self.path.open("r+b" if kept else "wb", buffering=0)
            self._file.truncate(kept)
            self._file.seek(kept)
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot be written: {error.strerror}") from None
        if not kept:
            self._write(msgspec.json.encode(self.header))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, problem: Problem) -> None:
        """Write one problem.

        Raises:
            RecordingError: the disk refuses it, or the id is there already.
        """
        if problem.id in self.done:
            raise RecordingError(f"{self.path}: has problem {problem.id!r} already")
        self._write(msgspec.json.encode(problem))
        self.done[problem.id] = len(problem.samples)

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        try:
            left = memoryview(line + b"\n")
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot be written: {error.strerror}") from None

    def _kept(self) -> int:
        """Return how many bytes of a file that exists are whole lines; note what it holds."""
        text = self.path.read_bytes()
        kept = text.rfind(b"\n") + 1
        lines = text[:kept].splitlines()
        if not lines:
            return 0
        try:
            _header.decode(lines[0])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise RecordingError(
                f"{self.path}: exists and is no file of samples: give another name"
            ) from None
        for number, line in enumerate(lines[1:], 2):
            try:
                problem = _problem.decode(line)
                self.done[problem.id] = len(problem.samples)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RecordingError(f"{self.path}:{number}: {error}") from None
        return kept
