"""Verifier `process_reward`: a process reward model on vLLM's step pooler, one number a step.

Sources: Zhang et al. 2025, arXiv:2501.07301 (Qwen2.5-Math-PRM: `<extra_0>` after each step, the
second of two labels is good); Wang et al. 2023, arXiv:2312.08935 (Math-Shepherd: a tag of two
Cyrillic letters after each step, the first of the tokens + and - is good).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from samplewise.verifiers.asking import Biller, Cost, Tab
from samplewise.verifiers.base import Assurance, Sample, Task, Verdict, VerifierError
from samplewise.verifiers.judges import status_of
from samplewise.verifiers.reward_model import softmax
from samplewise.verifiers.reward_server import (
    Fields,
    RewardServer,
    Variant,
    answer_text,
    conversation,
    question,
)
from samplewise.verifiers.screening import screened

__all__ = ["Layout", "ProcessReward", "aggregate", "process_variants", "steps_of"]

Layout = Literal["qwen", "shepherd"]
Aggregation = Literal["last", "min", "prod"]

_PATH = "/pooling"
_TAGS: Mapping[Layout, str] = {"qwen": "<extra_0>", "shepherd": "\u043a\u0438"}
_GOOD: Mapping[Layout, int] = {"qwen": 1, "shepherd": 0}
_SUM_TOLERANCE = 1e-2  # servers may answer in half precision


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReward:
    """Gives a score for each step and one for all: the last, the least or the product.

    Steps are what stands between `separator`s. `layout` says how they are marked for the model and
    which of its two values is the good one. `pass_threshold` in [0, 1] judges the whole.
    """

    name: str
    server: RewardServer
    layout: Layout = "qwen"
    aggregation: Aggregation = "last"
    separator: str = "\n\n"
    min_chars: int = 1
    pass_threshold: float | None = None
    tab: Tab = field(default_factory=lambda: Tab(""), repr=False, compare=False)

    def key(self, sample: Sample) -> str:
        """Return what the model is shown."""
        return answer_text(sample)

    @property
    def biller(self) -> Biller:
        """Who is paid."""
        return self.server.model.biller

    def answer_bytes(self, sample: Sample) -> int:
        """Return how many bytes the sample takes in a prompt, its marks included."""
        text = answer_text(sample)
        tag = _TAGS[self.layout]
        marks = text.count(self.separator) + 1 + text.count(tag)
        return len(text.encode()) + marks * (len(tag.encode()) + 2)

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that one verdict can cost."""
        return self.server.worst(task, answer_bytes)

    def on(self, tab: Tab) -> Self:
        """Return this verifier with its costs going to a tab."""
        return replace(self, tab=tab)

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Ask; raises `VerifierError` when there is not one score for each step."""
        verdict = screened(self.name, sample, self.min_chars)
        if verdict is not None:
            return verdict
        steps = steps_of(answer_text(sample), self.separator, _TAGS[self.layout])
        body = self._body(task, steps)
        answer, _ = await self.server.ask(task, self.answer_bytes(sample), lambda _: body, self.tab)
        scores = _step_scores(answer, _GOOD[self.layout])
        if len(scores) != len(steps):
            raise VerifierError(
                f"{len(scores)} scores came for {len(steps)} steps: layout {self.layout} does not "
                "fit the model, or its server has another step_tag_id",
                reason="protocol",
            )
        score = aggregate(scores, self.aggregation)
        return Verdict(
            self.name,
            status_of(score, self.pass_threshold),
            score=score,
            raw_score=score,
            step_scores=scores,
            assurance=Assurance.MODEL,
        )

    def _body(self, task: Task, steps: tuple[str, ...]) -> Mapping[str, Any]:
        tag = _TAGS[self.layout]
        if self.layout == "qwen":
            return {"messages": conversation(task, tag.join(steps) + tag)}
        marked = "\n".join(f"{step} {tag}" for step in steps)
        return {"input": f"{question(task)} {marked}"}


def process_variants(fields: Fields | None) -> Iterator[Variant]:
    """Yield the ways to ask for scores of steps: with the task's name, and as it was before.

    A server that knows tasks and refuses this one would give something else without a name, such as
    embeddings, of which two numbers a step could be taken for scores.
    """
    if fields is not None and _PATH not in fields:
        return
    if fields is None or "task" in fields[_PATH]:
        yield Variant(_PATH, {"task": "token_classify"})
        yield Variant(_PATH, {"task": "encode"})
    if fields is None or "task" not in fields[_PATH]:
        yield Variant(_PATH)


def steps_of(text: str, separator: str, tag: str) -> tuple[str, ...]:
    """Return the steps of a text, none of them empty; a tag that the text brought is broken."""
    # Not taken out: what stands around a tag could fall together to another.
    safe = text.replace(tag, f"{tag[0]} {tag[1:]}")
    steps = tuple(piece.strip() for piece in safe.split(separator) if piece.strip())
    return steps or (safe.strip(),)


def aggregate(scores: tuple[float, ...], how: Aggregation) -> float:
    """Return one score for all steps."""
    if how == "min":
        return min(scores)
    return math.prod(scores) if how == "prod" else scores[-1]


def _step_scores(answer: Mapping[str, Any], good: int) -> tuple[float, ...]:
    """Return the probability of good for each step; what is no probability yet becomes one."""
    try:
        rows = [[float(value) for value in row] for row in answer["data"][0]["data"]]
        if any(len(row) != 2 or not all(map(math.isfinite, row)) for row in rows):
            raise ValueError("not two finite values for each step")
    except (LookupError, TypeError, ValueError) as error:
        raise VerifierError(
            f"the answer of {_PATH} has no scores of steps: {error}", reason="protocol"
        ) from None
    ready = all(min(row) >= 0 and abs(sum(row) - 1) <= _SUM_TOLERANCE for row in rows)
    return tuple((row if ready else softmax(row))[good] for row in rows)
