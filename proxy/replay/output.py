"""Files that a command is asked to write: which they are by their ending."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from samplewise.proxy.replay.files import RecordingError

__all__ = ["check_endings", "write_all"]


def check_endings(paths: Sequence[Path], known: Sequence[str]) -> str | None:
    """Return what is wrong with the first file whose ending says nothing; None if all are fine."""
    for path in paths:
        if path.suffix not in known:
            return f"{path}: must end in {', '.join(known[:-1])} or {known[-1]}"
    return None


def write_all(paths: Sequence[Path], makers: Mapping[str, Callable[[], bytes]]) -> None:
    """Write each file with what is made for its ending.

    Raises:
        RecordingError: one cannot be written.
    """
    for path in paths:
        try:
            path.write_bytes(makers[path.suffix]())
        except OSError as error:
            raise RecordingError(f"{path}: cannot be written: {error.strerror}") from None
