from __future__ import annotations

import pytest

from samplewise.models.countdown import held_out_puzzles
from samplewise.models.noise import Corruption
from samplewise.models.problems import parse_problem
from samplewise.models.rules import Replay

PUZZLES = held_out_puzzles(1000)
RIGHT = Replay(True, 1.0, "(4 * 6)", "24", 3)
WRONG = Replay(False, 0.0, "(4 + 6)", "10", 3)


def test_no_corruption_is_exact() -> None:
    exact = Corruption()
    for puzzle in PUZZLES[:100]:
        assert exact.verdict(puzzle, RIGHT)
        assert not exact.verdict(puzzle, WRONG)
        assert (exact.step_score(puzzle, RIGHT), exact.step_score(puzzle, WRONG)) == (1.0, 0.0)


def test_verdicts_are_wrong_at_the_set_rates() -> None:
    noisy = Corruption(false_pass=0.2, false_fail=0.1)
    assert sum(noisy.verdict(p, WRONG) for p in PUZZLES) == pytest.approx(200, abs=40)
    assert sum(not noisy.verdict(p, RIGHT) for p in PUZZLES) == pytest.approx(100, abs=30)


def test_step_scores_are_wrong_at_the_set_rates() -> None:
    noisy = Corruption(false_hope=0.3, false_despair=0.2)
    assert sum(noisy.step_score(p, WRONG) for p in PUZZLES) == pytest.approx(300, abs=45)
    assert sum(noisy.step_score(p, RIGHT) for p in PUZZLES) == pytest.approx(800, abs=40)


def test_spread_blurs_scores_within_their_range() -> None:
    scores = [Corruption(spread=0.3).step_score(p, RIGHT) for p in PUZZLES]
    assert all(0 <= score <= 1 for score in scores)
    assert sum(score < 1 for score in scores) == pytest.approx(500, abs=50)


def test_the_same_answer_is_always_judged_the_same() -> None:
    noisy = Corruption(false_pass=0.5, false_hope=0.5, spread=0.2, seed=3)
    other_text = Replay(False, 0.0, "(4 + 6)", "another state", 2, "another reason")
    for puzzle in PUZZLES[:50]:
        assert noisy.verdict(puzzle, WRONG) == noisy.verdict(puzzle, other_text)
        assert noisy.step_score(puzzle, WRONG) == noisy.step_score(puzzle, other_text)


def test_seeds_and_problems_make_other_mistakes() -> None:
    judged = [
        [Corruption(false_pass=0.5, seed=seed).verdict(p, WRONG) for p in PUZZLES[:64]]
        for seed in (0, 1)
    ]
    assert judged[0] != judged[1]
    assert len(set(judged[0])) == 2


def test_a_state_counts_where_there_is_no_answer() -> None:
    noisy = Corruption(false_hope=0.5)
    problem = parse_problem("eval 7 + 5 - 3")
    scores = {
        noisy.step_score(problem, Replay(False, 0.0, None, str(state), 1)) for state in range(32)
    }
    assert scores == {0.0, 1.0}


@pytest.mark.parametrize("settings", [{"false_pass": 1.5}, {"false_hope": -0.1}, {"spread": -1}])
def test_rates_outside_their_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"lie between|at least"):
        Corruption(**settings)  # type: ignore[arg-type]
