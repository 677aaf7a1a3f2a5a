"""`recording:` samples of live requests, written to files. Off unless it is configured."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from samplewise.proxy.config_types import Count, Many, Name, Settings, Text
from samplewise.proxy.config_yaml import Problem, near, quoted

__all__ = ["RecordingSettings", "recording_problems"]


def _filled(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must list at least one")
    return value


class RecordingSettings(Settings):
    """Whose requests are written where, and how much of the disk that may take.

    The files hold prompts and answers as they are. `share` is the part of the requests that is
    taken; a route keeps `files` files of `file_mb` each, the oldest goes first.
    """

    folder: Text
    routes: Annotated[Many[Name], AfterValidator(_filled)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    file_mb: Annotated[float, Field(gt=0, le=100_000)] = 64.0
    files: Count = 8

    @property
    def file_bytes(self) -> int:
        """The size at which a file is closed and the next one begun."""
        return int(self.file_mb * 2**20)


def recording_problems(
    recording: RecordingSettings | None, known: list[str]
) -> tuple[list[Problem], list[Problem]]:
    """Return what is wrong, and what must be said aloud; `known` are all routes' names."""
    if recording is None:
        return [], []
    wrong = [
        Problem(("recording", "routes", i), f"no route {quoted(name)}{near(name, known)}")
        for i, name in enumerate(recording.routes)
        if name not in known
    ]
    said = (
        f"prompts and answers of {', '.join(recording.routes)} are written to files in "
        f"{recording.folder}, as they are: private texts, too"
    )
    return wrong, [Problem(("recording",), said)]
