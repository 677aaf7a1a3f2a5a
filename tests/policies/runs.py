"""A small stand-in for the engine: plays a policy against scripted samples, one event at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from samplewise.policies.base import (
    Action,
    Cancel,
    Combine,
    Compare,
    Continue,
    Draw,
    Fresh,
    Policy,
    Revise,
    Source,
    Stop,
)
from samplewise.policies.evidence import (
    Compared,
    Evidence,
    Failed,
    Finished,
    Granted,
    Judged,
    Judgement,
    Progressed,
    Running,
)
from samplewise.verifiers.base import (
    Comparison,
    Confidence,
    Ended,
    LogprobSummary,
    Purpose,
    Sample,
    Status,
    Task,
    Verdict,
)


@dataclass(frozen=True)
class Script:
    """What one sample will be: its answer, verdict and scores, or that it is lost."""

    answer: str | None = "a"
    status: Status = Status.NONE
    score: float | None = None
    ended: Ended = Ended.EOS
    lost: bool = False
    sure: float | None = None
    steps: tuple[float, ...] = ()

    @property
    def logprobs(self) -> LogprobSummary | None:
        """Log-probabilities by which every token was as sure as the script says."""
        if self.sure is None:
            return None
        sure = Confidence(1, self.sure, self.sure, self.sure, self.sure)
        return LogprobSummary(5, -1 / (1 + self.sure), -1.0, min(self.sure / 10, 1.0), sure)


@dataclass
class Game:
    """One run of a policy. `grant` limits how many samples can be paid for in all."""

    policy: Policy
    scripts: Sequence[Script]
    grant: int = 1_000_000
    pick: Callable[[list[str]], str] = lambda running: running[0]
    evidence: Evidence = field(default_factory=lambda: Evidence(Task("r", "route", b"[]")))
    actions: list[Action] = field(default_factory=list)
    backends: dict[str, str] = field(default_factory=dict)
    most_running: int = 0
    feedback: str = ""
    draws: dict[str, Draw] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.evidence.left_samples = self.policy.needs.max_samples

    def play(self) -> Stop:
        """Run until the policy stops; fails the test when it never does."""
        for _ in range(500):
            new = False
            for action in self.policy.decide(self.evidence):
                self.actions.append(action)
                match action:
                    case Stop():
                        return action
                    case Draw() if action.key not in self.evidence.rounds:
                        self._grant(action)
                        new = True
                    case Compare() if action.key not in self.evidence.comparisons:
                        games = tuple(self._game(a, b) for a, b in action.pairs)
                        self.evidence.fold(Compared(action.key, games))
                        new = True
                    case Cancel():
                        for id_ in action.samples:
                            self._cut(id_)
                        new = True
            self.most_running = max(self.most_running, len(self.evidence.running))
            if self.evidence.running:
                self._on(self.pick(list(self.evidence.running)))
            elif not new:
                raise AssertionError("the policy waits for nothing")
        raise AssertionError("the policy never stops")

    def _grant(self, draw: Draw) -> None:
        first = self.evidence.drawn
        n = min(draw.n, self.evidence.left_samples, self.grant - first)
        started = tuple(Running(f"s{first + i}", first + i, draw.key) for i in range(n))
        self.backends |= {running.id: draw.backend for running in started}
        self.draws[draw.key] = draw
        why = "" if n == draw.n else "budget"
        self.evidence.fold(Granted(draw.key, draw.n, started, why))

    def _game(self, a: str, b: str) -> Comparison:
        """Let pairs be won by either, tied, or undecided, the same ones always alike."""
        outcome = sum(map(ord, a + b)) % 4
        winner = (a, b, None, None)[outcome]
        return Comparison(a, b, winner, error="timeout" if outcome == 3 else "")

    def _on(self, id_: str) -> None:
        """Let a sample go on to its end; where the policy watches, by way of a look at it."""
        running = self.evidence.running[id_]
        sure = self.scripts[running.index % len(self.scripts)].sure
        if self.policy.needs.progress_tokens and sure is not None and running.lowest_group is None:
            self.evidence.fold(Progressed(replace(running, tokens=2, lowest_group=sure)))
        else:
            self._end(id_)

    def _end(self, id_: str) -> None:
        running = self.evidence.running[id_]
        script = self.scripts[running.index % len(self.scripts)]
        if script.lost:
            self.evidence.fold(Failed(id_, running.index, running.key, "b", "connect"))
            return
        text = f"answer {script.answer}"
        draw = self.draws[running.key]
        # A step goes on where the script has no answer yet.
        goes_on = "stop" in draw.params and script.answer is None
        ended = Ended.STOP_STRING if goes_on else script.ended
        sample = Sample(
            id_,
            running.index,
            text,
            text,
            ended,
            key=running.key,
            completion_tokens=5,
            backend=self.backends.get(id_, ""),
            logprobs=script.logprobs,
            parents=_parents(draw.source),
            purpose=draw.purpose,
            step="stop" in draw.params,
        )
        if sample.purpose is not Purpose.ANSWER:
            self.evidence.fold(Finished(sample))
            return
        self.evidence.fold(Finished(sample, verifying=True))
        verdict = Verdict(
            "v",
            script.status,
            script.score,
            answer=script.answer,
            feedback=self.feedback,
            step_scores=script.steps,
        )
        voting = script.answer if sample.complete and script.status is not Status.FAIL else None
        judgement = Judgement(sample, script.status, (verdict,), script.answer, voting)
        self.evidence.fold(Judged(judgement))

    def _cut(self, id_: str) -> None:
        running = self.evidence.running[id_]
        sample = Sample(id_, running.index, "", "", Ended.CUT, key=running.key)
        self.evidence.fold(Finished(sample))


def _parents(source: Source) -> tuple[str, ...]:
    match source:
        case Continue():
            return (source.sample,)
        case Revise() | Combine():
            return source.samples
        case Fresh():
            return ()


def votes(text: str) -> list[Script]:
    """Return samples that answer with one letter each; `.` is a sample without an answer."""
    return [Script(None if letter == "." else letter) for letter in text]


def verdicts(text: str) -> list[Script]:
    """Return samples by verdict: p pass, f fail, e error, n none."""
    kinds = {"p": Status.PASS, "f": Status.FAIL, "e": Status.ERROR, "n": Status.NONE}
    return [Script(answer=None, status=kinds[letter]) for letter in text]
