"""The built-in model for step-wise search: random digits in steps, with true log-probabilities.

Digit d at place p of the whole text has the logit ((7 d + 3 p) mod 10) / 5, so that temperature,
greedy decoding and log-probabilities mean something and no two places are alike.
"""

from __future__ import annotations

import math
import random
from itertools import accumulate

from tests.upstream.plan import Choice, Token, finish
from tests.upstream.request import Request
from tests.upstream.script import Answer, Digits, Feature

__all__ = ["Sampler"]

_GREEDY = 1e-6
_EOS = Token("content", "", "", 0.0)
_END = Token("content", ";", ";", 0.0)


class Sampler:
    """Draws the choices of one request.

    Choice i has the seed `seed + i`; `fresh` makes calls without a seed differ. The
    same seed and messages give the same choice, in whatever call and company.
    """

    def __init__(
        self, spec: Digits, request: Request, ignores: tuple[Feature, ...], fresh: int
    ) -> None:
        self._spec = spec
        self._request = request
        self._ignores = ignores
        self._fresh = fresh
        last = request.messages[-1]
        continues = request.continue_final_message and "continue_final_message" not in ignores
        self._prefix = last.text if continues else ""
        self._prompt = "\x1e".join(message.text for message in request.messages)
        wanted = request.temperature
        self._temperature = 1.0 if wanted is None or "temperature" in ignores else wanted
        self._places: dict[int, tuple[list[float], list[Token]]] = {}

    def choice(self, index: int) -> Choice:
        """Return the planned choice at `index`."""
        seed = None if "seed" in self._ignores else self._request.seed
        key = f"fresh {self._fresh} {index}" if seed is None else f"seed {seed + index}"
        rng = random.Random(f"{key} {self._prompt}")
        tokens = self._steps(rng)
        return finish(tokens, "stop", self._spec, Answer(), self._request, self._ignores)

    def _steps(self, rng: random.Random) -> list[Token]:
        done = self._prefix.count(";")
        inside = len(self._prefix) - self._prefix.rfind(";") - 1
        place = len(self._prefix)
        tokens: list[Token] = []
        while done < self._spec.steps:
            if inside >= self._spec.step_tokens:
                tokens.append(_END)
                done, inside = done + 1, 0
            else:
                tokens.append(self._digit(rng, place))
                inside += 1
            place += 1
        tokens.append(_EOS)
        return tokens

    def _digit(self, rng: random.Random, place: int) -> Token:
        if place % 10 not in self._places:
            self._places[place % 10] = self._distribution(place)
        cumulative, tokens = self._places[place % 10]
        if self._temperature <= _GREEDY:
            return max(tokens, key=lambda token: token.logprob)
        return rng.choices(tokens, cum_weights=cumulative)[0]

    def _distribution(self, place: int) -> tuple[list[float], list[Token]]:
        temperature = self._temperature if self._temperature > _GREEDY else 1.0
        logits = [((7 * digit + 3 * place) % 10) / 5 / temperature for digit in range(10)]
        total = math.log(sum(map(math.exp, logits)))
        logprobs = {str(digit): logit - total for digit, logit in enumerate(logits)}
        ranked = tuple(sorted(logprobs.items(), key=lambda item: -item[1]))
        tokens = [Token("content", d, d, logprob, others=ranked) for d, logprob in logprobs.items()]
        return list(accumulate(math.exp(token.logprob) for token in tokens)), tokens
