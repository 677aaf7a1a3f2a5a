"""The command `replay` from a file to table, figures and picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from samplewise import __version__
from samplewise.policies.base import Policy
from samplewise.policies.price import Price
from samplewise.policies.replay.chance import Noise
from samplewise.policies.replay.fitness import judged_by_truth
from samplewise.policies.replay.player import ReplayError
from samplewise.policies.replay.replaying import Replay
from samplewise.proxy.progress import progress
from samplewise.proxy.replay.chart import draw_front
from samplewise.proxy.replay.files import Recording, RecordingError, load
from samplewise.proxy.replay.output import write_all
from samplewise.proxy.replay.report import as_csv, as_json, show

__all__ = ["Settings", "console", "price_of", "run"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for on the command line. `noise`: shares of false passes and false fails."""

    file: Path
    passes: int
    order: Literal["arrival", "launch"]
    noise: tuple[float, float]
    tokens_per_s: float
    seed: int
    price: Price | None
    outputs: tuple[Path, ...]


def price_of(input_usd: float | None, output_usd: float | None) -> Price | None:
    """Return the price that options give, None without any.

    Raises:
        RecordingError: only one of the two is given.
    """
    if input_usd is None and output_usd is None:
        return None
    if input_usd is None or output_usd is None:
        raise RecordingError("give both --input-usd-per-mtok and --output-usd-per-mtok, or none")
    return Price.per_mtok(repr(input_usd), repr(output_usd), None)


def console(pipe_width: int) -> Console:
    """Return where tables go; a pipe gets a width of its own."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=pipe_width)


def run(settings: Settings, policies: Sequence[tuple[str, Policy]], pipe_width: int) -> None:
    """Replay every policy, print the table, write the files.

    Raises:
        RecordingError: a file cannot be read or written.
        ReplayError: the recording lacks what a policy asks for.
    """
    recording = load(settings.file)
    replay = Replay(
        recording.problems,
        recording.prices(settings.price),
        settings.passes,
        settings.order,
        Noise(*settings.noise, settings.seed),
        settings.tokens_per_s,
        settings.seed,
    )
    summaries = []
    with progress(len(policies) * len(recording.problems), "problems") as advance:
        for name, policy in policies:
            try:
                summaries.append(replay.run(name, policy, advance))
            except ReplayError as error:
                raise ReplayError(f"{name}: {error}") from None
    judged = any(judged_by_truth(policy, recording.problems) for _, policy in policies)
    show(console(pipe_width), summaries, _notes(settings, recording, judged))
    said = f"{len(recording.problems)} problems, {settings.passes} passes; bars: 95 % intervals"
    write_all(
        settings.outputs,
        {
            ".json": lambda: as_json(summaries, _about(settings, recording)).encode(),
            ".csv": lambda: as_csv(summaries).encode(),
            ".png": lambda: draw_front(summaries, said),
        },
    )


def _notes(settings: Settings, recording: Recording, judged: bool) -> list[str]:
    notes = [
        f"{len(recording.problems)} problems, {settings.passes} random orders each, results in "
        f"order of {settings.order}. Figures are per problem; accuracy, coverage and gap (coverage "
        "minus accuracy) in percent; intervals from resampling problems.",
        "Against fixed n: accuracy minus that of one call with as many samples as the policy may "
        "draw, in points; Share: dollars against that call's. Equal n: the least n whose "
        "one call is as accurate, and its price.",
        "$ by call: each sample pays its prompt; $ by wave: each draw pays it once. Share and $ "
        "per solved take the first for policies that may cut samples, the second for others, as "
        "the proxy sends them.",
    ]
    if judged:
        fp, fn = settings.noise
        notes.append(
            "Verdicts are the recorded truth"
            + (f", wrong for {fp:.3g} of wrong and {fn:.3g} of right answers." if fp or fn else ".")
        )
    return notes


def _about(settings: Settings, recording: Recording) -> dict[str, Any]:
    kept = asdict(settings)
    for name in ("outputs", "price"):
        del kept[name]
    prices = {name: asdict(price) for name, price in recording.prices(settings.price).items()}
    return {
        "version": __version__,
        **kept,
        "file": settings.file.name,
        "problems": len(recording.problems),
        "prices": prices,
    }
