"""Tournaments, revisions, syntheses, optimal stopping, prefix consistency, medoids and efforts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.base import (
    Combine,
    Compare,
    Continue,
    Draw,
    Policy,
    PolicyError,
    Revise,
    Stop,
    StopReason,
)
from samplewise.policies.cascade import Cascade, Tier
from samplewise.policies.evidence import Compared, Finished, Judged, Judgement
from samplewise.policies.fuse import Fuse
from samplewise.policies.medoid import Medoid
from samplewise.policies.optimal_stopping import (
    OptimalStopping,
    expected_gain,
    student_cdf,
    student_pdf,
    tail_gain,
)
from samplewise.policies.prefix_consistency import PrefixConsistency
from samplewise.policies.revision import Revision
from samplewise.policies.tournament import Tournament
from samplewise.verifiers.base import Comparison, Ended, Sample, Status, Verdict
from tests.policies.runs import Game, Script, verdicts, votes


@dataclass
class Arena(Game):
    """A game with a comparator: `better` says which of two draw indices wins, None for a tie."""

    better: Callable[[int, int], int | None] = max
    asked: list[tuple[str, str]] = field(default_factory=list)
    drawn: list[Draw] = field(default_factory=list)

    def play(self) -> Stop:
        for _ in range(200):
            actions = self.policy.decide(self.evidence)
            ask = next((a for a in actions if isinstance(a, Compare)), None)
            if ask is None:
                stop = next((a for a in actions if isinstance(a, Stop)), None)
                if stop is not None:
                    return stop
                self._draw(actions)
                continue
            self.asked += ask.pairs
            games = tuple(self._game(a, b) for a, b in ask.pairs)
            self.evidence.fold(Compared(ask.key, games))
        raise AssertionError("the policy never stops")

    def _draw(self, actions: Sequence[object]) -> None:
        for action in actions:
            if isinstance(action, Draw):
                self.drawn.append(action)
                self._grant(action)
        while self.evidence.running:
            self._end(next(iter(self.evidence.running)))

    def _game(self, a: str, b: str) -> Comparison:
        won = self.better(int(a[1:]), int(b[1:]))
        return Comparison(a, b, None if won is None else f"s{won}")


RULES = ("knockout", "league", "borda")


@pytest.mark.parametrize("rule", RULES)
@given(size=st.integers(2, 12), seed=st.integers(0, 99))
def test_who_beats_everybody_wins_every_tournament(rule: str, size: int, seed: int) -> None:
    policy = Tournament(size, rule, opponents=size)  # type: ignore[arg-type]
    game = Arena(policy, votes("abcdefghijkl"[:size]))
    game.evidence.seed = seed
    assert game.play().ranking[0] == f"s{size - 1}"


@given(size=st.integers(2, 16), seed=st.integers(0, 99))
def test_a_knockout_asks_one_pair_less_than_there_are_samples(size: int, seed: int) -> None:
    game = Arena(Tournament(size), votes("abcdefghijklmnop"[:size]))
    game.evidence.seed = seed
    game.play()
    assert len(game.asked) == size - 1


@given(size=st.integers(2, 16), opponents=st.integers(1, 20), seed=st.integers(0, 99))
def test_in_a_league_nobody_meets_twice_and_all_meet_about_as_many(
    size: int, opponents: int, seed: int
) -> None:
    game = Arena(Tournament(size, "league", opponents=opponents), votes("abcdefghijklmnop"[:size]))
    game.evidence.seed = seed
    game.play()
    met = [frozenset(pair) for pair in game.asked]
    assert len(set(met)) == len(met)
    counts = [sum(f"s{i}" in pair for pair in met) for i in range(size)]
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= min(opponents, size - 1) - (size % 2 == 0 and opponents >= size - 1)


def test_a_tie_goes_to_the_sample_drawn_first_and_errors_count_for_neither() -> None:
    for rule in RULES:
        game = Arena(Tournament(6, rule), votes("abcdef"), better=lambda a, b: None)  # type: ignore[arg-type]
        stop = game.play()
        assert (stop.ranking[0], stop.basis) == ("s0", "order")


def test_a_pair_that_is_asked_twice_is_shown_either_way_round() -> None:
    game = Arena(Tournament(2, times=2), votes("ab"))
    game.play()
    assert game.asked[0] == game.asked[1][::-1]


def test_samples_with_the_same_answer_and_failed_ones_are_not_compared() -> None:
    game = Arena(Tournament(4), [*votes("aaa"), Script("b", Status.FAIL)])
    assert game.play().ranking[0] == "s0"
    assert game.asked == []


def test_borda_sees_through_others() -> None:
    # 0 beats 1, 1 beats 2, 2 beats 3, all other games are ties: 0 has beaten all through others.
    chain = Arena(
        Tournament(4, "borda"),
        votes("abcd"),
        better=lambda a, b: min(a, b) if abs(a - b) == 1 else None,
    )
    assert chain.play().ranking == ("s0", "s1", "s2", "s3")


def test_a_revision_shows_the_last_try_and_what_its_verifier_says() -> None:
    game = Game(Revision(turns=4), verdicts("ffp"))
    stop = game.play()
    assert (stop.reason, game.evidence.drawn) == (StopReason.PASSED, 3)
    sources = [a.source for a in game.actions if isinstance(a, Draw)]
    assert [s.samples for s in sources if isinstance(s, Revise)] == [("s0",), ("s1",)]


def test_chains_are_revised_side_by_side_with_their_own_tries() -> None:
    game = Game(Revision(chains=2, turns=3, history=2), verdicts("f"))
    game.play()
    sources = [a.source for a in game.actions if isinstance(a, Draw)]
    shown = {s.samples for s in sources if isinstance(s, Revise)}
    assert shown == {("s0",), ("s1",), ("s0", "s2"), ("s1", "s3")}


def test_the_best_of_all_turns_answers_and_not_the_newest() -> None:
    scripts = [Script("a", score=0.2), Script("b", score=0.9), Script("c", score=0.1)]
    stop = Game(Revision(turns=3), scripts).play()
    assert stop.ranking[0] == "s1"


def test_a_synthesis_is_made_of_the_whole_panel_and_answers() -> None:
    scripts = [*votes("ab"), Script("x", ended=Ended.LENGTH), *votes("c")]
    game = Game(Fuse(samples=3), scripts)
    stop = game.play()
    (source,) = [a.source for a in game.actions if isinstance(a, Draw) and a.key != "all"]
    assert isinstance(source, Combine)
    assert set(source.samples) == {"s0", "s1"}
    assert stop.ranking[0] == "s3"


def test_self_aggregation_takes_random_subsets_of_the_last_round_and_votes_in_it() -> None:
    policy = Fuse(samples=6, subset=2, merged=6, rounds=3)
    game = Game(policy, votes("aaaaaa" + "aaaaaa" + "aaaaaa" + "bbabbb"))
    stop = game.play()
    assert game.evidence.drawn == 24
    assert game.evidence.judgements[stop.ranking[0]].answer == "b"
    for draw in game.actions:
        if isinstance(draw, Draw) and isinstance(draw.source, Combine):
            number = int(draw.key.split(".")[1])
            allowed = range(6 * number, 6 * number + 6)
            assert len(set(draw.source.samples)) == 2
            assert all(int(id_[1:]) in allowed for id_ in draw.source.samples)


def test_a_synthesis_that_is_lost_leaves_the_panel() -> None:
    stop = Game(Fuse(samples=3), [*votes("aab"), Script(lost=True)]).play()
    assert stop.ranking[0] == "s0"


def test_the_medoid_is_like_the_others() -> None:
    texts = ("red fox runs", "red fox jumps", "red fox jumps high", "blue whale")
    game = Texts(Medoid(samples=4), texts)
    assert game.play().ranking[0] == "s1"


@dataclass
class Texts(Game):
    """A game whose samples have given texts."""

    def __init__(self, policy: Policy, texts: Sequence[str]) -> None:
        super().__init__(policy, votes("a"))
        self.texts = texts

    def _end(self, id_: str) -> None:
        index = self.evidence.running[id_].index
        text = self.texts[index]
        self.evidence.fold(Finished(Sample(id_, index, text, text, Ended.EOS)))


@given(st.floats(-6, 6), st.integers(1, 60))
def test_students_distribution_is_the_integral_of_its_density(x: float, freedom: int) -> None:
    step = 1e-4
    slope = (student_cdf(x + step, freedom) - student_cdf(x - step, freedom)) / (2 * step)
    assert slope == pytest.approx(student_pdf(x, freedom), abs=1e-6)
    assert student_cdf(x, freedom) + student_cdf(-x, freedom) == pytest.approx(1)
    assert student_cdf(0.0, freedom) == 0.5


def test_the_expected_gain_is_that_of_a_normal_when_much_is_known() -> None:
    values = [NormalDist(0.5, 0.1).inv_cdf((i + 0.5) / 2_000) for i in range(2_000)]
    best, normal = max(values), NormalDist()
    u = (best - 0.5) / 0.1
    wanted = 0.1 * (normal.pdf(u) - u * (1 - normal.cdf(u)))
    assert expected_gain(values) == pytest.approx(wanted, rel=0.05)
    assert expected_gain([0.4, 0.4, 0.4, 0.4]) == 0.0


@given(st.lists(st.integers(0, 1_000), min_size=4, max_size=30))
def test_gains_are_never_negative_and_scale_with_the_scores(points: list[int]) -> None:
    scores = [point / 1_000 for point in points]
    for gain in (expected_gain, tail_gain):
        value = gain(scores)
        assert 0 <= value < math.inf
        assert gain([3 * x for x in scores]) == pytest.approx(3 * value, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("rule", ["normal", "tail"])
def test_a_dearer_sample_stops_the_search_earlier(rule: str) -> None:
    scripts = [Script("a", score=((7 * i) % 31) / 31) for i in range(64)]
    drawn = []
    for cost in (0.2, 0.02, 0.002):
        policy = OptimalStopping("v", cost, rule=rule, max_samples=64)  # type: ignore[arg-type]
        game = Game(policy, scripts)
        stop = game.play()
        drawn.append(game.evidence.drawn)
        best = max(s.index for s in game.evidence.samples.values() if s.id == stop.ranking[0])
        assert scripts[best].score == max(s.score or 0 for s in scripts[: drawn[-1]])
    assert drawn == sorted(drawn)
    assert drawn[0] == 4
    assert drawn[0] < drawn[-1]


def test_a_beginning_whose_ends_agree_outweighs_ones_that_scatter() -> None:
    game = Ends(PrefixConsistency(samples=3, ends=2), {0: "aa", 1: "bc", 2: "bd"})
    stop = game.play()
    assert game.evidence.judgements[stop.ranking[0]].answer == "a"
    assert stop.details["weights"] == {"a": 1.0, "b": 0.5, "c": 0.25, "d": 0.25}
    begin = next(a for a in game.actions if isinstance(a, Draw))
    assert begin.params == {"max_tokens": 256}


@dataclass
class Ends(Game):
    """Beginnings that ran out of tokens, and the answers of their ends."""

    def __init__(self, policy: Policy, ends: dict[int, str]) -> None:
        super().__init__(policy, votes("a"))
        self.ends = ends
        self.left = {f"s{i}": list(text) for i, text in ends.items()}

    def _end(self, id_: str) -> None:
        running = self.evidence.running[id_]
        if running.key == "begin":
            sample = Sample(id_, running.index, "so", "so", Ended.LENGTH, key=running.key)
            self.evidence.fold(Finished(sample))
            return
        parent = running.key.removeprefix("end.")
        answer = self.left[parent].pop(0)
        sample = Sample(
            id_, running.index, answer, answer, Ended.EOS, parents=(parent,), key=running.key
        )
        self.evidence.fold(Finished(sample, verifying=True))
        verdict = Verdict("v", Status.NONE, answer=answer)
        self.evidence.fold(Judged(Judgement(sample, Status.NONE, (verdict,), answer, answer)))


def test_an_effort_is_raised_until_samples_agree() -> None:
    levels = tuple(
        Tier("", samples, agreement, {"reasoning_effort": effort})
        for effort, samples, agreement in (("low", 2, 1.0), ("medium", 2, 1.0), ("high", 1, None))
    )
    game = Game(Cascade(levels), votes("abcc"))
    assert game.play().reason is StopReason.AGREED
    efforts = [a.params["reasoning_effort"] for a in game.actions if isinstance(a, Draw)]
    assert efforts == ["low", "medium"]
    assert Cascade(levels).needs.backends == ()


MAKERS: list[Policy] = [
    Tournament(5),
    Tournament(6, "league"),
    Revision(2, 3),
    Fuse(4),
    Fuse(4, 2, 4, 3),
    Medoid(5),
    OptimalStopping("v", 0.01, max_samples=12),
    OptimalStopping("v", 0.01, rule="tail", window=3, max_samples=12),
]
SCRIPTS = st.lists(
    st.builds(
        Script,
        st.sampled_from(["a", "b", "c", None]),
        st.sampled_from(list(Status)),
        st.none() | st.floats(0, 1),
        st.sampled_from([Ended.EOS, Ended.EOS, Ended.LENGTH]),
        st.booleans(),
    ),
    min_size=1,
    max_size=30,
)


@given(st.sampled_from(MAKERS), SCRIPTS, st.integers(0, 30))
def test_every_policy_ends_within_its_limits_and_never_puts_a_fail_before_a_pass(
    policy: Policy, scripts: list[Script], grant: int
) -> None:
    game = Arena(policy, scripts, grant)
    stop = game.play()
    assert game.evidence.drawn <= min(grant, policy.needs.max_samples)
    passed = {
        id_
        for id_, judgement in game.evidence.judgements.items()
        if judgement.status is Status.PASS and judgement.sample.complete
    }
    if passed:
        assert stop.ranking[0] in passed


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Tournament(1), "samples: must be at least 2"),
        (lambda: Tournament(4, times=0), "times: must be at least 1"),
        (lambda: Revision(turns=1), "turns: must be at least 2"),
        (lambda: Fuse(samples=1), "samples: must be at least 2"),
        (lambda: Fuse(samples=4, subset=5), "subset: must be 2 to 4, got 5"),
        (lambda: Fuse(samples=4, rounds=2), "merged: several rounds need at least 2"),
        (lambda: Medoid(2), "samples: must be at least 3"),
        (lambda: Medoid(129), "samples: every pair is compared"),
        (lambda: OptimalStopping(), "cost: give either cost or usd_per_score"),
        (lambda: OptimalStopping(cost=1, usd_per_score=1), "cost: give either"),
        (lambda: OptimalStopping(cost=0.0), "cost: must be greater than 0"),
        (lambda: OptimalStopping(cost=0.1, min_samples=3), "min_samples: must be at least 4"),
        (lambda: PrefixConsistency(ends=1), "ends: must be at least 2"),
        (lambda: Cascade((Tier("", 1),)), "tiers: must be at least 2"),
    ],
)
def test_impossible_numbers_are_refused(make: Callable[[], Policy], reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        make()


def test_ends_are_drawn_from_every_beginning_that_was_cut() -> None:
    game = Ends(PrefixConsistency(samples=2, ends=3), {0: "aab", 1: "ccc"})
    game.play()
    ends = [a for a in game.actions if isinstance(a, Draw) and isinstance(a.source, Continue)]
    assert [(d.source, d.n) for d in ends] == [(Continue("s0"), 3), (Continue("s1"), 3)]
