"""Verifier `reward_model`: a sequence reward model or cross-encoder on vLLM, one number an answer.

Raw numbers are asked for, because the server's own activation squashes good and very good together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from samplewise.verifiers.asking import Biller, Cost, Tab
from samplewise.verifiers.base import Assurance, Sample, Task, Verdict, VerifierError
from samplewise.verifiers.judges import status_of
from samplewise.verifiers.reward_server import (
    Fields,
    RewardServer,
    Variant,
    activation_name,
    answer_text,
    conversation,
    question,
)
from samplewise.verifiers.screening import screened

__all__ = ["Endpoint", "RewardModel", "reward_variants", "softmax"]

Endpoint = Literal["auto", "classify", "pooling", "score", "rerank"]

_AUTO: tuple[Endpoint, ...] = ("pooling", "classify", "score")
_PAIRS = (("queries", "documents"), ("text_1", "text_2"))
_MOST_EXPONENT = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModel:
    """Scores the conversation with the answer as its last turn.

    `raw_score` is the model's own number, `score` its logistic with `midpoint` and `spread`, or the
    softmax over several labels; `label` is the index of the good one. `pass_threshold` is on the
    scale of `raw_score`. Endpoints that take a pair get the last user message and the answer.
    """

    name: str
    server: RewardServer
    midpoint: float = 0.0
    spread: float = 1.0
    label: int | None = None
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
        """Return how many bytes the sample takes in a prompt."""
        return len(answer_text(sample).encode())

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that one verdict can cost."""
        return self.server.worst(task, answer_bytes)

    def on(self, tab: Tab) -> Self:
        """Return this verifier with its costs going to a tab."""
        return replace(self, tab=tab)

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Ask; raises `VerifierError` when no number comes back."""
        verdict = screened(self.name, sample, self.min_chars)
        if verdict is not None:
            return verdict
        size = self.answer_bytes(sample)
        answer, variant = await self.server.ask(
            task, size, lambda variant: _body(variant, task, sample), self.tab
        )
        values = _values(answer, variant.path)
        label = self._label(values)
        raw = values[label]
        return Verdict(
            self.name,
            status_of(raw, self.pass_threshold),
            score=self._score(values, label, variant.raw),
            raw_score=raw,
            assurance=Assurance.MODEL,
        )

    def _label(self, values: list[float]) -> int:
        if self.label is None and len(values) > 1:
            raise VerifierError(
                f"the model has {len(values)} labels: set label to the index of the good one",
                reason="protocol",
            )
        label = self.label or 0
        if label >= len(values):
            raise VerifierError(f"the model has no label {label}", reason="protocol")
        return label

    def _score(self, values: list[float], label: int, raw: bool) -> float:
        if not raw and all(0 <= value <= 1 for value in values):
            return values[label]
        if len(values) > 1:
            return softmax(values)[label]
        exponent = (values[0] - self.midpoint) / self.spread
        return 1 / (1 + math.exp(-max(-_MOST_EXPONENT, min(_MOST_EXPONENT, exponent))))


def reward_variants(endpoint: Endpoint, fields: Fields | None) -> Iterator[Variant]:
    """Yield the ways to ask for one number, best first."""
    for kind in _AUTO if endpoint == "auto" else (endpoint,):
        path = f"/{kind}"
        if fields is not None and path not in fields:
            continue
        name = activation_name(fields, path)
        raw: Mapping[str, Any] = {} if name is None else {name: False}
        if kind == "pooling":
            tasks = ("classify", "token_classify") if _knows(fields, path, "task") else (None,)
            for task in tasks:
                yield Variant(path, {**raw, **({"task": task} if task else {})}, (), bool(raw))
        elif kind == "score":
            for pair in _PAIRS:
                if _knows(fields, path, pair[0]):
                    yield Variant(path, raw, pair, bool(raw))
        else:
            yield Variant(path, raw, (), bool(raw))


def _knows(fields: Fields | None, path: str, name: str) -> bool:
    return fields is None or name in fields.get(path, ())


def _body(variant: Variant, task: Task, sample: Sample) -> Mapping[str, Any]:
    text = answer_text(sample)
    match variant.path:
        case "/score":
            return {variant.names[0]: question(task), variant.names[1]: text}
        case "/rerank":
            return {"query": question(task), "documents": [text]}
        case _:
            return {"messages": conversation(task, text)}


def _values(answer: Mapping[str, Any], path: str) -> list[float]:
    """Return the numbers of an answer, one per label."""
    try:
        match path:
            case "/classify":
                found = answer["data"][0]["probs"]
            case "/score":
                found = [answer["data"][0]["score"]]
            case "/rerank":
                found = [answer["results"][0]["relevance_score"]]
            case _:
                found = answer["data"][0]["data"]
                if isinstance(found, list) and found and isinstance(found[0], list):
                    found = found[-1]  # one list a token: the last has seen the whole answer
        values = [float(value) for value in (found if isinstance(found, list) else [found])]
    except (LookupError, TypeError, ValueError) as error:
        raise VerifierError(
            f"the answer of {path} has no score: {type(error).__name__} {error}", reason="protocol"
        ) from None
    if not values or not all(map(math.isfinite, values)):
        raise VerifierError(f"the answer of {path} has no finite score", reason="protocol")
    return values


def softmax(values: list[float]) -> list[float]:
    """Return the values as probabilities."""
    highest = max(values)
    powers = [math.exp(value - highest) for value in values]
    return [power / sum(powers) for power in powers]
