"""Recording of live requests: one line each, written by a thread of its own.

It never holds an answer up and never fails one: what cannot be written is counted and left out.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import IO

import msgspec
import structlog

from samplewise.policies.replay.records import Header
from samplewise.proxy.boundary import boundary
from samplewise.proxy.config_recording import RecordingSettings
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.job import Answer
from samplewise.proxy.replay.prompts import Prompt
from samplewise.proxy.replay.recorded import price_of, recorded

__all__ = ["Recorder", "open_recorder"]

_log = structlog.get_logger("samplewise.recording")
_WAITING = 1_000
# After the disk has refused a line, so long nothing is written: it is seldom free a moment later.
_PAUSE_S = 30.0
_CLOSE_S = 10.0


class _Unrecordable(Exception):
    """A request that cannot be written down; the message is for the log."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}"[:300])


@dataclass(slots=True)
class Recorder:
    """Writes the requests of some routes. `counted` is told a route and what became of a line.

    The words are `written`, and `dropped` where the disk was full or too slow.
    """

    settings: RecordingSettings
    counted: Callable[[str, str], None]
    _lines: queue.Queue[Answer | None] = field(default_factory=lambda: queue.Queue(_WAITING))
    _files: dict[str, _File] = field(default_factory=dict)
    _thread: threading.Thread | None = None
    _again_at: float = 0.0

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            ConfigError: it cannot be made, or nothing can be written there.
        """
        folder = Path(self.settings.folder)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"recording.folder: {folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"recording.folder: {folder}: nothing can be written there")

    def note(self, answer: Answer) -> None:
        """Take a request that was answered, if it is to be recorded. Returns at once."""
        route = answer.job.route.name
        if route not in self.settings.routes or not self._wanted(answer):
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
            self._thread.start()
        try:
            self._lines.put_nowait(answer)
        except queue.Full:
            self.counted(route, "dropped")

    def close(self) -> None:
        """Write what waits, and close the files."""
        if self._thread is not None:
            with suppress(queue.Full):  # a disk that hangs must not hold the end up
                self._lines.put(None, timeout=_CLOSE_S)
            self._thread.join(_CLOSE_S)

    def _wanted(self, answer: Answer) -> bool:
        # A client that asks its provider to store nothing means us too.
        if answer.job.request.fields.get("store") == b"false":
            return False
        return int(answer.job.request_id[-8:], 16) < self.settings.share * 2**32

    def _run(self) -> None:
        while (answer := self._lines.get()) is not None:
            route = answer.job.route.name
            self.counted(route, "written" if self._write(route, answer) else "dropped")
        for file in self._files.values():
            file.close()

    def _write(self, route: str, answer: Answer) -> bool:
        if monotonic() < self._again_at:
            return False
        try:
            # What verifiers and policies of an operator say may be no JSON.
            with boundary(_Unrecordable):
                line = msgspec.json.encode(_problem_of(answer))
            self._file(route, answer).write(line)
        except _Unrecordable as error:
            _log.error(
                "cannot record a request", request_id=answer.job.request_id, error=str(error)
            )
            return False
        except OSError as error:
            self._again_at = monotonic() + _PAUSE_S
            _log.error(
                "cannot record",
                folder=self.settings.folder,
                reason=error.strerror,
                again_in_s=_PAUSE_S,
            )
            return False
        return True

    def _file(self, route: str, answer: Answer) -> _File:
        file = self._files.get(route)
        if file is None:
            prices = {n: price_of(u.price) for n, u in answer.job.route.upstreams.items()}
            header = Header(source=f"live requests, route {route}", prices=prices)
            file = self._files[route] = _File(self.settings, route, msgspec.json.encode(header))
        return file


def open_recorder(
    settings: RecordingSettings | None,
    before: Recorder | None,
    counted: Callable[[str, str], None],
    stack: AsyncExitStack,
) -> Recorder | None:
    """Return what writes live requests down, closed with the stack; None where nothing is written.

    That is the one `before` where nothing has changed.

    Raises:
        ConfigError: nothing can be written there.
    """
    if settings is None or (before is not None and before.settings == settings):
        return None if settings is None else before
    recorder = Recorder(settings, counted)
    recorder.prepare()
    stack.callback(recorder.close)
    return recorder


def _problem_of(answer: Answer) -> object:
    job = answer.job
    messages = job.task.decoded_messages()
    prompt = Prompt(job.request_id, messages=tuple(messages), reference=job.task.reference)
    return recorded(prompt, answer.evidence, None, timed=True, sources=job.sources)


@dataclass(slots=True)
class _File:
    """The file of one route that is being written by this process."""

    settings: RecordingSettings
    route: str
    header: bytes
    _open: IO[bytes] | None = None
    _size: int = 0

    def write(self, line: bytes) -> None:
        """Add a line; a line that could only be written in part is taken back."""
        whole = line + b"\n"
        file = self._open
        if file is None or self._size + len(whole) > self.settings.file_bytes or _gone(file):
            self.close()
            file = self._begin()
        try:
            _write_all(file, whole)
        except OSError:
            file.truncate(self._size)
            file.seek(self._size)
            raise
        self._size += len(whole)

    def close(self) -> None:
        """Close the file, if one is open."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _begin(self) -> IO[bytes]:
        folder = Path(self.settings.folder)
        name = re.sub(r"[^\w.-]", "_", self.route)
        pattern = re.compile(rf"{re.escape(name)}-\d{{8}}T\d{{12}}-\d+\.jsonl")
        old = sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
        for path in old[: max(0, len(old) - self.settings.files + 1)]:
            # Another worker may have been faster.
            path.unlink(missing_ok=True)
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        path = folder / f"{name}-{now}-{os.getpid()}.jsonl"
        # Nobody else may read what clients have written.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        # Unbuffered, so that a full disk is noticed with the line that does not fit.
        file = os.fdopen(handle, "wb", buffering=0)
        try:
            self._size = _write_all(file, self.header + b"\n")
        except OSError:
            # Without its first line nobody could read what follows.
            file.close()
            path.unlink(missing_ok=True)
            raise
        self._open = file
        return file


def _write_all(file: IO[bytes], data: bytes) -> int:
    """Write all of it and return its length. A disk that fills up takes a part, then refuses."""
    written = 0
    while written < len(data):
        written += file.write(data[written:])
    return written


def _gone(file: IO[bytes]) -> bool:
    """Say whether the file was deleted: by another worker that made room, or by somebody else."""
    return os.fstat(file.fileno()).st_nlink == 0
