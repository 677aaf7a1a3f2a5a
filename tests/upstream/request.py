"""The fields of a chat completion request that the upstream reads. It accepts any other."""

from __future__ import annotations

import msgspec

__all__ = ["Message", "Part", "Refusal", "Request", "StreamOptions", "parse"]

MOST_CHOICES = 10_000


class Refusal(Exception):
    """The call is not served: a status, a message, and the field it is about."""

    def __init__(
        self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.code = code


class Part(msgspec.Struct):
    """A content part; only its text counts."""

    text: str = ""


class Message(msgspec.Struct):
    """One message."""

    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        """The text of all parts."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(msgspec.Struct):
    """What a stream carries besides deltas."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Request(msgspec.Struct):
    """One request, its optional fields at their defaults when null."""

    model: str
    messages: list[Message]
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool = False
    seed: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    request_id: str | None = None
    # Of texts (see texts.py): None for a chat.
    echo: bool | None = None
    embeds: tuple[str, ...] = ()

    @property
    def of_text(self) -> bool:
        """Whether it continues a prompt."""
        return self.echo is not None

    @property
    def limit(self) -> int | None:
        """The most tokens of a choice."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def prompt_tokens(self) -> int:
        """The words of all messages."""
        return sum(len(message.text.split()) for message in self.messages)


def parse(body: bytes) -> Request:
    """Decode and check a body. Raise Refusal as a real server answers 400."""
    try:
        request = msgspec.json.decode(body, type=Request)
    except msgspec.DecodeError as error:
        raise Refusal(str(error)) from None
    if not request.messages:
        raise Refusal("messages must not be empty", "messages")
    if request.n is not None and not 1 <= request.n <= MOST_CHOICES:
        raise Refusal(f"n must be between 1 and {MOST_CHOICES}", "n")
    if request.limit is not None and request.limit < 1:
        raise Refusal("max_tokens must be at least 1", "max_tokens")
    if request.continue_final_message:
        _check_continuation(request)
    return request


def _check_continuation(request: Request) -> None:
    if request.add_generation_prompt:
        raise Refusal(
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True",
            "continue_final_message",
        )
    if request.messages[-1].role != "assistant":
        raise Refusal("the final message is not the assistant's", "continue_final_message")
