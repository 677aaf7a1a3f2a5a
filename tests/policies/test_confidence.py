"""Votes that weigh samples by the model's own confidence, and how that is measured."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.base import Cancel, Draw, PolicyError, StopReason
from samplewise.policies.cisc import Cisc
from samplewise.policies.deepconf import DeepConf
from samplewise.policies.self_certainty import SelfCertainty
from samplewise.proxy.backends.confidence import Meter
from samplewise.verifiers.base import Confidence, Ended
from tests.policies.runs import Game, Script


def _scripts(*pairs: tuple[str, float | None]) -> list[Script]:
    return [Script(answer, sure=sure) for answer, sure in pairs]


def _answer(game: Game) -> str | None:
    return game.evidence.judgements[game.play().ranking[0]].answer


@given(
    st.lists(st.lists(st.floats(-30, 0), min_size=1, max_size=20), min_size=1, max_size=60),
    st.integers(1, 12),
)
def test_the_meter_says_what_the_definition_says(places: list[list[float]], window: int) -> None:
    meter = Meter(window)
    for place in places:
        meter.add(place)
    values = [-fmean(place) for place in places]
    size = min(window, len(values))
    groups = [fmean(values[i : i + size]) for i in range(len(values) - size + 1)]
    lowest = sorted(groups)[: max(1, len(groups) // 10)]
    found = meter.found()[1]
    assert found is not None
    wanted = Confidence(window, fmean(values), min(groups), fmean(lowest), groups[-1])
    for name in ("mean", "lowest", "bottom", "tail"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=1e-9)
    assert (meter.lowest is None) == (len(values) < window)


def test_the_first_tokens_margin_is_of_probabilities() -> None:
    meter = Meter()
    meter.add([math.log(0.6), math.log(0.25), math.log(0.1)])
    meter.add([math.log(0.9), math.log(0.05)])
    assert meter.margin == pytest.approx(0.35)


def test_a_first_token_without_a_second_has_no_margin() -> None:
    meter = Meter()
    meter.add([-0.1])
    meter.add([-0.1, -3.0])
    assert meter.found() == (None, None)


def test_a_log_probability_that_stands_for_never_does_not_decide_the_mean() -> None:
    meter = Meter(1)
    meter.add([-0.5, -9999.0])
    found = meter.found()[1]
    assert found is not None
    assert found.mean == pytest.approx(50.25)


def test_deepconf_keeps_the_surest_share_and_weighs_by_confidence() -> None:
    scripts = _scripts(("a", 1.0), ("a", 2.0), ("a", 3.0), ("b", 8.0), ("b", 9.0))
    assert _answer(Game(DeepConf(samples=5, keep=1.0), scripts)) == "b"
    # The plain vote says a; of the two that are kept none does.
    game = Game(DeepConf(samples=5, keep=0.25), scripts)
    stop = game.play()
    assert (stop.details["kept"], stop.details["threshold"]) == (2, 8.0)


def test_deepconf_cuts_what_falls_below_the_bar_of_the_warm_up() -> None:
    warm = [("a", 5.0), ("b", 6.0), ("a", 7.0), ("b", 8.0)]
    scripts = _scripts(*warm, ("c", 1.0), ("a", 9.0), ("c", 2.0), ("a", 9.0))
    game = Game(DeepConf(samples=8, keep=0.5, warmup=4, window=1, share=1.0), scripts)
    game.play()
    cut = [a.samples for a in game.actions if isinstance(a, Cancel)]
    assert cut == [("s4",), ("s6",)]
    # Cut samples count as drawn, and never vote.
    assert game.evidence.drawn == 8
    assert game.evidence.samples["s4"].ended is Ended.CUT
    assert "c" not in game.evidence.votes.classes


def test_after_the_warm_up_every_sample_has_a_draw_of_its_own_so_that_it_can_be_cut_alone() -> None:
    scripts = _scripts(("a", 5.0), ("b", 6.0), ("c", 7.0))
    game = Game(DeepConf(samples=12, keep=1.0, warmup=3, window=4, share=1.0), scripts)
    game.play()
    assert [a.n for a in game.actions if isinstance(a, Draw)] == [3, *[1] * 9]
    assert game.most_running == 4


def test_deepconf_stops_when_the_kept_samples_agree() -> None:
    scripts = _scripts(("a", 5.0), ("a", 6.0), ("b", 1.0), ("a", 7.0))
    game = Game(DeepConf(samples=100, keep=0.7, warmup=4, window=4), scripts)
    stop = game.play()
    assert (stop.reason, game.evidence.drawn) == (StopReason.AGREED, 4)


def test_deepconf_draws_to_the_cap_when_nothing_agrees() -> None:
    game = Game(DeepConf(samples=9, keep=1.0, warmup=2), _scripts(("a", 5.0), ("b", 5.0)))
    assert (game.play().reason, game.evidence.drawn) == (StopReason.EXHAUSTED, 9)


@pytest.mark.parametrize(
    "policy",
    [
        DeepConf(samples=5),
        DeepConf(samples=5, warmup=5),
        SelfCertainty(samples=5),
        Cisc(samples=5),
        Cisc("v", samples=5),
    ],
)
def test_without_any_confidence_the_vote_is_a_plain_one(
    policy: DeepConf | SelfCertainty | Cisc,
) -> None:
    game = Game(policy, [Script(letter) for letter in "babba"])
    stop = game.play()
    assert game.evidence.judgements[stop.ranking[0]].answer == "b"
    assert stop.details["without_weight"] == 5


def test_self_certainty_weighs_by_rank() -> None:
    scripts = _scripts(("a", 1.0), ("a", 2.0), ("b", 3.0))
    # Ranks 3, 2, 1: with p 1 a has 1 + 2 and b has 3, with p 2 a has 1 + 4 and b has 9.
    assert _answer(Game(SelfCertainty(samples=3, power=0.0), scripts)) == "a"
    assert _answer(Game(SelfCertainty(samples=3, power=2.0), scripts)) == "b"
    weights = SelfCertainty(samples=3, power=2.0).weights(_played(scripts).evidence)
    assert weights == {"s0": 1.0, "s1": 4.0, "s2": 9.0}


def test_cisc_weighs_by_softmax() -> None:
    scripts = [Script("a", score=0.5), Script("a", score=0.5), Script("b", score=0.9)]
    weights = Cisc("v", samples=3, temperature=0.4).weights(_played(scripts).evidence)
    parts = [math.exp(x / 0.4) for x in (0.5, 0.5, 0.9)]
    assert list(weights.values()) == pytest.approx([part / sum(parts) for part in parts])
    assert _answer(Game(Cisc("v", samples=3, temperature=10.0), scripts)) == "a"
    assert _answer(Game(Cisc("v", samples=3, temperature=0.4), scripts)) == "b"


def _played(scripts: list[Script]) -> Game:
    game = Game(SelfCertainty(samples=len(scripts)), scripts)
    game.play()
    return game


@given(
    st.permutations(range(7)),
    st.lists(st.sampled_from("abc"), min_size=7, max_size=7),
    st.lists(st.one_of(st.none(), st.floats(0.1, 20)), min_size=7, max_size=7),
)
def test_weighted_votes_do_not_depend_on_the_order_of_arrival(
    order: list[int], answers: list[str], sure: list[float | None]
) -> None:
    scripts = _scripts(*zip(answers, sure, strict=True))
    for policy in (DeepConf(samples=7, keep=0.6), SelfCertainty(samples=7), Cisc(samples=7)):
        plain = Game(policy, scripts)
        mixed = Game(policy, scripts, pick=lambda ids: min(ids, key=lambda i: order[int(i[1:])]))
        assert plain.play().ranking == mixed.play().ranking


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(0.05, 1.0))
def test_deepconf_never_cuts_what_is_as_sure_as_the_bar(seed: int, warm: int, keep: float) -> None:
    rng = random.Random(seed)
    scripts = [Script(rng.choice("abc"), sure=rng.uniform(0, 9)) for _ in range(20)]
    policy = DeepConf(samples=20, keep=keep, warmup=warm, window=3)
    game = Game(policy, scripts, pick=rng.choice)
    stop = game.play()
    bar = stop.details["threshold"]
    assert isinstance(bar, float)
    for sample in game.evidence.samples.values():
        sure = scripts[sample.index].sure
        assert sure is not None
        if sample.ended is Ended.CUT:
            assert sample.index >= warm
            assert sure < bar + 1e-6


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: DeepConf(samples=1), "samples"),
        (lambda: DeepConf(keep=0.0), "keep"),
        (lambda: DeepConf(samples=8, warmup=9), "warmup"),
        (lambda: DeepConf(warmup=4, measure="tail"), "measure"),
        (lambda: DeepConf(warmup=4, share=0.5), "share"),
        (lambda: DeepConf(group_tokens=0), "group_tokens"),
        (lambda: SelfCertainty(power=-1.0), "power"),
        (lambda: SelfCertainty(power=math.nan), "power"),
        (lambda: Cisc(temperature=0.0), "temperature"),
        (lambda: Cisc(samples=1), "samples"),
    ],
)
def test_impossible_settings_are_refused_by_name(build: object, field: str) -> None:
    with pytest.raises(PolicyError, match=field):
        build()  # type: ignore[operator]
