"""A loaded script: which answer a call gets, and whether it goes wrong."""

from __future__ import annotations

import random
import re

import msgspec

from tests.upstream import plan
from tests.upstream.digits import Sampler
from tests.upstream.plan import Choice
from tests.upstream.request import Refusal, Request
from tests.upstream.script import Answer, Answers, Digits, Fault, Kind, Rule, Script

__all__ = ["Drawn", "Model"]

# Calls with one of these of the script draw no answer, so that the next call gets it.
_NO_ANSWER: frozenset[Kind] = frozenset({"status", "html", "hang", "gzip_bomb", "huge"})


class Drawn(msgspec.Struct):
    """What a call answers: the planned choices, and the fault that spoils it."""

    choices: list[Choice]
    fault: Fault | None


class _Source:
    """The state of one `Answers`: whose turn it is."""

    def __init__(self, spec: Answers) -> None:
        self.spec = spec
        self._drawn = 0
        self._calls = 0
        self._rng = random.Random(spec.seed)

    def fault(self) -> Fault | None:
        """Return the fault of the next call."""
        faults = self.spec.faults
        at = self._calls % len(faults) if faults and self.spec.cycle_faults else self._calls
        self._calls += 1
        return faults[at] if at < len(faults) else None

    def draw(self, count: int) -> list[Answer]:
        """Return the next `count` answers."""
        answers = self.spec.answers or (Answer(),)
        if self.spec.weights:
            return self._rng.choices(answers, self.spec.weights, k=count)
        start, self._drawn = self._drawn, self._drawn + count
        return [answers[at % len(answers)] for at in range(start, start + count)]


class Model:
    """One scripted model."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._base = _Source(script)
        self._rules = [(rule, re.compile(rule.pattern), _Source(rule)) for rule in script.rules]
        self._fresh = 0

    def choices(self, request: Request) -> int:
        """Return how many choices the call gets. Raise Refusal when it may not ask for so many."""
        wanted, most = request.n or 1, self.script.max_n
        if most is None or wanted <= most:
            return wanted
        if self.script.over_max_n == "refuse":
            raise Refusal(f"n must be at most {most}", "n")
        return most

    def refuse(self, body: bytes) -> None:
        """Raise Refusal for a body field that the script refuses."""
        if not self.script.refuses:
            return
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        for name in self.script.refuses:
            if name in fields:
                raise Refusal(f"Unknown parameter: '{name}'", name)

    def draw(self, request: Request, body: bytes) -> Drawn:
        """Decide the answer to a call."""
        rule, source = self._source(request.messages[-1].text)
        fault = source.fault()
        if fault is not None and fault.kind in _NO_ANSWER:
            return Drawn([], fault)
        count = self.choices(request)
        if rule is None and self.script.echo:
            return Drawn(self._plan([self._echo(body)] * count, request), fault)
        if rule is None and self.script.digits is not None:
            return Drawn(self._digits(self.script.digits, count, request), fault)
        answers = source.draw(count)
        own = (answer.fault for answer in answers)
        spoilt = fault or next((fault for fault in own if fault is not None), None)
        return Drawn(self._plan(answers, request), spoilt)

    def _source(self, prompt: str) -> tuple[Rule | None, _Source]:
        for rule, pattern, source in self._rules:
            if rule.contains in prompt and pattern.search(prompt):
                return rule, source
        return None, self._base

    def _plan(self, answers: list[Answer], request: Request) -> list[Choice]:
        """Plan each distinct answer once: calls for many choices repeat few."""
        planned: dict[int, Choice] = {}
        for answer in answers:
            if id(answer) not in planned:
                planned[id(answer)] = plan.choice(answer, request, self.script.ignores)
        return [planned[id(answer)] for answer in answers]

    def _digits(self, spec: Digits, count: int, request: Request) -> list[Choice]:
        self._fresh += 1
        sampler = Sampler(spec, request, self.script.ignores, self._fresh)
        return [sampler.choice(index) for index in range(count)]

    def _echo(self, body: bytes) -> Answer:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if "*" in self.script.echo:
            return Answer(text=body.decode())
        kept = {name: fields[name] for name in self.script.echo if name in fields}
        return Answer(text=msgspec.json.encode(kept).decode())
