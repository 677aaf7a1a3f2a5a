"""Files of prompts to record: JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from samplewise.proxy.replay.files import RecordingError

__all__ = ["Prompt", "read_prompts"]


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One prompt: a text or a list of messages, and what verifiers need to judge its answers."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    prompt: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    reference: str | None = None
    tests: dict[str, Any] | None = None
    item: dict[str, Any] | None = None
    data: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Refuse a prompt that is none, or two."""
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either `prompt` or `messages`")

    def body(self, route: str) -> bytes:
        """Return the chat request that asks it."""
        said = {"reference": self.reference, "tests": self.tests, "item": self.item}
        messages = self.messages or ({"role": "user", "content": self.prompt},)
        options = {name: value for name, value in said.items() if value is not None}
        return msgspec.json.encode({"model": route, "messages": messages, "samplewise": options})

    @property
    def text(self) -> str:
        """The prompt as text, for the recording."""
        return self.prompt or msgspec.json.encode(self.messages).decode()


_decoder = msgspec.json.Decoder(Prompt)


def read_prompts(path: Path) -> list[Prompt]:
    """Read a file of prompts.

    Raises:
        RecordingError: it cannot be read, a line is wrong, or an id comes twice.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error.strerror}") from None
    found: dict[str, Prompt] = {}
    for number, line in enumerate(lines, 1):
        try:
            prompt = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RecordingError(f"{path}:{number}: {error}") from None
        if prompt.id in found:
            raise RecordingError(f"{path}:{number}: the id {prompt.id!r} was given before")
        found[prompt.id] = prompt
    if not found:
        raise RecordingError(f"{path}: has no prompts")
    return list(found.values())
