"""The picture of coverage against the number of samples, with the fitted laws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samplewise.policies.replay.curve import Curve
from samplewise.policies.replay.fits import BetaFit, PowerLaw
from samplewise.proxy.replay.frame import COLOURS, Frame, ticks

__all__ = ["draw_curves"]

_AHEAD = 10
_STEPS = 60


def draw_curves(found: Sequence[tuple[Curve, BetaFit | None, PowerLaw | None]], said: str) -> bytes:
    """Return a PNG: points with intervals, the Beta forecast drawn on to ten times as many."""
    most = float(max(curve.counts.least for curve, _, _ in found) * _AHEAD)
    frame = Frame.empty(
        "Coverage against samples", said, "samples per problem, k",
        0.0, 1.0, 1.0, max(most, 2.0), 3 * len(found),
    )  # fmt: skip
    frame.mark_along(ticks(1.0, most), lambda k: f"{k:.0f}")
    for number, (curve, beta, power) in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        laws = ((beta, most, 0.0), (power, float(curve.counts.least), 7.0))
        for law, end, dash in laws:
            if law is not None:
                ks = np.geomspace(1, max(end, 1.001), _STEPS)
                points = [frame.place(float(k), law.coverage(float(k))) for k in ks]
                frame.canvas.path(points, colour, 2, dash=dash)
        for k, at in zip(curve.ks, curve.any_right, strict=True):
            frame.bar(k, at.low, at.high, colour)
            frame.canvas.dot(*frame.place(k, at.value), colour, 13)
        _legend(frame, 3 * number, curve, beta, power)
    return frame.canvas.png()


def _legend(
    frame: Frame, line: int, curve: Curve, beta: BetaFit | None, power: PowerLaw | None
) -> None:
    colour = COLOURS[line // 3 % len(COLOURS)]
    frame.legend(line, colour, f"{curve.name}: one of k samples right, unbiased")
    said = "none" if beta is None else f"Beta({beta.alpha:.3g}, {beta.beta:.3g}), the forecast"
    frame.legend(line + 1, colour, said, dash=0.0)
    law = "none: above 90 %" if power is None else f"exp({power.a:.3f} k^{power.b:.3f})"
    frame.legend(line + 2, colour, f"power law: {law}", dash=7.0)
