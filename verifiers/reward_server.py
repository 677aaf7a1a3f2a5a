"""How a reward model's server is asked: which path, under which names, found out by trying.

The names moved between versions of vLLM (`softmax`, `activation`, `use_activation`; `text_1`,
`queries`), and a server that does not know one may pass over it in silence. So what the server says
of itself decides, and else what it does not refuse.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.asking import Cost, Refused, ScoringModel, Tab
from samplewise.verifiers.base import Sample, Task, VerifierError

__all__ = ["RewardServer", "Variant", "activation_name", "answer_text", "conversation", "question"]

Fields = Mapping[str, frozenset[str]]

_ACTIVATION = ("use_activation", "activation", "softmax")
# A server that takes nothing any more is not asked for every form again by every verdict.
_AGAIN_S = 5.0
# What chat templates use as marks of turns. Here text reaches the model as it is, so an answer that
# holds such a mark could end its own turn and write another.
_MARK = re.compile(r"<(?=[|\uff5c]|/?s>|/?(?:start|end)_of_turn>|extra_\d+>)|\[(?=/?INST\])")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to ask: the path below the root, and fixed fields. `raw`: no activation applied."""

    path: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    raw: bool = False


Body = Callable[[Variant], Mapping[str, Any]]


@dataclass(slots=True, kw_only=True)
class RewardServer:
    """One server and the variant that it was found to take; shared by all verdicts.

    `variants` lists what to try, best first, by the fields of each path (None: not known). It is
    looked through anew when the server refuses what it took before: it may be another one by now.
    `clock` gives seconds, and paces that.
    """

    model: ScoringModel
    variants: Callable[[Fields | None], Iterable[Variant]]
    max_answer_bytes: int = 32_768
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    found: Variant | None = None
    _again_at: float = 0.0
    _finding: asyncio.Lock = field(default_factory=asyncio.Lock)

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that one verdict can cost."""
        return self.model.worst(self._size(task, min(answer_bytes, self.max_answer_bytes)))

    def _size(self, task: Task, answer_bytes: int) -> int:
        return len(task.messages) + answer_bytes

    async def ask(
        self, task: Task, answer_bytes: int, body: Body, tab: Tab
    ) -> tuple[dict[str, Any], Variant]:
        """Ask about an answer of so many bytes; return what came and how it was asked.

        Raises:
            VerifierError: `too_long`; `unavailable` when no variant is taken or nobody answers.
        """
        if answer_bytes > self.max_answer_bytes:
            raise VerifierError(
                f"the answer has {answer_bytes} bytes, more than max_answer_bytes: "
                f"{self.max_answer_bytes}",
                reason="too_long",
            )
        size = self._size(task, answer_bytes)
        if self.found is None:
            async with self._finding:
                if self.found is None:
                    return await self._find(body, size, tab)
        taken = self.found
        try:
            return await self._post(taken, body, size, tab), taken
        except Refused as error:
            return await self._find_another(taken, error, body, size, tab)

    async def _find(self, body: Body, size: int, tab: Tab) -> tuple[dict[str, Any], Variant]:
        refusals: list[str] = []
        answered = await self._try_all(body, size, tab, refusals)
        if answered is not None:
            return answered
        said = "; ".join(refusals) or "it offers none of the paths"
        raise VerifierError(
            "the model's server takes no form of the request; is it started with --runner "
            f"pooling? It said: {said}",
            reason="unavailable",
        )

    async def _find_another(
        self, refused: Variant, error: Refused, body: Body, size: int, tab: Tab
    ) -> tuple[dict[str, Any], Variant]:
        """Ask in another way than the refused one; raise the refusal again where there is none."""
        async with self._finding:
            found = self.found
            if found is refused or found is None:
                if self.clock() < self._again_at:
                    raise error
                self._again_at = self.clock() + _AGAIN_S
                answered = await self._try_all(body, size, tab, [])
                if answered is None:
                    raise error
                return answered
        return await self._post(found, body, size, tab), found

    async def _try_all(
        self, body: Body, size: int, tab: Tab, refusals: list[str]
    ) -> tuple[dict[str, Any], Variant] | None:
        """Ask in every way until one is taken, and remember that; None where all are refused."""
        for variant in self.variants(await self.model.fields()):
            try:
                answer = await self._post(variant, body, size, tab)
            except Refused as error:
                refusals.append(f"{variant.path}: {error}")
                continue
            self.found = variant
            return answer, variant
        return None

    async def _post(self, variant: Variant, body: Body, size: int, tab: Tab) -> dict[str, Any]:
        fields = {**variant.fields, **body(variant)}
        return await self.model.post(variant.path, fields, size, tab)


def activation_name(fields: Fields | None, path: str) -> str | None:
    """Return the name under which a path takes the wish for raw scores; None for no such wish."""
    if fields is None:
        return _ACTIVATION[0]
    return next((name for name in _ACTIVATION if name in fields.get(path, ())), None)


def answer_text(sample: Sample) -> str:
    """Return the answer without thinking blocks, and without marks of a chat template."""
    return _MARK.sub(lambda found: found[0] + " ", strip_thinking(sample.path_text))


def conversation(task: Task, answer: str) -> list[dict[str, Any]]:
    """Return the client's messages with the answer as the last turn."""
    return [*task.decoded_messages(), {"role": "assistant", "content": answer}]


def question(task: Task) -> str:
    """Return the text of the last user message."""
    users: Sequence[Any] = [m for m in task.decoded_messages() if m.get("role") == "user"]
    content = users[-1].get("content") if users else ""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")
