"""Whether a recording has what a policy uses. What it lacks is refused, never made up."""

from __future__ import annotations

from collections.abc import Sequence

from samplewise.policies.base import Policy
from samplewise.policies.replay.judging import EXACT
from samplewise.policies.replay.player import ReplayError
from samplewise.policies.replay.records import Problem, right

__all__ = ["check_fit", "judged_by_truth", "least_pool"]


def judged_by_truth(policy: Policy, problems: Sequence[Problem]) -> bool:
    """Say whether the recorded truth has to stand in for a verifier."""
    needs = policy.needs
    recorded = any(s.verdicts for p in problems for s in p.samples)
    return EXACT in needs.scores or (needs.verdicts and not recorded)


def least_pool(problems: Sequence[Problem], backend: str) -> int:
    """Return how many samples of the plain prompt every problem has, from one backend."""
    return min(
        (
            sum(s.source == "fresh" and not s.variant and s.backend == backend for s in p.samples)
            for p in problems
        ),
        default=0,
    )


def check_fit(policy: Policy, problems: Sequence[Problem]) -> None:
    """Refuse a policy that uses what no sample has.

    Raises:
        ReplayError: says what is missing.
    """
    needs = policy.needs
    if not problems:
        raise ReplayError("there are no problems: the recording is empty")
    unknown = [p.id for p in problems if all(right(p, s) is None for s in p.samples)]
    if unknown:
        raise ReplayError(
            f"nothing says which samples of problem {unknown[0]!r} are right: it needs a reference "
            "or samples with `correct`"
        )
    if needs.comparator:
        raise ReplayError("the policy compares samples, and answers to that are not recorded")
    if needs.prior or needs.margins:
        raise ReplayError("the policy uses what its route has learnt, which is not recorded")
    if needs.progress_tokens:
        raise ReplayError("the policy watches running samples, and their course is not recorded")

    samples = [s for p in problems for s in p.samples]
    verdicts = [v for s in samples for v in s.verdicts.values()]
    verifiers = {name for s in samples for name in s.verdicts} | {EXACT}
    has = {
        "answers, which vote": any(s.answer is not None for s in samples),
        "log-probabilities": any(s.logprobs for s in samples),
        "step scores": any(v.step_scores for v in verdicts),
        "samples that continue others": any(s.source == "continue" for s in samples),
    }
    wanted = (needs.answers, needs.logprobs, needs.step_scores, needs.continuation)
    missing = [what for what, want in zip(has, wanted, strict=True) if want and not has[what]]
    groups = {s.logprobs.confidence.window for s in samples if s.logprobs and s.logprobs.confidence}
    # The mean goes over all tokens, whatever the groups.
    fits = groups == {needs.group_tokens} or (needs.group_tokens == 1 and groups)
    if needs.group_tokens and not fits:
        missing.append(f"confidence in groups of {needs.group_tokens} tokens")
    missing += [f"scores of the verifier {n!r}" for n in needs.scores if n not in verifiers]
    drawn = {s.backend for s in samples}
    missing += [f"samples of the backend {n!r}" for n in needs.backends if n not in drawn]
    if missing:
        raise ReplayError(f"the policy uses what was not recorded: {', '.join(missing)}")
