"""The gates of a cascade: what keeps a cheap tier's answer, and what sends a request on."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from samplewise.policies.base import Draw, Evidence, Fresh, PolicyError, StopReason
from samplewise.policies.cascade import Beside, Cascade, Tier
from samplewise.policies.evidence import Finished, Granted, Running
from samplewise.policies.tiers import MARGINS
from samplewise.proxy.learnt import Margins
from samplewise.verifiers.base import Ended, LogprobSummary, Sample, Task
from tests.policies.runs import Game, Script, votes


def _answer(game: Game) -> str:
    stop = game.play()
    return game.evidence.samples[stop.ranking[0]].text


def test_two_models_that_agree_keep_the_cheap_answer() -> None:
    policy = Cascade((Tier("a", 1, beside=Beside("b")), Tier("dear")))
    agreed = Game(policy, votes("xxz"))
    stop = agreed.play()
    assert (stop.reason, stop.details["gates"]) == (StopReason.AGREED, ["beside"])
    assert list(agreed.backends.values()) == ["a", "b"]
    torn = Game(policy, votes("xyz"))
    assert _answer(torn) == "answer z"
    assert list(torn.backends.values()) == ["a", "b", "dear"]


def test_two_prompts_must_have_the_same_majority() -> None:
    """Yue et al. 2023, sec. 3: two styles of prompt, and their answers are compared."""
    policy = Cascade((Tier("a", 3, prompt="cot", beside=Beside("", 3, "pot")), Tier("dear")))
    same = Game(policy, votes("xxyyxx"))
    assert _answer(same) == "answer x"
    sources = [action.source for action in same.actions if isinstance(action, Draw)]
    assert sources == [Fresh("cot"), Fresh("pot")]
    assert _answer(Game(policy, votes("xxyyyxz"))) == "answer z"
    # Two answers that are as frequent are no majority.
    assert _answer(Game(policy, votes("xy.xxxz"))) == "answer z"


def test_with_an_agreement_both_panels_count_together() -> None:
    policy = Cascade((Tier("a", 2, 0.75, beside=Beside("b", 2)), Tier("dear")))
    assert _answer(Game(policy, votes("xxx."))) == "answer x"
    assert _answer(Game(policy, votes("x.x.z"))) == "answer z"


def test_a_score_that_is_high_enough_keeps_the_sample_that_has_it() -> None:
    policy = Cascade((Tier("a", 3, score="v", min_score=0.7), Tier("dear")))
    scripts = [Script("x", score=score) for score in (0.4, 0.8, 0.75, 0.1)]
    game = Game(policy, scripts)
    stop = game.play()
    assert (stop.ranking[0], stop.reason) == ("s1", StopReason.NOT_WORTH_IT)
    low = Game(policy, [Script("x", score=0.69)] * 3 + [Script("z", score=0.0)])
    assert _answer(low) == "answer z"


def _game(margin: float | None, known: Sequence[float], escalate: float = 0.25) -> Game:
    policy = Cascade((Tier("a", 1, escalate=escalate), Tier("dear")))
    sure = None if margin is None else margin * 10
    game = Game(policy, [Script("x", sure=sure), Script("z", sure=1.0)])
    game.evidence.prior = {MARGINS: {"a": tuple(known)}}
    return game


def test_the_least_clear_share_of_requests_goes_on() -> None:
    known = [number / 100 for number in range(100)]
    assert _answer(_game(0.25, known)) == "answer x"
    assert _answer(_game(0.24, known)) == "answer z"
    assert _answer(_game(0.6, known, escalate=0.5)) == "answer x"


@pytest.mark.parametrize(("margin", "known"), [(0.99, [0.1] * 19), (None, [0.1] * 50), (0.9, [])])
def test_what_is_not_known_goes_on(margin: float | None, known: list[float]) -> None:
    assert _answer(_game(margin, known)) == "answer z"


def _seen(margin: float, backend: str = "a", reasoning: int = 0) -> Evidence:
    evidence = Evidence(Task("r", "route", b"[]"))
    evidence.fold(Granted("k", 1, (Running("s0", 0, "k"),)))
    logprobs = LogprobSummary(3, -0.1, -0.2, margin)
    sample = Sample("s0", 0, "", "", Ended.EOS, backend=backend, logprobs=logprobs,
                    reasoning_tokens=reasoning)  # fmt: skip
    evidence.fold(Finished(sample))
    return evidence


def test_a_route_remembers_the_last_500_margins_of_each_backend_in_order() -> None:
    rng = random.Random(3)
    margins, drawn = Margins(), [rng.random() for _ in range(1200)]
    for margin in drawn:
        margins.note(_seen(margin))
    margins.note(_seen(0.5, "b"))
    assert margins.known() == {"a": tuple(sorted(drawn[-500:])), "b": (0.5,)}


def test_the_first_token_of_a_model_that_thought_before_it_tells_nothing() -> None:
    margins = Margins()
    margins.note(_seen(0.9, reasoning=7))
    assert margins.known() == {}


@pytest.mark.parametrize(
    ("tier", "field"),
    [
        (Tier("a", beside=Beside("a")), "tiers.0.beside"),
        (Tier("a", prompt="x", beside=Beside("", 1, "x")), "tiers.0.beside"),
        (Tier("a", beside=Beside("b", 0)), "tiers.0.beside.samples"),
        (Tier("a", min_score=0.5), "tiers.0.min_score"),
        (Tier("a", score="v"), "tiers.0.min_score"),
        (Tier("a", score="v", min_score=1.5), "tiers.0.min_score"),
        (Tier("a", escalate=1.0), "tiers.0.escalate"),
        (Tier("", escalate=0.5), "tiers.0.backend"),
    ],
)
def test_gates_that_cannot_decide_are_refused_by_name(tier: Tier, field: str) -> None:
    with pytest.raises(PolicyError, match=field):
        Cascade((tier, Tier("dear")))
