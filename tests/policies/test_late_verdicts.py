"""What a verifier says when it is asked counts as if it had been said at once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.evidence import (
    Asked,
    Evidence,
    Failed,
    Finished,
    Granted,
    Judged,
    Judgement,
    Running,
)
from samplewise.verifiers.base import Ended, Sample, Status, Task

# One letter a sample, in draw order: its answer, `.` for none, `-` for a lost sample.
_runs = st.text("aabbc.-", min_size=1, max_size=12)


def _drawn(letters: str) -> Evidence:
    evidence = Evidence(Task("r", "route", b"[]"))
    started = tuple(Running(f"s{i}", i, "all") for i in range(len(letters)))
    evidence.fold(Granted("all", len(letters), started))
    return evidence


def _come(evidence: Evidence, index: int, letter: str, status: Status) -> None:
    if letter == "-":
        evidence.fold(Failed(f"s{index}", index, "all", "b", "connect"))
        return
    sample = Sample(f"s{index}", index, letter, letter, Ended.EOS, key="all")
    answer = None if letter == "." else letter
    voting = None if status is Status.FAIL else answer
    evidence.fold(Finished(sample, verifying=True))
    evidence.fold(Judged(Judgement(sample, status, answer=answer, answer_class=voting)))


def _fail_late(evidence: Evidence, index: int) -> None:
    before = evidence.judgements.get(f"s{index}")
    if before is not None:
        evidence.fold(Asked("dear", (before.sample.id,)))
        evidence.fold(Judged(replace(before, status=Status.FAIL)))


@given(_runs, st.data())
def test_a_sample_that_fails_late_votes_as_little_as_one_that_failed_at_once(
    letters: str, data: st.DataObject
) -> None:
    indexes = list(range(len(letters)))
    order = data.draw(st.permutations(indexes))
    wrong = data.draw(st.sets(st.sampled_from(indexes)))
    late, at_once = _drawn(letters), _drawn(letters)
    # Each fails when it has come, or when all have; and the tallies are looked at meanwhile or not.
    soon = data.draw(st.sets(st.sampled_from(sorted(wrong)))) if wrong else set()
    for index in order:
        _come(late, index, letters[index], Status.NONE)
        if index in soon:
            _fail_late(late, index)
        if data.draw(st.booleans()):
            assert late.launched.votes.total <= late.votes.total
        _come(at_once, index, letters[index], Status.FAIL if index in wrong else Status.NONE)
    for index in data.draw(st.permutations(sorted(wrong - soon))):
        _fail_late(late, index)
    assert late.votes == at_once.votes
    assert late.launched.votes == at_once.launched.votes
    assert (late.rejected, late.pending) == (at_once.rejected, at_once.pending)


def test_a_lead_that_rests_on_failed_samples_is_lost() -> None:
    evidence = _drawn("aaabb")
    for index, letter in enumerate("aaabb"):
        _come(evidence, index, letter, Status.NONE)
    assert (evidence.votes.lead, evidence.votes.second) == (3, 2)
    for index in (0, 1):
        _fail_late(evidence, index)
    for votes in (evidence.votes, evidence.launched.votes):
        assert votes.leader is not None
        assert (votes.leader.answer, votes.lead, votes.second, votes.total) == ("b", 2, 1, 3)
        assert votes.classes["a"].first_index == 2
