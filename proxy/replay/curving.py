"""The command `curve` from a file to table, figures and picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column
from rich.text import Text

from samplewise import __version__
from samplewise.policies.replay.curve import Curve, curves, log_spaced, pass_at
from samplewise.policies.replay.fits import BetaFit, PowerLaw, fit_beta, fit_power_law
from samplewise.policies.replay.records import right
from samplewise.policies.replay.summary import Estimate
from samplewise.proxy.replay.curve_chart import draw_curves
from samplewise.proxy.replay.files import Recording, RecordingError, load
from samplewise.proxy.replay.output import write_all
from samplewise.proxy.replay.tables import show_table

__all__ = ["Fitted", "draw", "run_curve"]

_COLUMNS = ("one of k right", "all of k right", "vote of k right", "Beta", "power law")
_FORECASTS = (2, 10)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A curve with the laws fitted to it; None where one cannot be."""

    curve: Curve
    beta: BetaFit | None
    power: PowerLaw | None


def draw(recording: Recording, passes: int, seed: int) -> list[Fitted]:
    """Return the curves of a recording with their fits.

    Raises:
        RecordingError: nothing says which samples are right, or there are none.
    """
    for problem in recording.problems:
        if all(right(problem, sample) is None for sample in problem.samples):
            raise RecordingError(
                f"nothing says which samples of problem {problem.id!r} are right: it needs a "
                "reference or samples with `correct`"
            )
    found = curves(recording.problems, passes, seed)
    if not found:
        raise RecordingError("no backend and prompt has samples of every problem")
    return [Fitted(curve, fit_beta(curve.counts), _power(curve)) for curve in found]


def _power(curve: Curve) -> PowerLaw | None:
    counts = curve.counts
    return fit_power_law([(k, float(pass_at(counts, k).mean())) for k in log_spaced(counts.least)])


def run_curve(
    file: Path, passes: int, seed: int, outputs: Sequence[Path], console: Console
) -> None:
    """Print the curves of a file and write what is asked for.

    Raises:
        RecordingError: a file cannot be read or written, or holds nothing to draw.
    """
    recording = load(file)
    found = draw(recording, passes, seed)
    for fitted in found:
        title = f"{fitted.curve.name}: percent of {len(fitted.curve.counts.right)} problems"
        show_table(console, Column("k", justify="right"), _COLUMNS, _rows(fitted), title)
        for line in _said(fitted):
            console.print(Text(line, style="dim"))
    about = {"version": __version__, "file": file.name, "problems": len(recording.problems)}
    said = f"{len(recording.problems)} problems; bars: 95 % intervals"
    write_all(
        outputs,
        {
            ".json": lambda: (
                json.dumps({**about, "curves": [_json(f) for f in found]}, indent=1) + "\n"
            ).encode(),
            ".png": lambda: draw_curves([(f.curve, f.beta, f.power) for f in found], said),
        },
    )


def _rows(fitted: Fitted) -> list[tuple[str, ...]]:
    curve = fitted.curve
    rows: list[tuple[str, ...]] = []
    for number, k in enumerate(curve.ks):
        cells = [curve.any_right[number], curve.all_right[number]]
        vote = "-" if not curve.majority else _percent(curve.majority[number])
        rows.append((str(k), *map(_percent, cells), vote, *_laws(fitted, k)))
    for times in _FORECASTS:
        k = times * curve.counts.least
        rows.append((str(k), "forecast", "-", "-", *_laws(fitted, k)))
    return rows


def _laws(fitted: Fitted, k: int) -> list[str]:
    return [
        "-" if law is None else f"{100 * law.coverage(k):.2f}"
        for law in (fitted.beta, fitted.power)
    ]


def _percent(found: Estimate) -> str:
    return f"{100 * found.value:.2f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _said(fitted: Fitted) -> list[str]:
    lines = []
    if fitted.beta is not None:
        lines.append(
            f"Beta: a problem's chance of a right sample follows Beta({fitted.beta.alpha:.4g}, "
            f"{fitted.beta.beta:.4g}), fitted to the counts. It makes the forecast."
        )
    if fitted.power is None:
        lines.append("Power law: not fitted, less than three points lie between 0 and 90 %.")
    else:
        law = fitted.power
        lines.append(
            f"Power law: exp({law.a:.4f} k^{law.b:.4f}), off by {100 * law.error:.2f} points on "
            "average over 40 points evenly spaced in log k, those below 90 %. For display."
        )
    return lines


def _json(fitted: Fitted) -> dict[str, Any]:
    curve = fitted.curve
    return {
        "name": curve.name,
        "samples_per_problem": curve.counts.least,
        "points": [
            {
                "k": k,
                "any_right": asdict(curve.any_right[i]),
                "all_right": asdict(curve.all_right[i]),
                "majority": asdict(curve.majority[i]) if curve.majority else None,
            }
            for i, k in enumerate(curve.ks)
        ],
        "beta": None if fitted.beta is None else asdict(fitted.beta),
        "power_law": None if fitted.power is None else asdict(fitted.power),
    }
