"""How the reports of Coq are read: all of them, and nothing unknown is a pass."""

from __future__ import annotations

import pytest

from samplewise.verifiers.base import VerifierError
from samplewise.verifiers.proofs.coq_text import RULES, unconfirmed, unproved
from samplewise.verifiers.proofs.text import broken_rule

REPORT = """
CONTEXT SUMMARY
===============

* Theory: Set is predicative
  
* Axioms:
    Coq.ssr.ssrunder.Under_rel.Over_rel
    {axiom}
  
* Constants/Inductives relying on type-in-type: <none>
  
* Constants/Inductives relying on unsafe (co)fixpoints: <none>
  
* Inductives whose positivity is assumed: <none>
"""
CLEAN = REPORT.replace("    {axiom}\n", "")


def test_assumptions_are_read_by_name() -> None:
    classic = frozenset({"Coq.Logic.Classical_Prop.classic"})
    assert unproved("Closed under the global context\n", frozenset()) is None
    report = "Axioms:\nClassical_Prop.classic\n  : forall P : Prop,\n    P\n"
    assert unproved(report, classic) is None
    assert unproved(report, frozenset()) == "Classical_Prop.classic"
    assert unproved("Axioms:\nclassic : nat", frozenset({"A.nonclassic"})) == "classic : nat"


@pytest.mark.parametrize(
    "line",
    [
        "f is assumed to be guarded.",
        "I is assumed to be positive.",
        "T relies on an unsafe hierarchy.",
    ],
)
def test_what_a_kernel_check_was_switched_off_for_is_never_allowed(line: str) -> None:
    assert unproved(f"Axioms:\n{line}\n", frozenset({"A.f", "A.I", "A.T"})) == line


@pytest.mark.parametrize("report", ["", "Error", "Closed under the global context\nAxioms:"])
def test_a_report_of_another_form_is_an_error(report: str) -> None:
    with pytest.raises(VerifierError):
        unproved(report, frozenset())


def test_axioms_of_installed_libraries_do_not_count_and_own_ones_do() -> None:
    assert unconfirmed(CLEAN, frozenset()) is None
    for axiom in ("Candidate.Proof.F", "Own.Goal.F", "Final.Check.F"):
        report = REPORT.replace("{axiom}", axiom)
        assert axiom in str(unconfirmed(report, frozenset()))
        assert unconfirmed(report, frozenset({axiom})) is None


@pytest.mark.parametrize(
    "category",
    [
        "Constants/Inductives relying on type-in-type",
        "Constants/Inductives relying on unsafe (co)fixpoints",
        "Inductives whose positivity is assumed",
    ],
)
def test_every_category_is_read_and_needed(category: str) -> None:
    used = CLEAN.replace(f"* {category}: <none>", f"* {category}:\n    Candidate.Proof.f")
    assert "Candidate.Proof.f" in str(unconfirmed(used, frozenset({"Candidate.Proof.f"})))
    empty = CLEAN.replace(f"* {category}: <none>", f"* {category}:")
    assert category in str(unconfirmed(empty, frozenset()))
    with pytest.raises(VerifierError):
        unconfirmed(CLEAN.replace(f"* {category}: <none>", ""), frozenset())


def test_a_theory_or_a_category_that_is_not_known_is_no_pass() -> None:
    assert unconfirmed(CLEAN.replace("predicative", "impredicative"), frozenset())
    assert unconfirmed(CLEAN + "\n* Rewrite rules:\n    Candidate.Proof.r\n", frozenset())
    assert unconfirmed(CLEAN + "\n* Something new: <none>\n", frozenset()) is None


@pytest.mark.parametrize("word", ["Admitted", "Axiom", "Redirect", "Declare  ML", "Extraction"])
def test_words_are_forbidden_as_words(word: str) -> None:
    assert broken_rule(f"Lemma a. {word} x.", RULES) == " ".join(word.split())
    assert broken_rule(f"Lemma my{word.replace(' ', '')}s_are.", RULES) is None
