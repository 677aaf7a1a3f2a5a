"""Graders for the contract's policies, called in worker processes as an operator's own would be."""

from __future__ import annotations

from typing import Any


def last_digit(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """Score a step by its last digit."""
    digits = [c for c in sample["output_text"] if c.isdigit()]
    return int(digits[-1]) / 9 if digits else 0.0


def longer(a: dict[str, Any], b: dict[str, Any], item: dict[str, Any]) -> str:
    """Prefer the longer text."""
    if len(a["output_text"]) == len(b["output_text"]):
        return "tie"
    return "a" if len(a["output_text"]) > len(b["output_text"]) else "b"


def is_blue(sample: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """Pass what says blue, and tell the model what is missing."""
    if "blue" in sample["output_text"]:
        return {"status": "pass", "score": 1.0}
    return {"status": "fail", "score": 0.0, "feedback": "the colour is wrong"}
