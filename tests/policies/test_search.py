"""Search over steps: what holds for every policy of the family, and what each one is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.base import Continue, Fresh, Policy, PolicyError, StopReason
from samplewise.policies.search.beam import Beam
from samplewise.policies.search.best_first import BestFirst, Mcts
from samplewise.policies.search.dvts import Dvts
from samplewise.policies.search.particle_filter import ParticleFilter
from samplewise.policies.search.rebase import Rebase
from samplewise.policies.search.tree import Steps, shares
from samplewise.verifiers.base import Status
from tests.policies.steps import Maze, StepGame

MAKERS: list[Callable[[Steps], Policy]] = [
    lambda plan: Beam(8, 2, plan=plan),
    lambda plan: Beam(4, 2, lookahead=1, plan=plan),
    lambda plan: Dvts(8, 2, plan=plan),
    lambda plan: Rebase(8, plan=plan),
    lambda plan: ParticleFilter(8, plan=plan),
    lambda plan: BestFirst(3, 12, plan=plan),
    lambda plan: Mcts(3, 12, plan=plan),
]
POLICIES = st.builds(
    lambda make, steps, choice, most, least: make(
        Steps("v", (";",), most, None, least, steps, choice)
    ),
    st.sampled_from(MAKERS),
    st.sampled_from(["last", "min", "prod"]),
    st.sampled_from(["best", "weighted_vote"]),
    st.integers(2, 5),
    st.sampled_from([0.0, 0.0, 0.4]),
)
MAZES = st.builds(
    Maze, st.integers(0, 10_000), st.integers(1, 5), st.floats(0.4, 1.0), st.floats(0.0, 0.5)
)


@given(POLICIES, MAZES, st.integers(0, 200), st.integers(0, 5))
def test_a_search_ends_within_its_limits_and_prefers_what_passed(
    policy: Policy, maze: Maze, grant: int, seed: int
) -> None:
    game = StepGame(policy, maze, grant, seed)
    stop = game.play()
    assert game.evidence.drawn <= min(grant, policy.needs.max_samples)
    assert set(stop.ranking) == set(game.evidence.samples)
    if grant < policy.needs.min_samples and stop.reason is not StopReason.PASSED:
        assert stop.reason is StopReason.BUDGET
    answers = game.answers()
    if not answers:
        return
    judged = {s.id: game.evidence.judgements[s.id].status for s in answers}
    assert stop.ranking[0] in judged
    best = {Status.PASS: 0, Status.NONE: 1, Status.FAIL: 2}
    assert best[judged[stop.ranking[0]]] == min(best[status] for status in judged.values())
    assert (stop.reason is StopReason.PASSED) <= (judged[stop.ranking[0]] is Status.PASS)


@given(POLICIES, MAZES, st.integers(0, 5))
def test_the_same_evidence_gives_the_same_search(policy: Policy, maze: Maze, seed: int) -> None:
    games = [StepGame(policy, maze, seed=seed) for _ in range(2)]
    assert games[0].play() == games[1].play()
    assert games[0].draws == games[1].draws


@given(POLICIES, MAZES)
def test_nothing_is_gone_on_from_that_failed_or_ended(policy: Policy, maze: Maze) -> None:
    game = StepGame(policy, maze)
    game.play()
    for draw in game.draws:
        if isinstance(draw.source, Continue):
            assert not game.evidence.samples[draw.source.sample].complete
            assert draw.params["stop"] == [";"]


@given(st.integers(0, 1_000), st.lists(st.floats(0, 1e6), max_size=12))
def test_shares_add_up_and_follow_the_weights(total: int, weights: list[float]) -> None:
    parts = shares(total, weights)
    assert sum(parts) == (total if weights else 0)
    assert all(part >= 0 for part in parts)
    for part, weight in zip(parts, weights, strict=True):
        if sum(weights) > 0:
            assert abs(part - total * weight / sum(weights)) < 1 + 1e-6


def test_a_beam_goes_on_from_its_best_steps_alone() -> None:
    game = StepGame(Beam(8, 4, plan=Steps("v")), Maze(3))
    game.play()
    first = [s for s in game.evidence.samples.values() if s.key == "0"]
    best = sorted(first, key=lambda s: -game.maze.worth(game.paths[s.id]))[:2]
    second = [d for d in game.draws if d.key.startswith("1.")]
    assert {d.source for d in second} == {Continue(s.id) for s in best}
    assert [d.n for d in second] == [4, 4]


def test_a_look_ahead_is_drawn_at_temperature_0_and_decides() -> None:
    game = StepGame(Beam(4, 2, lookahead=1, plan=Steps("v")), Maze(5))
    game.play()
    ahead = [d for d in game.draws if d.key.startswith("ahead-0-1")]
    assert len(ahead) == 4
    assert {d.params["temperature"] for d in ahead} == {0}
    by_key = {s.key: s for s in game.evidence.samples.values()}
    worth = {d.source: game.maze.worth(game.paths[by_key[d.key].id]) for d in ahead}
    kept = {d.source for d in game.draws if d.key.startswith("1.")}
    assert kept == set(sorted(worth, key=lambda source: -worth[source])[:2])


def test_every_tree_of_dvts_goes_on_alone() -> None:
    game = StepGame(Dvts(12, 3, plan=Steps("v")), Maze(7, depth=4))
    game.play()
    for depth in range(4):
        drawn = Counter(d.key for d in game.draws if d.key.startswith(f"{depth}."))
        assert sorted(drawn) == [f"{depth}.{tree}" for tree in range(4)]
    assert len(game.answers()) == 12


def test_rebase_shares_paths_by_score_and_keeps_their_number() -> None:
    game = StepGame(Rebase(16, 0.1, plan=Steps("v")), Maze(2, depth=4))
    game.play()
    for depth in range(1, 4):
        drawn = [d for d in game.draws if d.key.startswith(f"{depth}.")]
        assert sum(d.n for d in drawn) == 16
    sizes = {
        game.maze.worth(game.paths[d.source.sample]): d.n
        for d in game.draws
        if d.key.startswith("1.") and isinstance(d.source, Continue)
    }
    assert [sizes[worth] for worth in sorted(sizes)] == sorted(sizes.values())
    assert len(sizes) < 16


def test_a_low_temperature_leaves_rebase_one_path_and_a_high_one_all() -> None:
    for temperature, parents in ((0.001, 1), (1e6, 16)):
        game = StepGame(Rebase(16, temperature, plan=Steps("v")), Maze(2))
        game.play()
        assert len([d for d in game.draws if d.key.startswith("1.")]) == parents


def test_particles_are_resampled_towards_what_scores_high() -> None:
    kept, all_ = 0.0, 0.0
    for seed in range(30):
        game = StepGame(ParticleFilter(16, 0.5, plan=Steps("v")), Maze(seed), seed=seed)
        game.play()
        draws = [d for d in game.draws if d.key.startswith("1.")]
        assert sum(d.n for d in draws) == 16
        worth = {s: game.maze.worth(game.paths[s]) for s in game.paths}
        kept += sum(worth[d.source.sample] * d.n for d in draws if isinstance(d.source, Continue))
        all_ += sum(worth[s.id] for s in game.evidence.samples.values() if s.key == "0")
    assert kept > 1.2 * all_


def test_best_first_goes_on_from_the_best_open_step_wherever_it_stands() -> None:
    game = StepGame(BestFirst(2, 20, answers=99, plan=Steps("v")), Maze(4, depth=4))
    game.play()
    for number, draw in enumerate(game.draws[1:], 1):
        used = {d.source for d in game.draws[:number]}
        known = [s for s in game.evidence.samples.values() if s.index < 2 * number]
        open_ = [s for s in known if not s.complete and Continue(s.id) not in used]
        if not open_:  # then first steps are drawn anew
            assert draw.source == Fresh()
            continue
        best = max(open_, key=lambda s: (game.maze.worth(game.paths[s.id]), -s.index))
        assert draw.source == Continue(best.id)


def test_a_tree_search_goes_less_deep_with_more_exploration() -> None:
    def deepest(exploration: float) -> int:
        total = 0
        for seed in range(20):
            game = StepGame(Mcts(4, 16, exploration, plan=Steps("v")), Maze(seed, depth=99))
            game.play()
            total += max(len(path) for path in game.paths.values())
        return total

    assert deepest(0.0) > deepest(0.3) > deepest(5.0)


def test_a_step_below_the_least_score_is_not_gone_on_from() -> None:
    for make in MAKERS:
        game = StepGame(make(Steps("v", min_score=0.6)), Maze(8, depth=4))
        game.play()
        gone_on = [d.source.sample for d in game.draws if isinstance(d.source, Continue)]
        assert gone_on
        assert all(game.maze.worth(game.paths[id_]) >= 0.6 for id_ in gone_on)


def test_the_answer_with_most_value_wins_a_weighted_vote() -> None:
    game = StepGame(Rebase(16, 5.0, plan=Steps("v", choice="weighted_vote")), Maze(11))
    stop = game.play()
    weights: Counter[str] = Counter()
    for sample in game.answers():
        answer = game.evidence.judgements[sample.id].answer_class
        if answer is not None:
            weights[answer] += game.maze.worth(game.paths[sample.id])  # type: ignore[assignment]
    chosen = game.evidence.judgements[stop.ranking[0]].answer_class
    assert chosen == weights.most_common(1)[0][0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Beam(2, 4), "samples: must be at least 4"),
        (lambda: Beam(8, 4, lookahead=40), "lookahead: must be less than max_steps 40"),
        (lambda: Dvts(10, 4), "samples: must be a multiple of width 4, got 10"),
        (lambda: Rebase(8, 0.0), "temperature: must be greater than 0"),
        (lambda: Rebase(8, float("nan")), "temperature: must be greater than 0"),
        (lambda: ParticleFilter(0), "samples: must be at least 1"),
        (lambda: BestFirst(expansions=0), "expansions: must be at least 1"),
        (lambda: Mcts(exploration=-1), "exploration: must be at least 0"),
        (lambda: Rebase(plan=Steps(stop=())), "stop: needs at least one string"),
        (lambda: Rebase(plan=Steps(stop=("",))), "stop: needs at least one string"),
        (lambda: Rebase(plan=Steps(max_steps=0)), "max_steps: must be at least 1"),
        (lambda: Rebase(plan=Steps(min_score=1.5)), "min_score: must lie in"),
        (lambda: Rebase(plan=Steps(step_tokens=0)), "step_tokens: must be at least 1"),
    ],
)
def test_impossible_searches_are_refused(make: Callable[[], Policy], reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        make()
