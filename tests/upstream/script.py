"""What a scripted model answers: the values a test posts to the upstream, and nothing that acts."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["Answer", "Answers", "Digits", "Fault", "Kind", "Rule", "Script", "Timing", "ToolCall"]

Kind = Literal[
    "status",  # `status` with `body` and `headers`; nothing is generated
    "html",  # 200 with an HTML page
    "hang",  # not a byte, until the client leaves
    "silence",  # headers, `after` tokens, then nothing until the client leaves
    "reset",  # `after` tokens, then TCP reset (not streamed: a reset instead of the headers)
    "close",  # `after` tokens, then the connection closes inside the HTTP body
    "eof",  # `after` tokens, then HTTP ends as it should but the answer is not complete
    "truncated",  # like eof, in the middle of a JSON text
    "malformed",  # `after` tokens, then what is not JSON
    "error_event",  # `after` tokens, then an error object inside the 200
    "no_done",  # streamed: no [DONE]
    "no_finish",  # no finish_reason at all
    "slow",  # `chunk_bytes` bytes every `byte_delay_s`
    "gzip_bomb",  # `size` bytes of answer text, compressed
    "huge",  # `size` bytes of answer text, not compressed
]
Feature = Literal[
    "continue_final_message",
    "include_usage",
    "logprobs",
    "max_tokens",
    "seed",
    "stop",
    "stream",
    "temperature",
]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way for a call to go wrong. See `Kind` for which fields each kind reads.

    `after` counts tokens over all choices of the call; more than there are means all of them. A
    call that is not streamed generates `after` tokens before silence and reset, and all of them
    before close, eof, truncated, malformed and error_event: billed and then lost. `body` is
    sent as it is when a string, else as JSON.
    """

    kind: Kind
    after: int = 0
    status: int = 500
    headers: dict[str, str] = {}
    body: Any = None
    chunk_bytes: int = 1
    byte_delay_s: float = 0.05
    size: int = 64 * 2**20


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One function call of an answer. Without an `id` it gets one per choice and position."""

    name: str
    arguments: str = "{}"
    id: str = ""


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When tokens come. The gate `hold` stops a choice after `hold_after` tokens until released."""

    delay_s: float = 0.0
    token_delay_s: float = 0.0
    hold: str = ""
    hold_after: int = 0

    @property
    def paced(self) -> bool:
        """Whether tokens come any other way than all at once."""
        return bool(self.delay_s or self.token_delay_s or self.hold)


class Answer(Timing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One choice.

    `tokens` is what it costs and in how many pieces it streams (default: its words). `logprobs` is
    the level of every token, or one value per token in turn. `extra` joins the choice object and
    `message_extra` the message (streamed: the finish chunk and the first delta). A `fault` here
    spoils the whole call that draws this answer; of several, the first.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str = ""
    reasoning_content: str = ""
    finish_reason: str = ""
    tokens: int | None = None
    logprobs: float | tuple[float, ...] = -0.25
    extra: dict[str, Any] = {}
    message_extra: dict[str, Any] = {}
    fault: Fault | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 0:
            raise ValueError("tokens: below 0")
        if self.logprobs == ():
            raise ValueError("logprobs: no value")


class Digits(Timing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of random digits: `steps` steps of `step_tokens` digits and a ";", then EOS."""

    steps: int = 4
    step_tokens: int = 3


class Answers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where answers come from: in turn, or at random by `weights` (one per answer) and `seed`.

    `faults[i]` spoils the i-th call; None lets it pass. After the last one no call is spoilt, or
    with `cycle_faults` they start again.
    """

    answers: tuple[Answer, ...] = ()
    weights: tuple[float, ...] = ()
    seed: int = 0
    faults: tuple[Fault | None, ...] = ()
    cycle_faults: bool = False

    def __post_init__(self) -> None:
        if self.weights and len(self.weights) != len(self.answers):
            raise ValueError("weights: one per answer")


class Rule(Answers, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers for the calls whose last message holds `contains` and matches `pattern` somewhere."""

    contains: str = ""
    pattern: str = ""


class Script(Answers, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model. The first rule that fits decides, else `echo`, else `digits`, else the answers.

    `echo` answers with these fields of the body as JSON text (`*`: the body as it came). `max_n` is
    the most choices of a call; asking for more is refused with 400 or capped. `usage` overrides and
    extends the true usage; `no_usage` leaves it out. `ignores` names request features without
    effect, `refuses` body fields answered with 400. `extra` joins the response object and every
    chunk, `headers` the response's headers. `require_auth` is the only key accepted. Each streamed
    event has `chunk_tokens` tokens of a choice. `comments` puts an SSE comment before every write.
    """

    rules: tuple[Rule, ...] = ()
    digits: Digits | None = None
    echo: tuple[str, ...] = ()
    max_n: int | None = None
    over_max_n: Literal["refuse", "cap"] = "refuse"
    usage: dict[str, Any] = {}
    no_usage: bool = False
    ignores: tuple[Feature, ...] = ()
    refuses: tuple[str, ...] = ()
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    require_auth: str = ""
    reported_model: str = ""
    chunk_tokens: int = 1
    comments: bool = False
