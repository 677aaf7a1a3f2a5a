"""What verifiers ask models, and the contract of those who carry it there and count the cost.

Verifiers know prompts and answers; addresses, prices and the ledger are the proxy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

from samplewise.verifiers.base import Sample, Task, Verifier, VerifierError

__all__ = [
    "Biller",
    "ChatModel",
    "Cost",
    "Messages",
    "Metered",
    "Question",
    "Refused",
    "Reply",
    "ScoringModel",
    "Tab",
    "Writer",
]

Messages = list[dict[str, Any]]


class Refused(VerifierError):
    """The model's server says that the request itself is wrong (400, 404, 405, 422); no charge."""

    def __init__(self, message: str) -> None:
        """Keep what the server said."""
        super().__init__(message, reason="unavailable")


@dataclass(frozen=True, slots=True)
class Cost:
    """What asking may cost at most: nano-dollars, and tokens of prompt and completion together."""

    nano: int = 0
    tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Add two costs."""
        return Cost(self.nano + other.nano, self.tokens + other.tokens)

    def __mul__(self, times: int) -> Cost:
        """Return the cost of asking so many times."""
        return Cost(self.nano * times, self.tokens * times)


@dataclass(frozen=True, slots=True)
class Biller:
    """Who is paid: a configured backend, its model, and the version of its price."""

    backend: str
    model: str
    price_version: str


@dataclass(slots=True)
class Tab:
    """What one verdict has run up at models so far.

    Filled while the verdict is made, so that one which is cut or cannot be read is billed as well.
    `id` goes to the models' servers as the request id. `exact` turns False when a call's tokens had
    to be taken at their worst case.
    """

    id: str
    nano: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """One chat call: `params` are request fields such as `temperature` and `response_format`."""

    messages: Messages
    max_tokens: int
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the text, and the choice object as JSON text (for log-probabilities)."""

    text: str
    choice: bytes


class Writer(Protocol):
    """Writes the prompts of a judge, with all that others wrote as data it cannot take for ours."""

    def write(self, task: Task, samples: Sequence[Sample]) -> Messages:
        """Return the prompt about these samples, shown in this order."""
        ...

    def fixed_bytes(self, task: Task) -> int:
        """Return the most bytes of UTF-8 that a prompt has beside its answers."""
        ...

    def answer_bytes(self, sample: Sample) -> int:
        """Return the most bytes of UTF-8 that a sample takes in a prompt."""
        ...


class ChatModel(Protocol):
    """A chat model of a configured backend."""

    @property
    def biller(self) -> Biller:
        """Who is paid."""
        ...

    def worst(self, prompt_bytes: int, max_tokens: int) -> Cost:
        """Return the most that one call can cost whose texts have so many bytes of UTF-8."""
        ...

    async def ask(self, question: Question, tab: Tab) -> Reply:
        """Ask once, and put what it cost on the tab, whatever comes of it.

        Raises:
            Refused: the server says that the request is wrong.
            VerifierError: `unavailable`, `timeout` or `protocol`: there is no reply.
        """
        ...


class ScoringModel(Protocol):
    """A reward model or cross-encoder of a configured backend: texts in, numbers out."""

    @property
    def biller(self) -> Biller:
        """Who is paid."""
        ...

    def worst(self, prompt_bytes: int) -> Cost:
        """Return the most that one call can cost whose texts have so many bytes of UTF-8."""
        ...

    async def post(
        self, path: str, body: Mapping[str, Any], prompt_bytes: int, tab: Tab
    ) -> dict[str, Any]:
        """Send a body (the model's name is added) to a path below the server's root.

        `prompt_bytes` is the size of its texts; what it cost goes on the tab, whatever comes of it.

        Raises:
            Refused: the server has no such path, or says that the body is wrong.
            VerifierError: `unavailable`, `timeout` or `protocol`: there is no answer.
        """
        ...

    async def fields(self) -> Mapping[str, frozenset[str]] | None:
        """Return the fields that each path takes, as the server describes itself.

        None when it does not. Costs nothing, and is asked once.
        """
        ...


@runtime_checkable
class Metered(Verifier, Protocol):
    """A verifier or comparator that asks models: its price depends on what it is asked about."""

    @property
    def biller(self) -> Biller:
        """Who is paid for its verdicts: one backend, because a verdict is one row."""
        ...

    def answer_bytes(self, sample: Sample) -> int:
        """Return how many bytes the sample takes in a prompt."""
        ...

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that one verdict can cost about answers of so many bytes together."""
        ...

    def on(self, tab: Tab) -> Self:
        """Return this verifier with its costs going to a tab."""
        ...
