"""Published and recomputed figures, obtained again from the recorded samples of ../shared/data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from examples.game24 import grade

from samplewise.policies.agreement import agreement_order
from samplewise.policies.attempts import Class, Stakes, best_attempts, reward
from samplewise.policies.base import Policy
from samplewise.policies.best_of_n import BestOfN
from samplewise.policies.cascade import Cascade, Tier
from samplewise.policies.elimination import Elimination
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.price import Price
from samplewise.policies.replay.budget import spend_budget
from samplewise.policies.replay.chance import orders
from samplewise.policies.replay.curve import Counts, curves, log_spaced, pass_all, pass_at
from samplewise.policies.replay.fits import fit_power_law
from samplewise.policies.replay.judging import Judge
from samplewise.policies.replay.player import Player
from samplewise.policies.replay.records import Problem, right
from samplewise.policies.weighted_vote import WeightedVote
from tests.contract.policies import Reviser
from tests.replay import shared

FREE = Price(0, 0, 0)
EXACT = Judge(exact=True)


def counts(problems: tuple[Problem, ...], variant: str = "") -> Counts:
    """Return how many samples of one prompt are right."""
    return Counts.of(
        [
            (
                sum(s.variant == variant and bool(right(p, s)) for s in p.samples),
                sum(s.variant == variant for s in p.samples),
            )
            for p in problems
        ]
    )


def coverage(found: Counts, ks: tuple[int, ...]) -> list[float]:
    """Return the unbiased coverage in percent."""
    return [100 * float(pass_at(found, k).mean()) for k in ks]


KS = (1, 2, 5, 10, 20, 50, 100)


@pytest.mark.parametrize("variant", ["io", "cot"])
def test_coverage_of_game_24(variant: str) -> None:
    value, off = shared.target("game24_gpt4.json.gz", f"{variant} pass@")
    assert coverage(counts(shared.game24(), variant), KS) == pytest.approx(value, abs=off)


# The fit of io stands in allocation.md 1.2, that of HumanEval there too.
@pytest.mark.parametrize(
    ("variant", "a", "b"), [("cot", -3.3135, -0.3334), ("io", -2.5894, -0.1774)]
)
def test_the_power_law_of_game_24(variant: str, a: float, b: float) -> None:
    found = counts(shared.game24(), variant)
    law = fit_power_law([(k, float(pass_at(found, k).mean())) for k in log_spaced(100)])
    assert law is not None
    assert (law.a, law.b) == pytest.approx((a, b), abs=0.005)


def test_coverage_and_power_law_of_humaneval() -> None:
    value, off = shared.target("humaneval_codegen16b_codet.json.gz", "pass@")
    found = counts(shared.humaneval())
    assert coverage(found, KS) == pytest.approx(value, abs=off)
    law = fit_power_law([(k, float(pass_at(found, k).mean())) for k in log_spaced(100)])
    assert law is not None
    assert (law.a, law.b) == pytest.approx((-1.5309, -0.3552), abs=0.005)


def test_pass_hat_k_and_pass_at_k_of_tau_bench() -> None:
    found = counts(shared.tau_bench())
    for name, each in (("pass^", pass_all), ("pass@", pass_at)):
        value, off = shared.target("tau_bench_gpt4o_airline.json.gz", name)
        assert [float(each(found, k).mean()) for k in (1, 2, 3, 4)] == pytest.approx(value, abs=off)


def test_the_reward_model_file() -> None:
    value, _ = shared.target("qwen25math_rm8_math100.json.gz", "pass@1")
    problems = shared.reward_model()
    found = counts(problems)

    def accuracy(policy: Policy) -> float:
        # In the order of the file, which decides ties as the repository's script does.
        player = Player({"": FREE})
        return sum(player.play(policy, p, range(8)).right for p in problems) / 100

    assert [
        float(pass_at(found, 1).mean()),
        float(pass_at(found, 8).mean()),
        accuracy(MajorityVote(8)),
        accuracy(BestOfN(8, "rm")),
    ] == pytest.approx(value, abs=1e-9)
    assert accuracy(BestOfN(8, "rm", "weighted")) == 0.94
    assert accuracy(WeightedVote("rm", 8)) == 0.94


def test_what_a_verifier_gains_on_gsm8k() -> None:
    value, off = shared.target("gsm8k_verifier_openai.json.gz", "6b ft")
    found = {curve.name: curve.any_right[0].value for curve in curves(shared.openai_verifiers())}
    systems = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    assert [100 * found[name] for name in systems] == pytest.approx(value, abs=off)


def test_revision_by_turn_of_intercode() -> None:
    value, off = shared.target("intercode_turn_rewards.json.gz", "sql gpt-4")
    problems = shared.intercode("sql/gpt-4/ic_sql_multiturn_gpt-4_10_turns")
    player = Player({"": FREE}, judge=EXACT)

    def solved(turns: int) -> float:
        runs = [player.play(Reviser(turns), p, range(len(p.samples))) for p in problems]
        return 100 * sum(run.right for run in runs) / len(runs)

    assert [solved(k) for k in (1, 2, 3, 5, 10)] == pytest.approx(value, abs=off)


# algorithms.md, section 9: success of the runs of 10 turns and of those of 1 turn, published ones
# to one decimal.
@pytest.mark.parametrize(
    ("run", "turns", "value"),
    [
        ("sql/gpt-3.5/ic_sql_multiturn_gpt-3.5_10_turns", 10, 47.29),
        ("sql/gpt-3.5/ic_sql_multiturn_gpt-3.5-1_turns", 1, 10.54),
        ("sql/gpt-4/ic_sql_multiturn_gpt-4_1_turns", 1, 9.09),
    ],
)
def test_other_runs_of_intercode(run: str, turns: int, value: float) -> None:
    problems = shared.intercode(run)
    player = Player({"": FREE}, judge=EXACT)
    runs = [player.play(Reviser(turns), p, range(len(p.samples))) for p in problems]
    assert 100 * sum(run.right for run in runs) / len(runs) == pytest.approx(value, abs=0.01)


def test_an_exact_checker_agrees_with_every_label_of_game_24() -> None:
    value, off = shared.target("game24_gpt4.json.gz", "exact checker disagreements")
    wrong = seen = 0
    for problem in shared.game24():
        item = {"numbers": [int(number) for number in problem.prompt.split()]}
        for sample in problem.samples:
            seen += 1
            passed = grade({"output_text": sample.text}, item)["status"] == "pass"
            wrong += passed is not sample.correct
    assert seen == 20_000
    assert wrong == pytest.approx(value, abs=off)


def test_the_ceilings_of_routellm_on_mmlu() -> None:
    # algorithms.md, section 8.
    found = {c.name: c.any_right[0].value for c in curves(shared.routellm("mmlu"))}
    shares = [100 * found["mixtral"], 100 * found["gpt-4"]]
    assert shares == pytest.approx([68.08, 80.58], abs=0.01)


def test_the_ceilings_of_routellm() -> None:
    value, off = shared.target("routellm_mixtral_gpt4.json.gz", "GSM8K")
    problems = shared.routellm()
    found = {curve.name: curve.any_right[0].value for curve in curves(problems)}
    cascade = Cascade((Tier("mixtral"), Tier("gpt-4")))
    player = Player({"mixtral": FREE, "gpt-4": FREE}, judge=EXACT)
    either = sum(player.play(cascade, p, (0, 1)).right for p in problems) / len(problems)
    shares = [found["mixtral"], found["gpt-4"], either]
    assert [100 * share for share in shares] == pytest.approx(value, abs=off)


def test_two_classes_and_the_best_number_of_attempts() -> None:
    # Parameters of arXiv:2411.17501; targets from ../shared/data/expected.json, copied.
    classes = (Class(0.58, 0.87), Class(0.42, 0.13))

    def stakes(wrong: float) -> Stakes:
        return Stakes(completeness=1.0, soundness=0.75, wrong=wrong, none=0.0, attempt=0.0)

    assert reward(classes, stakes(0.0), 2000) == pytest.approx(0.7162, abs=1e-4)
    best = [best_attempts(classes, stakes(wrong), 100) for wrong in (-1.0, -2.0, -4.0, -8.0)]
    assert [k for k, _ in best] == [2, 1, 1, 0]
    assert [value for _, value in best] == pytest.approx([0.4724, 0.3388, 0.1184, 0], abs=1e-4)


def test_with_one_accuracy_no_number_of_attempts_is_best() -> None:
    one = (Class(1.0, 0.5),)
    good = Stakes(completeness=1.0, soundness=0.75, wrong=-1.0, none=0.0, attempt=0.0)
    rewards = [reward(one, good, attempts) for attempts in range(20)]
    assert rewards == sorted(set(rewards))
    bad = Stakes(completeness=1.0, soundness=0.75, wrong=-8.0, none=0.0, attempt=0.0)
    assert best_attempts(one, bad, 50)[0] == 0


@pytest.mark.slow
def test_agreement_on_generated_tests_of_humaneval() -> None:
    value, off = shared.target("humaneval_codegen16b_codet.json.gz", "CodeT @")
    passes, found = 1000, np.zeros(3)
    for row in shared.content("humaneval_codegen16b_codet")["problems"]:
        written = np.bincount(
            [test for tests in row["tests_per_sample"] for test in tests],
            minlength=len(row["tests"]),
        )
        # A test that was written n times counts n times.
        passed = [
            tuple((np.array(list(row["unique_pass"][program]), int) * written).tolist())
            for program in row["solution_id"]
        ]
        # Chance among the equal: random ties, and a random member of each group.
        for order in orders(row["task_id"], 100, passes, seed=2).tolist():
            ranked = [int(id_) for id_ in agreement_order({str(p): passed[p] for p in order})]
            # As in the target: what passes nothing is taken only if nothing else is there.
            taken = [place for place in ranked if any(passed[place])] or ranked
            right_ = [row["correct"][place] for place in taken[:10]]
            found += [right_[0], any(right_[:2]), any(right_)]
    shares = 100 * found / passes / len(shared.humaneval())
    assert shares.tolist() == pytest.approx(value, abs=off)


@pytest.mark.slow
def test_elimination_on_humaneval() -> None:
    value, _ = shared.target("humaneval_codegen16b_codet.json.gz", "elimination")
    problems, passes = shared.humaneval(), 100
    turns = {p.id: orders(p.id, 100, passes, seed=5).tolist() for p in problems}
    for budget, wanted in zip((2, 4, 8, 16), value, strict=True):
        shares = []
        for turn in range(passes):
            order = {id_: rows[turn] for id_, rows in turns.items()}
            total = budget * len(problems)
            found = spend_budget(Elimination(1, turn), problems, order, total, EXACT)
            shares.append(np.mean([e.best_passed is not None for e in found.values()]))
        assert 100 * np.mean(shares) == pytest.approx(wanted, abs=4 * 2.5 / math.sqrt(passes))
