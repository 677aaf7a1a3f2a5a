"""A grader for the verifier type `python`: does a text name a given list of words?

Each function takes and returns plain JSON values, and runs in a worker process.
"""

from __future__ import annotations

from typing import Any


def grade(sample: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """Score the share of `item["words"]` that the answer names; all of them is a pass."""
    words = item["words"]
    text = sample["output_text"].casefold()
    missing = [word for word in words if word.casefold() not in text]
    return {
        "status": "fail" if missing else "pass",
        "score": 1 - len(missing) / len(words),
        # Feedback can be shown to a model, so it must not give the expected words away.
        "feedback": f"{len(missing)} of {len(words)} words are missing" if missing else "",
    }


def compare(a: dict[str, Any], b: dict[str, Any], item: dict[str, Any]) -> str:
    """Say which of two answers names more of the words: "a", "b" or "tie"."""
    scores = [grade(sample, item)["score"] for sample in (a, b)]
    return "tie" if scores[0] == scores[1] else "ab"[scores[1] > scores[0]]
