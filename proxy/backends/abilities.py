"""What an upstream can do: as its profile says, as a probe has shown, as use has taught."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from samplewise.policies.base import Needs

__all__ = ["Abilities", "lacking"]


@dataclass(frozen=True, slots=True)
class Abilities:
    """Each True, False, or None where nobody knows. `version` is the server's own word.

    `n`: several choices in one call. `seed`: the same seed gives the same sample. `stop`: stop
    strings end a sample. `continuation`: `continue_final_message` goes on from the last message.
    `stream_usage`: usage comes at the end of a stream. `aborts`: work ends when the connection
    closes. `structured`: `response_format` with a schema binds the answer.
    """

    n: bool | None = None
    logprobs: bool | None = None
    seed: bool | None = None
    stop: bool | None = None
    continuation: bool | None = None
    stream_usage: bool | None = None
    aborts: bool | None = None
    structured: bool | None = None
    version: str = ""

    def named(self) -> Iterator[tuple[str, bool | None]]:
        """Yield every ability with its name."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "version":
                yield field.name, value

    def over(self, before: Abilities) -> Abilities:
        """Return these abilities, and where they know nothing, those known before."""
        known = {name: value for name, value in self.named() if value is not None}
        return replace(before, **known, version=self.version or before.version)


def lacking(needs: Needs, backend: str, abilities: Abilities, most_top: int) -> Iterator[str]:
    """Yield what a policy needs and an upstream is known not to do, in words.

    `most_top` is how many likeliest tokens of a place it tells.
    """
    if needs.reads_logprobs(backend):
        least = min(2, needs.top_logprobs)
        if abilities.logprobs is False:
            yield "log-probabilities (logprobs)"
        elif most_top < least:
            yield f"the {least} likeliest tokens of every place (max_top_logprobs)"
    if needs.continuation and abilities.continuation is False:
        yield "going on from the middle of an answer (continue_final_message)"
    if needs.continuation and abilities.stop is False:
        yield "stop strings (stop)"
