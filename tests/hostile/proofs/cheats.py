"""Proofs in Coq that prove nothing, or something else. None of them may pass.

Each says by which reason the whole verifier must reject it, and by which without the text rules: so
that what the rules know only by name is caught by the kernel, too.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CHEATS", "Cheat"]

_GOAL = "forall n m : nat, n + m = m + n"
_FROM = f"Theorem answer : {_GOAL}. Proof. destruct F. Qed."
_HONEST = f"Theorem answer : {_GOAL}. Proof. intros; lia. Qed."


@dataclass(frozen=True)
class Cheat:
    """One cheat: the text, and the reason of the fail with and without the text rules."""

    name: str
    text: str
    reason: str
    without_rules: str


CHEATS = (
    Cheat(
        "gives up and is admitted",
        f"Theorem answer : {_GOAL}. Proof. Admitted.",
        "forbidden",
        "assumptions",
    ),
    Cheat("uses an axiom", f"Axiom F : False. {_FROM}", "forbidden", "assumptions"),
    Cheat("calls it a parameter", f"Parameter F : False. {_FROM}", "forbidden", "assumptions"),
    Cheat(
        "assumes a variable outside of any section",
        f"Variable F : False. {_FROM}",
        "assumptions",
        "assumptions",
    ),
    Cheat(
        "brings an axiom that it does not use",
        f"Variable F : False. {_HONEST}",
        "assumptions",
        "assumptions",
    ),
    Cheat(
        "declares an axiom in a module type",
        f"Module Type T. Variable F : False. End T. Declare Module M : T.\n"
        f"Definition F := M.F. {_FROM}",
        "assumptions",
        "assumptions",
    ),
    Cheat(
        "switches the guard checker off",
        f"Unset Guard Checking.\nFixpoint f (n : nat) : False := f n.\n"
        f"Definition F := f 0. {_FROM}",
        "forbidden",
        "assumptions",
    ),
    Cheat(
        "goes around the guard checker by an attribute",
        f"#[bypass_check(guard)] Fixpoint f (n : nat) : False := f n.\n"
        f"Definition F := f 0. {_FROM}",
        "forbidden",
        "assumptions",
    ),
    Cheat(
        "goes around the positivity checker",
        "#[bypass_check(positivity)] Inductive I := C : (I -> False) -> I.\n"
        "Definition no (i : I) : False := match i with C f => f i end.\n"
        f"Definition F : False := no (C no). {_FROM}",
        "forbidden",
        "assumptions",
    ),
    Cheat(
        "switches universe checks off",
        f"Unset Universe Checking.\nDefinition T : Type := Type. {_HONEST}",
        "forbidden",
        "assumptions",
    ),
    Cheat(
        "hides the switch behind a comment",
        f"Unset (* *) Guard (* of *) Checking.\nFixpoint f (n : nat) : False := f n.\n"
        f"Definition F := f 0. {_FROM}",
        "forbidden",
        "assumptions",
    ),
    Cheat(
        "proves something else under that name",
        "Theorem answer : True. Proof. exact I. Qed.",
        "statement",
        "statement",
    ),
    Cheat("has no theorem of that name", "Lemma other : True. exact I. Qed.", *2 * ("statement",)),
    Cheat(
        "redefines what equality looks like",
        'Notation "x = y" := True : type_scope.\n'
        f"Theorem answer : {_GOAL}. Proof. intros; exact I. Qed.",
        "statement",
        "statement",
    ),
    Cheat(
        "redefines the numbers of the statement",
        "Module Shadow. Inductive nat := O. Definition add (n m : nat) := O.\n"
        'Infix "+" := add. End Shadow. Import Shadow.\n'
        f"Theorem answer : {_GOAL}. Proof. reflexivity. Qed.",
        "statement",
        "statement",
    ),
    Cheat(
        "brings a goal of its own",
        "Module Own. Module Goal. Definition goal : Prop := True. End Goal. End Own.\n"
        "Definition goal : Prop := True.\nTheorem answer : goal. Proof. exact I. Qed.",
        "statement",
        "statement",
    ),
    Cheat(
        "brings a coercion into the statement",
        "Definition cheap := True.\nTheorem answer : cheap. Proof. exact I. Qed.\n"
        f"Axiom lift : cheap -> {_GOAL}. Coercion lift : cheap >-> Funclass.",
        "forbidden",
        "statement",
    ),
    Cheat(
        "prints the good news itself",
        f'Axiom F : False. {_FROM}\nGoal True. idtac "Closed under the global context". exact I.'
        " Qed. Print Assumptions I.",
        "forbidden",
        "assumptions",
    ),
    Cheat(
        "writes a file in place of the statement",
        f'Redirect "own/Goal" Print True.\nTheorem answer : {_GOAL}. Proof. Admitted.',
        "forbidden",
        "assumptions",
    ),
    Cheat(
        "extracts a file in place of the statement",
        "Require Extraction.\nDefinition x := true.\n"
        'Extraction "own/Goal" x.\n'
        "Theorem answer : True. Proof. exact I. Qed.",
        "forbidden",
        "statement",
    ),
    Cheat(
        "loads a plug-in",
        'Declare ML Module "cheat_plugin".\nTheorem answer : True. Proof. exact I. Qed.',
        "forbidden",
        "proof",
    ),
    Cheat(
        "requires a file of its own",
        'Redirect "candidate/Helper" Print True.\nRequire Candidate.Helper.\n' + _HONEST,
        "forbidden",
        "proof",
    ),
    Cheat("loads a file", f'Load "/etc/passwd".\n{_HONEST}', "forbidden", "proof"),
    Cheat("does not end a comment", f"{_HONEST} (* and so", "parse", "parse"),
    Cheat(
        "changes settings for who requires it",
        "#[global] Unset Guard Checking.\n#[export] Unset Universe Checking.\n"
        "Theorem answer : True. Proof. exact I. Qed.",
        "forbidden",
        "statement",
    ),
    Cheat(
        "runs for ever",
        f"Theorem answer : {_GOAL}. Proof. repeat (assert True by exact I; idtac). Qed.",
        "timeout",
        "timeout",
    ),
    Cheat(
        "takes a billion steps",
        f"Theorem answer : {_GOAL}. Proof. do 1000000000 (assert (1 = 1) by reflexivity). Qed.",
        "timeout",
        "timeout",
    ),
)
