"""What a verifier sees and says: `Task`, `Sample`, `Verdict`, and the protocols around them.

Values only. Nothing here does input or output, and nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import msgspec

__all__ = [
    "Assurance",
    "Comparator",
    "Comparison",
    "Confidence",
    "Ended",
    "Equivalence",
    "Immediate",
    "Keyed",
    "LogprobSummary",
    "Purpose",
    "ReadsToolCalls",
    "Sample",
    "Selective",
    "Status",
    "TakesTests",
    "Task",
    "TestsError",
    "ToolCall",
    "Verdict",
    "Verifier",
    "VerifierError",
    "VerifierSetupError",
]


class VerifierError(Exception):
    """A verifier could not tell. Becomes a verdict of status `error`, never `fail`.

    `reason` is one of the fixed words of a metric label: timeout, crash, protocol, unavailable.
    """

    def __init__(self, message: str, *, reason: str = "crash") -> None:
        """Keep the message for the operator and the reason for the metrics."""
        super().__init__(message)
        self.reason = reason


class VerifierSetupError(Exception):
    """A verifier cannot be built from its settings; the message says what to change."""


class TestsError(ValueError):
    """Tests that cannot be used; `place` is the path of what is wrong, from the tests' own root."""

    __test__ = False  # pytest takes it for a test otherwise

    def __init__(self, place: str, text: str) -> None:
        """Keep both; the message has them, too."""
        super().__init__(f"{place}: {text}" if place else text)
        self.place = place
        self.text = text


class Ended(StrEnum):
    """Why a sample stopped. `cut` means Samplewise stopped it."""

    EOS = "eos"
    STOP_STRING = "stop_string"
    LENGTH = "length"
    CUT = "cut"
    TOOL_CALL = "tool_call"
    REFUSAL = "refusal"


class Purpose(StrEnum):
    """What a sample was drawn for."""

    ANSWER = "answer"
    TESTS = "tests"
    CRITIQUE = "critique"


class Status(StrEnum):
    """What a verdict says. `none`: an answer or a score, no judgement. `error`: could not tell."""

    PASS = "pass"
    FAIL = "fail"
    NONE = "none"
    ERROR = "error"


class Assurance(StrEnum):
    """How much a `pass` is worth, strongest first."""

    KERNEL = "kernel"
    ELABORATED = "elaborated"
    TESTS_EXTERNAL = "tests-external"
    TESTS_IN_PROCESS = "tests-in-process"
    SYMBOLIC = "symbolic"
    HEURISTIC = "heuristic"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call of an assistant message; `arguments` is the JSON text as the model wrote it."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a model was of what it wrote, from the likeliest tokens of every place.

    The confidence of a place is minus the mean of their natural log-probabilities: the higher, the
    surer. A group is `window` places in a row, all of them in a shorter sample. `mean` is that of
    all places, `lowest` the least sure group, `bottom` the mean of the lowest tenth of the groups,
    `tail` the last group. Source: Fu et al. 2025, arXiv:2508.15260, sec. 3.1.
    """

    window: int
    mean: float
    lowest: float
    bottom: float
    tail: float


@dataclass(frozen=True, slots=True)
class LogprobSummary:
    """Token log-probabilities of a sample, reduced: natural log, one value per generated token.

    `first_margin` is the probability of the likeliest first token less that of the second.
    """

    tokens: int
    mean: float
    lowest: float
    first_margin: float | None = None
    confidence: Confidence | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What was asked: one client request as policies and verifiers see it.

    `messages`, `tools`, `response_format` and `tests` hold JSON text, decoded only by who needs
    them. `item` carries the request's own data for templates (`{{item.x}}`); it is untrusted.
    `seed` is that of the evidence: all chance of one request comes from it.
    """

    request_id: str
    route: str
    messages: bytes
    tools: bytes | None = None
    response_format: bytes | None = None
    reference: str | None = None
    tests: bytes | None = None
    item: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def decoded_messages(self) -> list[dict[str, Any]]:
        """Decode the messages; costs time in proportion to the prompt."""
        return msgspec.json.decode(self.messages, type=list[dict[str, Any]])


@dataclass(frozen=True, slots=True)
class Sample:
    """One drawn completion, or one step of one.

    `index` is the draw order, fixed at dispatch. `text` is what this draw produced; `path_text` is
    the text with all its ancestors' text before it, and is what verifiers judge. `choice` is the
    upstream's choice object, byte for byte. `stop` is the stop string that ended a step. Cost is in
    nano-dollars, `seconds` is wall time from dispatch to the end.
    """

    id: str
    index: int
    text: str
    path_text: str
    ended: Ended
    choice: bytes = b""
    tool_calls: tuple[ToolCall, ...] = ()
    stop: str = ""
    step: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano: int = 0
    seconds: float = 0.0
    backend: str = ""
    model: str = ""
    parents: tuple[str, ...] = ()
    purpose: Purpose = Purpose.ANSWER
    key: str = ""
    logprobs: LogprobSummary | None = None

    @property
    def complete(self) -> bool:
        """Whether this is a whole answer: not cut, not out of length, not the middle of a path."""
        if self.ended is Ended.EOS:
            return True
        return self.ended is Ended.TOOL_CALL or (self.ended is Ended.STOP_STRING and not self.step)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one verifier says of one sample.

    `score` lies in [0, 1] or is None; `raw_score` is whatever the verifier's own scale says.
    `answer` is the canonical answer that votes, or None when none was found. `feedback` is safe to
    show to a model: it never holds an expected value or a hidden test. `cost_nano` is nano-dollars.
    """

    verifier: str
    status: Status
    score: float | None = None
    raw_score: float | None = None
    step_scores: tuple[float, ...] = ()
    answer: str | None = None
    reason: str = ""
    feedback: str = ""
    assurance: Assurance = Assurance.HEURISTIC
    cost_nano: int = 0
    ms: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a judge of pairs says: `winner` is one of the two sample ids, or None for a tie.

    `order` tells which of the two the judge saw first. `error` is set when it could not tell, and
    `reason` may then be one of the words of `VerifierError`.
    """

    a: str
    b: str
    winner: str | None = None
    order: str = "ab"
    error: str = ""
    reason: str = ""
    cost_nano: int = 0


class Verifier(Protocol):
    """Judges one sample of one task."""

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Return a verdict; raise `VerifierError` when it cannot tell.

        Must not hold the event loop for more than a fraction of a millisecond.
        """
        ...


@runtime_checkable
class Keyed(Protocol):
    """A verifier that says itself what is verified only once."""

    def key(self, sample: Sample) -> str:
        """Return what decides the verdict. Default without this: the full text and tool calls."""
        ...


@runtime_checkable
class Immediate(Protocol):
    """A verifier that says that it never waits: a look at a text, which needs no task of its own.

    That holds for `equivalent`, too, where it has one.
    """

    @property
    def immediate(self) -> bool:
        """Whether `verify` returns without giving the event loop a turn."""
        ...


@runtime_checkable
class ReadsToolCalls(Protocol):
    """A verifier that says whether it judges turns that end in a tool call; others do not."""

    @property
    def tool_calls(self) -> bool:
        """Whether such a turn is given to it."""
        ...


@runtime_checkable
class TakesTests(Protocol):
    """A verifier that runs the tests which a request brings."""

    def check_tests(self, tests: bytes) -> bool:
        """Return whether it would run these tests (JSON); raises `TestsError` for wrong ones."""
        ...


@runtime_checkable
class Selective(Protocol):
    """A verifier that judges only what some requests bring it to judge by."""

    def judges(self, task: Task) -> bool:
        """Say, at once, whether a sample of this task can pass; True where that is not sure."""
        ...


@runtime_checkable
class Equivalence(Protocol):
    """A verifier whose answers can be equal without being the same text."""

    async def equivalent(self, a: str, b: str) -> bool:
        """Say whether two canonical answers belong to one vote class. Runs off the event loop.

        Raises `VerifierError` when it cannot tell; the answers stay apart then.
        """
        ...


@runtime_checkable
class Comparator(Protocol):
    """Judges a pair of samples."""

    async def compare(self, task: Task, a: Sample, b: Sample) -> Comparison:
        """Return which is better; raise `VerifierError` when it cannot tell."""
        ...
