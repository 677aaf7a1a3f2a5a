"""Pictures of a replay: accuracy against cost, with the policies that none beats in both."""

from __future__ import annotations

from collections.abc import Sequence

from samplewise.policies.replay.summary import Summary, frontier
from samplewise.proxy.replay.frame import COLOURS, GREY, Frame, ticks

__all__ = ["draw_front"]


def draw_front(summaries: Sequence[Summary], said: str) -> bytes:
    """Return a PNG: one dot a policy with its interval, grey dots for the baselines."""
    bases = _baselines(summaries)
    points = [(s.usd, s.accuracy.value) for s in summaries]
    values = [v for s in summaries for v in (s.accuracy.low, s.accuracy.high)]
    values += [value for _, _, value in bases]
    costs = [cost for cost, _ in points] + [cost for _, cost, _ in bases]
    least = min((cost for cost in costs if cost > 0), default=1.0)
    left, right = least / 1.3, max(*costs, least) * 1.3
    low, high = max(0.0, min(values) - 0.01), min(1.0, max(values) + 0.01)
    frame = Frame.empty(
        "Accuracy against cost", said, "dollars per problem",
        low, high, left, right, len(summaries) + 2,
    )  # fmt: skip
    frame.mark_along(ticks(left, right), lambda usd: f"${usd:.3g}")
    front = [points[i] for i in frontier(points)]
    frame.canvas.path([frame.place(max(x, least), y) for x, y in front], GREY, 2, dash=8)
    for _, cost, value in bases:
        frame.canvas.dot(*frame.place(cost, value), GREY, 19)
    for number, summary in enumerate(summaries):
        colour = COLOURS[number % len(COLOURS)]
        at = max(summary.usd, least)
        frame.bar(at, summary.accuracy.low, summary.accuracy.high, colour)
        frame.canvas.dot(*frame.place(at, summary.accuracy.value), colour, 13)
        said = f"{summary.name}: {100 * summary.accuracy.value:.2f} % at ${at:.3g}"
        frame.legend(number, colour, said)
    names = ", ".join(str(n) for n, _, _ in bases)
    frame.legend(len(summaries), GREY, f"one call with n = {names}")
    frame.legend(len(summaries) + 1, GREY, "no other policy is cheaper and better", dash=8)
    return frame.canvas.png()


def _baselines(summaries: Sequence[Summary]) -> list[tuple[int, float, float]]:
    found = {
        s.baseline_n: (s.baseline_n, s.baseline_usd, s.accuracy.value - s.difference.value)
        for s in summaries
    }
    return [found[n] for n in sorted(found)]
