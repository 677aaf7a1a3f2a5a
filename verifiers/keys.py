"""What decides a verdict: samples that share this text are verified once."""

from __future__ import annotations

from samplewise.verifiers.base import Keyed, Sample, Verifier
from samplewise.verifiers.strict_json import canonical

__all__ = ["full_key", "own_key"]


def full_key(sample: Sample) -> str:
    """Return the whole of what a model said: its text and its tool calls."""
    if not sample.tool_calls:
        return sample.path_text
    calls = [[call.name, call.arguments] for call in sample.tool_calls]
    return f"{sample.path_text}\0{canonical(calls)}"


def own_key(verifier: Verifier, sample: Sample) -> str:
    """Return the verifier's own key, or the whole sample for one that has none."""
    return verifier.key(sample) if isinstance(verifier, Keyed) else full_key(sample)
