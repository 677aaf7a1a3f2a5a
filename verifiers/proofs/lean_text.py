"""What Lean is given and what it says: the source of one check, the text rules, the axioms.

Source of the rules: cheats that were seen to pass graders of Lean proofs (injected axioms, a
redefined `#print axioms`, tactics that add declarations, native evaluation, changed notation).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samplewise.verifiers.base import VerifierError, VerifierSetupError

__all__ = ["RULES", "Statement", "read_reply"]

# Words of Lean that begin a command, run code while checking, or give up. A proof is one term, so
# it needs none of them.
RULES = re.compile(
    r"(?<!\w)(?:axiom|theorem|lemma|def|abbrev|example|instance|inductive|coinductive|structure"
    r"|class|opaque|constant|namespace|section|end|variables?|universes?|attribute|export|import"
    r"|mutual|deriving|private|protected|noncomputable|partial|unsafe|nonrec|scoped|local"
    r"|elab|elab_rules|macro|macro_rules|syntax|declare_syntax_cat|notation3?|infix[lr]?|prefix"
    r"|postfix|simproc|initialize|builtin_initialize|implemented_by|extern|csimp|run_cmd|run_tac"
    r"|run_meta|run_elab|by_elab|eval_expr|native_decide|sorry|sorryAx|admit|stop"
    r"|open\s+private|set_option(?!\s+(?:maxHeartbeats|maxRecDepth)\b)[^\n]{0,40})(?![\w'!?])"
    r"|#(?:print|eval|exit|check|reduce|synth|guard|run|import|help|where)\w*|@\[|(?<!\w)r#*\""
    r"|\bLean\.(?:Elab|Meta|Environment|addDecl)\b"
)
_DECLARED = re.compile(r"\s*(?:theorem|lemma)\s+[^\s:({\[]+\s*(.*)", re.DOTALL)
_PLACEHOLDER = re.compile(r"\s*:=\s*(?:by\b\s*)?(?:sorry\b\s*)?\Z")
_TOKEN = re.compile(r"[^\W_](?:\w|[.'!?])*|\S")
_THEOREM = re.compile(r"(?<![\w.])(?:theorem|lemma)(?!\w)")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement without its name: binders, a colon and a type, as they follow `theorem NAME`."""

    text: str

    @classmethod
    def read(cls, text: str) -> Statement:
        """Read `theorem NAME BINDERS : TYPE`, or without the first two words; `:= by sorry` goes.

        Raises:
            VerifierSetupError: it has no type.
        """
        declared = _DECLARED.match(text)
        rest = _PLACEHOLDER.sub("", declared[1] if declared is not None else text).strip()
        if not rest or rest[0] not in "({[:⦃" or ":" not in rest:
            raise VerifierSetupError("statement: must be theorem NAME BINDERS : TYPE")
        return cls(rest)

    def proof_in(self, text: str) -> str | None:
        """Return the proof in a text without comments, or None when it proves something else.

        The text is a proof alone (`by ...`, or a term), or holds a theorem with this statement
        under any name; what stands before that is left out.
        """
        if _THEOREM.search(text) is None:
            proof = text.strip("\n").rstrip()
            return proof.lstrip().removeprefix(":=") or None
        words = r"\s*".join(re.escape(token) for token in _TOKEN.findall(self.text))
        stated = re.compile(rf"(?:theorem|lemma)\s+[^\s:({{\[]+\s*{words}\s*:=")
        found = stated.search(text)
        return None if found is None else text[found.end() :].rstrip() or None

    def source(self, preamble: str, name: str, proof: str) -> str:
        """Return the whole source; the last thing in it asks what the theorem rests on."""
        theorem = f"theorem {name} {self.text} :=\n{proof}"
        return f"{preamble}\n\n{theorem}\n\n#print axioms {name}\n"


def read_reply(reply: Mapping[str, Any], name: str, allowed: Collection[str]) -> tuple[str, str]:
    """Read what the REPL said of a source; return the reason and the text of a fail, or "", "".

    Only a report on the axioms of `name`, which nobody else knows, and no error at all is a pass.

    Raises:
        VerifierError: it is no reply on a source.
    """
    messages, sorries = reply.get("messages") or [], reply.get("sorries") or []
    if "message" in reply or not _are_messages(messages) or not isinstance(sorries, list):
        said = str(reply.get("message", reply))[:200]
        raise VerifierError(f"the REPL could not check: {said}", reason="protocol")
    for message in messages:
        if message["severity"] == "error":
            return "proof", f"Lean does not accept the proof: {message['data'][:500]}"
    if sorries:
        return "forbidden", "The proof is not complete."
    report = re.compile(
        rf"'(?:[\w.]+\.)?{name}' (?:does not depend on any axioms|depends on axioms: \[(.*)\])",
        re.DOTALL,
    )
    found = [mark for m in messages if (mark := report.fullmatch(m["data"].strip()))]
    if len(found) != 1 or messages[-1]["data"].strip() != found[0][0]:
        raise VerifierError("the REPL did not say which axioms were used", reason="protocol")
    used = [axiom.strip() for axiom in (found[0][1] or "").split(",") if axiom.strip()]
    wrong = [axiom for axiom in used if axiom not in allowed]
    if wrong:
        return "assumptions", f"The proof rests on what is not proved: {', '.join(wrong)[:200]}"
    return "", ""


def _are_messages(messages: object) -> bool:
    return isinstance(messages, Sequence) and all(
        isinstance(message, dict)
        and isinstance(message.get("severity"), str)
        and isinstance(message.get("data"), str)
        for message in messages
    )
