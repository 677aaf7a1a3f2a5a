"""Verifier `generative`: how sure a chat model is that an answer is right, as one probability.

Sources: Zhang et al. 2024, arXiv:2408.15240, sec. 3 (the probability of "Yes"; with reasoning, the
mean over sampled chains). Deviation: "Yes" is weighed against "No" alone, over all spellings of
both among the likeliest tokens.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import msgspec

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.asking import Biller, Cost, Refused, Tab
from samplewise.verifiers.base import Assurance, Sample, Task, Verdict, VerifierError
from samplewise.verifiers.judge_reading import read_word
from samplewise.verifiers.judges import Asking, status_of
from samplewise.verifiers.screening import screened

__all__ = ["Generative", "Learnt", "p_yes"]

# Below this the model was about to say something else, and the rest says little.
_LEAST_MASS = 0.1


@dataclass(slots=True)
class Learnt:
    """Whether the model's server gives log-probabilities; None until it was asked."""

    logprobs: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generative:
    """Asks for Yes or No: one token with log-probabilities, or `chains` sampled replies.

    `auto` asks for log-probabilities, and for chains from then on when the server gives none. The
    score is p(Yes) or the share of Yes; with `pass_threshold` in [0, 1] it judges.
    """

    name: str
    word: Asking
    chain: Asking
    mode: Literal["auto", "logprobs", "chains"] = "auto"
    chains: int = 5
    min_chars: int = 1
    pass_threshold: float | None = None
    learnt: Learnt = field(default_factory=Learnt, repr=False, compare=False)
    tab: Tab = field(default_factory=lambda: Tab(""), repr=False, compare=False)

    def key(self, sample: Sample) -> str:
        """Return what the judge is shown."""
        return strip_thinking(sample.path_text)

    @property
    def biller(self) -> Biller:
        """Who is paid."""
        return self.word.model.biller

    def answer_bytes(self, sample: Sample) -> int:
        """Return how many bytes the sample takes in a prompt."""
        return self.word.writer.answer_bytes(sample)

    def worst(self, task: Task, answer_bytes: int) -> Cost:
        """Return the most that one verdict can cost; less once it is known what the server does."""
        cost = Cost()
        if self._may_ask_word():
            cost += self.word.worst(task, answer_bytes)
        if self._may_ask_chains():
            cost += self.chain.worst(task, answer_bytes) * self.chains
        return cost

    def on(self, tab: Tab) -> Self:
        """Return this verifier with its costs going to a tab."""
        return replace(self, tab=tab)

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Ask; raises `VerifierError` when no reply says Yes or No."""
        verdict = screened(self.name, sample, self.min_chars)
        if verdict is not None:
            return verdict
        score = await self._by_word(task, sample) if self._may_ask_word() else None
        if score is None:
            score = await self._by_chains(task, sample)
            # A refusal may have had another reason, so only now it is sure.
            self.learnt.logprobs = False
        status = status_of(score, self.pass_threshold)
        return Verdict(self.name, status, score, raw_score=score, assurance=Assurance.MODEL)

    def _may_ask_word(self) -> bool:
        return self.mode == "logprobs" or (
            self.mode == "auto" and self.learnt.logprobs is not False
        )

    def _may_ask_chains(self) -> bool:
        return self.mode == "chains" or (self.mode == "auto" and not self.learnt.logprobs)

    async def _by_word(self, task: Task, sample: Sample) -> float | None:
        """Return p(Yes); None when the server gives no log-probabilities and chains may do."""
        chains = self._may_ask_chains()
        try:
            reply = await self.word.ask(task, (sample,), self.tab)
        except Refused:
            if not chains:
                raise
            return None
        score = p_yes(reply.choice)
        if score is not None:
            self.learnt.logprobs = True
            return score
        if not chains:
            raise VerifierError(
                "the model's server gave no log-probabilities: set mode to chains",
                reason="protocol",
            )
        return None

    async def _by_chains(self, task: Task, sample: Sample) -> float:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._chain(task, sample)) for _ in range(self.chains)]
        outcomes = [done.result() for done in tasks]
        for outcome in outcomes:
            if isinstance(outcome, VerifierError):
                raise outcome
        said = [word for word in outcomes if isinstance(word, str)]
        if 2 * len(said) <= self.chains:
            raise VerifierError(
                f"only {len(said)} of {self.chains} replies say yes or no", reason="protocol"
            )
        return said.count("yes") / len(said)

    async def _chain(self, task: Task, sample: Sample) -> str | VerifierError | None:
        """Return yes, no, None for a reply that says neither, or why there is no reply."""
        try:
            reply = await self.chain.ask(task, (sample,), self.tab)
        except VerifierError as error:
            return error
        try:
            return read_word(reply.text, "correct", ("yes", "no"))
        except VerifierError:
            return None


class _Top(msgspec.Struct):
    token: str
    logprob: float


class _Token(_Top):
    top_logprobs: list[_Top] = []


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct):
    logprobs: _Logprobs | None = None


def p_yes(choice: bytes) -> float | None:
    """Return the probability of Yes against No at the first token of a choice, as JSON text.

    None when the choice has no log-probabilities.

    Raises:
        VerifierError: `protocol` when the model would hardly say either word.
    """
    try:
        logprobs = msgspec.json.decode(choice, type=_Choice).logprobs
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerifierError(
            f"log-probabilities cannot be read: {error}", reason="protocol"
        ) from None
    if logprobs is None or not logprobs.content:
        return None
    first = logprobs.content[0]
    known = {first.token: first.logprob, **{top.token: top.logprob for top in first.top_logprobs}}
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in known.items():
        word = token.strip(" \t\n*\"'`.").casefold()
        if word in mass:
            mass[word] += math.exp(min(0.0, logprob))
    total = mass["yes"] + mass["no"]
    if total < _LEAST_MASS:
        raise VerifierError(
            f"the model's first word is neither Yes nor No (probability {total:.2g}): a model that "
            "reasons first needs mode chains",
            reason="protocol",
        )
    return mass["yes"] / total
