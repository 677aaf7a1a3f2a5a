"""What Coq is given and what it says: the files of one check, and the reading of its reports.

Source: the commands `Print Assumptions` and `coqchk -o` of Coq 8.16, every line of whose reports is
read; what is not known there is no pass.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from samplewise.verifiers.base import VerifierError

__all__ = ["RULES", "check_file", "goal_file", "proof_file", "unconfirmed", "unproved"]

# Commands that reach outside of the proof, or switch checks off. All of this is caught later, too.
RULES = re.compile(
    r"\b(?:Admitted|admit|give_up|Axioms?|Parameters?|Conjectures?|Primitive|Symbols?"
    r"|Declare\s+ML|Load|Redirect|Extraction|Cd|Drop|bypass_check"
    r"|LoadPath|Rec\s+LoadPath|ML\s+Path)\b"
    r"|\b(?:Guard|Positivity|Universe)\s+Checking\b|\btype[-_\s]in[-_\s]type\b"
)
_NONE = "<none>"
_THEORY = ("Theory", "Set is predicative")
_AXIOMS = "Axioms"
_UNSAFE = (
    "Constants/Inductives relying on type-in-type",
    "Constants/Inductives relying on unsafe (co)fixpoints",
    "Inductives whose positivity is assumed",
)
_OWN = ("Own.", "Candidate.", "Final.")
_CATEGORY = re.compile(r"^\* (.+?):(.*)$")
_ASSUMED = re.compile(r"^(\S+)(?: :.*)?$")


def goal_file(preamble: str, definitions: str, statement: str) -> str:
    """Return the file that owns the statement."""
    return f"{preamble}\n{definitions}\nDefinition goal : Prop := (\n{statement}\n).\n"


def proof_file(preamble: str, name: str, statement: str, proof: str) -> tuple[str, int]:
    """Return the file of a candidate, and how many lines stand before its own.

    A proof without a theorem (`Proof. ... Qed.`) gets the statement.
    """
    head = f"{preamble}\nRequire Import Own.Goal.\n"
    if re.match(r"\s*Proof\b", proof):
        head += f"Theorem {name} : (\n{statement}\n).\n"
    return head + proof, head.count("\n")


def check_file(name: str) -> str:
    """Return the file in which the kernel compares the candidate's theorem with the statement."""
    return (
        "Require Own.Goal.\nRequire Candidate.Proof.\n"
        f"Definition checked : Own.Goal.goal := Candidate.Proof.{name}.\n"
        "Print Assumptions checked.\n"
    )


def unproved(report: str, allowed: Collection[str]) -> str | None:
    """Read what `Print Assumptions` printed; return the first assumption that is not allowed.

    `allowed` are full names; the report has shorter ones, which must be ends of these.

    Raises:
        VerifierError: the report is not one.
    """
    lines = report.strip().splitlines()
    if lines == ["Closed under the global context"]:
        return None
    if not lines or lines[0].strip() != "Axioms:":
        raise VerifierError(f"Print Assumptions said: {report.strip()[:200]}", reason="protocol")
    for line in lines[1:]:
        if line[:1].isspace():
            continue  # the type of the one above
        found = _ASSUMED.match(line)
        if found is None or not any(_ends(full, found[1]) for full in allowed):
            return line[:200]
    return None


def _ends(full: str, short: str) -> bool:
    return full == short or full.endswith("." + short)


def unconfirmed(report: str, allowed: Collection[str]) -> str | None:
    """Read what `coqchk -o` printed; return the first thing that is not allowed.

    Axioms of installed libraries are listed whether they are used or not, so that only those count
    that the statement or the candidate brought.

    Raises:
        VerifierError: a category is missing.
    """
    found: dict[str, list[str]] = {}
    inside: list[str] | None = None
    for line in report.splitlines():
        category = _CATEGORY.match(line)
        if category is not None:
            inside = found.setdefault(category[1], [])
            inside += [category[2].strip()] if category[2].strip() else []
        elif inside is not None and line.startswith("    ") and line.strip():
            inside.append(line.strip())
    if not {_THEORY[0], _AXIOMS, *_UNSAFE} <= set(found):
        raise VerifierError(f"coqchk said: {report.strip()[-300:]}", reason="protocol")
    for name, values in found.items():
        bad = [value for value in values if not _harmless(name, value, allowed)]
        if bad or not values:
            return f"{name}: {', '.join(bad)[:200]}"
    return None


def _harmless(category: str, value: str, allowed: Collection[str]) -> bool:
    if category == _AXIOMS:
        return value == _NONE or not value.startswith(_OWN) or value in allowed
    return (category, value) == _THEORY or value == _NONE
